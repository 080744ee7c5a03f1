"""The check itself: contracts, a reference, residuals against measured rounding, and on a failure the second look."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from matbackprop.gradcheck.causes import Hypothesis, explain
from matbackprop.gradcheck.contracts import Contracts, examine
from matbackprop.gradcheck.differences import ComplexStep, Differences, Reference
from matbackprop.gradcheck.measure import Measurement, dot, equalised, measure
from matbackprop.gradcheck.probe import probe
from matbackprop.gradcheck.problem import BadGradient, EvaluationError, Problem
from matbackprop.gradcheck.reference import choose
from matbackprop.gradcheck.report import Finding, GradientReport, Verdict, words
from matbackprop.gradcheck.second_look import kink_at, kink_text, lost_precision
from matbackprop.validation import Array

__all__ = ["run"]

#: Random directions, and points that differ by rounding, of a check by complex steps.
DIRECTIONS, REPLAYS = 4, 3
#: Further points before a failure is believed.
SECOND_REPLAYS = 8
#: A noise of g·u above this part of its terms is half of the digits gone.
HALF_THE_DIGITS = 1 / 16
ELSEWHERE = (
    "right at x0, wrong at another point: something kept from an earlier call (a stale cache?), or a mistake that x0 "
    "hides"
)
#: Beyond this relative error a check that sees nothing has shown nothing.
BLIND = 1e-2


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
    try:
        report = _Check(problem, rng, tolerance, method, hypotheses, account).run()
    except EvaluationError as error:
        report = GradientReport(Verdict.INCONCLUSIVE, reason=f"{error}, at {_point(problem, error.point)}")
        report.__cause__ = error.__cause__  # type: ignore[attr-defined]
    except BadGradient as error:
        place, index = error.where or ("", ())
        cause = "the gradient is not finite here" if error.where else str(error)
        finding = Finding(place, index, None, error.got, f"{error.got}" if error.where else str(error))
        report = GradientReport(Verdict.FAIL, findings=[finding], cause=cause)
        if error.where:
            report.notes.append(str(error))
    report.name, report.parameters, report.size = name, _form(problem), problem.packing.size
    report.fun_calls, report.grad_calls = problem.fun_calls, problem.grad_calls
    report.seconds = time.perf_counter() - start
    return report


class _Check:
    """One check at one point."""

    def __init__(
        self,
        problem: Problem,
        rng: np.random.Generator,
        tolerance: float | None,
        method: str,
        hypotheses: Sequence[Hypothesis],
        account: bool,
    ) -> None:
        self.problem, self.rng, self.tolerance, self.method = problem, rng, tolerance, method
        self.hypotheses, self.account = hypotheses, account
        self.x = problem.packing.x0
        self.notes: list[str] = []

    def run(self) -> GradientReport:
        contracts = examine(self.problem, self.rng)
        self.notes += contracts.notes
        breaches = [Finding("", (), None, None, breach) for breach in contracts.breaches]
        if contracts.unusable:
            return GradientReport(Verdict.INCONCLUSIVE, reason=contracts.unusable, notes=self.notes)
        if not contracts.comparable:
            return GradientReport(Verdict.FAIL, findings=breaches, cause=breaches[0].cause, notes=self.notes)
        report = self._numbers(contracts)
        if report.verdict is Verdict.PASS and not self._right_elsewhere(contracts):
            self._look_elsewhere(contracts, report)
        if breaches:
            rounding = bool(self.problem.cast)  # of which wrong digits are only a consequence
            report.cause = breaches[0].cause + (f"; {report.cause}" if report.cause and not rounding else "")
            report.verdict, report.reason = Verdict.FAIL, ""
        report.findings = breaches + report.findings
        return report

    def _numbers(self, contracts: Contracts) -> GradientReport:
        """Compare the gradient with the reference."""
        self.gradient = contracts.gradient
        if contracts.constant and not self.gradient.any():
            return self._inconclusive(
                "fun does not change with x0, and the gradient is zero: there is nothing to compare"
            )
        u = equalised(self.gradient, self.rng)
        self.reference, notes = choose(self.problem, self.x, self.gradient, u, contracts.value, self.method)
        self.notes += notes
        directions = [self._equalised() for _ in range(DIRECTIONS)]
        found = self._measure(self.reference, self.gradient, directions)
        tolerance = self._limit(found)
        if not self.gradient.any() and not found.expected.any():
            return self._inconclusive(
                "the gradient is zero here, and so is the derivative: a wrong gradient may be zero too; choose another "
                "x0"
            )
        if found.deviation <= tolerance:
            if found.kinks:
                return self._inconclusive(kink_text(found.kinks[0]))
            return self._agrees(found, tolerance)
        return self._disagrees(found)

    def _right_elsewhere(self, contracts: Contracts) -> bool:
        """Return whether the gradient is right, if only roughly, at the other point that it was asked for before."""
        if contracts.elsewhere is None:
            return True
        x, gradient = contracts.elsewhere
        u = equalised(gradient, self.rng, floor=0.1)
        try:
            found = self.reference.derivative(x, u)
        except EvaluationError:
            return True
        terms = float(np.linalg.norm(gradient.astype(np.float64) * u))
        return found.kink is not None or not abs(found.value - dot(gradient, u)) > 0.05 * terms + 4 * found.error

    def _look_elsewhere(self, contracts: Contracts, report: GradientReport) -> None:
        """Check in full at the other point, and let the report fail if that does."""
        assert contracts.elsewhere is not None
        problem = copy.copy(self.problem)
        problem.packing = copy.copy(problem.packing)
        problem.packing.x0 = contracts.elsewhere[0]
        there = _Check(problem, self.rng, self.tolerance, self.method, self.hypotheses, self.account)
        try:
            found = there._numbers(Contracts(float(problem.finite_value(there.x).real), problem.gradient(there.x)))
        except (EvaluationError, BadGradient):
            return
        self.problem.fun_calls, self.problem.grad_calls = problem.fun_calls, problem.grad_calls
        if found.verdict is Verdict.FAIL:
            report.verdict, report.findings = Verdict.FAIL, found.findings
            report.cause = ELSEWHERE + (f"; there, {found.cause}" if found.cause else "")
            report.notes.append("the entries are those at the other point")

    def _measure(self, reference: Reference, gradient: Array, directions: list[Array], extra: int = 0) -> Measurement:
        replay = isinstance(reference, ComplexStep)
        packing = self.problem.packing
        if replay:
            ulps = [3.0] * REPLAYS + [(4.0, 64.0, 1024.0)[i % 3] for i in range(extra)]
            points = [packing.jitter(self.rng, size) for size in ulps]
        else:
            directions = directions[: DIRECTIONS - 1]
            there = [packing.jitter(self.rng, 8.0) for _ in range(2)]
            points = [point for x in there for point in (x, 2 * self.x - x)]
        return measure(self.problem, reference, self.x, gradient, directions, points, replay)

    def _equalised(self) -> Array:
        return equalised(self.gradient, self.rng, floor=self.reference.floor)

    def _limit(self, found: Measurement) -> float:
        return found.tolerance if self.tolerance is None else self.tolerance

    def _disagrees(self, found: Measurement) -> GradientReport:
        """Look again at what may be rounding, a wrong reference, a kink, lost digits, or an error."""
        if isinstance(self.reference, ComplexStep):
            found = self._measure(self.reference, self.gradient, found.directions, SECOND_REPLAYS)
            if found.lasting <= self._limit(found):
                if found.deviation <= self._limit(found):
                    return self._agrees(found, self._limit(found))
                return self._inconclusive("x0 is within rounding of a kink: the gradient agrees next to it, not at it")
            if self._complex_step_is_wrong(found):
                self.notes.append(
                    "the complex step was dropped: a real difference agrees with the gradient and not with it"
                )
                self.reference = Differences(self.problem)
                directions = [self._equalised() for _ in range(DIRECTIONS)]
                found = self._measure(self.reference, self.gradient, directions)
                if found.deviation <= self._limit(found):
                    return self._agrees(found, self._limit(found))
        if isinstance(self.reference, Differences):
            self._second_opinion(found)
            if found.deviation <= self._limit(found):
                return self._agrees(found, self._limit(found))
        if self.tolerance is not None and self.tolerance < found.lasting <= found.tolerance:
            return self._inconclusive(
                f"the tolerance {self.tolerance:.0e} is below what rounding allows to see here, "
                f"{words(2 * found.tolerance)}"
            )
        kink = kink_at(self.problem, self.reference, self.x, found, self.rng)
        if kink is not None:
            if kink.gradient_fits:
                return self._inconclusive(kink.text)
            self.notes.append(kink.text)
        loss = lost_precision(self.problem, self.reference, self.x, self.gradient, found, self.rng)
        if loss is not None:
            return self._report(Verdict.PRECISION_LOSS, found, self._limit(found), cause=loss)
        blind = 2 * found.tolerance > BLIND * max(1.0, found.terms)
        if not np.isfinite(found.tolerance) or (blind and found.deviation < 100 * found.tolerance):
            return self._inconclusive("the reference has no digits here: rounding is as large as the gradient itself")
        if not self.account:
            return self._report(Verdict.FAIL, found, self._limit(found))
        account = explain(
            self.problem,
            self.reference,
            self.x,
            self.gradient,
            self._limit(found) * found.unit,
            self.rng,
            self.hypotheses,
        )
        report = self._report(Verdict.FAIL, found, self._limit(found), cause=account.cause)
        report.findings = account.findings
        report.notes += account.notes
        return report

    def _second_opinion(self, found: Measurement) -> None:
        """Take the differences again from another first step: what they differ by is error that they did not admit."""
        other = Differences(self.problem, start=0.125 / np.e)
        for k, u in enumerate(found.directions):
            again = other.derivative(self.x, u)
            found.error[k] += again.error / found.unit + abs(again.value / found.unit - found.expected[k, 0])

    def _complex_step_is_wrong(self, found: Measurement) -> bool:
        """Ask a real difference, if it can tell the two apart."""
        if self.method == "complex":
            return False
        u = found.directions[found.worst]
        try:
            real = Differences(self.problem).derivative(self.x, u)
        except (EvaluationError, TypeError):
            return False
        expected, got = found.expected[found.worst, 0], found.got[found.worst, 0]
        value, error = real.value / found.unit, 3 * real.error / found.unit
        slack = error + found.tolerance
        return bool(abs(value - got) <= slack < abs(value - expected))

    def _agrees(self, found: Measurement, tolerance: float) -> GradientReport:
        """The residuals are within the tolerance; say what that is worth."""
        if not np.isfinite(tolerance) or 2 * tolerance > BLIND * max(1.0, found.terms):
            what = (
                "no step size gives a stable derivative"
                if found.error.max() > found.noise
                else "rounding is as large as the gradient"
            )
            return self._inconclusive(f"{what} here: an error below {words(2 * tolerance)} could not have been seen")
        noise = found.noise
        own = noise > HALF_THE_DIGITS * np.sqrt(found.eps) * found.terms and found.noise_of_reference < noise / 5
        if own and found.expected.shape[1] > 1 and self.tolerance is None:
            return self._report(
                Verdict.PRECISION_LOSS,
                found,
                tolerance,
                cause=f"the gradient carries rounding noise of {words(noise / found.terms)}, the function does not: "
                "float32 inside, or a difference of nearly equal numbers such as 1 - a² in saturation",
            )
        return self._report(Verdict.PASS, found, tolerance)

    def _report(self, verdict: Verdict, found: Measurement, tolerance: float, cause: str = "") -> GradientReport:
        entry, factor = 2 * tolerance, tolerance / found.factor if found.factor else np.nan
        return GradientReport(
            verdict,
            resolution=self._resolution(entry, factor, found),
            cause=cause,
            notes=self.notes,
            method=self.reference.name,
            entry_resolution=entry,
            factor_resolution=factor,
            deviation=found.deviation,
            probe=partial(probe, self.problem, self.reference, self.gradient, found, self._limit(found), self.rng),
        )

    def _resolution(self, entry: float, factor: float, found: Measurement) -> str:
        size = np.abs(self.gradient)
        largest = float(size.max())
        if largest == 0:
            return "the gradient is zero throughout"
        if self.gradient.size == 1:
            return f"a relative error above {words(entry)} would have been seen"
        small = int((size < self.reference.floor * largest).sum())
        text = f"a relative error above {words(entry)} in any single entry"
        if small:
            text += f" of at least {self.reference.floor * largest:.0e}"
        if np.isfinite(factor):
            text += f", or above {words(factor)} in all of them at once,"
        text += " would have been seen"
        if small:
            zero = int((size == 0).sum())
            which = f"{small} of {size.size} are smaller" + (f" ({zero} are zero)" if zero else "")
            text += (
                f"; {which}, and there an absolute error above {words(entry * self.reference.floor * largest)} would"
            )
        return text

    def _inconclusive(self, reason: str) -> GradientReport:
        method = getattr(getattr(self, "reference", None), "name", "")
        return GradientReport(Verdict.INCONCLUSIVE, reason=reason, notes=self.notes, method=method)


def _form(problem: Problem) -> str:
    text = repr(problem.packing)
    return text if len(text) <= 60 else text[:57] + "..."


def _point(problem: Problem, x: Array) -> Any:
    """Show a point, cut short, in the names of x0."""
    lines = []
    for block in problem.packing.blocks[:4]:
        part = x[block.span].reshape(block.shape)
        lines.append(
            f"{block.name} = {np.array2string(part, threshold=8, edgeitems=2, precision=6)}".replace("\n", " ")
        )
    return "; ".join(lines) + ("; ..." if len(problem.packing.blocks) > 4 else "")
