"""What a check found, for a terminal, a notebook, a program, and a test."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from matbackprop.validation import Array

__all__ = ["Finding", "GradientCheckError", "GradientReport", "Reason", "Verdict"]


#: So many wrong entries are printed at most.
LISTED = 16


class Verdict(StrEnum):
    """What a check concludes.

    PASS
        The gradient agrees, to the resolution that the report states.
    FAIL
        It is wrong, or breaks a contract.
    PRECISION_LOSS
        The formula is right, but rounding has eaten the digits at this point.
    INCONCLUSIVE
        Nothing can be said, for the reason that the report gives.
    """

    PASS = "PASS"
    PRECISION_LOSS = "PRECISION LOSS"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"


class Reason(StrEnum):
    """Why a check is inconclusive, for programs; the report's `reason` says it in words."""

    FUN_FAILED = "fun failed"
    GRAD_FAILED = "grad failed"
    NOT_REPEATABLE = "not repeatable"
    CONSTANT = "constant"
    STATIONARY = "stationary"
    KINK = "kink"
    NO_DIGITS = "no digits"
    TOLERANCE = "tolerance"


class GradientCheckError(AssertionError):
    """A gradient that did not pass. The message is the report."""


@dataclass(frozen=True)
class Finding:
    """One wrong entry, or one breach of a contract.

    Attributes
    ----------
    parameter : str
        The name of the array; empty where the finding is about the gradient as a whole.
    index : tuple of int
        Where in that array.
    expected, got : float or None
        The derivative, and what the gradient says.
    cause : str
        The most likely reason.
    """

    parameter: str
    index: tuple[int, ...]
    expected: float | None
    got: float | None
    cause: str

    @property
    def ratio(self) -> float | None:
        """``got / expected``."""
        if self.got is None or not self.expected:
            return None
        return self.got / self.expected

    @property
    def where(self) -> str:
        """The entry as it is written in code: ``W[2, 0]``."""
        return f"{self.parameter}[{', '.join(map(str, self.index))}]" if self.index else self.parameter


