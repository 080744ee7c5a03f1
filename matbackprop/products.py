"""Products and sums over rows, each as the NumPy calls that do it fastest.

The figures are of one core with 2 MiB of cache of its own, NumPy 2.4 with OpenBLAS, float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from functools import partial as call
from typing import Any

import numpy as np

from matbackprop.blas import blas_libraries
from matbackprop.calls import Call
from matbackprop.validation import Array
from matbackprop.workspace import Empty

__all__ = ["add_row", "ones", "times", "times_transposed", "transposed_times"]

#: np.dot fills its result with zeros before BLAS overwrites them; np.matmul does not, and costs 0.4 µs more to call.
#: From this many entries on, it is faster: by 10 % for (4096, 64) (64, 64).
MATMUL_ENTRIES = 1 << 14

#: Products of at most this many multiplications OpenBLAS does without bringing the matrices into another order first,
#: where the processor has AVX-512; a larger one is faster in parts of so many rows: (512, 64) (64, 64) takes 37 µs
#: instead of 55, in float64 48 instead of 68. With Haswell's kernels, for which it does not hold, the parts take 7 %
#: longer; so they are made only where it holds.
SMALL_PRODUCT, WITH_SMALL_PRODUCTS = 100**3, frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})

#: Parts of fewer rows gain nothing; if their results have to be added up, it takes more. Then there are also to be no
#: more rows than a block has, since each part has a result of its own.
FEWEST_IN_PART, FEWEST_IN_SUMMED_PART, MOST_ROWS_SUMMED = 8, 64, 1 << 13

#: A Bᵀ is up to twice as fast with Bᵀ copied into an array of its own, if B is small and A has this many rows or more:
#: 3.1 instead of 6.2 µs for (512, 4) (32, 4)ᵀ. If it is done in parts, B may be larger.
COPY_ENTRIES, COPY_ROWS, COPY_ROWS_OF_LARGE = 1 << 12, 64, 512

#: With so few rows, a large B and float32, (B Aᵀ)ᵀ is quicker than A Bᵀ, for which BLAS first brings all of B into
#: another order: 74 instead of 150 µs for (16, 784) (256, 784)ᵀ.
LARGE_ENTRIES, FEWEST_ROWS, MOST_ROWS = 1 << 15, 8, 64

#: NumPy adds a row to every row of a matrix in a loop a row, which costs as much as some 50 entries, and through a
#: buffer unless the loop has more than 8192 entries. So a few copies of the row, together so long, are added to as many
#: rows at once: (4096, 2) takes 4 µs, not 20, (512, 64) 6, not 9. Fewer rows, and smaller matrices of wide ones, gain
#: nothing.
LONG_ROW, MANY_ENTRIES = 1 << 13, 1 << 15
SHORT_ROW, WIDE, MANY_ROWS = 1 << 9, 1 << 5, 1 << 8


def times(a: Array, b: Array, out: Array) -> Iterable[Call]:
    """Yield the calls for A B into `out`."""
    done = 0
    part = _rows_in_part(a, b, out)
    if part >= FEWEST_IN_PART:
        done = len(a) - len(a) % part
        yield call(np.matmul, _parts(a[:done], part), b, _parts(out[:done], part))
    if done < len(a) or not len(a):
        yield _product(a[done:], b, out[done:])


def times_transposed(a: Array, b: Array, out: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls for A Bᵀ into `out`."""
    rows = len(a)
    large = rows >= COPY_ROWS_OF_LARGE and _rows_in_part(a, b, out) >= FEWEST_IN_PART
    if large or (rows >= COPY_ROWS and len(b) > 1 and b.size <= COPY_ENTRIES):
        copy = empty((b.shape[1], b.shape[0]), b.dtype)
        yield call(np.copyto, copy, b.T)
        yield from times(a, copy, out)
    elif FEWEST_ROWS <= rows <= MOST_ROWS and b.size >= LARGE_ENTRIES and b.dtype == np.float32:
        swapped = empty((len(b), rows), b.dtype)
        yield _product(b, a.T, swapped)
        yield call(np.copyto, out, swapped.T)
    else:
        yield _product(a, b.T, out)


def transposed_times(a: Array, b: Array, out: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls for Aᵀ B into `out`: a sum over the rows."""
    part = _rows_in_part(a, out, b)
    if part < FEWEST_IN_SUMMED_PART or len(a) > MOST_ROWS_SUMMED:
        yield _product(a.T, b, out)
        return
    count, rest = divmod(len(a), part)
    done = len(a) - rest
    sums = empty((count + bool(rest), *out.shape), out.dtype)
    yield call(np.matmul, _parts(a[:done], part).transpose(0, 2, 1), _parts(b[:done], part), sums[:count])
    if rest:
        yield _product(a[done:].T, b[done:], sums[count])
    yield call(np.add.reduce, sums, 0, None, out)


def _product(a: Array, b: Array, out: Array) -> Call:
    """Return the one call for A B into `out`."""
    large = out.size >= MATMUL_ENTRIES and a.shape[1] > 1  # without an inner dimension to speak of, matmul is slow
    return call(np.matmul if large else np.dot, a, b, out)


def _rows_in_part(a: Array, small: Array, c: Array) -> int:
    """Return how many rows of `a` and `c` to multiply with (or into) the matrix `small` at once, or 0 for all."""
    if len(a) * small.size <= SMALL_PRODUCT or small.size > SMALL_PRODUCT or min(small.shape) < 2:
        return 0
    plain = small.dtype in (np.float32, np.float64) and a.flags.c_contiguous and c.flags.c_contiguous
    return 1 << ((SMALL_PRODUCT // small.size).bit_length() - 1) if plain and _has_small_products() else 0


@lru_cache(maxsize=1)
def _has_small_products() -> bool:
    return any(getattr(library, "architecture", None) in WITH_SMALL_PRODUCTS for library in blas_libraries())


def _parts(a: Array, rows: int) -> Array:
    """View a matrix as a stack of matrices of so many rows."""
    return a.reshape(-1, rows, a.shape[1])


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
    at_once, done = -(-length // width), 0
    if at_once > 1:
        done = rows - rows % at_once
        copies = empty((at_once, width), row.dtype)
        together = out[:done].reshape(-1, copies.size)
        yield call(np.copyto, copies, row)
        yield call(np.add, together, copies.reshape(1, -1), together)
    if done < rows:
        yield call(np.add, out[done:], row[None], out[done:])  # a row of two dimensions spares NumPy matching shapes


def ones(rows: int, dtype: np.dtype[Any]) -> Array:
    """Return 1ᵀ, shape (1, rows): a product with it sums over the rows many times faster than ``sum(axis=0)``."""
    return _kept_ones(rows, dtype) if rows <= 1 << 16 else np.ones((1, rows), dtype)


@lru_cache(maxsize=16)
def _kept_ones(rows: int, dtype: np.dtype[Any]) -> Array:
    row = np.ones((1, rows), dtype)
    row.flags.writeable = False
    return row
