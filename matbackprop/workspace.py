"""Batch buffers: made once, handed out again at every step.

The workspace owns them; a plan (`matbackprop.plan`) says who writes where, and when.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from matbackprop import aligned
from matbackprop.validation import Array

__all__ = ["Empty", "Workspace"]


class Empty(Protocol):
    """Something that makes an uninitialised array, as ``numpy.empty`` does."""

    def __call__(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Make it."""


class Workspace:
    """Named buffers that grow and never shrink.

    A buffer asked for again with no more elements is served as a C-contiguous view of the same memory: the shorter
    last batch of an epoch costs no allocation. Growing replaces a buffer, so `grown` counts how often that happened:
    who kept views of an older generation must ask again.

    Examples
    --------
    >>> from matbackprop.workspace import Workspace
    >>> workspace = Workspace()
    >>> full = workspace.take("activation", (64, 3), np.float64)
    >>> last = workspace.take("activation", (10, 3), np.float64)
    >>> last.base is full.base, workspace.grown
    (True, 1)
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Hashable, np.dtype[Any]], Array] = {}
        self.grown = 0

    def take(self, name: Hashable, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return the buffer `name` as an array of this shape; what it holds is undefined."""
        dtype = np.dtype(dtype)
        size = math.prod(shape)
        flat = self._buffers.get((name, dtype))
        if flat is None or flat.size < size:
            flat = self._buffers[name, dtype] = aligned.empty(size, dtype)
            self.grown += 1
        return flat[:size].reshape(shape)

    def scratch(self, name: Hashable) -> Empty:
        """Return an `Empty` that serves buffers ``(name, 0)``, ``(name, 1)``, ... in the order of asking.

        Two allocators of one name serve the same memory: what is in it lasts until the next one writes.
        """
        count = iter(range(1 << 30))

        def empty(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
            return self.take((name, next(count)), shape, dtype)

        return empty

    def poison(self) -> None:
        """Fill every floating buffer with NaN, so that a stale value that is read shows up."""
        for flat in self._buffers.values():
            flat.fill(np.nan if flat.dtype.kind in "fc" else True)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(flat.nbytes for flat in self._buffers.values())
