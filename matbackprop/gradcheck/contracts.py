"""What a gradient function must keep to, whatever its numbers: repeatable, no side effects, a buffer of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from matbackprop.gradcheck.nearby import point_near
from matbackprop.gradcheck.problem import EvaluationError, Problem, overlap
from matbackprop.validation import Array

__all__ = ["Contracts", "examine"]


@dataclass
class Contracts:
    """What the first few calls showed."""

    value: float
    gradient: Array
    #: Breaches of the contract, as sentences.
    breaches: list[str] = field(default_factory=list)
    #: Why nothing can be concluded, if so.
    unusable: str | None = None
    notes: list[str] = field(default_factory=list)
    #: Another point, and the gradient that was returned there.
    elsewhere: tuple[Array, Array] | None = None
    #: Whether fun gave the very same value at another point.
    constant: bool = False
    #: Whether the numbers of the gradient still mean something after the breaches.
    comparable: bool = True


def examine(problem: Problem, rng: np.random.Generator) -> Contracts:
    """Call fun and grad at x0, elsewhere, and at x0 again; see what changed that should not.

    Raises
    ------
    EvaluationError, BadGradient, TypeError
        If a call at x0 fails.
    """
    packing = problem.packing
    x = packing.x0
    value = problem.value(x)
    if not np.isfinite(value):
        raise EvaluationError(f"fun returned {value}", x)
    gradient = problem.gradient(x)
    returned = problem.last_returned
    kept = [array.copy() for array in returned]

    elsewhere, other = _elsewhere(problem, x, rng)
    seen = Contracts(float(value.real), gradient, elsewhere=elsewhere)
    if elsewhere is not None and not _equal(returned, kept):
        seen.breaches.append(
            "the gradient is returned in a buffer that the next call overwrites, and with it what the caller kept; "
            "return a copy"
        )
    alone = problem.gradient(x)  # without a call of fun at x0 before it: it may not live on what fun kept
    if not seen.breaches and any(map(overlap, returned, problem.last_returned)):
        seen.breaches.append(
            "the gradient is returned in the same memory by every call: whoever changes one in place changes what the "
            "next call returns; return a copy, or a read-only array"
        )
    for name in sorted(problem.aliased):
        seen.breaches.append(
            f"the gradient of {name} is the input itself, or a view of it: whoever updates x in place changes the "
            "gradient; return a copy"
        )
    again, gradient_again = problem.value(x), problem.gradient(x)
    seen.constant = elsewhere is not None and other == value == again
    _repeatable(seen, value, again, gradient, gradient_again, packing.eps)
    distance = float(np.abs(alone - gradient).max())
    if seen.comparable and not seen.unusable and distance > 64 * packing.eps * float(np.abs(gradient).max()):
        seen.breaches.append(
            "the gradient is not that of the point it is given, but of the point that fun was called at last: it lives "
            "on what fun kept (a stale cache)"
        )
    for name in sorted(problem.modified):
        seen.breaches.append(f"{name} modifies its input x in place; work on a copy")
    for name, dtype in problem.cast.items():
        block = next(block for block in packing.blocks if block.name == name)
        cause = "computed in float32 somewhere?" if dtype.itemsize < block.dtype.itemsize else "the dtype is not kept"
        seen.breaches.append(f"the gradient of {name} has dtype {dtype} for parameters of dtype {block.dtype}: {cause}")
    return seen


def _elsewhere(problem: Problem, x: Array, rng: np.random.Generator) -> tuple[tuple[Array, Array] | None, Any]:
    """Call both at another point, the further from x0 the better; return it, the gradient, and the value there."""
    for reach in (0.3, 1e-3, 1e-6):
        point = _with_signs(point_near(x, reach, rng), problem)
        try:
            value = problem.finite_value(point)
            gradient = problem.gradient(point)
        except Exception:  # noqa: BLE001 - outside the domain anything may come; x0 itself is what counts
            continue
        return (point, gradient), value
    return None, None


def _with_signs(point: Array, problem: Problem) -> Array:
    """Keep arrays positive that are positive at x0, or negative: their function may be meant for no other numbers."""
    for block in problem.packing.blocks:
        part = problem.packing.x0[block.span]
        if (part >= 0).all() or (part <= 0).all():
            point[block.span] = np.copysign(point[block.span], part.sum() or 1.0)
    return point


def _repeatable(seen: Contracts, value: Any, again: Any, gradient: Array, gradient_again: Array, eps: float) -> None:
    """Compare the first and the last call at x0."""
    if value != again:
        if abs(value - again) > 64 * eps * abs(value):
            seen.unusable = (
                f"fun is not repeatable: two calls at x0 gave {value!s} and {again!s} (random numbers, dropout, or "
                "state kept from the call before?); fix the seed inside fun"
            )
            return
        seen.notes.append(f"fun repeats to rounding only: {float(abs(value - again)):.1e} apart at one point")
    if np.array_equal(gradient, gradient_again):
        return
    size = float(np.abs(gradient).max())
    change = np.abs(gradient_again - gradient)
    if float(change.max()) <= 64 * eps * size:
        seen.notes.append(f"grad repeats to rounding only: {float(change.max()):.1e} apart at one point")
        return
    # Three calls lie behind, so a sum of all of them is what an accumulating gradient shows.
    seen.comparable = False
    ratio = float(gradient_again @ gradient) / float(gradient @ gradient) if size else np.inf
    if 1.5 < ratio < 8:
        seen.breaches.append(
            f"the gradient is accumulated over calls: the third call gave about {ratio:.2g} times the first at the "
            "same x; set it to zero, or replace it, in each call"
        )
    else:
        seen.breaches.append(
            "the gradient is not repeatable: two calls at the same x differ (random numbers, or something kept from "
            "the call before: a stale cache?)"
        )


def _equal(arrays: list[Array], kept: list[Array]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, kept, strict=True))
