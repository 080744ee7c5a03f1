"""Extrapolated central differences that know their own error, for a function that takes no complex steps.

Central differences at shrinking steps are extrapolated (Richardson) and the tableau entry of least estimated error is
taken: truncation from the tableau itself, rounding from the measured noise of f. A kink or an oscillation between the
steps deceives a tableau, so its result must be borne out by the rows below it and by one far smaller step; else the
steps start lower.

References
----------
Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering Software 4 (1982).
Moré and Wild, Estimating computational noise, SIAM Journal on Scientific Computing 33 (2011).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from matbackprop.gradcheck.directional import Derivative
from matbackprop.gradcheck.nearby import sizes
from matbackprop.gradcheck.problem import EvaluationError, Problem
from matbackprop.validation import Array

__all__ = ["Differences"]

#: Each difference step is this many times smaller than the one before.
RATIO = 4.0

#: Where a smaller step does not bear out the result, the steps start so many times lower.
LOWER = 64.0


@dataclass
class Slope:
    """What the difference steps along one direction showed, from the largest step down."""

    steps: list[float] = field(default_factory=list)
    central: list[float] = field(default_factory=list)
    #: Right slope minus left slope: shrinks with the step where f is smooth, stays where there is a kink.
    gaps: list[float] = field(default_factory=list)
    #: How far the smaller steps contradict the best entry of the tableau.
    doubt: float = 0.0


class Small(NamedTuple):
    """One small difference step: its size, the difference, what rounding may have done to it, and its gap."""

    step: float
    value: float
    error: float
    gap: float


class Differences:
    """Extrapolated central differences, in longdouble where the function computes in it, else in float64.

    Parameters
    ----------
    problem : Problem
    levels : int
        How many steps are tried at the most, each a quarter of the one before.
    start : float
        The first step, relative to what moves an entry by its own size.
    accuracy : float
        Relative to the terms of the sum g·u, where it is good enough to stop.
    """

    def __init__(self, problem: Problem, levels: int = 15, accuracy: float = 1e-15, start: float = 0.125) -> None:
        self.problem, self.levels, self.accuracy, self.start = problem, levels, accuracy, start
        self.dtype = self._precision()
        self.name = f"extrapolated differences in {self.dtype.name}"
        # A heavy entry limits the step for all of them, and so what can be seen in few digits.
        self.floor = 1e-1 if self._rounded_to_single() else 1e-3 if self.dtype == np.longdouble else 1e-2
        self._noise: tuple[bytes, float] | None = None

    def _precision(self) -> np.dtype[Any]:
        """Return the widest type that the function takes."""
        x = self.problem.packing.x0
        for dtype in (np.longdouble, np.float64):
            if np.finfo(dtype).eps >= np.finfo(x.dtype).eps:
                continue
            try:
                value = self.problem.value(x.astype(dtype))
            except (EvaluationError, TypeError):
                continue
            if np.isfinite(value) and np.finfo(np.asarray(value).dtype).eps < np.finfo(x.dtype).eps:
                return np.dtype(dtype)
        return x.dtype

    def _rounded_to_single(self) -> bool:
        """Return whether the value of fun is a float32, whatever it is called."""
        value = self.problem.value(self.problem.packing.x0.astype(self.dtype))
        with np.errstate(all="ignore"):
            return bool(np.float32(value) == value)

    def noise(self, x: Array, u: Array) -> float:
        """Return the measured rounding noise of fun near x: from fourth differences over steps too small to matter."""
        key = x.tobytes()
        if self._noise is not None and self._noise[0] == key:
            return self._noise[1]
        reach = self._reach(x, u)
        # About a rounding unit of float32, should there be float32 inside; ever too small for the fourth derivative.
        scale = 2.0**-24 if self.dtype != np.float32 else 2.0**-18
        values = self._row(x, u, reach * scale)
        least = 0.5 * float(np.finfo(values.dtype).eps * abs(values[3]))
        result = max(_fourth(values), least)
        while scale < 2.0**-6 and np.ptp(values) == 0:
            # Flat, or rounded to so few digits that it goes in stairs: then one of them is the noise.
            scale *= 16
            values = self._row(x, u, reach * scale)
            result = max(float(np.ptp(values)), least)
        if result > 100 * least:
            # Or it oscillates as fast as that, or has a kink at x: smaller steps to one side show neither. Those of a
            # float32 are a few of its units; in wider types rounding to float32 inside gives many equal values there.
            finer = self._row(x, u, reach * (2.0**-36 if self.dtype != np.float32 else 2.0**-22), first=0)
            if np.unique(finer).size == finer.size:
                result = max(_fourth(finer), least)
        self._noise = (key, result)
        return result

    def _row(self, x: Array, u: Array, step: float, first: int = -3) -> Array:
        """Return fun at x and six steps in a row, three to each side or from `first` on; NaN where it fails."""
        wide = x.astype(self.dtype)
        center = self.problem.finite_value(wide)
        values = []
        for j in range(first, first + 7):
            try:
                values.append(self.problem.finite_value(wide + (j * step * u).astype(self.dtype)) if j else center)
            except EvaluationError:
                values.append(np.nan)
        return np.array(values, np.asarray(center).dtype)

    def _reach(self, x: Array, u: Array) -> float:
        """Return the factor of u that moves some entry of x by about its own size."""
        size = np.empty(x.size)
        for block in self.problem.packing.blocks:
            if block.size:
                size[block.span] = sizes(x[block.span].astype(np.float64))
        return 1.0 / float(np.max(np.abs(u) / size))

    def _grain(self, x: Array, u: Array) -> float:
        """Return the step that the rounding of x + tu blurs: for entries of equal weight, eps times rms(x / u)."""
        moved = u != 0
        ratio = x[moved].astype(np.float64) / u[moved]
        return float(np.finfo(self.dtype).eps) * float(np.sqrt(np.mean(ratio * ratio)))

    def derivative(self, x: Array, u: Array) -> Derivative:
        """Return the derivative along `u`, with the error that the tableau and the noise of fun suggest.

        Raises
        ------
        EvaluationError
            If fun fails at x itself, or at every step away from it.
        """
        wide, direction = x.astype(self.dtype), u.astype(self.dtype)
        center, noise = self.problem.finite_value(wide), self.noise(x, u)
        start, reach, grain = self.start, self._reach(x, u), self._grain(x, u)
        while True:
            slope, best = self._ladder(wide, direction, center, noise, grain, start * reach)
            small = self._smaller_step(wide, direction, center, noise, grain, slope, best)
            best.kink = _kink(slope, best.value, noise, small)
            if small is None:
                best.error += slope.doubt
                return best
            flat = small.value == small.gap == 0.0 != best.value
            if flat and abs(slope.gaps[-1]) < 0.1 * abs(slope.central[-1]):
                # No kink, but stairs that the noise was too lucky to show: one of them is the noise.
                noise = max(2 * noise, self._stair(wide, direction, center, small.step))
                self._noise = (x.tobytes(), noise)
                continue
            doubt = max(slope.doubt, _contradiction(best, Derivative(small.value, small.error)))
            borne_out = not doubt
            if borne_out and best.error <= 8 * small.error:
                return best
            start /= LOWER
            if start * reach < small.step:
                best.error += doubt
                return best

    def _ladder(
        self, wide: Array, direction: Array, center: Any, noise: float, grain: float, start: float
    ) -> tuple[Slope, Derivative]:
        """Return what the steps from `start` down show, and the best entry of their tableau."""
        step = self.dtype.type(start)
        slope, best = Slope(), Derivative(np.nan, np.inf)
        rows: list[list[float]] = []
        failure: EvaluationError | None = None
        misses = 0
        for _ in range(self.levels):
            try:
                right = self.problem.finite_value(wide + step * direction)
                left = self.problem.finite_value(wide - step * direction)
            except EvaluationError as error:
                failure, rows = error, []
                step = step / self.dtype.type(RATIO)
                continue
            central = (right - left) / (2 * step)
            slope.steps.append(float(step))
            slope.central.append(float(central))
            slope.gaps.append(float((right - center) / step - (center - left) / step))
            # The tableau runs in the wide type and starts anew after a failure.
            found = self._extend(rows, central, max(noise, grain * abs(float(central))) / float(step))
            better = found.error < best.error
            slope.doubt = 0.0 if better else max(slope.doubt, _contradiction(best, found))
            best, misses = (found, 0) if better else (best, misses + 1)
            enough = self.accuracy * float(np.max(np.abs(direction)) + abs(best.value))
            if len(rows) > 4 and (misses >= 4 or best.error <= enough):
                break
            step = step / self.dtype.type(RATIO)
        if not slope.steps:
            raise failure or EvaluationError("fun could not be evaluated around x0", wide)
        return slope, best

    def _smaller_step(
        self,
        wide: Array,
        direction: Array,
        center: Any,
        noise: float,
        grain: float,
        slope: Slope,
        best: Derivative,
    ) -> Small | None:
        """Return one central difference half-way, in digits, between the steps taken and those where noise is all."""
        size = max(map(abs, [best.value, *slope.central]))
        if not size:
            return None
        least = max(noise / size, grain)
        step = float(np.sqrt(least * slope.steps[-1]))
        if not 0 < step < slope.steps[-1] / RATIO:
            return None
        h = self.dtype.type(step)
        try:
            right = self.problem.finite_value(wide + h * direction)
            left = self.problem.finite_value(wide - h * direction)
        except EvaluationError:
            return None
        gap = float((right - center) / h - (center - left) / h)
        return Small(step, float((right - left) / (2 * h)), size * least / step, gap)

    def _stair(self, wide: Array, direction: Array, center: Any, step: float) -> float:
        """Return the first change of fun as the step grows from one at which it is the same on both sides."""
        for _ in range(40):
            step *= 2
            change = self.problem.value(wide + self.dtype.type(step) * direction) - center
            if change != 0:
                break
        return abs(float(change))

    def _extend(self, rows: list[list[Any]], central: Any, rounding: float) -> Derivative:
        """Add a row to the tableau and return its best entry."""
        row, best = [central], Derivative(np.nan, np.inf)
        for order in range(1, min(len(rows), 7) + 1):
            factor = self.dtype.type(RATIO ** (2 * order))
            above = rows[-1][order - 1]
            row.append((factor * row[order - 1] - above) / (factor - 1))
            # How far the entry is from both its parents, of which the coarser one is at least 16 times worse than it.
            truncation = float(max(abs(row[order] - row[order - 1]), abs(row[order] - above) / 8))
            neighbour = float(abs(row[order] - rows[-1][order])) if order < len(rows[-1]) else truncation
            error = 2 * min(truncation, 4 * neighbour) + 2.5 * rounding
            if error < best.error:
                best = Derivative(float(row[order]), error)
        rows.append(row)
        return best


def _contradiction(best: Derivative, other: Derivative) -> float:
    """Return how far two values are apart if that is more than their errors allow, else zero."""
    distance = abs(best.value - other.value)
    return distance if distance > 4 * (best.error + other.error) else 0.0


def _fourth(values: Array) -> float:
    """Return the noise of equally spaced values, by their fourth differences."""
    fourth = np.diff(values, 4)
    fourth = fourth[np.isfinite(fourth)]
    return float(np.abs(fourth).max()) / float(np.sqrt(70)) if fourth.size else 0.0


def _kink(slope: Slope, middle: float, noise: float, small: Small | None) -> tuple[float, float] | None:
    """Return the one-sided slopes about the central one, `middle`, if they stay apart as the steps shrink."""
    sound = [
        (central, gap)
        for step, central, gap in zip(slope.steps, slope.central, slope.gaps, strict=True)
        if abs(gap) > 50 * noise / step
    ]
    if len(sound) < 3:
        return None
    (_, first), (_, second), (central, third) = sound[-3:]
    steady = all(0.7 < abs(b) / abs(a) < 1.4 for a, b in ((first, second), (second, third)))
    size = max(abs(c) for c in slope.central)
    if not steady or abs(third) < 1e-7 * (abs(central) + size):
        return None
    if small is not None and abs(small.gap - third) > 0.3 * abs(third) + 4 * small.error:
        return None  # it lies beside x
    gap = (RATIO * third - second) / (RATIO - 1)  # of a step of zero: a curvature adds to a gap in proportion to it
    return middle - gap / 2, middle + gap / 2
