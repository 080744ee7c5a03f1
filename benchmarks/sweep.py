"""Time the library against its peers over batch sizes: `python -m benchmarks.sweep --help`, or `make bench`.

Every peer runs in a process of its own, pinned to the same cores with as many threads (`benchmarks.worker`). In each
cell all do the task once and have to agree with values computed in float64; who does not is reported and left out. Then
they take turns, round by round, each round beginning with another one; who is not on turn is stopped. A turn is a
warm-up and two samples of at least 0.3 ms. The time budget decides the number of rounds.
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.budget import Budget
from benchmarks.budget import Cell as Key
from benchmarks.machine import cores as usable_cores
from benchmarks.machine import describe, on
from benchmarks.peers import PEERS, installed
from benchmarks.pool import Failure, Pool, Process
from benchmarks.results import FLOOR, US, cells, summarise, write
from benchmarks.table import closing, heading, row
from benchmarks.task import (
    BRISK_LR,
    BRISK_ROWS,
    BRISK_STEPS,
    DTYPES,
    TASKS,
    Case,
    Disagreement,
    Network,
    as_network,
    compare,
    expected,
)

NETWORKS = (
    "2-2-2-1:tanh",
    "4-32-16-4:tanh",
    "32-64-64-1:tanh",
    "784-128-128-10:relu",
    "784-256-256-10:tanh",
    "32-32x16-1:tanh",
)
BATCHES = tuple(4**power for power in range(9))
SAMPLES = 2  # a turn
#: No peer may spend more of the budget than this on getting ready (compiling, above all), but 30 s it may.
READY_SHARE = 0.2

SCHEMA = 1
RESULTS = Path("benchmarks/results")


class Sweep:
    """A run over cells.

    Parameters
    ----------
    peers : list of str
        "ours" among them.
    keys : list of (cores, Case)
    seconds : float
        The budget.
    ready_share : float
        Of the budget, for each peer's preparations.
    """

    def __init__(self, peers: list[str], keys: list[Key], seconds: float, ready_share: float = READY_SHARE) -> None:
        self.peers = peers
        self.budget = Budget(seconds, keys, len(peers))
        self.left_out: dict[str, str] = {}
        self.groups: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.ready: dict[str, float] = dict.fromkeys(peers, 0.0)
        self.most_ready = max(seconds * ready_share, 30)
        self.total = len(keys)
        self.tried: set[tuple[str, Network, str]] = set()
        self._expected: tuple[Case, Any] | None = None

    def run(self) -> None:
        """Measure cell after cell, and print each."""
        print(heading(self.peers), flush=True)
        pool: Pool | None = None
        kind = None
        try:
            while (key := self.budget.next(kind)) is not None:
                if kind != self.budget.kind(key):
                    if pool is not None:
                        pool.__exit__()
                    pool, kind = self._start(key[0], key[1].dtype), self.budget.kind(key)
                    self.budget.started()
                assert pool is not None
                record = self._measure(pool, key)
                if record is not None:
                    self.cells.append(record)
                    print(row(record, self.peers, len(self.cells), self.total), flush=True)
        finally:
            if pool is not None:
                pool.__exit__()

    def _start(self, cores: int, dtype: str) -> Pool:
        pool = Pool([peer for peer in self.peers if peer not in self.left_out], usable_cores()[:cores], dtype)
        for peer, why in pool.left_out.items():
            if peer == US:
                raise SystemExit(f"matbackprop does not start: {why}")
            self.left_out[peer] = why
            print(f"# left out: {peer}: {why}")
        self.groups.append({"cores": cores, "dtype": dtype, "workers": pool.about})
        print(f"# {on(cores)} {usable_cores()[:cores]}, {dtype}")
        return pool

    def _wanted(self, case: Case) -> Any:
        """Return the expected values, which the same case on more cores shares."""
        if self._expected is None or self._expected[0] != case:
            self._expected = case, expected(case)
        return self._expected[1]

    def _try_briskly(self, process: Process, case: Case) -> None:
        """Check a peer's optimiser, once for each network and type."""
        what = process.peer, case.network, case.dtype
        if what not in self.tried:
            brisk = Case(case.network, BRISK_ROWS, case.dtype, "train")
            got = process.call("brisk", str(case.network), case.dtype)
            compare(brisk, got, expected(brisk, BRISK_LR, BRISK_STEPS))
            self.tried.add(what)

    def _measure(self, pool: Pool, key: Key) -> dict[str, Any] | None:
        cores, case = key
        record: dict[str, Any] = {
            "network": str(case.network), "dtype": case.dtype, "rows": case.rows, "cores": cores, "task": case.task,
            "left_out": {}, "agreement": {}, "calls": {}, "samples": {},
        }  # fmt: skip
        taking_part = {peer: p for peer, p in pool.processes.items() if case.task in PEERS[peer].tasks}
        for peer in [peer for peer in taking_part if self.ready[peer] > self.most_ready]:
            del taking_part[peer]
            record["left_out"][peer] = f"getting ready took {self.ready[peer]:.0f} s so far, more than its share"
        for peer, process in list(taking_part.items()):
            start = monotonic()
            try:
                got = process.call("prepare", str(case.network), case.rows, case.dtype, case.task)
                if case.task == "train" and peer != FLOOR:
                    self._try_briskly(process, case)
                if peer != FLOOR:
                    record["agreement"][peer] = compare(case, got, self._wanted(case))
            except (Failure, Disagreement) as error:
                self._drop(record, taking_part, peer, error)
            if peer not in (US, FLOOR):
                self.ready[peer] += monotonic() - start
        if US not in taking_part:
            self.left_out[f"{case}"] = "matbackprop itself failed or disagrees"
            return None
        for peer, process in list(taking_part.items()):
            try:
                record["calls"][peer] = process.call("calibrate")
            except Failure as failure:
                self._drop(record, taking_part, peer, failure)
        start = monotonic()
        self._round(record, taking_part, 0)
        rounds = self.budget.rounds(key, monotonic() - start)
        for index in range(1, rounds):
            self._round(record, taking_part, index)
        for peer, process in list(taking_part.items()):
            try:
                process.call("clear")
            except Failure as failure:
                self._drop(record, taking_part, peer, failure)
        return record if rounds and US in record["samples"] else None

    @staticmethod
    def _drop(record: dict[str, Any], taking_part: dict[str, Process], peer: str, why: Exception) -> None:
        """Leave a peer out of the cell."""
        del taking_part[peer]
        record["samples"].pop(peer, None)
        record["left_out"][peer] = str(why)
        print(f"# {peer} left out of {record['network']} N={record['rows']} {record['task']}: {why}")

    def _round(self, record: dict[str, Any], taking_part: dict[str, Process], index: int) -> None:
        """Give each its turn, the first of which is another one in every round."""
        names = list(taking_part)
        shift = index % max(1, len(names))
        for peer in names[shift:] + names[:shift]:
            try:
                turn = taking_part[peer].call("turn", record["calls"][peer], SAMPLES)
            except Failure as failure:
                self._drop(record, taking_part, peer, failure)
            else:
                record["samples"].setdefault(peer, []).append([float(f"{ns / 1000:.5g}") for ns in turn])

    def results(self) -> dict[str, Any]:
        """Return everything, for the file."""
        return {
            "schema": SCHEMA, "machine": describe(), "command": sys.argv[1:], "left_out": self.left_out,
            "dropped": [{"cores": c, "case": str(case)} for c, case in self.budget.dropped],
            "ready_seconds": {peer: round(seconds, 1) for peer, seconds in self.ready.items()},
            "groups": self.groups, "cells": self.cells,
        }  # fmt: skip