@dataclass
class GradientReport:
    """The result of a check. It is true if the verdict is PASS, so that ``assert check_gradient(...)`` works.

    Attributes
    ----------
    verdict : Verdict
    resolution : str
        What would have been seen, in words.
    findings : list of Finding
    cause : str
        The most likely cause of a failure.
    reason : str
        Why the check is inconclusive.
    reason_code : Reason or None
        The same as one of a few constants.
    notes : list of str
    name, parameters : str
        What was checked.
    size : int
        P, the number of parameters.
    method : str
    entry_resolution, factor_resolution : float
        The smallest relative error of one entry, and of all together, that would have been seen. NaN if unknown.
    deviation : float
        The largest deviation found, in the same units.
    fun_calls, grad_calls : int
    seconds : float
    parts : list of GradientReport
        The single checks, where several points were checked.

    Examples
    --------
    >>> import matbackprop as mb
    >>> report = mb.check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x, np.arange(3.0), rng=0)
    >>> report.verdict
    <Verdict.PASS: 'PASS'>
    >>> report.to_dict()["verdict"]
    'PASS'
    """

    verdict: Verdict
    resolution: str = ""
    findings: list[Finding] = field(default_factory=list)
    cause: str = ""
    reason: str = ""
    reason_code: Reason | None = None
    notes: list[str] = field(default_factory=list)
    name: str = "gradient"
    parameters: str = ""
    size: int = 0
    method: str = ""
    entry_resolution: float = math.nan
    factor_resolution: float = math.nan
    deviation: float = math.nan
    fun_calls: int = 0
    grad_calls: int = 0
    seconds: float = 0.0
    parts: list[GradientReport] = field(default_factory=list)
    #: Gives what `plot` shows; None where the check got nowhere.
    probe: Callable[[], dict[str, Array]] | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASS

    def raise_for_verdict(self, *allowed: str) -> GradientReport:
        """Return the report if the verdict is PASS or one of `allowed`.

        Parameters
        ----------
        *allowed : str
            Verdicts to let pass too, such as ``"PRECISION LOSS"``.

        Raises
        ------
        GradientCheckError
            Otherwise; it is an AssertionError, and its message is the report.
        ValueError
            If one of `allowed` is no verdict.
        """
        for name in allowed:
            if name not in list(Verdict):
                raise ValueError(
                    f"expected one of the verdicts {', '.join(map(repr, map(str, Verdict)))}, got {name!r}"
                )
        if self.verdict is not Verdict.PASS and self.verdict not in allowed:
            raise GradientCheckError(f"\n{self}")
        return self

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        effort = f"{self.fun_calls} evaluations of fun, {self.grad_calls} of grad, {1e3 * self.seconds:.3g} ms"
        lines = [f"{self.verdict}  {self.name}" + (f"  ({self.parameters}; P = {self.size:,})" if self.size else "")]
        if self.cause:
            lines.append(f"  cause: {self.cause}")
        if self.reason:
            lines.append(f"  reason: {self.reason}")
        lines += _table(self.findings)
        if self.resolution:
            lines.append(f"  resolution: {self.resolution}")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  {self.method + ', ' if self.method else ''}{effort}")
        for part in self.parts:
            text = (
                part.cause
                or part.reason
                or ("" if math.isnan(part.entry_resolution) else f"resolution {part.entry_resolution:.0e}")
            )
            lines.append(
                f"    {part.verdict:<14}  {part.name}: {text}" if text else f"    {part.verdict:<14}  {part.name}"
            )
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, as ``json.dumps`` takes it: numbers that are not finite become None."""

        def number(value: float | None) -> float | None:
            return None if value is None or not math.isfinite(value) else float(value)

        return {
            "verdict": str(self.verdict),
            "name": self.name,
            "parameters": self.parameters,
            "size": self.size,
            "cause": self.cause,
            "reason": self.reason,
            "reason_code": None if self.reason_code is None else str(self.reason_code),
            "resolution": self.resolution,
            "entry_resolution": number(self.entry_resolution),
            "factor_resolution": number(self.factor_resolution),
            "deviation": number(self.deviation),
            "findings": [
                {
                    "parameter": f.parameter,
                    "index": list(f.index),
                    "expected": number(f.expected),
                    "got": number(f.got),
                    "ratio": number(f.ratio),
                    "cause": f.cause,
                }
                for f in self.findings
            ],
            "notes": list(self.notes),
            "method": self.method,
            "fun_calls": self.fun_calls,
            "grad_calls": self.grad_calls,
            "seconds": self.seconds,
            "parts": [part.to_dict() for part in self.parts],
        }

    def _repr_html_(self) -> str:
        color = {"PASS": "#1a7f37", "FAIL": "#cf222e"}.get(str(self.verdict), "#9a6700")
        first, *rest = self.lines()
        head = html.escape(first.removeprefix(str(self.verdict)))
        return (
            f'<div><b style="color:{color}">{self.verdict}</b>{head}'
            f'<pre style="margin:0">{html.escape(chr(10).join(rest))}</pre></div>'
        )

    def plot(self) -> Any:
        """Draw the Taylor remainder, whose slope should be 2, and expected against got, with the wrong entries marked.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            Without matplotlib.
        RuntimeError
            If there is nothing to draw, because the check could not evaluate the function.
        """
        from matbackprop.gradcheck.figure import draw

        source = next(
            (report for report in (self, *self.parts) if report.probe and report.verdict is self.verdict), self
        )
        if source.probe is None:
            raise RuntimeError("plot: the check ended before anything could be compared")
        return draw(source, source.probe())


def _table(findings: list[Finding]) -> list[str]:
    """Return the wrong entries as an aligned table, and breaches as sentences."""
    entries = [f for f in findings if f.expected is not None]
    lines = [f"  breach: {f.where + ': ' if f.where else ''}{f.cause}" for f in findings if f.expected is None]
    if not entries:
        return lines
    rows = [("entry", "expected", "got", "got/expected")]
    for f in entries[:LISTED]:
        ratio = "" if f.ratio is None else f"{f.ratio:.10g}"
        rows.append((f.where, f"{f.expected:.10g}", f"{f.got:.10g}", ratio))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines + ([f"  ... and {len(entries) - LISTED} more"] if len(entries) > LISTED else [])
