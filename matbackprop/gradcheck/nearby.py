"""How far an entry of x is moved, and points near x: what is far for one entry is near for another."""

from __future__ import annotations

import numpy as np

from matbackprop.validation import Array

__all__ = ["point_near", "sizes", "typical"]


def typical(x: Array) -> float:
    """Return the root mean square of the entries; 1 where all are zero."""
    return float(np.sqrt(np.mean(x.astype(np.float64) ** 2))) or 1.0


def sizes(x: Array) -> Array:
    """Return what an entry is moved by to change it by about its own size: zeros by as much as a typical one."""
    size: Array = np.abs(x) + typical(x)
    return size


def point_near(x: Array, reach: float, rng: np.random.Generator) -> Array:
    """Return x with every entry moved by up to `reach` times its size, either way."""
    point: Array = (x + reach * sizes(x) * rng.uniform(-1, 1, x.size)).astype(x.dtype)
    return point
