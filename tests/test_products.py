"""Products and sums over rows: every way of doing them against float64 and the plain expression, and which way when."""

from __future__ import annotations

from types import SimpleNamespace

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


def made(calls):
    """Return the calls as "function shapes", a shape as 4x16x600."""
    return [
        " ".join([prepared.func.__name__, *("x".join(map(str, a.shape)) for a in prepared.args[:2] if np.ndim(a))])
        for prepared in calls
    ]


#: What is made of (rows, inner, columns), where products of 100³ are small. The expected calls follow from the limits
#: that products.py states, each case being on one side of one of them.
CHOICES = {
    "times": [
        ((244, 64, 64), "f", ["dot 244x64 64x64"]),
        ((245, 64, 64), "f", ["matmul 1x128x64 64x64", "dot 117x64 64x64"]),
        ((600, 64, 64), "d", ["matmul 4x128x64 64x64", "dot 88x64 64x64"]),
        ((600, 64, 64), "D", ["matmul 600x64 64x64"]),
        ((600, 64, 64), "g", ["dot 600x64 64x64"]),
        ((9, 400, 310), "f", ["matmul 1x8x400 400x310", "dot 1x400 400x310"]),
        ((9, 400, 320), "f", ["dot 9x400 400x320"]),
        ((255, 64, 64), "D", ["dot 255x64 64x64"]),
        ((16384, 1, 64), "f", ["dot 16384x1 1x64"]),
    ],
    "times_transposed": [
        ((12, 64, 100), "f", ["dot 12x64 64x100"]),
        ((13, 64, 100), "f", ["matmul 1x8x64 64x100", "dot 5x64 64x100"]),
        ((13, 31, 200), "f", ["dot 13x31 31x200"]),
        ((40, 300, 100), "f", ["matmul 5x8x300 300x100"]),
        ((40, 300, 100), "D", ["dot 40x300 300x100"]),
        ((50, 64, 64), "f", ["dot 50x64 64x64"]),
        ((64, 64, 64), "f", ["copyto 64x64 64x64", "dot 64x64 64x64"]),
        ((64, 10, 20), "f", ["dot 64x10 10x20"]),
        ((82, 10, 20), "f", ["copyto 10x20 10x20", "dot 82x10 10x20"]),
        ((64, 128, 10), "f", ["dot 64x128 128x10"]),
        ((512, 128, 10), "f", ["matmul 8x64x128 128x10"]),
        ((512, 95, 16), "f", ["copyto 95x16 95x16", "dot 512x95 95x16"]),
        ((512, 96, 16), "f", ["matmul 8x64x96 96x16"]),
        ((512, 60, 10), "f", ["matmul 8x64x60 60x10"]),
        ((512, 102, 17), "f", ["copyto 102x17 102x17", "dot 512x102 102x17"]),
        ((512, 128, 1), "f", ["dot 512x128 128x1"]),
        ((255, 128, 128), "f", ["matmul 255x128 128x128"]),
        ((256, 128, 128), "f", ["copyto 128x128 128x128", "matmul 8x32x128 128x128"]),
        ((16, 512, 512), "f", ["dot 512x512 512x16", "copyto 16x512 16x512"]),
        ((16, 512, 512), "d", ["dot 16x512 512x512"]),
        ((65, 512, 512), "f", ["matmul 65x512 512x512"]),
    ],
    "transposed_times": [
        ((240, 64, 64), "f", ["dot 64x240 240x64"]),
        ((600, 64, 64), "f", ["matmul 4x16x600 600x64"]),
        ((1100, 64, 64), "f", ["matmul 8x64x128 8x128x64", "dot 64x76 76x64", "reduce 9x64x64"]),
        ((1100, 32, 200), "f", ["matmul 12x16x1100 1100x32", "dot 8x1100 1100x32"]),
        ((1100, 100, 200), "f", ["matmul 200x1100 1100x100"]),
        ((8192, 16, 8), "f", ["matmul 2x8x4096 2x4096x16", "reduce 2x8x16"]),
        ((8193, 16, 8), "f", ["dot 8x8193 8193x16"]),
    ],
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CHOICES.items() for case in cases])
def test_the_form_follows_from_the_shapes(name, case, monkeypatch):
    monkeypatch.setattr(products, "_has_small_products", lambda: True)
    (rows, inner, columns), dtype, wanted = case
    a, b, delta = np.ones((rows, inner), dtype), np.ones((columns, inner), dtype), np.ones((rows, columns), dtype)
    out = np.ones((rows, columns), dtype)
    if name == "times":
        calls = times(a, np.ascontiguousarray(b.T), out)
    elif name == "times_transposed":
        calls = times_transposed(a, b, out, np.empty)
    else:
        calls = transposed_times(delta, a, np.ones((columns, inner), dtype), np.empty)
    assert made(calls) == wanted


@pytest.mark.parametrize(
    ("rows", "width", "wanted"),
    [
        (1, 3, ["add 1x3 1x3"]),
        (100, 3, ["add 100x3 1x3"]),
        (256, 3, ["copyto 171x3 3", "add 1x513 1x513", "add 85x3 1x3"]),
        (256, 31, ["copyto 17x31 31", "add 15x527 1x527", "add 1x31 1x31"]),
        (256, 32, ["add 256x32 1x32"]),
        (255, 64, ["add 255x64 1x64"]),
        (256, 64, ["copyto 128x64 64", "add 2x8192 1x8192"]),
        (1023, 16, ["copyto 32x16 16", "add 31x512 1x512", "add 31x16 1x16"]),
        (1024, 16, ["copyto 512x16 16", "add 2x8192 1x8192"]),
        (8192, 4, ["copyto 128x4 4", "add 64x512 1x512"]),
        (50_000, 1, ["add 50000x1 1x1"]),
    ],
)
def test_a_row_is_added_to_several_rows_at_once(rows, width, wanted):
    assert made(add_row(np.ones((rows, width)), np.ones(width), np.empty)) == wanted


def test_in_float32_a_long_row_needs_twice_as_many_entries() -> None:
    def calls(rows):
        return made(add_row(np.ones((rows, 16), np.float32), np.ones(16, np.float32), np.empty))

    assert calls(2047)[0] == "copyto 32x16 16"
    assert calls(2048) == ["copyto 512x16 16", "add 4x8192 1x8192"]


def test_small_products_are_those_of_the_kernels_for_avx512(monkeypatch):
    for architecture, wanted in (("SkylakeX", True), ("Haswell", False), (None, False)):
        library = SimpleNamespace() if architecture is None else SimpleNamespace(architecture=architecture)
        monkeypatch.setattr(products, "blas_libraries", lambda library=library: [library])
        assert products._has_small_products.__wrapped__() is wanted


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
