"""Where a gradient is wrong: bisection over arrays and entries by directional derivatives, then single entries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from matbackprop.gradcheck.directional import ComplexStep, Reference
from matbackprop.gradcheck.measure import dot, equalised
from matbackprop.gradcheck.packing import Block
from matbackprop.gradcheck.patterns import Sample
from matbackprop.gradcheck.problem import Problem
from matbackprop.validation import Array

__all__ = ["MANY", "Search"]

#: Arrays up to this size are looked at entry by entry, which shows a pattern and costs as much as bisection to some 20
#: wrong ones among them, at 2 log2 400 = 17 evaluations each; larger ones by bisection ...
SMALL = 400
#: ... and so many entries at the least, however dear one evaluation is ...
FEW = 64
#: ... which is in proportion to the number of parameters: above this product of entries and parameters.
DEAR = 40_000_000
#: So many wrong entries, or arrays, are sought one by one; more are a pattern.
MANY = 16


class Search:
    """Residuals of parts of a gradient.

    Parameters
    ----------
    problem : Problem
    reference : Reference
    x, gradient : numpy.ndarray, shape (P,)
    limit : float
        How large a residual along an equalised direction may be.
    rng : numpy.random.Generator
    """

    def __init__(
        self,
        problem: Problem,
        reference: Reference,
        x: Array,
        gradient: Array,
        limit: float,
        rng: np.random.Generator,
    ) -> None:
        self.problem, self.reference, self.x, self.gradient, self.rng = problem, reference, x, gradient, rng
        self.limit = limit
        self.u = self.equalised()
        self.largest = float(np.abs(gradient).max())
        small = SMALL if isinstance(reference, ComplexStep) else SMALL // 4
        #: So many entries of one array are looked at singly.
        self.budget = max(min(small, FEW), min(small, DEAR // x.size))

    def equalised(self, where: slice | None = None) -> Array:
        """Return a random direction in which every entry weighs the same; zero outside `where`."""
        return equalised(self.gradient, self.rng, where, self.reference.floor)

    def residual(self, u: Array) -> tuple[float, float]:
        """Return ∇f·u - g·u and the limit for it."""
        derivative = self.reference.derivative(self.x, u)
        return derivative.value - dot(self.gradient, u), max(self.limit, 4 * derivative.error)

    def arrays(self) -> tuple[list[Block], bool]:
        """Return the arrays that are wrong, and whether those are all: about 2 log2 of their number for each."""
        blocks = self.problem.packing.blocks
        edges = [block.span.start for block in blocks] + [self.x.size]
        found, complete = self._bisect(edges.__getitem__, len(blocks), MANY)
        return [blocks[i] for i in found], complete

    def entries(self, span: slice, most: int = MANY) -> tuple[list[int], bool]:
        """Return wrong entries in a part of x, and whether those are all: about 2 log2 P evaluations for each."""
        found, complete = self._bisect(lambda i: span.start + i, span.stop - span.start, most)
        return [span.start + i for i in found], complete

    def _bisect(self, edge: Callable[[int], int], count: int, most: int) -> tuple[list[int], bool]:
        """Return which of `count` parts, from edge(i) to edge(i + 1), are wrong, until there are `most`."""
        stack, found = [(0, count, self._part(edge(0), edge(count)))], list[int]()
        while stack:
            start, stop, wrong = stack.pop()
            if not wrong:
                continue
            if stop - start == 1:
                if len(found) == most:
                    return found, False
                found.append(start)
                continue
            middle = (start + stop) // 2
            left = self._part(edge(start), edge(middle))
            # If nothing is wrong in one half, it is the other.
            right = not left or self._part(edge(middle), edge(stop))
            stack += [(middle, stop, right), (start, middle, left)]
        return found, True

    def _part(self, start: int, stop: int) -> bool:
        """Return whether there is an error from `start` to `stop`."""
        u = np.zeros_like(self.u)
        u[start:stop] = self.u[start:stop]
        if start == stop:
            return False
        residual, limit = self.residual(u)
        return abs(residual) > limit

    def ratio(self, span: slice) -> float | None:
        """Return got / expected of these entries if it is one number, by directions along which nothing cancels."""
        part = self.gradient[span]
        if not part.any():
            # A zero gradient is one factor, 0, of whatever it should be.
            residual, limit = self.residual(self.equalised(span))
            return 0.0 if abs(residual) > limit else 1.0
        ratios, precision = [], 0.0
        for _ in range(3):
            u = np.abs(self.equalised(span)) * np.where(self.gradient < 0, -1.0, 1.0)
            derivative, got = self.reference.derivative(self.x, u), dot(self.gradient, u)
            ratios.append(derivative.value / got)
            precision = max(precision, (self.limit / 10 + 2 * derivative.error) / abs(got))
        off = abs(ratios[0] - 1)
        if off <= precision:
            return 1.0
        if np.ptp(ratios) > max(1e-6 * off, min(precision, 0.02 * off)) or not ratios[0]:
            return None
        # Along directions of one sign a few wrong entries among many look alike; signs at random tell them apart.
        u = self.equalised(span)
        derivative, got = self.reference.derivative(self.x, u), dot(self.gradient, u)
        terms = float(np.linalg.norm(self.gradient * u))
        if abs(derivative.value - ratios[0] * got) > 0.05 * off * terms:
            return None
        return 1 / ratios[0]

    def sample(self, block: Block) -> tuple[Array, bool]:
        """Return entries to look at singly, flat in the array, and whether all of its wrong ones are among them."""
        if block.size <= self.budget:
            return np.arange(block.size), True
        # Beside the wrong entries that are found, others, so that a pattern in them can show.
        found, complete = self.entries(block.span)
        wrong = np.array(found, dtype=np.intp) - block.span.start
        if complete:
            others = min(self.budget // 4, 13 * max(len(found), 1))
            return np.union1d(wrong, self.rng.choice(block.size, others, replace=False)), True
        return np.union1d(wrong, self._spread(block)), False

    def _spread(self, block: Block) -> Array:
        """Return entries that cover an array: a grid of rows and columns, if it has those."""
        if len(block.shape) > 2:
            return np.sort(self.rng.choice(block.size, self.budget, replace=False))
        # Of 400 entries 16 rows by 16 columns.
        count = int(0.8 * np.sqrt(self.budget)) if len(block.shape) > 1 else int(0.64 * self.budget)
        axes = [np.unique(np.linspace(0, n - 1, count).astype(np.intp)) for n in block.shape]
        grid = np.meshgrid(*axes, indexing="ij")
        return np.ravel_multi_index(tuple(grid), block.shape).reshape(-1)

    def compare(self, block: Block, index: Array) -> Sample:
        """Differentiate by single entries."""
        offset = block.span.start
        expected, error = np.empty(index.size), np.empty(index.size)
        u = np.zeros(self.x.size)
        for k, i in enumerate(index):
            u[offset + i] = 1.0
            derivative = self.reference.derivative(self.x, u)
            expected[k], error[k] = derivative.value, derivative.error
            u[offset + i] = 0.0
        full = self.gradient[block.span].astype(np.float64)
        got = full[index]
        # `limit` belongs to a direction in which an entry weighs max |g| / |g_i|.
        largest = self.largest or float(np.abs(expected).max(initial=0.0)) or 1.0
        size = np.maximum(np.maximum(np.abs(got), np.abs(expected)), self.reference.floor * largest)
        wrong = np.abs(expected - got) > self.limit * size / largest + 2 * error
        at = self.x[block.span][index].astype(np.float64)
        return Sample(index, expected, got, at, full.reshape(block.shape), wrong)
