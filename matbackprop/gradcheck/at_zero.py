"""What an elementwise layer does at exactly zero: the slopes on both sides, and what `backward` says."""

from __future__ import annotations

import numpy as np

from matbackprop.gradcheck.models import derivative_of_branch
from matbackprop.gradcheck.report import Finding, GradientReport, Verdict
from matbackprop.layer import Layer
from matbackprop.sequential import Sequential
from matbackprop.validation import Array

__all__ = ["kink_at_zero"]

#: Two steps from zero. The slopes of a kink are the same at both, those of a curve not quite.
STEPS = (2.0**-28, 2.0**-34)


def kink_at_zero(layer: Layer, x: Array) -> list[GradientReport]:
    """Report the kink that a layer without parameters has at zero, if it has one.

    Any number between the two slopes may stand for the derivative there; no other may. If forward takes the same branch
    from both sides in complex steps, backward should take it too.
    """
    zero = np.zeros((1, x.shape[-1]), x.dtype)
    if layer.has_parameters() or layer.forward(zero).shape != zero.shape:
        return []
    sides = _slopes(layer, zero)
    if sides is None:
        return []
    left, right = sides
    layer.forward(zero)
    got = np.asarray(layer.backward(np.ones_like(zero)), np.float64)[0]
    if not np.isfinite(got).all():
        return []
    report = GradientReport(
        Verdict.PASS, name="the kink at zero", size=zero.size, parameters="x", fun_calls=5, grad_calls=1
    )
    gap = np.abs(right - left)
    k = int(np.argmax(gap))
    slopes = f"the slope is {left[k]:.6g} on the left and {right[k]:.6g} on the right"
    report.notes.append(f"at zero {slopes}; the gradient says {got[k]:.6g}")
    slack = 1e-3 * gap.max()
    outside = (got < np.minimum(left, right) - slack) | (got > np.maximum(left, right) + slack)
    if outside.any():
        k = int(np.argmax(outside))
        cause = (
            f"at zero the gradient {got[k]:.6g} is outside of the slopes on its two sides, {left[k]:.6g} and "
            f"{right[k]:.6g}"
        )
        return [_failed(report, k, None, got[k], cause)]
    try:
        branches = [derivative_of_branch(layer, zero, sign)[0] for sign in (1.0, -1.0)]
    except Exception:  # noqa: BLE001 - a layer without complex numbers has no branch to compare with
        return [report]
    other = (branches[0] == branches[1]) & (np.abs(branches[0] - got) > slack)
    if other.any():
        k = int(np.argmax(other))
        cause = (
            f"at exactly zero backward takes the other branch than forward: slope {got[k]:.6g} where forward has "
            f"{branches[0][k]:.6g} (>= in place of >?)"
        )
        return [_failed(report, k, float(branches[0][k]), got[k], cause)]
    return [report]


def _slopes(layer: Layer, zero: Array) -> tuple[Array, Array] | None:
    """Return the slopes of every unit to the left and right of zero, where there is a kink in one of them."""
    wide, start = Sequential(layer.copy()).astype(np.longdouble), zero.astype(np.longdouble)

    def forward(at: Array) -> Array:
        row: Array = np.array(wide.forward(at), np.longdouble)[0]
        return row

    try:
        with np.errstate(all="ignore"):
            center = forward(start)
            rows = [((center - forward(start - h)) / h, (forward(start + h) - center) / h) for h in STEPS]
    except Exception:  # noqa: BLE001 - a layer may compute in its own type alone, or raise outside of its domain
        return None
    sides = np.array(rows, np.float64)
    if not np.isfinite(sides).all():
        return None  # zero is outside of the domain
    size = np.abs(sides[1]).max(axis=0)
    gaps = sides[:, 1] - sides[:, 0]
    kink = (np.abs(gaps[1]) > 1e-3 * size) & (np.abs(gaps[0] - gaps[1]) < 0.3 * np.abs(gaps[1]))
    return (sides[1, 0], sides[1, 1]) if kink.any() else None


def _failed(report: GradientReport, unit: int, expected: float | None, got: float, cause: str) -> GradientReport:
    report.verdict, report.cause = Verdict.FAIL, cause
    report.findings = [Finding("x", (0, unit), expected, float(got), cause)]
    return report
