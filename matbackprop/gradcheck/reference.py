"""Which reference a function allows: complex steps if one real difference bears them out, else real differences."""

from __future__ import annotations

import numpy as np

from matbackprop.gradcheck.differences import Differences
from matbackprop.gradcheck.directional import ComplexStep, Reference
from matbackprop.gradcheck.nearby import point_near, sizes, typical
from matbackprop.gradcheck.problem import EvaluationError, Problem
from matbackprop.validation import Array

__all__ = ["choose", "wrong_where_it_shows"]


#: A real difference that knows its value to this relative error can bear out a complex step. By hand: a step that drops
#: imaginary parts is seldom wrong by as little.
CONFIRMED = 1e-5
#: A quick difference says nothing where it allows for more than this part of the terms: rounding is most of it.
VAGUE = 1e-3


def choose(
    problem: Problem, x: Array, gradient: Array, u: Array, value: float, method: str = "auto"
) -> tuple[Reference, list[str]]:
    """Return the reference to hold the gradient to, with notes on the choice.

    Parameters
    ----------
    problem : Problem
    x, gradient, u : numpy.ndarray, shape (P,)
        The point, the gradient there, and a direction to try.
    value : float
        fun at `x`.
    method : {"auto", "complex", "differences"}

    Raises
    ------
    ValueError
        If `method` is none of these.
    EvaluationError
        If "complex" is asked for and fun does not take it.
    """
    if method not in ("auto", "complex", "differences"):
        raise ValueError(f"check_gradient: method is 'auto', 'complex' or 'differences', got {method!r}")
    if method == "differences":
        return Differences(problem), []
    step = ComplexStep(problem)
    try:
        derivative = step.derivative(x, u).value
    except (EvaluationError, TypeError) as error:
        if method == "complex":
            raise
        return Differences(problem), [f"no complex step: {_first_line(error)}"]
    if method == "complex":
        return step, []
    terms = float(np.linalg.norm(gradient.astype(np.float64) * u)) + abs(derivative)
    if terms and not derivative and problem.packing.eps > 1e-12:
        return Differences(problem), ["no complex step: it gives exactly zero (complex64 inside, which holds none?)"]
    if _agrees_with_one_difference(problem, x, u, value, derivative, terms):
        return step, []
    differences = Differences(problem)
    if not _has_digits(differences, x, u, derivative) and wrong_where_it_shows(problem, step, x, u):
        return differences, [
            "no complex step: away from x0, where real differences have more digits, they contradict it"
        ]
    try:
        real = differences.derivative(x, u)
    except EvaluationError as error:
        return step, [f"the complex step could not be confirmed by a real difference: {_first_line(error)}"]
    if abs(real.value - derivative) <= 3 * real.error + 1e-9 * terms:
        return step, []
    # Where the complex step is wrong, it is wrong everywhere; a kink near x0 misleads the difference at x0 alone.
    if _agrees_next_to(problem, step, x, u, terms):
        if real.kink is None:
            return step, []
        left, right = real.kink
        note = (
            f"x0 lies on a kink (along a random direction the slope is {left:.6g} on the left, {right:.6g} on the "
            "right); the reference is the branch that fun itself takes at x0"
        )
        return step, [note]
    if not real.error < VAGUE * terms:
        return step, ["the complex step could not be confirmed by a real difference: no step size gives a stable one"]
    note = (
        f"no complex step: it gives {derivative:.6g} where a real difference gives {real.value:.6g} (abs, norm, conj "
        "or a comparison of complex numbers inside?)"
    )
    return differences, [note]


def _agrees_with_one_difference(
    problem: Problem, x: Array, u: Array, value: float, derivative: float, terms: float
) -> bool:
    """Compare with a central difference, by steps in proportion to the typical entry of x, else to each by itself."""
    wide = x.astype(np.result_type(x.dtype, np.float64))
    each = (sizes(wide), np.where(wide != 0, np.abs(wide), typical(wide)))
    return any(_agrees_with_steps(problem, x, u, value, derivative, terms, size) for size in each)


def _agrees_with_steps(
    problem: Problem, x: Array, u: Array, value: float, derivative: float, terms: float, size: Array
) -> bool:
    """Compare with a difference at two step sizes, the smaller to use and the larger to judge it by."""
    wide = x.astype(np.result_type(x.dtype, np.float64))
    steps = (2.0**-16 / float(np.max(np.abs(u) / size)), 2.0**-18 / float(np.max(np.abs(u) / size)))
    try:
        differences = [(problem.value(wide + h * u) - problem.value(wide - h * u)) / (2 * h) for h in steps]
    except (EvaluationError, TypeError):
        return False
    rounding = 16 * float(np.finfo(np.float64).eps) * abs(value) / steps[1]
    allowed = 2 * abs(differences[0] - differences[1]) + rounding + 1e-8 * terms
    return bool(abs(differences[1] - derivative) <= allowed) and bool(allowed < VAGUE * terms)


def _has_digits(differences: Differences, x: Array, u: Array, derivative: float) -> bool:
    """Return whether a real difference at x can bear out a complex step, or contradict it."""
    try:
        return differences.derivative(x, u).error < CONFIRMED * abs(derivative)
    except EvaluationError:
        return True  # and what that means is said elsewhere


def wrong_where_it_shows(problem: Problem, step: ComplexStep, x: Array, u: Array) -> bool:
    """Return whether real differences contradict the complex step away from x, if at x they are too noisy to tell.

    At x a part of fun that drops imaginary parts, such as a log-determinant, may be drowned by the rounding of another.
    """
    rng, differences, wrong = np.random.default_rng(x.size), Differences(problem), 0
    for reach in (0.1, 0.3, 1.0, 1.0, 3.0, 3.0):
        point = point_near(x, reach, rng)
        try:
            derivative, real = step.derivative(point, u).value, differences.derivative(point, u)
        except (EvaluationError, TypeError):
            continue
        digits = real.kink is None and real.error < CONFIRMED * (abs(real.value) + abs(derivative))
        wrong += digits and abs(real.value - derivative) > 100 * real.error
        if wrong == 2:
            return True
    return False


def _agrees_next_to(problem: Problem, step: ComplexStep, x: Array, u: Array, terms: float) -> bool:
    """Return whether the complex step is borne out at points off the kink."""
    rng = np.random.default_rng(x.size)
    for _ in range(3):
        point = point_near(x, 1e-2, rng)
        try:
            derivative, value = step.derivative(point, u).value, float(problem.value(point))
        except (EvaluationError, TypeError):
            continue
        if _agrees_with_one_difference(problem, point, u, value, derivative, terms):
            return True
    return False


def _first_line(error: Exception) -> str:
    text = str(error).split("\n", 1)[0]
    return text if len(text) <= 160 else text[:157] + "..."
