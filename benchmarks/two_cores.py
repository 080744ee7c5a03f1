"""Two cores against one, and what other work on them costs: `python -m benchmarks.two_cores`.

The speed-up is a step's time on one core over its time on two. The slow-down is the time on two cores while a busy loop
runs on each, over the time without. Ours and torch's take turns, and so do rounds with and without the loops.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

from benchmarks.machine import cores as usable_cores
from benchmarks.machine import describe
from benchmarks.peers import installed
from benchmarks.pool import Pool
from benchmarks.results import spread
from benchmarks.task import DTYPES, Case, as_network

LOOP = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


class Loops:
    """A busy loop on each of these cores, stopped at first; a context."""

    def __init__(self, cores: list[int]) -> None:
        self.processes = [subprocess.Popen([sys.executable, "-c", LOOP, str(core)]) for core in cores]
        self.send(signal.SIGSTOP)

    def send(self, number: int) -> None:
        """Stop them, or let them run."""
        for process in self.processes:
            process.send_signal(number)

    def __enter__(self) -> Loops:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def measure(case: Case, peers: list[str], rounds: int, samples: int) -> dict[tuple[str, str], list[float]]:
    """Return milliseconds of a step, by peer and by "one", "two" or "busy": of one core, two, and two under load."""
    cores = usable_cores()[:2]
    times: dict[tuple[str, str], list[float]] = {}
    with Pool(peers, cores[:1], case.dtype) as one, Pool(peers, cores, case.dtype) as two, Loops(cores) as loops:
        calls = {}
        for name, pool in (("one", one), ("two", two)):
            for peer, process in pool.processes.items():
                process.call("prepare", str(case.network), case.rows, case.dtype, case.task)
                calls[peer, name] = process.call("calibrate")
        for _ in range(rounds):
            for state, pool, count in (("one", one, "one"), ("two", two, "two"), ("busy", two, "two")):
                if state == "busy":
                    loops.send(signal.SIGCONT)
                try:
                    for peer, process in pool.processes.items():
                        turn = process.call("turn", calls[peer, count], samples, seconds=600)
                        times.setdefault((peer, state), []).extend(ns / 1e6 for ns in turn)
                finally:
                    loops.send(signal.SIGSTOP)
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_cores", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["4-32-16-4", "32-64-64-1", "784-128-128-10:relu"])
    parser.add_argument("--batches", nargs="+", type=int, default=[4096, 16384, 65536])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--task", default="backprop", choices=["backprop", "train", "predict"])
    parser.add_argument("--peers", nargs="*", default=["torch"], help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=3, help="a turn (default: %(default)s)")
    args = parser.parse_args()
    if len(usable_cores()) < 2 or not hasattr(signal, "SIGSTOP"):
        raise SystemExit("this needs two cores, and a system that can stop a process")
    for peer in args.peers:
        installed(peer)
    about = describe()
    print(f"{about['date']}, {about['cpu']}, load at the start {about['load at the start']}; {args.task}; medians")
    print(f"{'network':<22} {'type':<8} {'N':>6} {'':<12} {'1 core ms':>10} {'2 cores ms':>10} {'speed-up':>8}"
          f" {'loaded ms':>10} {'slow-down':>9}   middle half")  # fmt: skip
    for network in map(as_network, args.networks):
        for dtype in args.dtypes:
            for rows in args.batches:
                case = Case(network, rows, dtype, args.task)
                times = measure(case, ["ours", *args.peers], args.rounds, args.samples)
                for peer in ("ours", *args.peers):
                    if (peer, "busy") not in times:
                        continue
                    one, two, busy = (spread(times[peer, state]) for state in ("one", "two", "busy"))
                    print(
                        f"{network!s:<22} {dtype:<8} {rows:>6} {peer:<12} {one.median:>10.3f} {two.median:>10.3f} "
                        f"{one.median / two.median:>8.2f} {busy.median:>10.3f} {busy.median / two.median:>9.2f}"
                        f"   {busy.low / two.median:.2f} ... {busy.high / two.median:.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
