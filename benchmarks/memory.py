"""Peak memory of a step: `python -m benchmarks.memory`. Linux only.

Three questions, each in processes of their own:

1. a backprop over 10 million rows of 2-2-2-1, beyond the data;
2. a backprop over a memory map of 4 GiB under a limit of 1 GiB. The limit is RLIMIT_DATA, which since Linux 4.7 counts
   every private writable mapping: heap, buffers and stacks. It does not count a map of a file that is only read, as
   RLIMIT_AS would; the kernel takes back the pages of such a file when it likes. That the limit holds is shown by an
   array of that size, which has to fail;
3. the same step here and in torch.

The peak is VmHWM, the most that was resident, which is reset after the first step's data are there; beside it RssAnon,
without pages of files, sampled each millisecond.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, cores, describe, pin

MIB = 1 << 20


def status(name: str) -> float:
    """Return a number of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def peak(step: Callable[[], object]) -> dict[str, float]:
    """Return how far memory rises during a call above what it was before, in MiB."""
    ended = threading.Event()
    before, anonymous, highest = status("VmRSS"), status("RssAnon"), [0.0]

    def watch() -> None:
        while not ended.wait(0.001):
            highest[0] = max(highest[0], status("RssAnon"))

    watcher = threading.Thread(target=watch)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # sets VmHWM to what is resident now
    watcher.start()
    try:
        step()
    finally:
        ended.set()
        watcher.join()
    return {
        "data and library": round(before, 1),
        "peak above": round(status("VmHWM") - before, 1),
        "anonymous above": round(max(highest[0], status("RssAnon")) - anonymous, 1),
    }


def one_step(peer: str, network: str, rows: int, dtype: str, task: str) -> dict[str, float]:
    """Return the peak of the first step and the one after."""
    from benchmarks.peers import load, prepare
    from benchmarks.task import Case, as_network

    module = load(peer)
    if hasattr(module, "threads"):
        module.threads(len(cores()))
    prepare(peer, Case(as_network(network), 8, dtype, task)).step()  # code is loaded, threads are there
    prepared = prepare(peer, Case(as_network(network), rows, dtype, task))

    def steps() -> None:
        for _ in range(2):
            prepared.step()

    return peak(steps)


def mapped(network: str, dtype: str, gib: float, limit_gib: float, directory: str) -> dict[str, Any]:
    """Return the peak of a backprop over a memory map under a limit of the process's own data."""
    import resource

    import numpy as np

    from benchmarks.peers import ours
    from benchmarks.task import as_network

    net = as_network(network)
    model, loss = ours.build(net, dtype), ours.LOSSES[net.loss]()
    width, itemsize = net.widths[0], np.dtype(dtype).itemsize
    rows = ceil(gib * 2**30 / (width * itemsize))
    shapes = {"x": (rows, width), "y": (rows, net.widths[-1])}
    for name, shape in shapes.items():  # written in pieces, as numbers and not as a hole
        rng = np.random.default_rng(0)
        with (Path(directory) / name).open("wb") as file:
            for start in range(0, rows, 1 << 18):
                rng.random((min(1 << 18, rows - start), shape[1]), np.dtype(dtype)).tofile(file)
    limit = int(limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    x, y = (np.memmap(Path(directory) / name, dtype, "r", shape=shape) for name, shape in shapes.items())
    try:
        np.ones(limit, np.uint8)
        holds = False
    except MemoryError:
        holds = True
    model.backprop(x[:8], y[:8], loss)
    return {"rows": rows, "limit holds": holds, **peak(lambda: model.backprop(x, y, loss))}


def child(function: str, *arguments: Any) -> dict[str, Any]:
    """Call a function of this module in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--call", json.dumps([function, *arguments])],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(title: str, result: dict[str, Any]) -> None:
    """Print a line."""
    print(f"{title:<58} " + ", ".join(f"{name} {value}" for name, value in result.items()), flush=True)


def main() -> None:
    """Print the answers, in MiB."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--gib", type=float, default=4, help="of the memory map (default: %(default)s)")
    parser.add_argument("--limit-gib", type=float, default=1)
    parser.add_argument("--directory", help="for the memory map (default: a temporary one)")
    parser.add_argument(
        "--steps",
        nargs="*",
        metavar="NETWORK/N",
        default=[
            "2-2-2-1/65536",
            "32-64-64-1/512",
            "32-64-64-1/65536",
            "784-128-128-10:relu/64",
            "784-128-128-10:relu/16384",
        ],
    )
    parser.add_argument("--call", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        pin(cores()[:2])
        function, *arguments = json.loads(args.call)
        print(json.dumps(globals()[function](*arguments)))
        return
    about = describe()
    print(f"{about['date']}, {about['cpu']}, at most two cores; MiB")
    for peer in ("ours", "torch"):
        show(
            f"2-2-2-1 float64, {args.rows:,} rows, {peer}",
            child("one_step", peer, "2-2-2-1", args.rows, "float64", "backprop"),
        )
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        show(f"32-64-64-1 float32, a map of {args.gib:g} GiB, limit {args.limit_gib:g} GiB",
             child("mapped", "32-64-64-1", "float32", args.gib, args.limit_gib, directory))  # fmt: skip
    for text in args.steps:
        network, _, rows = text.partition("/")
        for dtype in ("float32", "float64"):
            for task in ("backprop", "train"):
                for peer in ("ours", "torch"):
                    show(
                        f"{network} {dtype} N={rows} {task}, {peer}",
                        child("one_step", peer, network, int(rows), dtype, task),
                    )


if __name__ == "__main__":
    main()
