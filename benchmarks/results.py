"""Results: their file, and what they come to."""

from __future__ import annotations

import gzip
import json
import statistics
from collections.abc import Iterable
from math import exp, log
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]
#: Who is no peer.
US, FLOOR = "ours", "floor"
#: The goals: floor ratios at most these where the floor itself takes longer than so many seconds.
FLOOR_GOALS = ((1e-3, 1.10), (50e-6, 1.30))


def write(path: Path, results: Json) -> None:
    """Write the file in one go; compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, ensure_ascii=False, separators=(",", ":")).replace('{"network"', '\n{"network"') + "\n"
    half = path.with_name(path.name + ".new")
    half.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())
    half.replace(path)


def read(path: Path) -> Json:
    """Read a file of results."""
    data = path.read_bytes()
    results: Json = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    if results.get("schema") != 1:
        raise ValueError(f"{path}: no results of benchmarks.sweep")
    return results


class Spread(NamedTuple):
    """A median with the middle half."""

    low: float
    median: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Return the quartiles."""
    values = sorted(values)
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


class Cell:
    """What was measured in one cell.

    Parameters
    ----------
    record : dict
        One of the "cells" of the file: the samples are microseconds a call, a list a round.
    """

    def __init__(self, record: Json) -> None:
        self.record = record
        self.network, self.dtype, self.rows = record["network"], record["dtype"], record["rows"]
        self.cores, self.task = record["cores"], record["task"]
        self.rounds = {peer: [statistics.median(turn) for turn in turns] for peer, turns in record["samples"].items()}

    @property
    def peers(self) -> list[str]:
        """Those measured beside us."""
        return [peer for peer in self.rounds if peer not in (US, FLOOR)]

    def time(self, peer: str) -> Spread:
        """Return the microseconds of a call, over the rounds."""
        return spread(self.rounds[peer])

    def ratio(self, peer: str) -> Spread:
        """Return the peer's time over ours: of the medians, with the quartiles of the ratios round by round."""
        rounds = spread(b / a for a, b in zip(self.rounds[US], self.rounds[peer], strict=True))
        return Spread(rounds.low, self.time(peer).median / self.time(US).median, rounds.high)

    def best(self) -> tuple[str, Spread] | None:
        """Return the peer that is nearest to us, or ahead, and its ratio."""
        ratios = [(peer, self.ratio(peer)) for peer in self.peers]
        return min(ratios, key=lambda pair: pair[1].median, default=None)

    def floor(self) -> Spread | None:
        """Return our time over the floor's."""
        if FLOOR not in self.rounds:
            return None
        rounds = spread(a / b for a, b in zip(self.rounds[US], self.rounds[FLOOR], strict=True))
        return Spread(rounds.low, self.time(US).median / self.time(FLOOR).median, rounds.high)

    def floor_goal(self) -> float | None:
        """Return the floor ratio that is the goal here, if there is one."""
        if FLOOR not in self.rounds:
            return None
        seconds = self.time(FLOOR).median * 1e-6
        return next((goal for longer, goal in FLOOR_GOALS if seconds > longer), None)


def cells(results: Json) -> list[Cell]:
    """Return the cells in which we were measured."""
    return [Cell(record) for record in results["cells"] if US in record["samples"]]


def geometric_mean(values: Iterable[float]) -> float:
    """Return it; NaN of nothing."""
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs)) if logs else float("nan")


class Summary(NamedTuple):
    """What a run comes to."""

    compared: int  # cells with a peer
    ahead: int  # in which no peer is faster
    means: dict[str, tuple[int, float, float, int]]  # cells, geometric mean of the ratio, least ratio, cells behind
    floors: list[tuple[float, float, int, int]]  # longer than, goal, cells, cells that reach it


def summarise(measured: list[Cell]) -> Summary:
    """Return the share of cells without a faster peer, the mean against each, and the floor ratios."""
    bests = [best for cell in measured if (best := cell.best()) is not None]
    means = {}
    for peer in dict.fromkeys(peer for cell in measured for peer in cell.peers):
        ratios = [cell.ratio(peer).median for cell in measured if peer in cell.peers]
        means[peer] = len(ratios), geometric_mean(ratios), min(ratios), sum(ratio < 1 for ratio in ratios)
    floors = []
    for longer, goal in FLOOR_GOALS:
        those = [cell.floor() for cell in measured if cell.floor_goal() == goal]
        floors.append((longer, goal, len(those), sum(floor is not None and floor.median <= goal for floor in those)))
    return Summary(len(bests), sum(ratio.median >= 1 for _, ratio in bests), means, floors)
