"""The arithmetic of softmax and its logarithm: loss and gradient of rows of logits, with all their digits.

With p = softmax(z), log p_c = z_c - m - log Σ_j e^(z_j - m) for m = max z. Loss and gradient are computed from the
terms' sum without one of them, the *pivot*: ρ = Σ_{j ≠ pivot} e^(z_j - m). Where the pivot's e^0 = 1 outweighs the
others, log(1 + ρ) by log1p and 1 - p = ρ / (1 + ρ) keep the digits that 1 + ρ loses: a row that is classified well
still has its loss and its gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial as call

import numpy as np

from matbackprop.calls import Call
from matbackprop.layers import exp
from matbackprop.losses import complex_log1p
from matbackprop.validation import Array
from matbackprop.workspace import Empty

__all__ = ["continued", "of_classes", "of_weights"]

#: Up to so many classes, the maximum of each row is found faster in a transposed copy (six times, for 10 in float32).
FEW = 32


def of_classes(z: Array, y: Array, value: Array, delta: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls for ℓ = log1p(ρ + e_y - 1) - (z_y - m) and ∂ℓ/∂z = p - [c = y]; the pivot is the target.

    e_y - 1 is 0 where the target has the largest logit, and ρ is at least 1 where it has not: nothing cancels.
    """
    rows, classes = z.shape
    m, d, e_y, rho, s = (empty((rows,), z.dtype) for _ in range(5))
    at, e, one = empty((rows,), np.intp), delta.reshape(-1), np.ones((), z.dtype)
    yield call(np.add, np.arange(rows) * classes, y, at)
    if classes <= FEW:
        columns = empty((classes, rows), z.dtype)
        yield call(np.copyto, columns, z.T)
        yield call(np.maximum.reduce, columns, 0, None, m)
    else:
        yield call(np.maximum.reduce, z, 1, None, m)
    yield call(_subtract, z, m[:, None], delta)
    yield call(e.take, at, None, d, "clip")  # z_y - m
    yield call(exp, delta, delta)
    yield call(e.take, at, None, e_y, "clip")
    yield call(e.__setitem__, at, 0)
    yield call(np.dot, delta, np.ones(classes, z.dtype), rho)
    yield call(np.subtract, e_y, one, value)
    yield call(np.add, value, rho, value)
    yield call(np.log1p, value, value)
    yield call(np.subtract, value, d, value)
    yield call(np.add, rho, e_y, s)
    yield call(np.reciprocal, s, s)
    yield call(np.multiply, delta, s[:, None], delta)
    yield call(np.multiply, rho, s, rho)
    yield call(np.negative, rho, rho)  # p_y - 1
    yield call(e.__setitem__, at, rho)


def of_weights(z: Array, u: Array, sums: Array, value: Array, delta: Array, empty: Empty) -> Iterable[Call]:
    """Yield the calls for ℓ = Σ u (log1p(ρ) - (z - m)) and ∂ℓ/∂z = (Σ u) p - u; the pivot is the largest logit.

    No term of ℓ is negative. At the pivot, ∂ℓ/∂z is (Σ u - u) - (Σ u) (1 - p).
    """
    rows, classes = z.shape
    m, rho, s, u_m = (empty((rows,), z.dtype) for _ in range(4))
    at, e, terms = empty((rows,), np.intp), delta.reshape(-1), empty(z.shape, z.dtype)
    add_up, one = np.ones(classes, z.dtype), np.ones((), z.dtype)
    yield call(np.argmax, z, 1, at)
    yield call(np.add, np.arange(rows) * classes, at, at)
    yield call(z.reshape(-1).take, at, None, m, "clip")
    yield call(_subtract, z, m[:, None], delta)
    yield call(_multiply, u, delta, terms)
    yield call(exp, delta, delta)
    yield call(e.__setitem__, at, 0)
    yield call(np.dot, delta, add_up, rho)
    yield call(np.add, rho, one, s)
    yield call(np.divide, sums, s, s)  # (Σ u) / Σ e^(z - m)
    yield call(np.log1p, rho, value)
    yield call(np.multiply, value, sums, value)
    yield call(np.dot, terms, add_up, m)
    yield call(np.subtract, value, m, value)
    yield call(np.multiply, delta, s[:, None], delta)
    yield call(np.subtract, delta, u, delta)
    yield call(u.reshape(-1).take, at, None, u_m, "clip")
    yield call(np.subtract, sums, u_m, u_m)
    yield call(np.multiply, rho, s, rho)
    yield call(np.subtract, u_m, rho, rho)
    yield call(e.__setitem__, at, rho)


def _subtract(z: Array, m: Array, out: Array) -> None:
    """Write z - m into `out`, with 0 where both are +inf. That it overflows to -inf is no event: e^-inf is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(z, m, out)
    if np.maximum.reduce(m, None, initial=0) == np.inf:
        out[(z == np.inf) & (m == np.inf)] = 0


def _multiply(u: Array, x: Array, out: Array) -> None:
    """Write u ⊙ x into `out`, with 0 where u is, even for an infinite x."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(u, x, out)
    if np.minimum.reduce(x, None, initial=0) == -np.inf:
        out[(u == 0) & (x == -np.inf)] = 0


def continued(z: Array, u: Array, sums: Array, value: Array, delta: Array) -> None:
    """Compute ℓ and ∂ℓ/∂z off the real axis: by the formulas of `of_weights`, the pivot decided by the real part."""
    rows, at = np.arange(len(z)), z.real.argmax(axis=1)
    shifted = np.empty_like(z)
    _subtract(z.real, z.real[rows, at][:, None], shifted.real)
    np.subtract(z.imag, z.imag[rows, at][:, None], shifted.imag)
    terms = np.where(u == 0, 0, u * shifted)
    e = np.exp(shifted)
    e[rows, at] = 0
    rho = e.sum(axis=1)
    np.subtract(sums * complex_log1p(rho), terms.sum(axis=1), value)
    p = (sums / (1 + rho))[:, None]
    np.subtract(e * p, u, delta)
    delta[rows, at] = (sums - u[rows, at]) - rho * p[:, 0]
