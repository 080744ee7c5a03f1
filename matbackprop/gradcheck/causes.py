"""Why a gradient is wrong: what usual mistakes leave behind, in all of it, in whole arrays, or in their entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from matbackprop.gradcheck.differences import Differences
from matbackprop.gradcheck.directional import ComplexStep
from matbackprop.gradcheck.localise import MANY, Search
from matbackprop.gradcheck.measure import dot
from matbackprop.gradcheck.packing import Block
from matbackprop.gradcheck.patterns import Sample, describe_pattern, name_ratio
from matbackprop.gradcheck.problem import EvaluationError, Problem, no_gradient
from matbackprop.gradcheck.report import Finding

__all__ = ["Account", "Hypothesis", "explain"]

#: So many wrong entries are shown for each array.
SHOWN = 8


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
    """What was found about one array."""

    block: Block
    #: got / expected, where it is one number for all entries.
    ratio: float | None = None
    text: str = ""
    findings: list[Finding] = field(default_factory=list)


def explain(search: Search, hypotheses: Sequence[Hypothesis] = (), tolerance: float = 0.0) -> Account:
    """Return which entries of a gradient are wrong, and the likely cause.

    Parameters
    ----------
    search : Search
        The residuals of the gradient.
    hypotheses : sequence of Hypothesis
        Mistakes to try.
    tolerance : float
        The relative error of an entry that is let pass.
    """
    return _Inquiry(search, hypotheses, tolerance).account()


class _Inquiry:
    def __init__(self, search: Search, hypotheses: Sequence[Hypothesis], tolerance: float) -> None:
        self.problem, self.search = search.problem, search
        self.hypotheses, self.tolerance = hypotheses, tolerance
        self.notes: list[str] = []

    def account(self) -> Account:
        blocks = self.problem.packing.blocks
        ratio = self._ratio(slice(0, self.search.x.size))
        if ratio is not None and ratio != 1:
            looks = [Look(block, ratio) for block in blocks[:3]]
            for look in looks:
                look.findings = self._largest_entries(look)
            return self._whole(ratio, looks)
        wrong, complete = self.search.arrays() if len(blocks) > 1 else (blocks, True)
        if not wrong:
            cause = "the deviation is spread over many entries, each too small to name: float32, or an epsilon?"
            return Account(cause, [], self.notes)
        if not complete:
            self.notes.append(f"more than {MANY} arrays of {len(blocks)} are wrong; the first {MANY} were looked at")
        looks = [Look(block, self._ratio(block.span) if len(blocks) > 1 else ratio) for block in wrong]
        for look in looks:
            self._study(look)
        right = len(blocks) - len(wrong) if complete else 0
        return Account(self._combine(looks, right), [f for look in looks for f in look.findings], self.notes)

    def _ratio(self, span: slice) -> float | None:
        """Return got / expected of these entries if it is one number; 1 if that is within the tolerance."""
        ratio = self.search.ratio(span)
        return 1.0 if ratio is not None and abs(ratio - 1) <= self.tolerance else ratio

    def _whole(self, ratio: float, looks: list[Look]) -> Account:
        cause = f"the whole gradient is {name_ratio(ratio, self._sizes())}"
        if not self.search.largest:
            cause = "the whole gradient is zero, and should not be: never computed, or cut off on the way"
        findings = [f for look in looks for f in look.findings][:SHOWN]
        return Account(cause, [Finding(f.parameter, f.index, f.expected, f.got, cause) for f in findings], self.notes)

    def _combine(self, looks: list[Look], right: int) -> str:
        """Put the causes of the arrays into one sentence, equal ones together."""
        by_text: dict[str, list[str]] = {}
        for look in looks:
            by_text.setdefault(look.text, []).append(look.block.name)
        parts = []
        for text, names in list(by_text.items())[:4]:
            who = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            parts.append(f"the gradient of {who} {text}")
        others = "array is" if right == 1 else f"{right} arrays are"
        more = f" (the other {others} right)" if right else ""
        return "; ".join(parts) + more

    # One array.

    def _study(self, look: Look) -> None:
        if look.ratio not in (None, 1) and look.block.size > 1:
            assert look.ratio is not None
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
        index, complete = self.search.sample(look.block)
        if not complete:
            self.notes.append(f"{look.block.name}: more than {MANY} entries are wrong; some of them were looked at")
        sample = self.search.compare(look.block, index)
        if not sample.wrong.any():
            look.text = "deviates in many entries, each too little to name"
        elif look.block.size == 1 and sample.expected[0]:
            look.text = f"is {name_ratio(float(sample.got[0] / sample.expected[0]), self._sizes())}"
        else:
            look.text = describe_pattern(sample)
        if "transposed" not in look.text:
            look.text = self._hypothesis(look.block) or look.text
        look.findings = self._findings(look, sample)

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
        part = np.abs(self.search.gradient[look.block.span])
        if not look.block.size:
            return []
        index = np.sort(np.argsort(-part, kind="stable")[:4])
        sample = self.search.compare(look.block, index)
        sample.wrong[:] = True
        return self._findings(look, sample)

    def _hypothesis(self, block: Block) -> str | None:
        """Return the caller's hypothesis that this array's gradient bears out, if one does."""
        for text, fun in self.hypotheses:
            other = Problem(fun, no_gradient, self.problem.packing.unpack(self.problem.packing.x0))
            matches = 0
            for _ in range(2):
                u = np.zeros_like(self.search.u)
                u[block.span] = self.search.equalised(block.span)[block.span]
                reference = ComplexStep(other) if isinstance(self.search.reference, ComplexStep) else Differences(other)
                try:
                    derivative = reference.derivative(self.search.x, u)
                except (EvaluationError, TypeError):
                    break
                size = float(np.linalg.norm(self.search.gradient * u))
                matches += size > 0 and abs(derivative.value - dot(self.search.gradient, u)) <= max(
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
        sizes.append((self.search.x.size, "the number of parameters"))
        return sizes
