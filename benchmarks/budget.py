"""How a time budget becomes rounds: every cell gets five at least, or is left out by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from statistics import median
from time import monotonic

from benchmarks.task import Case, Network

#: Rounds of a cell at least and at most.
FEWEST, MOST = 5, 30
#: Of what is left, so much is kept back.
RESERVE = 0.03

#: First guesses, which measurement replaces: multiplications a second of a core in float32, how many of them an
#: activation is worth, and the seconds that each peer's turn takes whatever the cell's size, that a cell takes to get
#: ready, and that the processes take to start.
SPEED, ACTIVATION, TURN, READY, START = 2e10, 40, 2.5e-3, 0.5, 10.0

Cell = tuple[int, Case]  # cores and case


class Budget:
    """What is left of the time, and what the cells ahead will take.

    Parameters
    ----------
    seconds : float
    cells : sequence of (cores, Case)
        All of them, in order.
    peers : int
        How many take turns.
    clock : callable, optional

    Attributes
    ----------
    ahead : list
        The cells that are still to be measured.
    dropped : list
        Those for which there is no time.
    """

    def __init__(
        self, seconds: float, cells: Sequence[Cell], peers: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self.clock, self.peers = clock, peers
        self.end = clock() + seconds * (1 - RESERVE)
        self.ahead, self.dropped = list(cells), list[Cell]()
        self._scale: dict[tuple[Hashable, Network], float] = {}  # seconds measured over seconds guessed
        self._turn, self._ready, self._start = TURN, READY, START
        self._since = clock()

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - self.clock()

    @staticmethod
    def kind(cell: Cell) -> Hashable:
        """Return what the cells share that are measured in the same processes."""
        return cell[0], cell[1].dtype

    def _work(self, cell: Cell) -> float:
        """Return a guess of the seconds that all peers work in a round: a warm-up and two samples of a call."""
        cores, case = cell
        count = case.multiplications() + ACTIVATION * case.rows * sum(case.network.widths[1:])
        return 3 * self.peers * count / (SPEED * (0.5 if case.dtype == "float64" else 1) * cores**0.5)

    def round_time(self, cell: Cell) -> float:
        """Return what a round is likely to take, by what the network took, or if that is not known, others."""
        kind, network = self.kind(cell), cell[1].network
        own = self._scale.get((kind, network))
        if own is None:
            known = [scale for (_, other), scale in self._scale.items() if other == network] or [*self._scale.values()]
            own = median(known) if known else 1.0
        return self.peers * self._turn + own * self._work(cell)

    def least(self, cell: Cell) -> float:
        """Return what the cell takes at least: getting ready, which is about one round more, and its five rounds."""
        return self._ready + (FEWEST + 1) * self.round_time(cell)

    def needed(self, running: Hashable = None) -> float:
        """Return the seconds that all cells ahead take at least, with the processes that have to start for them."""
        starts = {self.kind(cell) for cell in self.ahead} - {running}
        return sum(map(self.least, self.ahead)) + self._start * len(starts)

    def next(self, running: Hashable = None) -> Cell | None:
        """Return the cell to measure now, or None at the end; those that the time is too short for are dropped.

        `running` is the kind for which processes have been started.
        """
        while self.ahead and self._too_long(self.ahead[0], self.needed(running) - self.left()):
            self.dropped.append(self.ahead.pop(0))
        self._since = self.clock()
        return self.ahead.pop(0) if self.ahead else None

    def _too_long(self, cell: Cell, excess: float) -> bool:
        """Return whether the cell is among the longest ahead, without which the others fit: decided at its turn."""
        for other in sorted(self.ahead, key=self.least, reverse=True):
            if excess <= 0:
                return False
            if other == cell:
                return True
            excess -= self.least(other)
        return False

    def started(self) -> None:
        """Say that the processes for the cell have started just now."""
        self._start = self.clock() - self._since
        self._since = self.clock()

    def rounds(self, cell: Cell, seconds: float) -> int:
        """Return how many rounds a cell gets that is ready and whose round takes `seconds`; 0 if there is no time."""
        work = self._work(cell)
        if work < 0.2 * self.peers * TURN:
            self._turn += 0.2 * (seconds / self.peers - self._turn)
        else:
            worked = max(seconds - self.peers * self._turn, seconds / 10)
            self._scale[self.kind(cell), cell[1].network] = worked / work
        spent = self.clock() - self._since  # one call of each in it, about half a round, and the first round
        self._ready += 0.1 * (max(spent - 1.5 * seconds, 0.01) - self._ready)
        least, left = FEWEST * seconds, self.left()
        if least > left:
            self.dropped.append(cell)
            return 0
        spare = max(0.0, left - self.needed(self.kind(cell)) - least)
        return max(FEWEST, min(MOST, int((least + spare / (len(self.ahead) + 1)) / seconds)))
