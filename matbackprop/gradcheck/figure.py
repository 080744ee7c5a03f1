"""The two pictures of a check, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.validation import Array

if TYPE_CHECKING:
    from matbackprop.gradcheck.report import GradientReport

__all__ = ["draw"]


def draw(report: GradientReport, data: dict[str, Array]) -> Any:
    """Return a figure of the Taylor remainder and of expected against got."""
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError("plot: needs matplotlib; pip install 'matbackprop[viz]'") from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _remainder(left, data["steps"], data["remainder"])
    _scatter(right, data["expected"], data["got"], data["wrong"].astype(bool))
    figure.suptitle(f"{report.verdict}: {report.name}")
    return figure


def _remainder(axes: Any, steps: Array, remainder: Array) -> None:
    shown = np.isfinite(remainder) & (remainder > 0)
    axes.loglog(steps[shown], remainder[shown], "o-", label="measured")
    if shown.any():
        anchor = int(np.flatnonzero(shown)[-1])
        for power in (1, 2):
            line = remainder[anchor] * (steps / steps[anchor]) ** power
            axes.loglog(
                steps, line, ":", color="gray", label=f"slope {power}" + (" (right)" if power == 2 else " (wrong)")
            )
        axes.set_ylim(remainder[shown].min() / 10, remainder[shown].max() * 10)
    axes.set(xlabel="step t", ylabel="|f(x + tu) - f(x) - t g·u|", title="Taylor remainder")
    axes.legend()


def _scatter(axes: Any, expected: Array, got: Array, wrong: Array) -> None:
    size = float(max(np.abs(expected).max(), np.abs(got).max(), 1e-300))
    axes.plot([-size, size], [-size, size], color="gray", lw=0.8)
    axes.plot(expected[~wrong], got[~wrong], "o", ms=3, label="right")
    axes.plot(expected[wrong], got[wrong], "rx", label=f"wrong ({int(wrong.sum())})")
    axes.set_xscale("symlog", linthresh=1e-2 * size)
    axes.set_yscale("symlog", linthresh=1e-2 * size)
    axes.set(xlabel="expected", ylabel="got", title=f"{expected.size} entries")
    axes.legend()
