"""`check_gradient` and `check_hessian_product`: the checks of any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from matbackprop.gradcheck.causes import Hypothesis
from matbackprop.gradcheck.engine import run
from matbackprop.gradcheck.packing import Packing
from matbackprop.gradcheck.problem import Problem
from matbackprop.gradcheck.report import GradientReport, Verdict
from matbackprop.validation import as_rng, as_tolerance, describe

__all__ = ["check_gradient", "check_hessian_product", "combined"]


def check_gradient(
    fun: Callable[..., Any],
    grad: Any = None,
    x0: Any = None,
    *,
    hessp: Callable[..., Any] | None = None,
    rng: int | np.random.Generator | None = None,
    tolerance: float | None = None,
    method: str = "auto",
    per_entry: bool = False,
    name: str | None = None,
) -> GradientReport:
    """Check a gradient against the function that it should be the gradient of.

    A gradient that is right takes about 25 evaluations of `fun` and 7 of `grad` by complex steps, 100 and 8 by
    differences, however many parameters there are; a wrong one takes more, to find where and why. There is nothing to
    tune: the derivative is taken by complex steps where `fun` can take them and by extrapolated differences where it
    cannot, and the tolerance follows from rounding, as measured.

    Parameters
    ----------
    fun : callable
        ``fun(x) -> float``. Without `grad`, ``fun(x) -> (float, gradient)``, as SciPy's ``jac=True`` has it. A torch
        function or module is taken too (see `matbackprop.gradcheck.torch_adapter`).
    grad : callable, optional
        ``grad(x) -> gradient``, of the form of `x0`.
    x0 : array_like, or dict, list or tuple of such
        Where to check. A point without zeros and without symmetry shows the most. ``check_gradient(fun, x0)`` is
        short for ``check_gradient(fun, None, x0)``.
    hessp : callable, optional
        ``hessp(x, p)``, the Hessian times p, as SciPy's trust-region methods want it: checked too, see
        `check_hessian_product`.
    rng : int, numpy.random.Generator or None, keyword-only
        For the random directions.
    tolerance : float, optional
        The relative error of an entry that is let pass, in place of the derived one; of entries below a thousandth of
        the largest, relative to that. One below what rounding allows to see is noted.
    method : {"auto", "complex", "differences"}
    per_entry : bool, default False
        Compare every entry by itself, at P evaluations of `fun` or more.
    name : str, optional
        What the report calls it.

    Returns
    -------
    GradientReport
        With a `verdict`: PASS, FAIL, PRECISION LOSS or INCONCLUSIVE.

    Raises
    ------
    TypeError, ValueError
        If an argument is unusable: no callable; an x0 of integers, of nothing, or not finite; a `fun` that returns a
        vector, an integer or None.

    Examples
    --------
    >>> import matbackprop as mb
    >>> def fun(x):
    ...     return np.sum(np.sin(x) ** 2)
    >>> bool(mb.check_gradient(fun, lambda x: np.sin(2 * x), np.array([0.3, 1.0, -2.0]), rng=0))
    True
    >>> report = mb.check_gradient(fun, lambda x: np.sin(x), np.array([0.3, 1.0, -2.0]), rng=0)
    >>> report.verdict, report.findings[0].where
    (<Verdict.FAIL: 'FAIL'>, 'x[0]')
    """
    if x0 is None and grad is not None and not callable(grad) and grad is not True:
        grad, x0 = None, grad
    grad = None if grad is True else grad
    name = name or _name(grad or fun)
    generator = as_rng(rng, "check_gradient: rng")
    tolerance = as_tolerance(tolerance, "check_gradient: tolerance")
    if _is_torch(fun, x0):
        from matbackprop.gradcheck.torch_adapter import adapt

        fun, grad, x0 = adapt(fun, grad, x0, generator)
    if x0 is None:
        raise TypeError("check_gradient: x0 is missing; call check_gradient(fun, grad, x0)")
    problem = Problem(fun, grad, x0)
    report = check_problem(problem, generator, tolerance, method, per_entry, name, hessp=hessp)
    if report and not problem.packing.x0.any():
        report.notes.append("x0 is zero throughout, where mistakes in products do not show; give random numbers")
    return report


def check_problem(
    problem: Problem,
    rng: np.random.Generator,
    tolerance: float | None = None,
    method: str = "auto",
    per_entry: bool = False,
    name: str = "gradient",
    hypotheses: Sequence[Hypothesis] = (),
    hessp: Callable[..., Any] | None = None,
) -> GradientReport:
    """Run the checks that were asked for on a problem that is already put together."""
    report = run(problem, rng, tolerance=tolerance, method=method, name=name, hypotheses=hypotheses)
    if per_entry and report.verdict is Verdict.PASS:
        from matbackprop.gradcheck.numerical import compare_entries

        report = compare_entries(problem, report, rng, tolerance, method)
    if hessp is None:
        return report
    x0 = problem.packing.unpack(problem.packing.x0.copy())
    second = check_hessian_product(problem.gradient_at, hessp, x0, rng=rng, tolerance=tolerance, method=method)
    return combined([report, second], name)


def check_hessian_product(
    grad: Callable[..., Any],
    hessp: Callable[..., Any],
    x0: Any,
    *,
    rng: int | np.random.Generator | None = None,
    tolerance: float | None = None,
    method: str = "auto",
) -> GradientReport:
    """Check a Hessian-vector product against the gradient that it should come from.

    H w is the gradient of ∇f·w, so it is checked as one, for two random w; that H is symmetric and the product linear
    in w is part of that.

    Parameters
    ----------
    grad : callable
        ``grad(x) -> gradient``; right, or checked before.
    hessp : callable
        ``hessp(x, p) -> H(x) p``, of the form of `x0`.
    x0 : array_like, or dict, list or tuple of such
    rng, tolerance, method
        As in `check_gradient`.

    Returns
    -------
    GradientReport

    Examples
    --------
    >>> from scipy.optimize import rosen_der, rosen_hess_prod
    >>> from matbackprop.gradcheck import check_hessian_product
    >>> bool(check_hessian_product(rosen_der, rosen_hess_prod, np.array([0.5, -1.0, 2.0]), rng=0))
    True
    """
    generator = as_rng(rng, "check_hessian_product: rng")
    tolerance = as_tolerance(tolerance, "check_hessian_product: tolerance")
    if not callable(hessp):
        raise TypeError(f"check_hessian_product: hessp must be callable, got {describe(hessp)}")
    packing = Packing(x0)
    reports = []
    for number in (1, 2):
        w = generator.uniform(0.5, 1.5, packing.size) * generator.choice((-1.0, 1.0), packing.size)
        w = w.astype(packing.dtype)

        def along(x: Any, w: Any = w) -> Any:
            flat = np.concatenate([np.asarray(part).reshape(-1) for _, part in packing.arrays(grad(x))])
            return np.add.reduce(flat * w)

        def product(x: Any, w: Any = w) -> Any:
            return hessp(x, packing.unpack(w.copy()))  # which may return it

        reports.append(
            run(
                Problem(along, product, x0),
                generator,
                tolerance=tolerance,
                method=method,
                name=f"hessp, random vector {number}",
            )
        )
    return combined(reports, "Hessian-vector product")


def combined(parts: list[GradientReport], name: str) -> GradientReport:
    """Return one report for several: the worst verdict, and the details of the part that has it."""
    order = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PRECISION_LOSS, Verdict.PASS]
    worst = min(parts, key=lambda part: order.index(part.verdict))
    where = "" if worst.verdict is Verdict.PASS else f"{worst.name}: "
    weakest = max(parts, key=lambda part: part.entry_resolution if np.isfinite(part.entry_resolution) else -1.0)
    return GradientReport(
        worst.verdict,
        resolution=(f"{weakest.name}: {weakest.resolution}" if weakest.resolution else "")
        if not where
        else worst.resolution,
        findings=worst.findings,
        cause=f"{where}{worst.cause}" if worst.cause else "",
        reason=f"{where}{worst.reason}" if worst.reason else "",
        notes=list(dict.fromkeys(worst.notes)),
        name=name,
        parameters=worst.parameters,
        size=worst.size,
        method=worst.method,
        entry_resolution=weakest.entry_resolution,
        factor_resolution=weakest.factor_resolution,
        deviation=worst.deviation,
        fun_calls=sum(part.fun_calls for part in parts),
        grad_calls=sum(part.grad_calls for part in parts),
        seconds=sum(part.seconds for part in parts),
        parts=parts,
        probe=worst.probe,
    )


def _is_torch(fun: object, x0: object) -> bool:
    """Return whether torch is what was handed in, without importing it."""

    def ours(value: object) -> bool:
        return any(cls.__module__.partition(".")[0] == "torch" for cls in type(value).__mro__)

    if isinstance(x0, dict):
        x0 = list(x0.values())
    return ours(fun) or ours(x0) or (isinstance(x0, (list, tuple)) and any(map(ours, x0)))


def _name(function: object) -> str:
    name = getattr(function, "__name__", None) or type(function).__name__
    return "gradient" if name == "<lambda>" else name
