"""Numeric gradients, entry by entry, each with an estimate of its error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from matbackprop.gradcheck.directional import STEP, ComplexStep
from matbackprop.gradcheck.problem import Problem, no_gradient
from matbackprop.gradcheck.reference import choose
from matbackprop.gradcheck.report import Finding, GradientReport, Verdict
from matbackprop.validation import Array, as_rng

__all__ = ["NumericalGradient", "compare_entries", "numerical_gradient"]


class NumericalGradient(NamedTuple):
    """A numeric gradient and an estimate of the error of each entry, both in the form of x0."""

    gradient: Any
    error: Any


def numerical_gradient(
    fun: Callable[..., Any],
    x0: Any,
    *,
    method: str = "auto",
    batched: Callable[[Array], Array] | None = None,
    rng: int | np.random.Generator | None = None,
) -> NumericalGradient:
    """Return the gradient of `fun` at `x0` from its values alone, with an estimate of each entry's error.

    By complex steps, one evaluation an entry, exact to rounding; by extrapolated differences, about 20 to 30 an entry,
    where `fun` cannot take those.

    Parameters
    ----------
    fun : callable
        ``fun(x) -> float``.
    x0 : array_like, or dict, list or tuple of such
    method : {"auto", "complex", "differences"}
    batched : callable, optional
        ``batched(points) -> values``: fun at the rows of `points`, shape (B, P), complex; used in place of single
        complex steps. `matbackprop.gradcheck.model_values` makes one of a model.
    rng : int, numpy.random.Generator or None, keyword-only

    Returns
    -------
    NumericalGradient
        ``(gradient, error)``. The error is an estimate from above; NaN-free wherever `fun` is.

    Examples
    --------
    >>> import matbackprop as mb
    >>> gradient, error = mb.numerical_gradient(lambda x: np.sum(x**3), np.array([1.0, 2.0]), rng=0)
    >>> gradient
    array([ 3., 12.])
    >>> bool((error < 1e-12).all())
    True
    """
    problem = Problem(fun, no_gradient, x0)
    generator = as_rng(rng, "numerical_gradient: rng")
    gradient, error = flat_gradient(problem, generator, method, batched)
    packing = problem.packing
    # In the type of the reference: a float32 x0 gets a float64 gradient.
    return NumericalGradient(packing.unpack(gradient), packing.unpack(error))


def flat_gradient(
    problem: Problem,
    rng: np.random.Generator,
    method: str = "auto",
    batched: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """Return the numeric gradient and its estimated errors as flat vectors."""
    x = problem.packing.x0
    if batched is not None:
        gradient = batched_steps(batched, x)
        return gradient, _rounding(gradient, np.finfo(np.float64).eps)
    value = float(problem.finite_value(x))
    u = rng.choice((-1.0, 1.0), x.size) * rng.uniform(0.5, 1.5, x.size)
    reference, _ = choose(problem, x, np.ones(x.size), u, value, method)
    gradient, error = np.empty(x.size), np.empty(x.size)
    u = np.zeros(x.size)
    for i in range(x.size):
        u[i] = 1.0
        derivative = reference.derivative(x, u)
        gradient[i], error[i] = derivative.value, derivative.error
        u[i] = 0.0
    if isinstance(reference, ComplexStep):
        error = _rounding(gradient, np.finfo(np.float64).eps) + _replayed(problem, reference, gradient, rng)
    return gradient, error


def _rounding(gradient: Array, eps: float) -> Array:
    """Return the error that rounding leaves in a complex step: a few units of the entry, and of the largest."""
    bound: Array = 32 * eps * np.abs(gradient) + 4 * eps * float(np.abs(gradient).max())
    return bound


def _replayed(problem: Problem, reference: ComplexStep, gradient: Array, rng: np.random.Generator) -> float:
    """Return what rounding does beyond that: how far some entries move when x moves by rounding."""
    chosen = rng.choice(gradient.size, min(gradient.size, 8), replace=False)
    moves = []
    for i in chosen:
        u = np.zeros(gradient.size)
        u[i] = 1.0
        moves += [abs(reference.derivative(problem.packing.jitter(rng, 3.0), u).value - gradient[i]) for _ in range(2)]
    return 8 * float(max(moves))


def batched_steps(batched: Callable[[Array], Array], x: Array, block: int = 1 << 22) -> Array:
    """Return the gradient by complex steps of all entries, as many points at once as fit in `block` numbers."""
    h, count = STEP, max(1, block // x.size)
    gradient = np.empty(x.size)
    for start in range(0, x.size, count):
        stop = min(start + count, x.size)
        points = np.repeat(x[None].astype(np.complex128), stop - start, axis=0)
        points[np.arange(stop - start), np.arange(start, stop)] += 1j * h
        gradient[start:stop] = batched(points).imag / h
    return gradient


def compare_entries(
    problem: Problem, report: GradientReport, rng: np.random.Generator, tolerance: float | None, method: str
) -> GradientReport:
    """Return the report after a comparison of every entry by itself, to its resolution or to `tolerance`."""
    expected, error = flat_gradient(problem, rng, method)
    got = problem.gradient(problem.packing.x0)
    size = np.maximum(np.abs(expected), 1e-3 * float(np.abs(expected).max()))
    allowed = np.nan_to_num(report.entry_resolution) if tolerance is None else tolerance
    limit = 4 * error + (allowed + 64 * problem.packing.eps) * size
    wrong = np.flatnonzero(~(np.abs(expected - got) <= limit))
    report.fun_calls, report.grad_calls = problem.fun_calls, problem.grad_calls
    report.notes.append(f"every one of the {got.size} entries was compared by itself")
    if wrong.size:
        report.verdict, report.cause = Verdict.FAIL, f"{wrong.size} entries are wrong by themselves"
        report.findings += [
            Finding(*problem.packing.locate(int(i)), float(expected[i]), float(got[i]), report.cause) for i in wrong[:8]
        ]
    return report
