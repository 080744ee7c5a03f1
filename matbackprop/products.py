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
#: where the processor has AVX-512. A larger one is faster in parts, each so many rows of A: (512, 64) (64, 64) takes 37
#: µs instead of 55, in float64 48 instead of 68. With Haswell's kernels, for which it does not hold, the parts take 7 %
#: longer; so they are made only where it holds.
SMALL_PRODUCT, WITH_SMALL_PRODUCTS = 100**3, frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})

#: The same for A Bᵀ, whose result may have no more entries either, nor the sums fewer terms.
SMALL_TRANSPOSED_RESULT, FEWEST_TERMS = 1200, 32

#: Parts of fewer rows gain nothing: of A as it is, where B or A itself is transposed, and where the rows are summed, so
#: that the parts' results have to be added up. In that case there are to be no more rows than a block has, since each
#: part has a result of its own.
FEWEST_IN_PART, FEWEST_IF_B_TRANSPOSED, FEWEST_IF_A_TRANSPOSED, FEWEST_SUMMED = 8, 4, 16, 64
MOST_ROWS_SUMMED = 1 << 13

#: A Bᵀ is faster in parts for up to so many rows, or up to so many columns of the result, if its sums have so many
#: times as many terms: 22 instead of 78 µs for (16, 784) (128, 784)ᵀ, 13 instead of 32 for (512, 128) (10, 128)ᵀ.
MOST_ROWS_TRANSPOSED, FEW_COLUMNS, TERMS_A_COLUMN = 128, 16, 6

#: Otherwise it is faster with Bᵀ copied into an array of its own, if there are enough rows to make up for that: with a
#: small B, 3.1 instead of 6.2 µs for (512, 4) (32, 4)ᵀ; with a larger one, if A times the copy is made in parts.
SMALL_ENTRIES, COPY_ROWS, COPY_MULTIPLICATIONS, COPY_ROWS_OF_LARGE = 1 << 12, 64, 1 << 14, 256

#: With so few rows, a large B and float32, (B Aᵀ)ᵀ is quicker than A Bᵀ too: 101 instead of 183 µs for (16, 512) (512,
#: 512)ᵀ, and 131 instead of 152 with Haswell's kernels.
LARGE_ENTRIES, SWAPPED_ROWS = 1 << 15, (8, 64)

#: NumPy adds a row to every row of a matrix in a loop a row, which costs as much as some 50 entries, and through a
#: buffer unless the loop has more than 8192 entries. So a few copies of the row, together so long, are added to as many
#: rows at once: (4096, 2) takes 4 µs, not 20, (512, 64) 6, not 9. A copy costs some 10 ns: so narrow matrices, whose
#: bytes times columns are less than these, get a SHORT_ROW of them. Fewer rows, and smaller wide ones, gain nothing.
LONG_ROW, MANY_ENTRIES, BYTES_TIMES_COLUMNS = 1 << 13, 1 << 14, 1 << 21
SHORT_ROW, WIDE, MANY_ROWS = 1 << 9, 1 << 5, 1 << 8


def times(a: Array, b: Array, out: Array) -> Iterable[Call]:
    """Yield the calls for A B into `out`."""
    part, done = _rows_in_part(a, b), 0
    if part:
        done = len(a) - len(a) % part
        yield call(np.matmul, _parts(a[:done], part), b, _parts(out[:done], part))
    if done < len(a):
        yield _product(a[done:], b, out[done:])


def times_transposed(a: Array, b: Array, out: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls for A Bᵀ into `out`."""
    rows, columns, small = len(a), len(b), b.size <= SMALL_ENTRIES
    few = columns <= FEW_COLUMNS and b.shape[1] >= TERMS_A_COLUMN * columns
    if rows <= _most_rows(b.T):
        yield _product(a, b.T, out)
    elif _rows_in_part(a, b.T) and (few or (rows <= MOST_ROWS_TRANSPOSED and not small)):
        yield from times(a, b.T, out)
    elif columns > 1 and _worth_copying(a, b):
        copy = empty((b.shape[1], columns), b.dtype)
        yield call(np.copyto, copy, b.T)
        yield from times(a, copy, out)
    elif b.size >= LARGE_ENTRIES and SWAPPED_ROWS[0] <= rows <= SWAPPED_ROWS[1] and b.dtype == np.float32:
        swapped = empty((columns, rows), b.dtype)
        yield _product(b, a.T, swapped)
        yield call(np.copyto, out, swapped.T)
    else:
        yield _product(a, b.T, out)


def transposed_times(a: Array, b: Array, out: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls for Aᵀ B into `out`: a sum over the rows."""
    part = _rows_in_part(a, out)
    if _rows_in_part(a.T, b) or part < FEWEST_SUMMED or len(a) > MOST_ROWS_SUMMED:
        yield from times(a.T, b, out)
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
    # Without an inner dimension to speak of, and for types that BLAS does not know, matmul is slow.
    large = out.size >= MATMUL_ENTRIES and a.shape[1] > 1 and out.dtype.char in "fdFD"
    return call(np.matmul if large else np.dot, a, b, out)


def _worth_copying(a: Array, b: Array) -> bool:
    """Return whether A Bᵀ is faster with a copy of Bᵀ."""
    if b.size <= SMALL_ENTRIES:
        return len(a) >= COPY_ROWS and len(a) * b.size >= COPY_MULTIPLICATIONS
    return len(a) >= COPY_ROWS_OF_LARGE and _rows_in_part(a, b) > 0


def _most_rows(b: Array) -> int:
    """Return how many rows times `b` are a small product, or 0 if there is no such thing."""
    if b.dtype not in (np.float32, np.float64) or min(b.shape) < 2 or not _has_small_products():
        return 0
    most = SMALL_PRODUCT // b.size
    if b.flags.c_contiguous:
        return most
    return min(most, SMALL_TRANSPOSED_RESULT // b.shape[1]) if len(b) >= FEWEST_TERMS else 0


def _rows_in_part(a: Array, b: Array) -> int:
    """Return how many rows of `a` to multiply with `b` at once, a power of two, or 0 if it should be all of them."""
    if a.flags.c_contiguous:
        fewest = FEWEST_IN_PART if b.flags.c_contiguous else FEWEST_IF_B_TRANSPOSED
    elif a.flags.f_contiguous:
        fewest = FEWEST_IF_A_TRANSPOSED
    else:
        return 0
    most = _most_rows(b)
    return 1 << (most.bit_length() - 1) if fewest <= most < len(a) else 0


@lru_cache(maxsize=1)
def _has_small_products() -> bool:
    return any(getattr(library, "architecture", None) in WITH_SMALL_PRODUCTS for library in blas_libraries())


def _parts(a: Array, rows: int) -> Array:
    """View a matrix as a stack of matrices of so many rows."""
    return a.reshape(-1, rows, a.shape[1])


def add_row(out: Array, row: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls that add `row` to every row of `out`, which is C-contiguous."""
    rows, width = out.shape
    if width == 1:
        length = 1  # NumPy takes it for a scalar
    elif out.size >= MANY_ENTRIES and out.nbytes * width >= BYTES_TIMES_COLUMNS:
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
