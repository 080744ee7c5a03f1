"""Feed mb.load and read_tensors broken and hostile files, and count what comes of it.

    python benchmarks/fuzz_load.py --minutes 10 [--seed 0]
    python benchmarks/fuzz_load.py --minutes 5 --atheris      (guided by coverage; pip install atheris)

Sound files of both formats are mutated where it hurts: values and structure of the JSON, headers of arrays, fields of
the zip archive, offsets, lengths, names, single bytes; besides, random bytes. Each input is a file on disk that is
loaded in the same process, under a limit on its address space, with the peak of what Python and NumPy allocate
recorded, and an alarm after ten seconds of work. That process is a child of the one that was started, so that a crash
of the interpreter counts as one. The input of every failure is kept. Exits with 1 if there was any.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

import matbackprop as mb
from matbackprop.files import read_tensors, write_tensors

ALLOWED = (ValueError, OSError, ImportError)
MIB = 1 << 20
CONSTANT = 256 * MIB
FAILED = 10  # the exit code of a run that found something

NUMBERS = [
    0,
    1,
    -1,
    2,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**32 - 1,
    2**32,
    2**53 + 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    10**9,
]
VALUES = [
    *NUMBERS, 10**400, 1.0, -0.0, 0.5, 1e308, True, False, None, "", "Linear", "Sequential", "Scale", "os.system",
    "float32", "float128", "O", "F64", "BF16", "BOOL", "__metadata__", "0.weight", "\ud800", "\0", "é" * 50, [], {},
    [[]], {"layer": "Linear"}, {"layer": "Linear", "settings": {"in_features": 10**9, "out_features": 10**9}},
    {"layer": "Sequential", "settings": {"layers": []}}, {"layer": "Tanh", "settings": {"p": 1}},
]  # fmt: skip
RAW = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"1" * 5000,
    b"[" * 3000,
    b'{"a":' * 500,
    b'"\\ud800"',
    b"\xff",
    b"//",
]
HEADERS = [b"O", b"<f4", b">f8", b"<f8", b"<f16", b"<c16", b"|V8", b"<U4", b"|b1", b"<b8", b"<M8[s]", b"|u1", b"<i3"]


class Hang(BaseException):
    """The alarm."""


class Scale(mb.Layer):
    """A user's own layer."""

    scale = mb.Parameter()
    scale_grad = mb.Gradient("scale")

    def __init__(self, features: int) -> None:
        self.in_features = features
        self.scale = np.ones(min(int(features), 1000))

    def config(self) -> dict:
        return {"features": self.in_features}

    def forward(self, x, out=None):
        return np.multiply(x, self.scale, out=out)

    def backward(self, delta, out=None):
        return np.multiply(delta, self.scale, out=out)


def sound(folder: Path) -> list[tuple[str, bytes]]:
    """Return sound files: suffix and content."""
    inner = mb.Sequential(mb.Linear(3, 4), mb.Sequential(mb.ReLU(), mb.Linear(4, 2, bias=False), rng=0), rng=0)
    models = [
        mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0),
        mb.Sequential(mb.Linear(2, 3), inner, mb.Sigmoid(), Scale(2), rng=0, dtype=np.float32),
        mb.Sequential(mb.Tanh()),
    ]
    result = []
    for suffix in (".safetensors", ".npz"):
        path = folder / f"sound{suffix}"
        for model in models:
            mb.save(model, path)
            result.append((suffix, path.read_bytes()))
        state = {"a": np.arange(6).reshape(2, 3), "b": np.ones((), bool), "c": np.zeros((0, 2), np.uint8)}
        write_tensors(path, state, {"rng": np.random.default_rng(0).bit_generator.state, "loss": [0.1, 1e-300, None]})
        result.append((suffix, path.read_bytes()))
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones(3), y=np.ones((2, 2), np.float32))
    result.append((".npz", buffer.getvalue()))
    return result


