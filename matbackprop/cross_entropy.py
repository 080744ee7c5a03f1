"""CrossEntropy: the loss of a classifier, from its logits.

With p = softmax(z), so that log p_c = z_c - m - log Σ_j e^(z_j - m) for m = max z, and u the weights of the classes in
a row (1 for the target and 0 for the others, in the simplest case):

    ℓ = -Σ_c u_c log p_c,    ∂ℓ/∂z = (Σ_c u_c) p - u.

The second is p - u where the weights of a row sum to 1. Both are computed from the terms' sum without one of them, the
*pivot*: ρ = Σ_{j ≠ pivot} e^(z_j - m). Where the pivot's e^0 = 1 outweighs the others, log(1 + ρ) by log1p and 1 - p =
ρ / (1 + ρ) keep the digits that 1 + ρ loses: a row that is classified well still has its loss and its gradient.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import partial as call
from typing import Any, ClassVar

import numpy as np

from matbackprop.calls import Call
from matbackprop.layers import exp
from matbackprop.loss import Loss
from matbackprop.losses import complex_log1p
from matbackprop.settings import real
from matbackprop.validation import Array, as_array, as_numbers, check_finite
from matbackprop.workspace import Empty

__all__ = ["CrossEntropy"]

#: Up to so many classes, the maximum of each row is found faster in a transposed copy (six times, for 10 in float32).
FEW = 32

#: How far from 1 the probabilities of a row may sum: rounding to two digits passes, counts and logits do not.
SLACK = 0.01


class CrossEntropy(Loss):
    """The cross-entropy of logits against classes or probabilities, ℓ = -Σ_c w_c t_c log softmax(z)_c for each row.

    It includes the softmax: end the network in `Linear`. The values are those of ``torch.nn.CrossEntropyLoss``, where
    the classes are the last axis: (N, C), or (..., C). Targets are either

    - *classes*, integers 0...C-1 of the shape of the predictions without its last axis, (N,) against (N, C); any
      integer type or a list of ints (of NumPy's own ``intp`` none is converted). Floats and truth values are refused;
      or
    - *probabilities* t of the shape of the predictions: none negative, each row summing to 1 (within 0.01, for rounded
      ones). torch takes any numbers; here rows that do not are refused, since they are likely logits, counts or
      percentages. Integers of that shape are such rows too: one-hot ones.

    The number of axes tells the two apart, whatever N and C are.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        Over the N rows, not over the elements. As in torch, where targets are classes and there is a `class_weight`,
        the mean divides by the sum of the targets' weights, over the whole batch; for probabilities by N.
    label_smoothing : float, keyword-only, default 0
        ε in [0, 1]: t becomes (1 - ε) t + ε/C.
    class_weight : array_like of shape (C,), keyword-only, optional
        w, positive. (Rows to be left out get a `sample_weight` of 0.)

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range; on a call, if there are fewer than two classes, a class is not among them, or a
        row of probabilities is none.

    Notes
    -----
    `sample_weight` is one number a row, of shape (N,) or (N, 1), or what broadcasts to that. It multiplies the row's
    loss; the mean still divides by what it would divide by without.

    Value and gradient are accurate in the tails: see `matbackprop.cross_entropy`. A logit of -inf is a probability of
    0, one of +inf a certainty (several in a row share it); a row of -inf alone, or with NaN, gives NaN.

    Examples
    --------
    >>> import matbackprop as mb
    >>> loss = mb.CrossEntropy()
    >>> round(loss([[0.0, 0.0], [0.0, np.log(3.0)]], [0, 1]), 4)
    0.4904
    >>> loss.backward()
    array([[-0.25 ,  0.25 ],
           [ 0.125, -0.125]])
    >>> round(loss([[0.0, 0.0]], [[0.5, 0.5]]), 4)
    0.6931
    """

    rowwise: ClassVar[bool] = True
    per_row: ClassVar[bool] = True

    def __init__(
        self, reduction: str = "mean", *, label_smoothing: float = 0.0, class_weight: Array | None = None
    ) -> None:
        super().__init__(reduction)
        self._smoothing = real(0, 1, "[]")(label_smoothing, "CrossEntropy: label_smoothing")
        self._class_weight: Array | None = None
        if class_weight is not None:
            weight = np.array(as_array(class_weight, "CrossEntropy: class_weight", np.dtype(np.float64)))
            if weight.ndim != 1:
                raise ValueError(f"CrossEntropy: class_weight is one number a class, (C,), got shape {weight.shape}")
            check_finite("CrossEntropy: class_weight", weight)
            if not (weight > 0).all():
                raise ValueError(
                    f"CrossEntropy: class_weight must be positive, got {class_weight!r}; rows are left out by a "
                    "sample_weight of 0"
                )
            self._class_weight = weight

    @property
    def formulas(self) -> Mapping[str, str]:  # type: ignore[override]
        """ℓ = -Σ_c u_c log p_c and ∂ℓ/∂z = (Σ_c u_c) p - u, with p = softmax z and u = w ⊙ ((1 - ε) t + ε/C)."""
        if self._smoothing or self._class_weight is not None:
            return {
                "loss": "-U ⊙ log softmax {y_pred}",
                "derivative": "(Σ U) ⊙ softmax {y_pred} - U",
                "note": "U: the targets as probabilities, one row each, smoothed and weighted by class.",
            }
        return {
            "loss": "-T ⊙ log softmax {y_pred}",
            "derivative": "softmax {y_pred} - T",
            "note": "T: the targets as probabilities, one row each; of a class, 1 in its column.",
        }

    @property
    def label_smoothing(self) -> float:
        """ε. It cannot be changed."""
        return self._smoothing

    @property
    def class_weight(self) -> Array | None:
        """The weight of each class: a copy."""
        return None if self._class_weight is None else self._class_weight.copy()

    def as_targets(self, y: object, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Array:
        """Return classes as an array of intp, or probabilities as one of `dtype`."""
        classes = shape[-1] if shape else 0
        if classes < 2:
            raise ValueError(
                f"{self!r}: expected predictions of 2 classes or more, (..., C), got shape {shape}; for two classes by "
                "one logit use BCEWithLogits"
            )
        if self._class_weight is not None and self._class_weight.shape != (classes,):
            raise ValueError(
                f"{self!r}: class_weight must be one a class, shape ({classes},), got {self._class_weight.shape}"
            )
        array = as_numbers(y, name)
        if array.shape == shape:
            return as_array(array, name, dtype)
        if array.shape != shape[:-1]:
            hint = "; classes have no axis of their own: y[..., 0]" if array.shape == (*shape[:-1], 1) else ""
            raise ValueError(
                f"{name}: expected classes of shape {shape[:-1]} or probabilities of shape {shape}, got shape "
                f"{array.shape}{hint}"
            )
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(
                f"{name}: expected integer classes, got dtype {array.dtype}; if they are classes, use y.astype(int)"
            )
        _check_classes(name, array, classes)
        return array.astype(np.intp, copy=False)

    def divisor(self, y: Array, count: int) -> float:
        """Return the number of rows, or for classes with weights the sum of their weights."""
        w = self._class_weight
        if w is None or y.dtype != np.intp:
            return count
        return float(np.bincount(y.reshape(-1), minlength=w.size) @ w)

    def check_values(self, y_pred: Array | None, y: Array) -> None:
        """Check that targets are classes, or probabilities.

        That a row of them sums to 1 is checked by the calls of `steps`, which compute the sum, unless `y_pred` is None.
        """
        name = f"{self!r}: y_true"
        if y.dtype == np.intp:
            if y_pred is not None:
                _check_classes(name, y, y_pred.shape[-1])
            return
        y = y.real
        if y.size and not np.minimum.reduce(y, None) >= 0:
            where = tuple(map(int, np.argwhere(~(y >= 0))[0]))
            raise ValueError(f"{name}: expected probabilities, got {y[where]} at {where}; logits go through a softmax")
        if y_pred is None:
            self._check_sums(np.add.reduce(y, -1))

    def _check_sums(self, sums: Array) -> None:
        """Raise a ValueError unless each row of probabilities sums to 1."""
        low, high = np.minimum.reduce(sums, None, initial=1), np.maximum.reduce(sums, None, initial=1)
        if not (low >= 1 - SLACK and high <= 1 + SLACK):
            where = tuple(map(int, np.argwhere(~(abs(sums - 1) <= SLACK))[0]))
            raise ValueError(
                f"{self!r}: y_true: expected the probabilities of a row to sum to 1, got {sums[where]} in row "
                f"{where[0] if len(where) == 1 else where}; divide by the sum, and give row weights as sample_weight"
            )

    def steps(self, y_pred: Array, y: Array, losses: Array, delta: Array, empty: Empty) -> Iterable[Call]:
        """ℓ = -Σ u log p, ∂ℓ/∂z = (Σ u) p - u."""
        shape = (losses.size, y_pred.shape[-1])
        z, value, delta = y_pred.reshape(shape), losses.reshape(shape[0]), delta.reshape(shape)
        w, given = self._class_weight, y.dtype != np.intp
        if not (given or self._smoothing or np.iscomplexobj(z)):
            classes = y.reshape(shape[0])
            yield from _of_classes(z, classes, value, delta, empty)
            if w is not None:
                weight = empty(value.shape, z.dtype)
                yield call(w.astype(z.dtype).take, classes, None, weight, "clip")
                yield call(np.multiply, value, weight, value)
                yield call(np.multiply, delta, weight[:, None], delta)
            return
        u, sums = y.reshape(shape if given else shape[0]), empty(value.shape, z.dtype)
        add_up = np.ones(shape[1], z.dtype)  # BLAS sums short rows several times faster than np.sum
        if given:
            yield call(np.dot, u, add_up, sums)
            yield call(self._check_sums, sums.real)
        if not given or self._smoothing or w is not None:
            t, u = u, empty(shape, z.dtype)
            yield from self._weigh(t, u, empty)
            yield call(np.dot, u, add_up, sums)
        if np.iscomplexobj(z):
            yield call(_continued, z, u, sums, value, delta)
        else:
            yield from _of_weights(z, u, sums, value, delta, empty)

    def _weigh(self, t: Array, u: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls for u = w ⊙ ((1 - ε) t + ε/C)."""
        classes = u.shape[1]
        w = np.ones(classes) if self._class_weight is None else self._class_weight
        share, rest = ((part * w).astype(u.dtype) for part in (1 - self._smoothing, self._smoothing / classes))
        if t.ndim == 2:
            yield call(np.multiply, t, share, u)
            yield call(np.add, u, rest, u)
            return
        at, hit = empty(t.shape, np.intp), empty(t.shape, u.dtype)
        yield call(np.copyto, u, rest)
        yield call(np.add, np.arange(len(t)) * classes, t, at)
        yield call((share + rest).take, t, None, hit, "clip")
        yield call(u.reshape(-1).__setitem__, at, hit)

    def _key(self) -> Hashable:
        if type(self) is not CrossEntropy:
            return super()._key()
        weight = self._class_weight
        return CrossEntropy, self.reduction, self._smoothing, None if weight is None else weight.tobytes()


def _check_classes(name: str, y: Array, classes: int) -> None:
    """Raise a ValueError that names the first integer outside of 0...classes-1, if there is one."""
    if not y.size:
        return
    if y.dtype == np.intp:
        bad = np.maximum.reduce(y.view(np.uintp), None) >= classes  # a negative one is huge
    else:
        bad = np.minimum.reduce(y, None) < 0 or np.maximum.reduce(y, None) >= classes
    if bad:
        where = tuple(map(int, np.argwhere((y < 0) | (y >= classes))[0]))
        value = int(y[where])
        hint = "; classes are counted from 0" if value == classes else ""
        hint = "; rows to be left out get a sample_weight of 0" if value < 0 else hint
        raise ValueError(f"{name}: expected classes 0...{classes - 1}, got {value} at {where}{hint}")


def _of_classes(z: Array, y: Array, value: Array, delta: Array, empty: Empty) -> Iterable[Call]:
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


def _of_weights(z: Array, u: Array, sums: Array, value: Array, delta: Array, empty: Empty) -> Iterable[Call]:
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


def _continued(z: Array, u: Array, sums: Array, value: Array, delta: Array) -> None:
    """Compute ℓ and ∂ℓ/∂z off the real axis: by the formulas of `_of_weights`, the pivot decided by the real part."""
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