def prepare_only(peers: list[str], keys: list[Key]) -> None:
    """Have each peer do each task, as long as it takes."""
    for (count, dtype), group in groupby(keys, lambda key: (key[0], key[1].dtype)):
        with Pool(peers, usable_cores()[:count], dtype) as pool:
            for number, (_, case) in enumerate(group, 1):
                for peer, process in pool.processes.items():
                    if case.task in PEERS[peer].tasks and process.alive:
                        start = monotonic()
                        try:
                            process.call("prepare", str(case.network), case.rows, case.dtype, case.task, seconds=1800)
                            said = f"{monotonic() - start:.1f} s"
                        except Failure as failure:
                            said = str(failure)
                        print(f"{number:>4} {peer}: {case}, {on(count)}: {said}", flush=True)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", allow_abbrev=False, description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), metavar="NETWORK",
        help="WIDTHS[:ACTIVATION[:LOSS]], such as 784-128-128-10:relu:cross_entropy or 32-32x16-1; activations tanh, "
        "relu, sigmoid; losses mse, cross_entropy, bce_logits (default: the six of the sweep)",
    )  # fmt: skip
    parser.add_argument("--activation", help="for networks that name none")
    parser.add_argument("--loss", help="for networks that name none")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), metavar="N", help="batch sizes")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2], metavar="K", help="numbers of cores")
    known = [name for name in PEERS if name != US]
    parser.add_argument("--peers", nargs="+", choices=known, default=known, metavar="PEER", help=", ".join(known))
    parser.add_argument("--minutes", type=float, default=25, help="for the whole run (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 minutes: fewer cells, without torch.compile")
    parser.add_argument(
        "--ready-share", type=float, default=READY_SHARE,
        help="of the time, what each peer may spend on getting ready, before it is left out of the cells that remain",
    )  # fmt: skip
    parser.add_argument(
        "--prepare-only", action="store_true",
        help="time nothing: have each peer do each task once, so that torch.compile finds its code in its cache later",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path,
        help="default: benchmarks/results/sweep.json.gz, of which make bench-report writes its page; beside it "
        "part.json.gz where cells or peers were chosen, and quick.json.gz after --quick",
    )  # fmt: skip
    args = parser.parse_args(words)
    given = {word.split("=")[0] for word in (sys.argv[1:] if words is None else words)}
    if args.output is None:
        whole = given.isdisjoint({"--networks", "--batches", "--dtypes", "--tasks", "--cores", "--peers"})
        args.output = RESULTS / ("sweep.json.gz" if whole else "part.json.gz")
    if args.quick:
        quick = {"--batches": [1, 64, 1024, 16384], "--dtypes": ["float32"], "--tasks": ["backprop"], "--cores": [1],
                 "--minutes": 2, "--peers": [peer for peer in known if peer != "torch.compile"],
                 "--output": RESULTS / "quick.json.gz"}  # fmt: skip
        for name, value in quick.items():
            if name not in given:
                setattr(args, name[2:], value)
    try:
        args.networks = [as_network(spelled(word, args.activation, args.loss)) for word in args.networks]
        if min(args.batches) < 1 or min(args.cores) < 1:
            raise ValueError("batch sizes and numbers of cores start at 1")
    except ValueError as error:
        parser.error(str(error))
    return args


