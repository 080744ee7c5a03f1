"""CrossEntropy: the loss of a classifier, from its logits.

With p = softmax(z) and u the weights of the classes in a row (1 for the target and 0 for the others, in the simplest
case):

    ℓ = -Σ_c u_c log p_c,    ∂ℓ/∂z = (Σ_c u_c) p - u.

The second is p - u where the weights of a row sum to 1. Here are the targets: what they may be, and what u is for them;
`matbackprop.softmax` does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import partial as call
from typing import Any, ClassVar

import numpy as np

from matbackprop.calls import Call, run
from matbackprop.loss import Loss
from matbackprop.settings import real
from matbackprop.softmax import continued, of_classes, of_weights
from matbackprop.validation import Array, as_array, as_numbers, check_finite
from matbackprop.workspace import Empty

__all__ = ["CrossEntropy"]

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

    Value and gradient are accurate in the tails: see `matbackprop.softmax`. A logit of -inf is a probability of
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
                "loss": "-{U} ⊙ log softmax {y_pred}",
                "derivative": "(Σ {U}) ⊙ softmax {y_pred} - {U}",
                "note": "U: the targets as probabilities, one row each, smoothed and weighted by class; (Σ U) is each "
                "row's sum.",
            }
        return {
            "loss": "-{T} ⊙ log softmax {y_pred}",
            "derivative": "softmax {y_pred} - {T}",
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
        problem = _bad_class(array, classes)
        if problem:
            raise ValueError(f"{name}: {problem}")
        return array.astype(np.intp, copy=False)

    def divisor(self, y: Array, count: int) -> float:
        """Return the number of rows, or for classes with weights the sum of their weights."""
        w = self._class_weight
        if w is None or y.dtype != np.intp:
            return count
        return float(np.bincount(y.reshape(-1), minlength=w.size) @ w)

    def letters(self, y: Array, y_pred: Array) -> Mapping[str, Array]:
        """Return the targets as `formulas` has them, (N, C)."""
        targets = np.empty(y_pred.shape, y_pred.dtype)
        run(self._weigh(y, targets, np.empty))
        return {"U" if self._smoothing or self._class_weight is not None else "T": targets}

    def check_values(self, y_pred: Array | None, y: Array) -> None:
        """Check that targets are classes, or probabilities.

        That a row of them sums to 1 is checked by the calls of `steps`, which compute the sum, unless `y_pred` is None.
        """
        if y.dtype == np.intp:
            problem = None if y_pred is None else _bad_class(y, y_pred.shape[-1])
            if problem:
                raise ValueError(f"{self!r}: y_true: {problem}")
            return
        y = y.real
        if y.size and not np.minimum.reduce(y, None) >= 0:
            where = tuple(map(int, np.argwhere(~(y >= 0))[0]))
            raise ValueError(
                f"{self!r}: y_true: expected probabilities, got {y[where]} at {where}; logits go through a softmax"
            )
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
            yield from of_classes(z, classes, value, delta, empty)
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
            yield call(continued, z, u, sums, value, delta)
        else:
            yield from of_weights(z, u, sums, value, delta, empty)

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


def _bad_class(y: Array, classes: int) -> str | None:
    """Return what to say of the first integer outside of 0...classes-1, if there is one."""
    if not y.size:
        return None
    if y.dtype == np.intp:
        bad = np.maximum.reduce(y.view(np.uintp), None) >= classes  # a negative one is huge
    else:
        bad = np.minimum.reduce(y, None) < 0 or np.maximum.reduce(y, None) >= classes
    if not bad:
        return None
    where = tuple(map(int, np.argwhere((y < 0) | (y >= classes))[0]))
    value = int(y[where])
    hint = "; classes are counted from 0" if value == classes else ""
    hint = "; rows to be left out get a sample_weight of 0" if value < 0 else hint
    return f"expected classes 0...{classes - 1}, got {value} at {where}{hint}"
