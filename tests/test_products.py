"""Products and sums over rows: every way of doing them against float64 and the plain expression, and which way when."""

from __future__ import annotations

import numpy as np
import pytest

from matbackprop import products
from matbackprop.calls import run
from matbackprop.products import add_row, times, times_transposed, transposed_times

# (rows, inner, columns): tiny, with and without copies and parts, and just beyond each of the module's sizes
SHAPES = [
    (0, 3, 2), (1, 1, 1), (1, 5, 3), (7, 1, 4), (3, 4, 1), (63, 4, 32), (64, 4, 32), (65, 64, 64), (64, 5, 1),
    (8, 300, 120), (7, 300, 120), (64, 300, 120), (65, 300, 120), (256, 3, 64), (300, 2, 64), (512, 1, 64),
    (40, 300, 100), (16, 784, 128), (245, 64, 64), (1100, 64, 64),
    (512, 64, 64), (517, 64, 64), (1000, 32, 32), (600, 40, 300), (8193, 16, 8), (600, 1000, 100),
]  # fmt: skip


@pytest.mark.parametrize("small_products", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_those_of_float64(shape, dtype, order, small_products, monkeypatch):
    monkeypatch.setattr(products, "_has_small_products", lambda: small_products)
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    draw = lambda *shape: np.asarray(rng.standard_normal(shape), dtype, order)  # noqa: E731
    a, b, delta = draw(rows, inner), draw(columns, inner), draw(rows, columns)
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    cases = {
        "A B": (a, b.T, lambda out: times(a, np.ascontiguousarray(b.T), out)),
        "A Bᵀ": (a, b.T, lambda out: times_transposed(a, b, out, np.empty)),
        "Δᵀ A": (delta.T, a, lambda out: transposed_times(delta, a, out, np.empty)),
    }
    for name, (left, right, calls) in cases.items():
        wanted = left.astype(wide) @ right.astype(wide)
        out = np.full(wanted.shape, np.nan, dtype)
        run(calls(out))
        error = np.abs(out - wanted).max(initial=0) / np.abs(wanted).max(initial=1e-300)
        assert error <= 2 * np.finfo(dtype).eps * left.shape[1] ** 0.5, name


def test_large_products_are_made_in_parts_where_that_is_faster(monkeypatch):
    monkeypatch.setattr(products, "_has_small_products", lambda: True)
    a, b, delta, sums = np.ones((600, 64)), np.ones((64, 64)), np.ones((600, 64)), np.empty((64, 64))

    def shapes(calls):
        return [[array.shape for array in prepared.args if isinstance(array, np.ndarray)] for prepared in calls]

    parts_and_rest = [[(4, 128, 64), (64, 64), (4, 128, 64)], [(88, 64), (64, 64), (88, 64)]]
    assert shapes(times(a, b, np.empty((600, 64)))) == parts_and_rest
    assert shapes(times_transposed(a, b, np.empty((600, 64)), np.empty)) == [[(64, 64), (64, 64)], *parts_and_rest]
    assert shapes(transposed_times(delta, a, sums, np.empty)) == [[(4, 16, 600), (600, 64), (4, 16, 64)]]
    a, delta = np.ones((1100, 64)), np.ones((1100, 64))
    assert shapes(transposed_times(delta, a, sums, np.empty)) == [
        [(8, 64, 128), (8, 128, 64), (8, 64, 64)],
        [(64, 76), (76, 64), (64, 64)],
        [(9, 64, 64), (64, 64)],
    ]
    a, b = np.ones((40, 300)), np.ones((100, 300))
    assert shapes(times_transposed(a, b, np.empty((40, 100)), np.empty)) == [[(5, 8, 300), (300, 100), (5, 8, 100)]]


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
