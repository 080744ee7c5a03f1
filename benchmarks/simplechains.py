"""SimpleChains.jl's published task: 4-32-16-4 tanh, 10,000 rows, 10,000 full-batch steps of Adam, float32.

    python -m benchmarks.simplechains [--steps 10000] [--measure 10000]

Published: 0.41 s on 18 cores; JAX 9.0 s and PyTorch about 15 s there. With `--measure` below `--steps`, so many steps
are timed in five parts that take turns, and their median is multiplied up; the output says so.
"""

from __future__ import annotations

import argparse

from benchmarks.machine import cores as usable_cores
from benchmarks.machine import describe
from benchmarks.peers import PEERS, installed
from benchmarks.pool import Failure, Pool
from benchmarks.results import spread
from benchmarks.task import Case, Disagreement, as_network, compare, expected

PARTS = 5


def measure(case: Case, peers: list[str], count: int, steps: int) -> dict[str, list[float]]:
    """Return milliseconds a step by peer, one number a part."""
    times: dict[str, list[float]] = {}
    wanted = expected(case)
    with Pool(peers, usable_cores()[:count], case.dtype) as pool:
        for peer, why in pool.left_out.items():
            print(f"# left out: {peer}: {why}")
        for peer, process in list(pool.processes.items()):
            try:
                compare(case, process.call("prepare", str(case.network), case.rows, case.dtype, case.task), wanted)
                process.call("calibrate")
            except (Failure, Disagreement) as error:
                print(f"# left out: {peer}: {error}")
                pool.processes.pop(peer).kill()
        for part in range(PARTS):
            names = list(pool.processes)
            for peer in names[part % len(names) :] + names[: part % len(names)]:
                (ns,) = pool.processes[peer].call("turn", max(1, steps // PARTS), 1, seconds=3600)
                times.setdefault(peer, []).append(ns / 1e6)
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simplechains", description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="4-32-16-4:tanh")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--measure", type=int, help="steps that are timed (default: all)")
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    known = [name for name in PEERS if name not in ("ours", "floor", "onnxruntime")]
    parser.add_argument("--peers", nargs="*", choices=known, default=known)
    args = parser.parse_args()
    steps = min(args.measure or args.steps, args.steps)
    peers = ["ours"]
    for peer in args.peers:
        try:
            installed(peer)
            peers.append(peer)
        except ImportError as error:
            print(f"# left out: {peer}: {error}")
    case, about = Case(as_network(args.network), args.rows, args.dtype, "train"), describe()
    said = "all timed" if steps == args.steps else f"{steps} timed and multiplied up"
    print(f"{about['date']}, {about['cpu']}, load at the start {about['load at the start']}")
    print(f"{case}, {args.steps} steps of Adam, {said}")
    print(f"{'cores':>5} {'':<14} {'ms a step':>10} {'seconds':>9} {'/ ours':>7}")
    for count in (count for count in args.cores if count <= len(usable_cores())):
        times = {peer: spread(parts) for peer, parts in measure(case, peers, count, steps).items()}
        for peer, each in times.items():
            ratio = each.median / times["ours"].median if "ours" in times else float("nan")
            seconds = each.median * args.steps / 1000
            print(
                f"{count:>5} {PEERS[peer].label:<14} {each.median:>10.4f} {seconds:>9.2f} {ratio:>7.2f}"
                f"   ({each.low:.4f} ... {each.high:.4f})"
            )


if __name__ == "__main__":
    main()