class Mutator:
    """Draws inputs."""

    def __init__(self, seeds: list[tuple[str, bytes]], rng: random.Random) -> None:
        self.seeds, self.rng = seeds, rng

    def draw(self) -> tuple[str, bytes]:
        suffix, data = self.rng.choice(self.seeds)
        way = self.rng.random()
        if way < 0.02:
            return suffix, self.rng.randbytes(self.rng.choice((0, 1, 7, 8, 21, 22, 100, 5000)))
        if way < 0.35:
            return suffix, self.bytewise(data)
        data = self.safetensors(data) if suffix == ".safetensors" else self.npz(data)
        return suffix, self.bytewise(data) if self.rng.random() < 0.1 else data

    def bytewise(self, data: bytes) -> bytes:
        rng, array = self.rng, bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            at = rng.randrange(len(array) + 1)
            way = rng.randrange(7)
            if way == 0 and array:
                array[at % len(array)] ^= 1 << rng.randrange(8)
            elif way == 1:
                array[at:] = b""
            elif way == 2:
                array[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))
            elif way == 3:
                array[at : at + rng.choice((1, 4, 16))] = b""
            elif way == 4:
                other = rng.randrange(len(array) + 1)
                array[at:at] = array[other : other + rng.randrange(200)]
            elif way == 5:
                form = rng.choice(("<H", "<L", "<Q"))
                number = struct.pack(form, rng.choice(NUMBERS) % 256 ** struct.calcsize(form))
                array[at : at + len(number)] = number
            else:
                array += rng.randbytes(rng.choice((1, 22, 100)))
        return bytes(array)

    def json(self, text: bytes) -> bytes:
        """Mutate a JSON text."""
        rng = self.rng
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.bytewise(text)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            value = self.node(value)
        try:
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=rng.random() < 0.8).encode(
                "utf-8", "surrogatepass"
            )
        except (ValueError, RecursionError):
            return text
        if rng.random() < 0.15:  # what json.dumps would not write
            at = [m.start() for m in re.finditer(rb"[\d\"]", text)] or [0]
            at = rng.choice(at)
            text = text[:at] + rng.choice(RAW) + text[at + 1 :]
        if rng.random() < 0.1:  # a key twice
            text = re.sub(rb"\{(\"[^\"]*\":[^,{}\[\]]*)([,}])", rb"{\1,\1\2", text, count=1)
        return text

    def node(self, value):
        """Return the value with one part of it replaced, removed, doubled or moved."""
        rng = self.rng
        if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
            keys = list(value) if isinstance(value, dict) else range(len(value))
            key = rng.choice(list(keys))
            way = rng.random()
            if way < 0.7:
                value[key] = self.node(value[key])
            elif way < 0.8:
                del value[key]
            elif isinstance(value, dict):
                value[
                    rng.choice(
                        ["", "x", "layer", "settings", "dtype", "rng", "weight_init", "shape", "bias", key + "2"]
                    )
                ] = rng.choice([value[key], rng.choice(VALUES)])
            else:
                value.insert(key, value[rng.randrange(len(value))])
            return value
        if isinstance(value, str) and value.startswith("{"):
            return self.json(value.encode()).decode("utf-8", "replace")
        if isinstance(value, int) and rng.random() < 0.4:
            return value + rng.choice((-8, -1, 1, 8))
        way = rng.random()
        if way < 0.05:
            for _ in range(rng.choice((3, 40, 200, 900))):
                value = [value] if rng.random() < 0.5 else {"layer": "Sequential", "settings": {"layers": [value]}}
            return value
        if way < 0.08:
            return [value] * (3 if isinstance(value, (dict, list)) else rng.choice((3, 100, 20_000)))
        return json.loads(json.dumps(rng.choice(VALUES)))

    def safetensors(self, data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header, body = data[8 : 8 + length], data[8 + length :]
        header = self.json(header)
        if self.rng.random() < 0.2:
            body = self.bytewise(body)
        if self.rng.random() < 0.1:
            return struct.pack("<Q", self.rng.choice(NUMBERS) % 2**64) + header + body
        return struct.pack("<Q", len(header)) + header + body

    def npz(self, data: bytes) -> bytes:
        rng, buffer = self.rng, io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [[info.filename, archive.read(info)] for info in archive.infolist()]
        for _ in range(rng.choice((0, 1, 1, 2))):
            member = rng.choice(members)
            way = rng.random()
            if member[0] == "__metadata__.npy" and way < 0.8:
                text = self.json(member[1][128:])
                npy = io.BytesIO()
                np.lib.format.write_array(npy, np.frombuffer(text, np.uint8))
                member[1] = npy.getvalue()
            elif way < 0.4:
                member[1] = re.sub(
                    rb"'shape': \(([^)]*)\)",
                    lambda _: (
                        b"'shape': (%s)"
                        % b", ".join(b"%d" % rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 2, 70))))
                    ),
                    member[1],
                )
            elif way < 0.6:
                member[1] = re.sub(rb"'descr': '[^']*'", lambda _: b"'descr': '%s'" % rng.choice(HEADERS), member[1])
            elif way < 0.8:
                member[1] = self.bytewise(member[1])
            elif way < 0.9:
                member[0] = rng.choice(["../x.npy", "a\0b.npy", "d/", "x", "0.weight.npy", "é.npy", "__metadata__.npy"])
            else:
                members.append(list(member))
        if rng.random() < 0.1:
            members.pop(rng.randrange(len(members)))
        kind = rng.choice([zipfile.ZIP_STORED] * 8 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
            warnings.simplefilter("ignore")
            for name, content in members:
                archive.writestr(name, content)
        array = bytearray(buffer.getvalue())
        if rng.random() < 0.4:  # a field of a record
            records = [m.start() for m in re.finditer(rb"PK[\1\3\5\6]", array)]
            at = rng.choice(records) + rng.randrange(4, 46)
            form = rng.choice(["<H", "<L", "<Q"])
            number = struct.pack(form, rng.choice(NUMBERS) % 256 ** struct.calcsize(form))
            array[at : at + len(number)] = number
        return bytes(array)


def monsters() -> list[tuple[str, bytes]]:
    """Return the largest descriptions that pass the first check, of what takes the most memory once parsed."""
    room = 4 * MIB - 200
    parts = ["[],", "{},", '"ab",', "1000,", "1.5,", '{"":0},', "[[[[[[[[]]]]]]]],"]
    texts = ["[" + part * (room // len(part)) + "0]" for part in parts]
    unique = ",".join(f'"{index:x}":0' for index in range(room // 9))
    texts.append("{" + unique[: unique.rindex(",")] + "}")
    layers = '{"layer":"Tanh"},' * (room // 18)
    head = (
        '{"architecture":{"format":"matbackprop","version":1,"dtype":"float64",'
        '"model":{"layer":"Sequential","settings":{"layers":['
    )
    texts.extend(
        [head + layers + '{"layer":"Tanh"}]}}}}', head + '{"layer":"Tanh"},' * 9_990 + '{"layer":"Tanh"}]}}}}']
    )
    result = []
    for text in texts:
        body = text if text.startswith("{") else '{"a":' + text + "}"
        ours = f'{{"order":[],"metadata":{body}}}'
        headers = [f'{{"a":{text}}}', json.dumps({"__metadata__": {"matbackprop": ours}})]
        result.extend((".safetensors", struct.pack("<Q", len(header)) + header.encode()) for header in headers)
        buffer = io.BytesIO()
        np.savez(buffer, __metadata__=np.frombuffer(body.encode(), np.uint8))
        result.append((".npz", buffer.getvalue()))
    entries = ",".join(f'"{i}":{{"dtype":"F64","shape":[0],"data_offsets":[0,0]}}' for i in range(room // 58))
    result.append((".safetensors", struct.pack("<Q", len(entries) + 2) + f"{{{entries}}}".encode()))
    empty = io.BytesIO()
    np.lib.format.write_array(empty, np.zeros(0))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(30_000):
            archive.writestr(f"{index:x}.npy", empty.getvalue())
    result.append((".npz", buffer.getvalue()))
    # Ones that are sound, and large.
    with tempfile.TemporaryDirectory() as folder:
        inner = mb.Sequential(mb.Linear(2000, 1000), rng=0)
        for _ in range(20):
            inner = mb.Sequential(inner)
        for model in (mb.Sequential(mb.Linear(2000, 1000), rng=0), mb.Sequential(inner, rng=0, dtype=np.float32)):
            for suffix in (".safetensors", ".npz"):
                path = Path(folder, f"large{suffix}")
                mb.save(model, path)
                result.append((suffix, path.read_bytes()))
    return result


def load(path: Path) -> mb.Sequential:
    """Load the model, with the user's layer known."""
    return mb.load(path, layers=[Scale])


FUNCTIONS = (read_tensors, load)


class Run:
    """Loads inputs and keeps count."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.kinds = folder, Counter(), Counter()
        self.worst, self.slowest, self.share = 0.0, 0.0, 0.0
        signal.signal(signal.SIGPROF, self._alarm)

    @staticmethod
    def _alarm(*_: object) -> None:
        raise Hang

    def one(self, suffix: str, data: bytes, functions: tuple = FUNCTIONS, patience: int = 10) -> None:
        path = self.folder / f"input{suffix}"
        path.write_bytes(data)
        self.count["inputs"] += 1
        for function in functions:
            tracemalloc.reset_peak()
            before, start = tracemalloc.get_traced_memory()[0], time.process_time()
            signal.setitimer(signal.ITIMER_PROF, patience)
            faulthandler.dump_traceback_later(20 * patience, exit=True)
            kind = message = None
            try:
                result = function(path)
                if isinstance(result, mb.Sequential):
                    kind = "loaded" if np.isfinite(result.parameters).all() else "WRONG: not finite"
                else:
                    kind = "read"
                del result
            except ALLOWED as error:
                kind, message = "refused", f"{type(error).__name__}: {str(error).removeprefix(str(path))}"
            except Hang:
                kind = "HANG"
            except BaseException as error:  # noqa: BLE001 - whatever else comes out is a finding
                kind = f"WRONG: {type(error).__name__}: {str(error)[:200]}"
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
            peak = tracemalloc.get_traced_memory()[1] - before
            self.slowest = max(self.slowest, time.process_time() - start)
            self.worst = max(self.worst, peak / MIB)
            self.share = max(self.share, peak / (6 * len(data) + CONSTANT))
            if peak > 6 * len(data) + CONSTANT:
                kind = f"MEMORY {peak} for {len(data)} bytes"
            self.count[kind.split(" ")[0].rstrip(":")] += 1
            if message:
                self.kinds[re.sub(r"'[^']*'|\"[^\"]*\"|[\d,]*\d", "_", message)[:70]] += 1
            if kind.isupper() or kind.split(" ")[0].rstrip(":") in ("WRONG", "MEMORY", "HANG"):
                kept = self.folder / f"failure-{self.count['inputs']}{suffix}"
                kept.write_bytes(data)
                print(f"FAILURE {kept}: {kind}", flush=True)

    def report(self) -> str:
        lines = [f"  {count:>9,}  {name}" for name, count in self.count.items()]
        peak = f"worst peak of one load {self.worst:.1f} MiB, {self.share:.0%} of the bound"
        lines += [f"{'':11}{peak}; slowest {self.slowest:.2f} s, allocations being recorded"]
        lines += ["refusals by kind:", *(f"  {n:>9,}  {kind}" for kind, n in self.kinds.most_common(45))]
        return "\n".join([*lines, f"  {len(self.kinds):>9,}  kinds in all"])


def limit() -> int:
    """Bound this process's address space to what it has plus the bound on one load and some slack; return its RSS."""
    used = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * CONSTANT, resource.RLIM_INFINITY))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def work(folder: Path, seed: int, seconds: float) -> int:
    """The child: mutate and load until the time is over."""
    rng = random.Random(seed)
    mutator = Mutator(sound(folder), rng)
    giants = monsters() if seed % 1000 == 0 else []
    run = Run(folder)
    tracemalloc.start()
    rss = limit()
    for suffix, data in mutator.seeds:
        run.one(suffix, data)
    for suffix, data in giants:
        run.one(suffix, data, FUNCTIONS[1:], patience=60)  # recording every allocation takes its time
    print(f"sound files and the largest ones: {dict(run.count)}, worst peak {run.worst:.1f} MiB", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run.one(*mutator.draw())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss
    print(run.report())
    print(
        f"resident memory grew by {grown / 1024:.0f} MiB at most, libraries' own allocations and the fuzzer's included"
    )
    return sum(run.count[name] for name in ("WRONG", "MEMORY", "HANG"))


def guided(folder: Path, seed: int, seconds: float) -> None:
    """The child, under atheris: the first byte of an input chooses the format."""
    import atheris

    for module in (read_tensors.__module__, "matbackprop.files.npz_format", "matbackprop.files.safetensors_format",
                   "matbackprop.files.strict_json", "matbackprop.files.description"):  # fmt: skip
        for value in vars(sys.modules[module]).values():
            if getattr(value, "__module__", None) == module and hasattr(value, "__code__"):
                value.__code__ = atheris.instrument_func(value).__code__
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for index, (suffix, data) in enumerate(sound(folder)):
        (corpus / f"{index}").write_bytes(bytes([suffix == ".npz"]) + data)
    run, state = Run(folder), {"end": time.monotonic() + seconds}
    tracemalloc.start()
    limit()

    def one(data: bytes) -> None:
        run.one(".npz" if data[:1] == b"\1" else ".safetensors", data[1:])
        if time.monotonic() > state["end"]:
            state["end"] = float("inf")
            print(run.report(), flush=True)

    options = [
        f"-max_total_time={int(seconds) + 5}",
        f"-seed={seed + 1}",
        "-max_len=8192",
        "-verbosity=0",
        "-rss_limit_mb=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--child", metavar="FOLDER", type=Path)
    options = parser.parse_args()
    if options.child and options.atheris:
        guided(options.child, options.seed, options.minutes * 60)
        return 0
    if options.child:
        return FAILED if work(options.child, options.seed, options.minutes * 60) else 0
    folder = Path(tempfile.mkdtemp(prefix="fuzz-load-"))
    end, seed, crashes, failures = time.monotonic() + options.minutes * 60, options.seed, 0, 0
    while (left := end - time.monotonic()) > 1:
        child = [sys.executable, __file__, "--child", str(folder), "--seed", str(seed), "--minutes", str(left / 60)]
        code = subprocess.run([*child, *(["--atheris"] if options.atheris else [])], check=False).returncode
        if code not in (0, FAILED):
            crashes += 1
            for path in folder.glob("input*"):
                path.rename(folder / f"crash-{seed}-{path.name}")
        failures += code == FAILED
        seed += 1
    print(f"{crashes} crashes, {failures} runs with other failures; files in {folder}")
    return int(crashes + failures > 0)


if __name__ == "__main__":
    sys.exit(main())
