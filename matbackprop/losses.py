"""The losses of each element: MSE, Huber, BCE, BCEWithLogits.

==============  =================================================  =================================
loss            each element, ℓ                                    ∂ℓ/∂ŷ
==============  =================================================  =================================
MSE             (ŷ - y)²                                           2 (ŷ - y)
Huber           c (e - c/2)                                        c
BCE             -y log ŷ - (1 - y) log(1 - ŷ)                      (ŷ - y) / (ŷ (1 - ŷ))
BCEWithLogits   p y softplus(-z) + (1 - y) softplus(z)             (1 - y) σ(z) - p y σ(-z)
==============  =================================================  =================================

with e = ŷ - y and c the same limited to [-δ, δ], softplus(z) = log(1 + e^z), and p the weight of the positive class.
The base class sums, averages and weights.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import partial as call
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from matbackprop.calls import Call
from matbackprop.layer import Layer
from matbackprop.layers import Sigmoid, exp
from matbackprop.loss import Loss
from matbackprop.settings import real
from matbackprop.validation import Array, as_array, check_finite, check_interval
from matbackprop.workspace import Empty

__all__ = ["BCE", "MSE", "BCEWithLogits", "Huber", "complex_log1p"]

#: Where torch clamps the denominator of BCE's derivative: a float32 constant, whatever the type of the data.
EPSILON = float(np.float32(1e-12))


class MSE(Loss):
    """The mean squared error, L = (1/n) Σ (ŷ - y)²; Δ = (2/n) (Ŷ - Y).

    The half-squared error that textbooks draw, E = (y - d)²/2, is ``MSE("sum")`` with ``sample_weight=0.5``.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        Over all n elements, N times out.

    Examples
    --------
    >>> import matbackprop as mb
    >>> loss = mb.MSE()
    >>> loss([[1.0, 2.0]], [[0.0, 4.0]])
    2.5
    >>> loss.backward()
    array([[ 1., -2.]])
    >>> mb.MSE("sum")([[1.0, 2.0]], [[0.0, 4.0]], sample_weight=0.5)
    2.5
    """

    rowwise: ClassVar[bool] = True
    formulas: Mapping[str, str] = MappingProxyType(
        {"loss": "({y_pred} - {y_true})²", "derivative": "2 ({y_pred} - {y_true})"}
    )

    def steps(self, y_pred: Array, y: Array, losses: Array, delta: Array, empty: Empty) -> Iterable[Call]:
        """ℓ = (ŷ - y)², ∂ℓ/∂ŷ = 2 (ŷ - y)."""
        yield call(np.subtract, y_pred, y, delta)
        yield call(np.multiply, delta, delta, losses)
        yield call(np.add, delta, delta, delta)

    def _key(self) -> Hashable:
        return (MSE, self.reduction) if type(self) is MSE else super()._key()


class Huber(Loss):
    """Huber's loss, ℓ = e²/2 where the error e = ŷ - y is within ±δ, and δ (|e| - δ/2) beyond; Δ is e limited to ±δ.

    A parabola that goes on as its tangents: an outlier pulls with the force δ, however far out it is. With c = e
    limited to [-δ, δ], both branches are ℓ = c (e - c/2): for c = e that is e²/2, for c = ±δ it is δ (|e| - δ/2). They
    meet with one slope, ±δ at e = ±δ from either side, so that the gradient has a kink there and no jump. For complex
    steps, the real part decides the branch.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        Over all n elements, N times out.
    delta : float, default 1
        δ, positive. (As it grows, the loss becomes half of `MSE`.)

    Raises
    ------
    TypeError, ValueError
        If `delta` is not a positive finite number.

    References
    ----------
    P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964). The values
    are those of ``torch.nn.HuberLoss``.

    Examples
    --------
    >>> import matbackprop as mb
    >>> loss = mb.Huber("sum", delta=1.0)
    >>> loss([[0.5, 3.0]], [[0.0, 0.0]])
    2.625
    >>> loss.backward()
    array([[0.5, 1. ]])
    """

    rowwise: ClassVar[bool] = True
    _limit: float = 1.0

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self._limit = real(ends="()")(delta, "Huber: delta")

    @property
    def formulas(self) -> Mapping[str, str]:  # type: ignore[override]
        """ℓ = c (e - c/2) and ∂ℓ/∂ŷ = c, with e = ŷ - y and c = min(max(e, -δ), δ)."""
        return {
            "loss": "C ⊙ ({y_pred} - {y_true} - C / 2)",
            "derivative": f"min(max({{y_pred}} - {{y_true}}, -{self._limit:g}), {self._limit:g})",
            "note": f"C is the error Ŷ - Y limited to ±{self._limit:g}.",
        }

    @property
    def delta(self) -> float:
        """δ. It cannot be changed."""
        return self._limit

    def steps(self, y_pred: Array, y: Array, losses: Array, delta: Array, empty: Empty) -> Iterable[Call]:
        """ℓ = c (e - c/2), ∂ℓ/∂ŷ = c."""
        low, high, half = (np.asarray(value, y.dtype) for value in (-self._limit, self._limit, 0.5))
        error = empty(y.shape, y.dtype)
        yield call(np.subtract, y_pred, y, error)
        yield call(np.minimum, error, high, out=delta)
        yield call(np.maximum, delta, low, out=delta)  # c
        yield call(np.multiply, delta, half, losses)
        yield call(np.subtract, error, losses, losses)
        yield call(np.multiply, losses, delta, losses)

    def _key(self) -> Hashable:
        return (Huber, self.reduction, self._limit) if type(self) is Huber else super()._key()


class BCE(Loss):
    """The binary cross-entropy of probabilities, ℓ = -y log ŷ - (1 - y) log(1 - ŷ).

    As in torch, both logs are clamped at -100, and the denominator of ∂ℓ/∂ŷ = (ŷ - y) / (ŷ (1 - ŷ)) at 1e-12.

    Where a network ends in `Sigmoid` after another layer, `Sequential.backprop` computes value and gradient from the
    pre-activation Z instead, as `BCEWithLogits` does: the denominator cancels against σ'(z), Δ = (Ŷ - Y)/n, and neither
    clamps nor rounding near ŷ = 0 or 1 lose anything. Away from saturation the two agree to rounding.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        Over all n elements, N times out.

    Raises
    ------
    ValueError
        On a call, if a prediction or target is outside [0, 1].

    Examples
    --------
    >>> import matbackprop as mb
    >>> loss = mb.BCE()
    >>> round(loss([[0.25]], [[1.0]]), 4)
    1.3863
    >>> loss.backward()
    array([[-4.]])
    """

    rowwise: ClassVar[bool] = True
    formulas: Mapping[str, str] = MappingProxyType(
        {
            "loss": "-{y_true} ⊙ log {y_pred} - (1 - {y_true}) ⊙ log(1 - {y_pred})",
            "derivative": "({y_pred} - {y_true}) / ({y_pred} ⊙ (1 - {y_pred}))",
            "through": "{y_pred} - {y_true}",
        }
    )

    def check_values(self, y_pred: Array | None, y: Array) -> None:
        """Check that targets, and predictions where they are given, are probabilities."""
        check_interval(self, "y_true", y, "labels are 0 and 1")
        if y_pred is not None:
            check_interval(self, "y_pred", y_pred, "end the network in Sigmoid, or use BCEWithLogits")

    def through(self, last: Layer) -> Loss | None:
        """Return BCEWithLogits after a Sigmoid."""
        fits = type(self) is BCE and type(last) is Sigmoid  # a subclass may compute something else
        return BCEWithLogits(self.reduction) if fits else None

    def steps(self, y_pred: Array, y: Array, losses: Array, delta: Array, empty: Empty) -> Iterable[Call]:
        """ℓ = -y log ŷ - (1 - y) log(1 - ŷ), ∂ℓ/∂ŷ = (ŷ - y) / (ŷ (1 - ŷ))."""
        one, floor = np.ones((), y.dtype), np.full((), -100, y.dtype)
        rest, term = empty(y.shape, y.dtype), empty(y.shape, y.dtype)
        yield call(_clamped_log, np.log, y_pred, floor, losses)
        yield call(np.multiply, losses, y, losses)  # y log ŷ
        yield call(np.negative, y_pred, rest)
        yield call(_clamped_log, np.log1p, rest, floor, rest)
        yield call(np.subtract, one, y, term)
        yield call(np.multiply, term, rest, term)  # (1 - y) log(1 - ŷ)
        yield call(np.add, losses, term, losses)
        yield call(np.negative, losses, losses)

        yield call(np.subtract, one, y_pred, rest)
        yield call(np.multiply, y_pred, rest, rest)
        yield call(np.maximum, rest, np.asarray(EPSILON, y.dtype), out=rest)  # ŷ (1 - ŷ)
        yield call(np.subtract, y_pred, y, delta)
        yield call(np.divide, delta, rest, delta)

    def _key(self) -> Hashable:
        return (BCE, self.reduction) if type(self) is BCE else super()._key()


class BCEWithLogits(Loss):
    """The binary cross-entropy of logits z, ℓ = p y softplus(-z) + (1 - y) softplus(z).

    It is BCE after Sigmoid, without the intermediate ŷ = σ(z) that would round to 0 or 1: both terms, and those of
    ∂ℓ/∂z = (1 - y) σ(z) - p y σ(-z), are positive and accurate in both tails.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        Over all n elements, N times out.
    pos_weight : float or array_like of shape (out,), optional
        p, the weight of positive targets: their number is, in effect, multiplied by it. 1 by default.

    Raises
    ------
    ValueError
        If `pos_weight` is not positive and finite, or, on a call, a target is outside [0, 1].

    Examples
    --------
    >>> import matbackprop as mb
    >>> loss = mb.BCEWithLogits(pos_weight=3.0)
    >>> round(loss([[0.0], [0.0]], [[1.0], [0.0]]), 4)
    1.3863
    >>> loss.backward()
    array([[-0.75],
           [ 0.25]])
    """

    rowwise: ClassVar[bool] = True

    def __init__(self, reduction: str = "mean", pos_weight: Array | float | None = None) -> None:
        super().__init__(reduction)
        self._pos_weight: Array | None = None
        if pos_weight is not None:
            weight = np.array(as_array(pos_weight, "BCEWithLogits: pos_weight", np.dtype(np.float64)))
            if weight.ndim > 1:
                raise ValueError(f"BCEWithLogits: pos_weight is a number or one an output, got shape {weight.shape}")
            check_finite("BCEWithLogits: pos_weight", weight)
            if not (weight > 0).all():
                raise ValueError(f"BCEWithLogits: pos_weight must be positive, got {pos_weight!r}")
            self._pos_weight = weight

    @property
    def formulas(self) -> Mapping[str, str]:  # type: ignore[override]
        """ℓ = p y softplus(-z) + (1 - y) softplus(z), ∂ℓ/∂z = (1 - y) σ(z) - p y σ(-z), or σ(z) - y without p."""
        if self._pos_weight is None:
            return {
                "loss": "{y_true} ⊙ softplus(-{y_pred}) + (1 - {y_true}) ⊙ softplus({y_pred})",
                "derivative": "σ({y_pred}) - {y_true}",
            }
        return {
            "loss": "p {y_true} ⊙ softplus(-{y_pred}) + (1 - {y_true}) ⊙ softplus({y_pred})",
            "derivative": "(1 - {y_true}) ⊙ σ({y_pred}) - p {y_true} ⊙ σ(-{y_pred})",
        }

    @property
    def pos_weight(self) -> Array | None:
        """The weight of positive targets: a copy."""
        return None if self._pos_weight is None else self._pos_weight.copy()

    def check_values(self, y_pred: Array | None, y: Array) -> None:
        """Check that targets are probabilities, and that `pos_weight` fits them."""
        check_interval(self, "y_true", y, "labels are 0 and 1")
        if self._pos_weight is not None and self._pos_weight.shape not in ((), y.shape[-1:]):
            raise ValueError(
                f"{self!r}: pos_weight must be a number or one an output, shape {y.shape[-1:]}, "
                f"got shape {self._pos_weight.shape}"
            )

    def steps(self, y_pred: Array, y: Array, losses: Array, delta: Array, empty: Empty) -> Iterable[Call]:
        """ℓ = c log(1 + r) + u z, ∂ℓ/∂z = u - sign(z) c r / (1 + r).

        Here r = e^-|z|, c = 1 - y + p y, and u = 1 - y where z > 0 but -p y where z < 0: the same as the formulas of
        the class, and for labels 0 and 1 without a difference of nearly equal numbers.
        """
        z, p = y_pred, self._pos_weight
        if np.iscomplexobj(z):
            yield call(self._continued, z, y, losses, delta)
            return
        zero, one = np.zeros((), y.dtype), np.ones((), y.dtype)
        r, u, term = (empty(y.shape, y.dtype) for _ in range(3))
        mask = empty(y.shape, np.bool_)
        yield call(np.copysign, z, -one, r)
        yield call(exp, r, r)
        yield call(np.log1p, r, losses)
        yield call(np.add, r, one, term)
        yield call(np.divide, r, term, delta)  # r / (1 + r)
        yield call(np.copysign, delta, z, delta)
        yield call(np.signbit, z, mask)
        yield call(np.logical_not, mask, mask)
        if p is None:
            yield call(np.subtract, mask, y, u)
        else:
            weight = empty(y.shape, y.dtype)
            yield call(np.subtract, one, y, u)
            yield call(np.multiply, y, p.astype(y.dtype), weight)
            yield call(np.add, u, weight, term)  # c
            yield call(np.multiply, losses, term, losses)
            yield call(np.multiply, delta, term, delta)
            yield call(np.multiply, u, mask, u)
            yield call(np.logical_not, mask, mask)
            yield call(np.multiply, weight, mask, weight)
            yield call(np.subtract, u, weight, u)
        yield call(np.subtract, u, delta, delta)
        yield call(np.equal, u, zero, mask)  # u z is 0 where u is, even for an infinite z
        yield call(np.copyto, term, z)
        yield call(np.copyto, term, zero, where=mask)
        yield call(np.multiply, term, u, term)
        yield call(np.add, losses, term, losses)

    def _continued(self, z: Array, y: Array, losses: Array, delta: Array) -> None:
        """Compute ℓ and ∂ℓ/∂z off the real axis: the same formulas, the side decided by the real part."""
        right = z.real > 0
        e = np.exp(np.where(right, -z, z))
        positive = y if self._pos_weight is None else y * self._pos_weight
        u = np.where(right, 1 - y, -positive)
        c = 1 - y + positive
        np.add(c * complex_log1p(e), u * z, losses)
        np.subtract(u, np.where(right, 1, -1) * c * e / (1 + e), delta)

    def _key(self) -> Hashable:
        if type(self) is not BCEWithLogits:
            return super()._key()
        weight = self._pos_weight
        return BCEWithLogits, self.reduction, None if weight is None else (weight.shape, weight.tobytes())


def complex_log1p(x: Array) -> Array:
    """Return log(1 + x) off the real axis, where NumPy's loses its digits for a small x."""
    log: Array = np.log1p(x.real * (2 + x.real) + x.imag**2) / 2 + 1j * np.arctan2(x.imag, 1 + x.real)
    return log


def _clamped_log(log: np.ufunc, x: Array, floor: Array, out: Array) -> None:
    """Write max(log(x), floor) into `out`; a log of zero is no event to warn of."""
    with np.errstate(divide="ignore"):
        log(x, out)
    np.maximum(out, floor, out=out)