def spelled(word: str, activation: str | None, loss: str | None) -> str:
    """Return the network with the activation and the loss that it does not name itself."""
    shape, *rest = word.split(":")
    named = [*rest, *[""] * (2 - len(rest))]
    return ":".join([shape, named[0] or activation or "", named[1] or loss or ""])


def grid(args: argparse.Namespace) -> list[Key]:
    """Return the cells: short ones first within the same processes, so that they tell how long the others will be."""
    keys = []
    for dtype in args.dtypes:
        for count in args.cores:
            if count <= len(usable_cores()):
                cases = [Case(network, rows, dtype, task)
                         for network in args.networks for rows in args.batches for task in args.tasks]  # fmt: skip
                keys += [(count, case) for case in sorted(cases, key=lambda case: case.rows)]
    return keys


def main() -> None:
    """Run, print and write."""
    started = monotonic()
    args = arguments()
    chosen = [US, *(name for name in PEERS if name in args.peers)]
    missing = {}
    for peer in chosen[1:]:
        try:
            installed(peer)
        except ImportError as error:
            missing[peer] = str(error)
            print(f"# left out: {peer}: {error}")
    for count in (count for count in args.cores if count > len(usable_cores())):
        print(f"# left out: {count} cores: this process may use {len(usable_cores())}")
    keys = grid(args)
    if not keys:
        raise SystemExit("no cell to measure")
    if args.prepare_only:
        prepare_only([peer for peer in chosen[1:] if peer not in missing], keys)
        return
    sweep = Sweep([peer for peer in chosen if peer not in missing], keys, args.minutes * 60, args.ready_share)
    sweep.left_out |= missing
    try:
        sweep.run()
    except KeyboardInterrupt:
        print("\ninterrupted: what was measured is kept")
    for count, case in sweep.budget.dropped:
        print(f"# left out for want of time: {case}, {on(count)}")
    write(args.output, sweep.results())
    print(closing(summarise(cells(sweep.results()))))
    print(f"{len(sweep.cells)} cells in {(monotonic() - started) / 60:.1f} minutes; written: {args.output}")


if __name__ == "__main__":
    main()
