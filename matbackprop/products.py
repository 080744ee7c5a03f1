"""Products and sums over rows, each as the NumPy calls that do it fastest.

The figures are of one core with 2 MiB of cache of its own, NumPy 2.4 with OpenBLAS, float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from functools import partial as call
from math import gcd
from typing import Any

import numpy as np

from matbackprop.calls import Call
from matbackprop.validation import Array
from matbackprop.workspace import Empty

__all__ = ["add_row", "ones", "times", "times_transposed"]

#: np.dot fills its result with zeros before BLAS overwrites them; np.matmul does not, and costs 0.4 µs more to call.
#: From this many entries on, it is faster: by 10 % for (4096, 64) (64, 64).
MATMUL_ENTRIES = 1 << 14

#: A Bᵀ is up to twice as fast with Bᵀ copied into an array of its own, if B is small and A has this many rows or more:
#: 6.2 against 3.1 µs for (512, 4) (32, 4)ᵀ.
COPY_ENTRIES, COPY_ROWS = 1 << 12, 64

#: With so few rows, a large B and float32, (B Aᵀ)ᵀ is quicker than A Bᵀ, for which BLAS first brings all of B into
#: another order: 74 against 150 µs for (16, 784) (256, 784)ᵀ.
LARGE_ENTRIES, FEWEST_ROWS, MOST_ROWS = 1 << 15, 8, 64

#: NumPy adds a row to every row of a matrix in a loop a row, which costs as much as some 50 entries, and through a
#: buffer unless the loop has more than 8192 entries. So a few copies of the row, together so long, are added to as many
#: rows at once: (4096, 2) takes 4 µs, not 20, (512, 64) 6, not 9. Fewer rows, and smaller matrices of wide ones, gain
#: nothing.
LONG_ROW, MANY_ENTRIES = 1 << 13, 1 << 15
SHORT_ROW, WIDE, MANY_ROWS = 1 << 9, 1 << 5, 1 << 8


def times(a: Array, b: Array, out: Array) -> Call:
    """Return the call for A B into `out`."""
    large = out.size >= MATMUL_ENTRIES and a.shape[1] > 1  # without an inner dimension to speak of, matmul is slow
    return call(np.matmul if large else np.dot, a, b, out)


def times_transposed(a: Array, b: Array, out: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls for A Bᵀ into `out`."""
    rows = len(a)
    if rows >= COPY_ROWS and len(b) > 1 and b.size <= COPY_ENTRIES:
        copy = empty((b.shape[1], b.shape[0]), b.dtype)
        yield call(np.copyto, copy, b.T)
        yield times(a, copy, out)
    elif FEWEST_ROWS <= rows <= MOST_ROWS and b.size >= LARGE_ENTRIES and b.dtype == np.float32:
        swapped = empty((len(b), rows), b.dtype)
        yield times(b, a.T, swapped)
        yield call(np.copyto, out, swapped.T)
    else:
        yield times(a, b.T, out)


def add_row(out: Array, row: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls that add `row` to every row of `out`."""
    rows, width = out.shape
    if width == 1:
        length = 1  # NumPy takes it for a scalar
    elif out.size >= MANY_ENTRIES:
        length = LONG_ROW
    elif rows >= MANY_ROWS and width < WIDE:
        length = SHORT_ROW
    else:
        length = width
    at_once = gcd(rows, 1 << (-(-length // width) - 1).bit_length())  # of those copies, a power of two that divides
    if at_once > 1:
        copies = empty((at_once, width), row.dtype)
        yield call(np.copyto, copies, row)
        out, row = out.reshape(-1, at_once * width), copies.reshape(-1)
    yield call(np.add, out, row[None], out)  # of two dimensions: NumPy is quicker where no shape has to be matched


def ones(rows: int, dtype: np.dtype[Any]) -> Array:
    """Return 1ᵀ, shape (1, rows): a product with it sums over the rows many times faster than ``sum(axis=0)``."""
    return _kept_ones(rows, dtype) if rows <= 1 << 16 else np.ones((1, rows), dtype)


@lru_cache(maxsize=16)
def _kept_ones(rows: int, dtype: np.dtype[Any]) -> Array:
    row = np.ones((1, rows), dtype)
    row.flags.writeable = False
    return row
