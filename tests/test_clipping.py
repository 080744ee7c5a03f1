"""clip_norm: the norm and the clipped vector, where squares overflow and vanish too."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import matbackprop as mb

NAN, INF = float("nan"), float("inf")
REALS = ["float32", "float64", "longdouble"]


def exact_norm(vector):
    """Return ‖v‖ at 50 digits."""
    with mpmath.workdps(50):
        parts = [*np.real(vector), *np.imag(vector)]
        return mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(part)) ** 2 for part in parts))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e3])
def test_as_torch(torch, rng, dtype, max_norm):
    """Without torch's 1e-6, which makes its result shorter by the factor 1 + 1e-6/‖g‖."""
    gradients = (rng.normal(size=1000) + 1j * rng.normal(size=1000) * (dtype[0] == "c")).real
    gradients = gradients.astype(dtype) if dtype[0] != "c" else (gradients + 1j * gradients[::-1]).astype(dtype)
    parameter = torch.nn.Parameter(torch.zeros(1000, dtype=getattr(torch, dtype)))
    parameter.grad = torch.tensor(gradients)
    theirs = torch.nn.utils.clip_grad_norm_([parameter], max_norm).item()
    tolerance = 1e-12 if dtype in ("float64", "complex128") else 1e-6
    norm = mb.clip_norm(gradients, max_norm)
    assert isinstance(norm, float)
    assert norm == pytest.approx(theirs, tolerance)
    golden = parameter.grad.numpy() * (1 + 1e-6 / theirs if norm > max_norm else 1.0)
    assert gradients.dtype == golden.dtype
    np.testing.assert_allclose(gradients, golden, 0, tolerance * np.abs(golden).max())


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("size", [1, 70])
@pytest.mark.parametrize("exponent", [-44, -38, -30, -22, -10, 0, 10, 18, 20, 30, 36])
@pytest.mark.parametrize("max_norm", [1e-30, 1.0, 1e20])
def test_huge_and_tiny(rng, monkeypatch, dtype, size, exponent, max_norm):
    """By mpmath; float64 with eight times the exponent, so that its squares leave the range as well."""
    monkeypatch.setattr("matbackprop.clipping._PIECE", 30)
    power = exponent if dtype == "float32" else exponent * 8
    gradients = (rng.uniform(0.5, 1, size) * 10.0**power).astype(dtype)
    before, norm = gradients.copy(), exact_norm(gradients)
    rounding = 50 * float(np.finfo("float64" if dtype == "longdouble" else dtype).eps)
    assert mb.clip_norm(gradients, max_norm) == pytest.approx(float(norm), rel=rounding)
    with mpmath.workdps(50):
        factor = max_norm / norm if norm > max_norm else mpmath.mpf(1)
        expected = [mpmath.mpf(float(value)) * factor for value in before]
    tiny = 2 * float(np.finfo(dtype).smallest_subnormal)
    np.testing.assert_allclose(gradients.astype(float), np.array(expected, float), rounding, tiny)


def test_what_torch_cannot(torch):
    """Entries of 1e30 in float32: their squares overflow."""
    gradients = np.full(4, 1e30, "f")
    assert mb.clip_norm(gradients, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(gradients, 0.5, 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_short_ones_stay_to_the_bit(rng, dtype):
    gradients = rng.normal(size=100).astype(dtype)
    before = gradients.copy()
    assert mb.clip_norm(gradients, 100.0) == pytest.approx(np.linalg.norm(before))
    mb.clip_norm(gradients, INF)
    np.testing.assert_array_equal(gradients, before)
    assert mb.clip_norm(np.zeros(3, dtype), 1.0) == 0.0
    assert mb.clip_norm(np.zeros(0, dtype), 1.0) == 0.0


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "longdouble"])
def test_not_finite(bad, dtype):
    """The caller sees it from the norm; the gradients are as they were."""
    gradients = np.ones(10, dtype)
    gradients[3] = bad
    before = gradients.copy()
    norm = mb.clip_norm(gradients, 1.0)
    assert np.isnan(norm) if np.isnan(bad) else norm == INF
    np.testing.assert_array_equal(gradients, before)


def test_norm_out_of_range():
    gradients = np.full(4, 1e308)
    assert mb.clip_norm(gradients, 1.0) == INF
    assert (gradients == 1e308).all()


def test_strided():
    gradients = np.array([3.0, 9.0, 4.0, 9.0])
    assert mb.clip_norm(gradients[::2], 1.0) == 5.0
    np.testing.assert_allclose(gradients, [0.6, 9.0, 0.8, 9.0])


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("gradients", "max_norm", "error", "words"),
    [
        ([3.0, 4.0], 1.0, TypeError, "gradients: expected a NumPy vector, got list"),
        (None, 1.0, TypeError, "gradients: expected a NumPy vector, got None"),
        (np.ma.ones(2), 1.0, TypeError, "got MaskedArray"),
        (np.ones(2, int), 1.0, TypeError, "gradients: expected one of"),
        (np.ones((2, 2)), 1.0, ValueError, r"gradients: expected one flat vector, shape \(P,\)"),
        (read_only(np.ones(2)), 1.0, ValueError, "gradients: they are read-only"),
        *((np.ones(2), bad, ValueError, "max_norm: expected a number in") for bad in (0, -1.0, NAN, -INF)),
        *((np.ones(2), bad, TypeError, "max_norm: expected a number in") for bad in (None, "1", True, 1j, [1.0])),
    ],
)
def test_bad_calls(gradients, max_norm, error, words):
    with pytest.raises(error, match=f"^clip_norm: {words}" if "got Masked" not in words else words):
        mb.clip_norm(gradients, max_norm)
