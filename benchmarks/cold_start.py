"""From the start of a process to a trained network, against the peers: `python -m benchmarks.cold_start`.

A process is started, imports what it needs, trains with Adam on all rows from given parameters until the loss has come
down to a set value, and ends; it is timed from outside. XOR, breast cancer and digits, which are read from a file that
NumPy wrote. Beside that the time of the import alone, and what is installed for it. Runs take turns; medians.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from benchmarks.machine import ROOT, cores, describe, pin
from benchmarks.peers import PEERS, installed
from benchmarks.results import spread


class Problem(NamedTuple):
    """Data with the network, the learning rate, and the loss to reach."""

    network: str
    lr: float
    goal: float
    x: np.ndarray
    y: np.ndarray


def problems() -> dict[str, Problem]:
    """Return the three, in float32 and standardised."""
    from sklearn.datasets import load_breast_cancer, load_digits

    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    xor = (corners[:, :1] != corners[:, 1:]).astype(np.float32)
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    pixels, digits = load_digits(return_X_y=True)
    return {
        "XOR": Problem("2-8-1:tanh:bce_logits", 0.05, 0.01, corners, xor),
        "breast cancer": Problem("30-16-1:tanh:bce_logits", 0.01, 0.03, x, y[:, None].astype(np.float32)),
        "digits": Problem("64-32-10:relu:cross_entropy", 0.01, 0.05, (pixels / 16).astype(np.float32), digits),
    }


def closure(package: str) -> set[str]:
    """Return the distributions that are installed for a package, itself among them."""
    found: set[str] = set()
    queue = [package]
    while queue:
        try:
            one = distribution(queue.pop())
        except PackageNotFoundError:
            continue  # for another platform or version
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        if name not in found:
            found.add(name)
            queue += [re.split(r"[\s;<>=!~\[(]", need)[0] for need in one.requires or [] if "extra ==" not in need]
    return found


def installed_mib(packages: set[str]) -> float:
    """Return what the files of these distributions take, in MiB."""
    files = [Path(str(file.locate())) for name in packages for file in distribution(name).files or []]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def run(*words: str) -> tuple[float, str]:
    """Return the seconds that a process takes, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    took = perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
    return took, done.stdout.strip()


IMPORTS = {"ours": "matbackprop", "torch": "torch", "jax": "jax, jax.numpy", "sklearn": "sklearn.neural_network"}
PACKAGES = {"torch": {"torch"}, "jax": {"jax"}, "sklearn": {"scikit-learn"}}


def size(peer: str) -> float:
    """Return the MiB that are installed for a peer with all it needs; Python itself is not counted."""
    if peer != "ours":
        return installed_mib(set().union(*map(closure, PACKAGES[peer])))
    import matbackprop

    parts = Path(matbackprop.__file__).parent.rglob("*")
    own = sum(part.stat().st_size for part in parts if part.suffix in (".py", ".gz", ".typed"))
    return own / 2**20 + installed_mib(set().union(*map(closure, PEERS["ours"].packages)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="*", choices=[*IMPORTS][1:], default=[*IMPORTS][1:])
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    pin(cores()[: args.cores])
    peers = ["ours"]
    for peer in args.peers:
        try:
            installed(peer)
            peers.append(peer)
        except ImportError as error:
            print(f"# left out: {peer}: {error}")
    about = describe()
    load = about["load at the start"]
    print(f"{about['date']}, {about['cpu']}, {args.cores} cores, {args.runs} runs, load at the start {load}")
    times: dict[tuple[str, str], list[float]] = {}
    steps: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as directory:
        tasks = {"start Python": ["-c", "pass"], "import": ["-c", "import {}"]}
        for name, problem in problems().items():
            path = Path(directory) / f"{name}.npz"
            np.savez(path, **problem._asdict())
            tasks[name] = ["-m", "benchmarks.cold", "{peer}", str(path)]
        for turn in range(args.runs + 1):  # the first fills the file cache
            for task, words in tasks.items():
                for peer in peers:
                    filled = [word.format(IMPORTS[peer], peer=peer) for word in words]
                    took, steps[peer, task] = run(*filled)
                    if turn:
                        times.setdefault((peer, task), []).append(took)
    print(f"{'':<14} {'installed MiB':>13} " + " ".join(f"{task + ' s':>16}" for task in tasks) + "   steps")
    for peer in peers:
        medians = [spread(times[peer, task]).median for task in tasks]
        counts = ", ".join(steps[peer, task].split()[0] for task in list(tasks)[2:])
        print(
            f"{PEERS[peer].label:<14} {size(peer):>13.0f} " + " ".join(f"{m:>16.3f}" for m in medians) + f"   {counts}"
        )
    for peer in peers[1:]:
        ratios = [spread(times[peer, task]).median / spread(times["ours", task]).median for task in tasks]
        print(f"{PEERS[peer].label + ' / ours':<28} " + " ".join(f"{ratio:>16.1f}" for ratio in ratios))


if __name__ == "__main__":
    main()
