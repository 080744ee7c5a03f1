"""Products and sums over rows: every way of doing them against float64 and the plain expression, and which way when."""

from __future__ import annotations

import numpy as np
import pytest

from matbackprop.calls import run
from matbackprop.products import add_row, times, times_transposed

# (rows, inner, columns): tiny, one of each, with and without copies, and just beyond each of the module's sizes
SHAPES = [
    (0, 3, 2), (1, 1, 1), (1, 5, 3), (7, 1, 4), (3, 4, 1), (63, 4, 32), (64, 4, 32), (65, 64, 64), (64, 5, 1),
    (8, 300, 120), (7, 300, 120), (64, 300, 120), (65, 300, 120), (256, 3, 64), (300, 2, 64), (512, 1, 64),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_those_of_float64(shape, dtype):
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, inner)).astype(dtype), rng.standard_normal((columns, inner)).astype(dtype)
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    wanted = a.astype(wide) @ b.T.astype(wide)
    tolerance = 4 * np.finfo(dtype).eps * inner
    for product in (lambda out: [times(a, b.T, out)], lambda out: times_transposed(a, b, out, np.empty)):
        out = np.full((rows, columns), np.nan, dtype)
        run(product(out))
        assert np.abs(out - wanted).max(initial=0) <= tolerance * np.abs(wanted).max(initial=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("rows", [0, 1, 2, 255, 256, 257, 384, 1000, 1024, 2730, 4096])
@pytest.mark.parametrize("width", [1, 2, 3, 10, 16, 31, 32, 64, 100, 9000])
def test_a_row_is_added_to_every_row_bit_for_bit(rows, width, dtype):
    if rows * width > 1 << 20:
        rows = 8
    rng = np.random.default_rng(0)
    out, row = rng.standard_normal((rows, width)).astype(dtype), rng.standard_normal(width).astype(dtype)
    wanted = out + row
    run(add_row(out, row, np.empty))
    np.testing.assert_array_equal(out, wanted)


def test_calls_see_what_the_arrays_hold_later():
    a, b, row, out = np.ones((256, 4)), np.ones((32, 4)), np.ones(32), np.empty((256, 32))
    calls = [*times_transposed(a, b, out, np.empty), *add_row(out, row, np.empty)]
    run(calls)
    b[...], row[...] = 2, 3
    run(calls)
    np.testing.assert_array_equal(out, np.full((256, 32), 11.0))
