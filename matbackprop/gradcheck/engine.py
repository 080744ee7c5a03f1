"""One check: contracts, then numbers at x0, then a look at another point."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from matbackprop.gradcheck.causes import Hypothesis
from matbackprop.gradcheck.contracts import Contracts, examine
from matbackprop.gradcheck.measure import dot, equalised
from matbackprop.gradcheck.problem import BadGradient, EvaluationError, Problem
from matbackprop.gradcheck.reference import choose
from matbackprop.gradcheck.report import Finding, GradientReport, Reason, Verdict
from matbackprop.gradcheck.verdict import Case, judge
from matbackprop.gradcheck.wording import form_text, point_text
from matbackprop.validation import Array

__all__ = ["run"]

ELSEWHERE = (
    "right at x0, wrong at another point: a mistake that x0 hides, or something kept from an earlier call (a stale "
    "cache?)"
)


def run(
    problem: Problem,
    rng: np.random.Generator,
    *,
    tolerance: float | None = None,
    method: str = "auto",
    name: str = "gradient",
    hypotheses: Sequence[Hypothesis] = (),
    account: bool = True,
) -> GradientReport:
    """Check the gradient of `problem` at its x0, and return the report.

    `account` says whether a failure is looked into: which entries, and why.

    Raises
    ------
    TypeError
        If fun returns something that is no scalar.
    """
    start = time.perf_counter()
    options = {"tolerance": tolerance, "method": method, "hypotheses": hypotheses, "account": account}
    try:
        with np.errstate(all="ignore"):  # what overflows is judged, not warned of
            report = _check(problem, rng, options)
    except EvaluationError as error:
        report = GradientReport(
            Verdict.INCONCLUSIVE,
            reason=f"{error}, at {point_text(problem.packing, error.point)}",
            reason_code=error.reason,
        )
        report.__cause__ = error.__cause__  # type: ignore[attr-defined]
    except BadGradient as error:
        place, index = error.where or ("", ())
        cause = "the gradient is not finite here" if error.where else str(error)
        finding = Finding(place, index, None, error.got, f"{error.got}" if error.where else str(error))
        report = GradientReport(Verdict.FAIL, findings=[finding], cause=cause)
        if error.where:
            report.notes.append(str(error))
    report.name, report.parameters, report.size = name, form_text(problem.packing), problem.packing.size
    report.fun_calls, report.grad_calls = problem.fun_calls, problem.grad_calls
    report.seconds = time.perf_counter() - start
    return report


def _check(problem: Problem, rng: np.random.Generator, options: dict[str, Any]) -> GradientReport:
    contracts = examine(problem, rng)
    breaches = [Finding("", (), None, None, breach) for breach in contracts.breaches]
    if contracts.unusable:
        return GradientReport(
            Verdict.INCONCLUSIVE,
            reason=contracts.unusable,
            reason_code=Reason.NOT_REPEATABLE,
            notes=contracts.notes,
        )
    if not contracts.comparable:
        return GradientReport(Verdict.FAIL, findings=breaches, cause=breaches[0].cause, notes=contracts.notes)
    case, report = _compare(problem, rng, contracts, options)
    if report.verdict is Verdict.PASS and contracts.elsewhere and not _right_elsewhere(case, *contracts.elsewhere):
        _look_elsewhere(case, contracts.elsewhere[0], report, options)
    if breaches:
        rounding = bool(problem.cast)  # of which wrong digits are only a consequence
        report.cause = breaches[0].cause + (f"; {report.cause}" if report.cause and not rounding else "")
        report.verdict, report.reason, report.reason_code = Verdict.FAIL, "", None
    report.findings = breaches + report.findings
    return report


def _compare(
    problem: Problem, rng: np.random.Generator, contracts: Contracts, options: dict[str, Any]
) -> tuple[Case, GradientReport]:
    """Compare the gradient with a reference at x0."""
    x, gradient = problem.packing.x0, contracts.gradient
    u = equalised(gradient, rng)
    reference, notes = choose(problem, x, gradient, u, contracts.value, options["method"])
    case = Case(problem, rng, x, gradient, reference, [*contracts.notes, *notes], **options)
    if contracts.constant and not gradient.any():
        reason = "fun does not change with x0, and the gradient is zero: there is nothing to compare"
        return case, case.inconclusive(Reason.CONSTANT, reason)
    return case, judge(case)


def _right_elsewhere(case: Case, x: Array, gradient: Array) -> bool:
    """Return whether the gradient is right, if only roughly, at the other point that it was asked for before."""
    u = equalised(gradient, case.rng, floor=0.1)
    try:
        found = case.reference.derivative(x, u)
    except EvaluationError:
        return True
    terms = float(np.linalg.norm(gradient.astype(np.float64) * u))
    return found.kink is not None or not abs(found.value - dot(gradient, u)) > 0.05 * terms + 4 * found.error


def _look_elsewhere(case: Case, x: Array, report: GradientReport, options: dict[str, Any]) -> None:
    """Check in full at the other point, and let the report fail if that does."""
    problem = copy.copy(case.problem)
    problem.packing = copy.copy(problem.packing)
    problem.packing.x0 = x
    try:
        there = Contracts(float(problem.finite_value(x).real), problem.gradient(x))
        _, found = _compare(problem, case.rng, there, options)
    except (EvaluationError, BadGradient):
        return
    case.problem.fun_calls, case.problem.grad_calls = problem.fun_calls, problem.grad_calls
    if found.verdict is Verdict.FAIL:
        report.verdict, report.findings = Verdict.FAIL, found.findings
        report.cause = ELSEWHERE + (f"; there, {found.cause}" if found.cause else "")
        report.notes.append("the entries are those at the other point")
