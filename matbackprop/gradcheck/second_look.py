"""A disagreement that is no error of the formula: a kink at x0, or digits lost to rounding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from matbackprop.gradcheck.differences import Differences
from matbackprop.gradcheck.directional import Reference
from matbackprop.gradcheck.localise import Search
from matbackprop.gradcheck.measure import Measurement, dot, equalised
from matbackprop.gradcheck.nearby import point_near
from matbackprop.gradcheck.problem import BadGradient, EvaluationError, Problem
from matbackprop.validation import Array

__all__ = ["Kink", "kink_at", "kink_text", "lost_precision"]


#: Nearer to zero a function may be less saturated; at the last two its gradient levels off, unless it has a pole. Two
#: to a decade, to meet the middle of a sigmoid from weights some hundred times too large.
SHRINKS = (0.5, 0.25, 0.1, 0.03, 0.01, 0.003)
#: So many entries at which the gradient departs from the branch of fun are held to the slopes on their two sides.
ENTRIES = 16


class Kink(NamedTuple):
    """A kink at x0: whether the gradient is one of the slopes that it allows, and the report's words for it."""

    gradient_fits: bool
    text: str


def kink_at(
    problem: Problem,
    reference: Reference,
    x: Array,
    gradient: Array,
    found: Measurement,
    limit: float,
    rng: np.random.Generator,
) -> Kink | None:
    """Return the kink, if one-sided slopes at x differ along a direction in which the gradient disagrees.

    Kinks of both signs in one sum have no common one-sided rule: along a random direction a right gradient need not lie
    between the slopes. So the gradient fits if it agrees with the reference next to x, and if every entry that
    disagrees at x lies between the slopes on its two sides.
    """
    real = reference if isinstance(reference, Differences) else Differences(problem)
    slopes: tuple[float, float] | None = None
    for k, u in enumerate(found.directions):
        try:
            kink = real.derivative(x, u).kink
        except (EvaluationError, TypeError):
            return None
        if kink is None:
            if abs(found.residual[k, 0]) > found.tolerance:
                return None
            continue
        slopes = slopes or kink
    if slopes is None:
        return None
    if _wrong_next_to(problem, real, x, found, rng):
        return Kink(False, "x0 lies on a kink, and the gradient is wrong next to it too")
    outside = _outside_of_the_slopes(problem, real, reference, x, gradient, limit * found.unit, rng)
    if outside is not None:
        return Kink(False, outside)
    return Kink(True, kink_text(slopes))


def kink_text(slopes: tuple[float, float]) -> str:
    """Return the report's words for a kink at which the gradient is one of many that could be."""
    return (
        f"x0 lies on a kink: along a random direction the slope is {slopes[0]:.6g} on the left and {slopes[1]:.6g} on "
        "the right; the gradient is between what the two sides say, which is a convention"
    )


def _outside_of_the_slopes(
    problem: Problem,
    real: Differences,
    reference: Reference,
    x: Array,
    gradient: Array,
    limit: float,
    rng: np.random.Generator,
) -> str | None:
    """Return the report's words for an entry that is none of the slopes at a kink, or None."""
    entries, _ = Search(problem, reference, x, gradient, limit, rng).entries(slice(0, x.size), ENTRIES)
    for i in entries:
        u = np.zeros(x.size)
        u[i] = 1.0
        slope = real.derivative(x, u)
        left, right = sorted(slope.kink or (slope.value, slope.value))
        slack = 1e-6 * max(abs(left), abs(right)) + 4 * slope.error + limit
        if not left - slack <= gradient[i] <= right + slack:
            name, index = problem.packing.locate(i)
            where = f"{name}[{', '.join(map(str, index))}]" if index else name
            return (
                f"x0 lies on a kink, and the gradient of {where}, {gradient[i]:.6g}, is outside of what its two sides "
                f"say, {left:.6g} to {right:.6g}"
            )
    return None


def _wrong_next_to(problem: Problem, real: Differences, x: Array, found: Measurement, rng: np.random.Generator) -> bool:
    """Return whether the gradient disagrees at a point a little away from x."""
    wrong = 0
    for _ in range(3):
        point = point_near(x, 1e-2, rng)
        u = found.directions[0]
        try:
            derivative, gradient = real.derivative(point, u), problem.gradient(point)
        except (EvaluationError, BadGradient, TypeError):
            continue
        limit = 4 * derivative.error + (found.tolerance + 1e-6) * max(found.unit, float(np.abs(gradient).max()))
        wrong += derivative.kink is None and abs(derivative.value - dot(gradient, u)) > limit
    return wrong >= 2


def lost_precision(
    problem: Problem, reference: Reference, x: Array, gradient: Array, found: Measurement, rng: np.random.Generator
) -> str | None:
    """Return why the disagreement is rounding and no wrong formula, or None.

    Either the same formula in a wider type agrees much better; or the error is less than a few rounding units of what
    the gradient is nearer to zero, where a function is less saturated, and there it is right.
    """
    k = found.worst
    u, expected = found.directions[k], found.expected[k, 0] * found.unit
    error = abs(found.residual[k, 0]) * found.unit
    wide: np.dtype[np.floating] = np.dtype(np.float64) if x.dtype == np.float32 else np.dtype(np.longdouble)
    if np.finfo(wide).eps < np.finfo(x.dtype).eps:
        try:
            widened = problem.gradient(x.astype(wide))
        except (EvaluationError, BadGradient, TypeError):
            widened = gradient
        if np.finfo(widened.dtype).eps < found.eps and abs(expected - dot(widened, u)) < error / 30:
            return f"the same formula in {wide.name} is right: the digits were lost to rounding"
    sizes, largest = list[float](), 0.0
    for shrink in SHRINKS:
        point = (shrink * x).astype(x.dtype)
        try:
            there = problem.gradient(point)
            along = equalised(there, rng, floor=reference.floor)  # by its entries there, or a wrong one may not weigh
            slope = reference.derivative(point, along)
        except (EvaluationError, BadGradient, TypeError):
            continue
        sizes.append(float(np.abs(there).max()))
        terms = float(np.linalg.norm(there.astype(np.float64) * along))
        if abs(slope.value - dot(there, along)) <= np.sqrt(found.eps) * terms + 4 * slope.error:
            largest = max(largest, sizes[-1])
    if len(sizes) > 1 and sizes[-1] > 5 * sizes[-2]:
        return None  # a pole: whatever is wrong at x is small beside the gradient there
    if error <= min(64 * found.eps, 1e-6) * largest * float(np.linalg.norm(u)):
        return (
            "the error is below the rounding of what the gradient is at larger values nearer to zero, and there it is "
            "right: the digits were lost to rounding (saturation, or a minimum nearby?)"
        )
    return None
