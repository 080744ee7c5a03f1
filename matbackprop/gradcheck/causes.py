"""Which entries are wrong, by bisection, and why, by what the usual mistakes leave behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from matbackprop.gradcheck.differences import ComplexStep, Differences, Reference
from matbackprop.gradcheck.measure import dot, equalised
from matbackprop.gradcheck.packing import Block
from matbackprop.gradcheck.patterns import Sample, describe_pattern, name_ratio
from matbackprop.gradcheck.problem import EvaluationError, Problem, no_gradient
from matbackprop.gradcheck.report import Finding
from matbackprop.validation import Array

__all__ = ["Account", "Hypothesis", "explain"]

#: Arrays up to this size are looked at entry by entry; larger ones by bisection.
SMALL = 400
#: So many wrong entries are sought one by one; more are a pattern.
MANY = 16
#: So many wrong entries are shown for each array.
SHOWN = 8
#: So many arrays of x0 are looked at.
BLOCKS = 40


class Hypothesis(NamedTuple):
    """A mistake that a caller thinks possible, by the function whose gradient it would be."""

    text: str
    fun: Callable[[Any], Any]


class Account(NamedTuple):
    """The likely cause, the wrong entries, and what else there is to say."""

    cause: str
    findings: list[Finding]
    notes: list[str]


@dataclass
class Look:
    """What directional derivatives in one array showed."""

    block: Block
    wrong: bool = False
    #: got / expected, where it is one number for all entries.
    ratio: float | None = None
    text: str = ""
    findings: list[Finding] = field(default_factory=list)


def explain(
    problem: Problem,
    reference: Reference,
    x: Array,
    gradient: Array,
    limit: float,
    rng: np.random.Generator,
    hypotheses: Sequence[Hypothesis] = (),
) -> Account:
    """Return which entries of a gradient are wrong, and the likely cause.

    Parameters
    ----------
    problem : Problem
    reference : Reference
    x, gradient : numpy.ndarray, shape (P,)
    limit : float
        How large a residual along an equalised direction may be.
    rng : numpy.random.Generator
    hypotheses : sequence of Hypothesis
        Mistakes to try.
    """
    return _Inquiry(problem, reference, x, gradient, limit, rng, hypotheses).account()


class _Inquiry:
    def __init__(
        self,
        problem: Problem,
        reference: Reference,
        x: Array,
        gradient: Array,
        limit: float,
        rng: np.random.Generator,
        hypotheses: Sequence[Hypothesis],
    ) -> None:
        self.problem, self.reference, self.x, self.gradient, self.rng = problem, reference, x, gradient, rng
        self.limit, self.hypotheses = limit, hypotheses
        self.u = self._equalised()
        self.notes: list[str] = []
        self.largest = float(np.abs(gradient).max())

    def account(self) -> Account:
        blocks = self.problem.packing.blocks
        if len(blocks) > BLOCKS:
            self.notes.append(f"only the first {BLOCKS} of {len(blocks)} arrays were looked at")
        everything = slice(0, self.x.size)
        ratio = self._ratio(everything)
        if ratio is not None and ratio != 1:
            looks = [Look(block, wrong=True, ratio=ratio) for block in blocks[:3]]
            for look in looks:
                look.findings = self._largest_entries(look)
            return self._whole(ratio, looks)
        looks = [self._look(block) for block in blocks[:BLOCKS]]
        wrong = [look for look in looks if look.wrong]
        if not wrong:
            return Account(
                "the deviation is spread over many entries, each too small to name: float32, or an epsilon?"
                if len(blocks) <= BLOCKS
                else f"the wrong entries are not in the first {BLOCKS} arrays, which are all that were looked at",
                [],
                self.notes,
            )
        for look in wrong:
            self._study(look)
        return Account(self._combine(wrong, looks), [f for look in wrong for f in look.findings], self.notes)

    def _whole(self, ratio: float, looks: list[Look]) -> Account:
        cause = f"the whole gradient is {name_ratio(ratio, self._sizes())}"
        if not self.largest:
            cause = "the whole gradient is zero, and should not be: never computed, or cut off on the way"
        findings = [f for look in looks for f in look.findings][:SHOWN]
        return Account(cause, [Finding(f.parameter, f.index, f.expected, f.got, cause) for f in findings], self.notes)

    def _combine(self, wrong: list[Look], looks: list[Look]) -> str:
        """Put the causes of the arrays into one sentence, equal ones together."""
        by_text: dict[str, list[str]] = {}
        for look in wrong:
            by_text.setdefault(look.text, []).append(look.block.name)
        right = len(looks) - len(wrong)
        parts = []
        for text, names in list(by_text.items())[:4]:
            who = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            parts.append(f"the gradient of {who} {text}")
        others = "array is" if right == 1 else f"{right} arrays are"
        more = f" (the other {others} right)" if right else ""
        return "; ".join(parts) + more

    # Directional derivatives.

    def _equalised(self, where: slice | None = None) -> Array:
        return equalised(self.gradient, self.rng, where, self.reference.floor)

    def _residual(self, u: Array) -> tuple[float, float]:
        """Return ∇f·u - g·u and the limit for it."""
        derivative = self.reference.derivative(self.x, u)
        return derivative.value - dot(self.gradient, u), max(self.limit, 4 * derivative.error)

    def _ratio(self, span: slice) -> float | None:
        """Return got / expected of these entries if it is one number, by directions along which nothing cancels."""
        part = self.gradient[span]
        if not part.any():
            # A zero gradient is one factor, 0, of whatever it should be.
            residual, limit = self._residual(self._equalised(span))
            return 0.0 if abs(residual) > limit else 1.0
        ratios, precision = [], 0.0
        for _ in range(3):
            u = np.abs(self._equalised(span)) * np.where(self.gradient < 0, -1.0, 1.0)
            derivative, got = self.reference.derivative(self.x, u), dot(self.gradient, u)
            ratios.append(derivative.value / got)
            precision = max(precision, (self.limit / 10 + 2 * derivative.error) / abs(got))
        off = abs(ratios[0] - 1)
        if off <= precision:
            return 1.0
        if np.ptp(ratios) > max(1e-6 * off, min(precision, 0.02 * off)) or not ratios[0]:
            return None
        # Along directions of one sign a few wrong entries among many look alike; signs at random tell them apart.
        u = self._equalised(span)
        derivative, got = self.reference.derivative(self.x, u), dot(self.gradient, u)
        terms = float(np.linalg.norm(self.gradient * u))
        if abs(derivative.value - ratios[0] * got) > 0.05 * off * terms:
            return None
        return 1 / ratios[0]

    def _look(self, block: Block) -> Look:
        """Return whether there is an error in one array, and its ratio if that is one number."""
        look = Look(block)
        for _ in range(2):
            mask = np.zeros_like(self.u)
            mask[block.span] = self._equalised()[block.span]
            residual, limit = self._residual(mask) if block.size else (0.0, 1.0)
            look.wrong |= abs(residual) > limit
        if look.wrong:
            ratio = self._ratio(block.span)
            look.ratio = None if ratio == 1 else ratio
        return look

    # One array.

    def _study(self, look: Look) -> None:
        if look.ratio is not None and look.block.size > 1:
            sizes = self._sizes()
            zero = look.ratio == 0
            look.text = (
                "is zero, and should not be: never computed, or cut off on the way"
                if zero
                else f"is {name_ratio(look.ratio, sizes)}"
            )
            guess = None if not zero and abs(round(look.ratio) - look.ratio) < 1e-9 else self._hypothesis(look.block)
            look.text = guess or look.text
            look.findings = self._largest_entries(look)
            return
        index = self._sample(look.block)
        sample = self._compare(look.block, index)
        if not sample.wrong.any():
            look.text = "deviates in many entries, each too little to name"
        elif look.block.size == 1 and sample.expected[0]:
            look.text = f"is {name_ratio(float(sample.got[0] / sample.expected[0]), self._sizes())}"
        else:
            look.text = describe_pattern(sample)
        if "transposed" not in look.text:
            look.text = self._hypothesis(look.block) or look.text
        look.findings = self._findings(look, sample)

    def _sample(self, block: Block) -> Array:
        """Return the entries to look at, flat in the array: all, those that bisection finds, or a grid."""
        small = SMALL if isinstance(self.reference, ComplexStep) else SMALL // 4
        if block.size <= small:
            return np.arange(block.size)
        # Beside the wrong entries that are found, others, so that a pattern in them can show.
        found, complete = self._bisect(block)
        wrong = np.array(found, dtype=np.intp) - block.span.start
        if complete:
            return np.union1d(wrong, self.rng.choice(block.size, small // 4, replace=False))
        self.notes.append(f"{block.name}: more than {MANY} entries are wrong; some of them were looked at")
        return np.union1d(wrong, self._spread(block, small))

    def _spread(self, block: Block, count: int) -> Array:
        """Return entries that cover an array: a grid of rows and columns, if it has those."""
        axes = [
            np.unique(np.linspace(0, n - 1, 16 if len(block.shape) > 1 else 256).astype(np.intp)) for n in block.shape
        ]
        if len(axes) > 2:
            return np.sort(self.rng.choice(block.size, count, replace=False))
        grid = np.meshgrid(*axes, indexing="ij")
        return np.ravel_multi_index(tuple(grid), block.shape).reshape(-1)

    def _bisect(self, block: Block) -> tuple[list[int], bool]:
        """Return wrong entries of an array, and whether those are all: about 2 log2 P evaluations for each."""
        start, stop = block.span.start, block.span.stop
        first, _ = self._residual(self._masked(start, stop))
        stack, found = [(start, stop, first)], list[int]()
        while stack:
            start, stop, residual = stack.pop()
            if abs(residual) <= self.limit:
                continue
            if stop - start == 1:
                found.append(start)
                if len(found) > MANY:
                    return found, False
                continue
            middle = (start + stop) // 2
            left, _ = self._residual(self._masked(start, middle))
            right, _ = self._residual(self._masked(middle, stop))
            stack += [(start, middle, left), (middle, stop, right)]
        return found, True

    def _masked(self, start: int, stop: int) -> Array:
        u = np.zeros_like(self.u)
        u[start:stop] = self.u[start:stop]
        return u

    def _compare(self, block: Block, index: Array) -> Sample:
        """Differentiate by single entries."""
        offset = block.span.start
        expected, error = np.empty(index.size), np.empty(index.size)
        for k, i in enumerate(index):
            u = np.zeros(self.x.size)
            u[offset + i] = 1.0
            derivative = self.reference.derivative(self.x, u)
            expected[k], error[k] = derivative.value, derivative.error
        full = self.gradient[block.span].astype(np.float64)
        got = full[index]
        # `limit` belongs to a direction in which an entry weighs max |g| / |g_i|.
        largest = self.largest or float(np.abs(expected).max(initial=0.0)) or 1.0
        size = np.maximum(np.maximum(np.abs(got), np.abs(expected)), self.reference.floor * largest)
        wrong = np.abs(expected - got) > self.limit * size / largest + 2 * error
        at = self.x[block.span][index].astype(np.float64)
        return Sample(index, expected, got, at, full.reshape(block.shape), wrong)

    def _findings(self, look: Look, sample: Sample) -> list[Finding]:
        chosen = np.flatnonzero(sample.wrong)
        if chosen.size > SHOWN:
            error = np.abs(sample.expected - sample.got)[chosen]
            self.notes.append(
                f"{look.block.name}: {chosen.size} wrong entries were seen; the {SHOWN} largest are shown"
            )
            chosen = np.sort(chosen[np.argsort(-error)[:SHOWN]])
        return [
            Finding(
                *self.problem.packing.locate(look.block.span.start + int(sample.index[k])),
                float(sample.expected[k]),
                float(sample.got[k]),
                look.text,
            )
            for k in chosen
        ]

    def _largest_entries(self, look: Look) -> list[Finding]:
        """Return the largest entries of an array that is wrong as a whole, as examples."""
        part = np.abs(self.gradient[look.block.span])
        if not look.block.size:
            return []
        index = np.sort(np.argsort(-part, kind="stable")[:4])
        sample = self._compare(look.block, index)
        sample.wrong[:] = True
        return self._findings(look, sample)

    def _hypothesis(self, block: Block) -> str | None:
        """Return the caller's hypothesis that this array's gradient bears out, if one does."""
        for text, fun in self.hypotheses:
            other = Problem(fun, no_gradient, self.problem.packing.unpack(self.problem.packing.x0))
            matches = 0
            for _ in range(2):
                u = np.zeros_like(self.u)
                u[block.span] = self._equalised(block.span)[block.span]
                reference = ComplexStep(other) if isinstance(self.reference, ComplexStep) else Differences(other)
                try:
                    derivative = reference.derivative(self.x, u)
                except (EvaluationError, TypeError):
                    break
                size = float(np.linalg.norm(self.gradient * u))
                matches += size > 0 and abs(derivative.value - dot(self.gradient, u)) <= max(
                    1e-6 * size, 4 * derivative.error
                )
            if matches == 2:
                return text
        return None

    def _sizes(self) -> list[tuple[int, str]]:
        """Return the numbers that a wrong factor may come from."""
        sizes = [] if self.problem.batch is None else [(self.problem.batch, "the batch size")]
        for block in self.problem.packing.blocks:
            for axis, n in enumerate(block.shape):
                sizes.append(
                    (
                        n,
                        f"the length of {block.name}"
                        if len(block.shape) == 1
                        else f"the size of {block.name} along axis {axis}",
                    )
                )
        sizes.append((self.x.size, "the number of parameters"))
        return sizes
