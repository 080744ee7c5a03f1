"""From residuals to a verdict: agreement, or on a disagreement whatever else than an error it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from matbackprop.gradcheck.causes import Account, Hypothesis, explain
from matbackprop.gradcheck.differences import Differences
from matbackprop.gradcheck.directional import ComplexStep, Derivative, Reference
from matbackprop.gradcheck.localise import Search
from matbackprop.gradcheck.measure import CHANCE, DEVIATIONS, Measurement, dot, equalised, measure
from matbackprop.gradcheck.nearby import sizes, typical
from matbackprop.gradcheck.probe import probe
from matbackprop.gradcheck.problem import BadGradient, EvaluationError, Problem
from matbackprop.gradcheck.reference import wrong_where_it_shows
from matbackprop.gradcheck.report import GradientReport, Reason, Verdict
from matbackprop.gradcheck.second_look import kink_at, kink_text, lost_precision
from matbackprop.gradcheck.wording import resolution_text, words
from matbackprop.validation import Array

__all__ = ["Case", "judge"]

#: Random directions, and points that differ by rounding, of a check by complex steps.
DIRECTIONS, REPLAYS = 4, 3
#: Further points before a failure that rounding might explain is believed.
SECOND_REPLAYS = 8
#: Where rounding moves no digit of the gradient: how many points are looked at, and how far off, relative to x: half of
#: the digits of float64; from zero, where there is no digit to move, 256 of its units. By hand.
NEIGHBOURS, FURTHER, FURTHER_FROM_ZERO = 6, 2.0**-26, 2.0**-44
#: Where either derivative has moved by more than this part of its terms, there is a kink between: a smooth one moves by
#: about FURTHER times its condition number. By hand.
NEAR = 1e-4
#: A residual of so many tolerances, at most of the points, is no rounding. By hand: what is below has a second look.
CERTAIN = 100.0
#: A noise of g·u above this many square roots of eps, relative to its terms, is half of the digits gone, or nearly.
HALF_THE_DIGITS = 1 / 16
#: Up to this relative error it is usual that a real difference cannot tell: a good one in float64 is off by 1e-10.
SMALL = 1e-8
#: A check that sees nothing has shown nothing where it would not have seen a common factor beyond 1 ± this, which one
#: example of a hundred left out makes, ...
BLIND = 1e-2
#: ... nor one entry off by this part of it, as by one example of a batch of 16.
COARSE = 1 / 16


@dataclass
class Case:
    """A gradient at a point, and what it is held to."""

    problem: Problem
    rng: np.random.Generator
    x: Array
    gradient: Array
    reference: Reference
    notes: list[str]
    tolerance: float | None = None
    method: str = "auto"
    hypotheses: Sequence[Hypothesis] = ()
    account: bool = True

    def measure(self, directions: list[Array] | None = None, extra: int = 0) -> Measurement:
        """Return the residuals along random directions, or along those given, at `extra` points more."""
        if directions is None:
            directions = [equalised(self.gradient, self.rng, floor=self.reference.floor) for _ in range(DIRECTIONS)]
        replay = isinstance(self.reference, ComplexStep)
        packing = self.problem.packing
        if replay:
            ulps = [3.0] * REPLAYS + [(4.0, 64.0, 1024.0)[i % 3] for i in range(extra)]
            points = [packing.jitter(self.rng, size) for size in ulps]
        else:
            directions = directions[: DIRECTIONS - 1]
            there = [packing.jitter(self.rng, 8.0) for _ in range(2)]
            points = [point for x in there for point in (x, 2 * self.x - x)]
        return measure(self.problem, self.reference, self.x, self.gradient, directions, points, replay)

    def limit(self, found: Measurement) -> float:
        """Return the residual that is let pass."""
        return found.tolerance if self.tolerance is None else self.tolerance

    def explain(self, found: Measurement) -> Account:
        """Return the wrong entries and the likely cause."""
        limit = self.limit(found) * found.unit
        search = Search(self.problem, self.reference, self.x, self.gradient, limit, self.rng)
        return explain(search, self.hypotheses, self.tolerance or 0.0)

    def report(self, verdict: Verdict, found: Measurement, cause: str = "") -> GradientReport:
        """Return a report with what the check would have seen."""
        limit = max(self.limit(found), found.tolerance)
        entry, factor = 2 * limit, limit / found.factor if found.factor else np.nan
        return GradientReport(
            verdict,
            resolution=resolution_text(self.gradient, self.reference.floor, entry, factor),
            cause=cause,
            notes=self.notes,
            method=self.reference.name,
            entry_resolution=entry,
            factor_resolution=factor,
            deviation=found.deviation,
            probe=partial(probe, self.problem, self.reference, self.gradient, found, limit, self.rng),
        )

    def inconclusive(self, code: Reason, reason: str) -> GradientReport:
        """Return a report that says why nothing can be said."""
        return GradientReport(
            Verdict.INCONCLUSIVE, reason=reason, reason_code=code, notes=self.notes, method=self.reference.name
        )


def judge(case: Case) -> GradientReport:
    """Return the verdict on a gradient at one point."""
    found = case.measure()
    limit = case.limit(found)
    if limit < found.tolerance:
        case.notes.append(
            f"the tolerance {limit:.0e} is below what rounding allows to see here, {words(2 * found.tolerance)}"
        )
    if found.deviation <= limit:
        report = _agrees(case, found)
        if found.kinks and report.verdict is Verdict.INCONCLUSIVE:
            return case.inconclusive(Reason.KINK, kink_text(found.kinks[0]))
        if found.kinks:
            report.notes.append(kink_text(found.kinks[0]))
        return report
    return _disagrees(case, found)


def _agrees(case: Case, found: Measurement) -> GradientReport:
    """The residuals are within the tolerance; say what that is worth."""
    if not case.gradient.any():
        return case.inconclusive(
            Reason.STATIONARY,
            "the gradient is zero here, and so is the derivative: a wrong gradient may be zero too; choose another x0",
        )
    enough = max(min(BLIND * max(1.0, found.terms), COARSE), 2 * (case.tolerance or 0.0))
    if not 2 * found.tolerance <= enough:
        what = (
            "no step size gives a stable derivative"
            if found.error.max() > found.noise
            else "rounding is as large as the gradient"
        )
        reason = f"{what} here: an error below {words(2 * found.tolerance)} could not have been seen"
        return case.inconclusive(Reason.NO_DIGITS, reason)
    noise = found.noise
    own = noise > HALF_THE_DIGITS * np.sqrt(found.eps) * found.terms and found.noise_of_reference < noise / 5
    if own and found.expected.shape[1] > 1 and case.tolerance is None:
        return case.report(
            Verdict.PRECISION_LOSS,
            found,
            cause=f"the gradient carries rounding noise of {words(noise / found.terms)}, the function does not: "
            "float32 inside, or a difference of nearly equal numbers such as 1 - a² in saturation",
        )
    return case.report(Verdict.PASS, found)


def _disagrees(case: Case, found: Measurement) -> GradientReport:
    """Look again at what may be rounding, a wrong reference, a kink, lost digits, or an error."""
    sure = found.lasting > CERTAIN * case.limit(found) and found.unmoved <= CHANCE
    if isinstance(case.reference, ComplexStep):
        if not sure:
            found = case.measure(found.directions, SECOND_REPLAYS)
            if found.lasting <= case.limit(found):
                if found.deviation <= case.limit(found):
                    return _agrees(case, found)
                reason = "x0 is within rounding of a kink: the gradient agrees next to it, not at it"
                return case.inconclusive(Reason.KINK, reason)
        sure = sure and _borne_out(case, found)
        real = None if sure else _real_difference(case, found)
        if real is not None and _complex_step_is_wrong(case, found, real):
            case.notes.append("the complex step was dropped: real differences contradict it")
            case.reference = Differences(case.problem)
            found = case.measure()
        elif real is not None:
            sure = real.kink is None  # along a direction in which the gradient disagrees
    if isinstance(case.reference, Differences):
        sure = False
        found = _second_opinion(case, found)
    if found.deviation <= case.limit(found):
        return _agrees(case, found)
    account = None
    if case.tolerance is not None:
        if found.lasting <= found.tolerance:
            return case.inconclusive(Reason.TOLERANCE, case.notes.pop())
        # Many errors within the tolerance add up to more than it: what counts are single entries.
        account = case.explain(found)
        if not account.findings:
            case.notes.append("errors that add up were seen, and no entry with one above the tolerance")
            return _agrees(case, found)
    if not sure:
        kink = kink_at(case.problem, case.reference, case.x, case.gradient, found, case.limit(found), case.rng)
        if kink is not None:
            if kink.gradient_fits and not case.gradient.any():
                return case.inconclusive(Reason.KINK, kink.text)
            case.notes.append(kink.text)
            if kink.gradient_fits:
                return case.report(Verdict.PASS, found)
    loss = lost_precision(case.problem, case.reference, case.x, case.gradient, found, case.rng)
    if loss is not None:
        return case.report(Verdict.PRECISION_LOSS, found, cause=loss)
    if found.unmoved > CHANCE and case.tolerance is None:
        found = replace(found, unseen=found.unseen + DEVIATIONS * _noise_further_off(case, found))
        if found.deviation <= found.tolerance:
            size = words(found.deviation / found.terms)
            cause = f"rounding of {size}, as shows at points near x0: ill-conditioned, or float32 inside?"
            return case.report(Verdict.PRECISION_LOSS, found, cause=cause)
    blind = 2 * found.tolerance > BLIND * max(1.0, found.terms)
    if not np.isfinite(found.tolerance) or (blind and found.deviation < CERTAIN * found.tolerance):
        reason = "the reference has no digits here: rounding is as large as the gradient itself"
        return case.inconclusive(Reason.NO_DIGITS, reason)
    report = case.report(Verdict.FAIL, found)
    if case.account:
        account = account or case.explain(found)
        report.cause, report.findings = account.cause, account.findings
        report.notes += account.notes
    return report


def _second_opinion(case: Case, found: Measurement) -> Measurement:
    """Take the differences again from another first step: what they differ by is error that they did not admit."""
    other, more = Differences(case.problem, start=0.125 / np.e), np.empty(len(found.directions))
    for k, u in enumerate(found.directions):
        again = other.derivative(case.x, u)
        more[k] = again.error / found.unit + abs(again.value / found.unit - found.expected[k, 0])
    return replace(found, error=found.error + more)


def _noise_further_off(case: Case, found: Measurement) -> float:
    """Return the rounding noise of the residual at points so far off that the last digits of a gradient do move.

    Where x is zero, or added to something large, points within its own rounding show none. An error of the formula is
    about the same at all these points. Those on another side of a kink do not count.
    """
    x, u = case.x.astype(np.float64), found.directions[found.worst]
    reach = np.where(x != 0, FURTHER * np.abs(x), FURTHER_FROM_ZERO * typical(x))
    residuals = list[float]()
    for _ in range(NEIGHBOURS):
        point = (x + reach * case.rng.uniform(-1, 1, x.size)).astype(case.x.dtype)
        try:
            expected = case.reference.derivative(point, u).value / found.unit
            got = dot(case.problem.gradient(point), u) / found.unit
        except (EvaluationError, BadGradient):
            continue
        moved = max(abs(expected - found.expected[found.worst, 0]), abs(got - found.got[found.worst, 0]))
        if moved < NEAR * found.terms:
            residuals.append(expected - got)
    return float(np.std(residuals, ddof=1)) if len(residuals) > 2 else 0.0


def _borne_out(case: Case, found: Measurement) -> bool:
    """Return whether one short difference says clearly that the complex step is right and g wrong."""
    u = found.directions[found.worst]
    wide = case.x.astype(np.float64)
    step = 2.0**-26 / float(np.max(np.abs(u) / sizes(wide)))
    try:
        value = (case.problem.value(wide + step * u) - case.problem.value(wide - step * u)) / (2 * step)
    except (EvaluationError, TypeError):
        return False
    return bool(abs(float(value) / found.unit - found.expected[found.worst, 0]) < 0.1 * found.deviation)


def _real_difference(case: Case, found: Measurement) -> Derivative | None:
    """Return the extrapolated difference along the direction of the largest residual, where there is one."""
    try:
        return Differences(case.problem).derivative(case.x, found.directions[found.worst])
    except (EvaluationError, TypeError):
        return None


def _complex_step_is_wrong(case: Case, found: Measurement, real: Derivative) -> bool:
    """Ask a real difference, if it can tell the two apart."""
    if case.method == "complex":
        return False
    expected, got = found.expected[found.worst, 0], found.got[found.worst, 0]
    value, error = real.value / found.unit, 3 * real.error / found.unit
    slack = error + found.tolerance
    if abs(value - got) > slack:
        return False
    if abs(value - expected) > slack:
        return True
    # It cannot. That is usual where little is wrong; where much is, it can elsewhere.
    much = found.deviation > SMALL * found.terms
    return (
        much
        and isinstance(case.reference, ComplexStep)
        and wrong_where_it_shows(case.problem, case.reference, case.x, found.directions[found.worst])
    )
