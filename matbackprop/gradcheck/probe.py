"""The numbers behind a report's pictures, computed when they are asked for."""

from __future__ import annotations

import numpy as np

from matbackprop.gradcheck.directional import Reference
from matbackprop.gradcheck.measure import Measurement
from matbackprop.gradcheck.problem import EvaluationError, Problem
from matbackprop.validation import Array

__all__ = ["probe"]

#: So many entries are shown.
SHOWN = 200


def probe(
    problem: Problem,
    reference: Reference,
    gradient: Array,
    found: Measurement,
    limit: float,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Return the Taylor remainder along the worst direction, and expected and got of some entries.

    Returns
    -------
    dict
        "steps" and "remainder", |f(x + tu) - f(x) - t g·u|; "expected", "got" and "wrong", one number for each entry.
    """
    x = problem.packing.x0
    u = found.directions[found.worst]
    unit = u / float(np.abs(u).max())
    steps = np.logspace(-7, -0.5, 27)
    remainder = np.array([_remainder(problem, x, unit, t, float(gradient @ unit)) for t in steps])
    chosen = np.sort(rng.choice(gradient.size, min(gradient.size, SHOWN), replace=False))
    expected = np.array([reference.derivative(x, np.eye(1, x.size, int(i))[0]).value for i in chosen])
    got = gradient[chosen].astype(np.float64)
    wrong = np.abs(expected - got) > limit * found.unit
    return {"steps": steps, "remainder": remainder, "expected": expected, "got": got, "wrong": wrong}


def _remainder(problem: Problem, x: Array, u: Array, step: float, slope: float) -> float:
    try:
        moved = problem.value((x + step * u).astype(x.dtype))
        return abs(float(moved) - float(problem.value(x)) - step * slope)
    except EvaluationError:
        return float("nan")
