"""Numbers and points as a report says them."""

from __future__ import annotations

import numpy as np

from matbackprop.gradcheck.packing import Packing
from matbackprop.validation import Array

__all__ = ["form_text", "point_text", "resolution_text", "words"]


def words(value: float) -> str:
    """Return a resolution as text: one digit is all that it means."""
    return f"{value:.0e}" if np.isfinite(value) else "unknown"


def resolution_text(gradient: Array, floor: float, entry: float, factor: float) -> str:
    """Say what a check would have seen.

    Parameters
    ----------
    gradient : numpy.ndarray, shape (P,)
    floor : float
        Entries below this part of the largest are held to what it is held to.
    entry, factor : float
        The smallest relative error of one entry, and of all together, that would have been seen.
    """
    size = np.abs(gradient)
    least = floor * float(size.max())
    if not least:
        return "the gradient is zero throughout"
    if gradient.size == 1:
        return f"a relative error above {words(entry)} would have been seen"
    small, zero = int((size < least).sum()), int((size == 0).sum())
    text = f"a relative error above {words(entry)} in any single entry" + (f" of at least {least:.0e}" if small else "")
    if np.isfinite(factor):
        text += f", or above {words(factor)} in all of them at once,"
    text += " would have been seen"
    if small:
        which = f"{small} of {size.size} are smaller" + (f" ({zero} are zero)" if zero else "")
        text += f"; {which}, and there an absolute error above {words(entry * least)} would"
    return text


def form_text(packing: Packing) -> str:
    """Return the names and shapes of x0's arrays; of many, the first."""
    names = repr(packing).split("], ")
    shown = next((n for n in range(len(names), 1, -1) if len("], ".join(names[:n])) <= 50), 1)
    if shown == len(names):
        return repr(packing)
    return f"{'], '.join(names[:shown])}] and {len(names) - shown} more"


def point_text(packing: Packing, x: Array) -> str:
    """Return a point, cut short, in the names of x0."""
    lines = []
    for block in packing.blocks[:4]:
        part = x[block.span].reshape(block.shape)
        lines.append(
            f"{block.name} = {np.array2string(part, threshold=8, edgeitems=2, precision=6)}".replace("\n", " ")
        )
    return "; ".join(lines) + ("; ..." if len(packing.blocks) > 4 else "")
