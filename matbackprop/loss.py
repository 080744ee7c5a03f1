"""What a loss is: the base of every loss, the library's own and a user's."""

from __future__ import annotations

import cmath
from collections.abc import Hashable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from matbackprop.calls import Call
from matbackprop.layer import Layer, read_only
from matbackprop.parameter import natural_dtype
from matbackprop.settings import Configured
from matbackprop.validation import Array, as_array, as_out, check_finite, describe
from matbackprop.workspace import Empty

__all__ = ["Loss", "Objective", "as_weight", "check_loss", "check_same_shape"]


class Loss(Configured):
    """A scalar that says how far a batch of predictions is from its targets: the base class of every loss.

    L = (1/n) Σ w ⊙ ℓ(Ŷ, Y) over all n elements, or the sum alone; ``Δ = ∂L/∂Ŷ = (w/n) ⊙ ∂ℓ/∂Ŷ``. A loss of your own
    writes `elementwise`; checks, reduction and weights are done here. Where a row of predictions has one loss, not one
    an element, it says so by `per_row`, and n is the number of rows.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        Mean over all elements, as in torch, or sum. The mean over no elements (N = 0) is NaN, its gradient empty.

    Examples
    --------
    The absolute error:

    >>> import matbackprop as mb
    >>> class L1(mb.Loss):
    ...     def elementwise(self, y_pred, y_true):
    ...         error = y_pred - y_true
    ...         return np.abs(error), np.sign(error)
    >>> loss = L1()
    >>> loss([[1.0], [2.0]], [[3.0], [2.5]])
    1.25
    >>> loss.backward()
    array([[-0.5],
           [-0.5]])
    """

    #: Whether each element's loss depends on its own prediction and target alone, so that a large batch may be cut into
    #: blocks and shared among threads. False by default, which is always safe.
    rowwise: ClassVar[bool] = False
    #: Whether ℓ is one number a row, shape (..., 1), and not one an element. False by default.
    per_row: ClassVar[bool] = False
    #: What `matbackprop.worked` writes of the loss, in Unicode: "loss" is ℓ, "derivative" ∂ℓ/∂ŷ, with ``{y_pred}`` and
    #: ``{y_true}``; "through" is ∂ℓ/∂x where `through` has the loss computed from the last layer's input x; "note" says
    #: what other letters mean, and `letters` gives their values.
    formulas: Mapping[str, str] = MappingProxyType({})

    _reduction: str = "mean"  # so that a subclass need not call super().__init__()
    _delta: Array | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "elementwise" in vars(cls) and "steps" not in vars(cls):
            cls.steps = Loss.steps  # type: ignore[method-assign]  # not those of the parent's formula
            cls.rowwise = bool(vars(cls).get("rowwise", False))

    def __init__(self, reduction: str = "mean") -> None:
        if str(reduction) not in ("mean", "sum"):
            raise ValueError(f"{type(self).__name__}: reduction is 'mean' or 'sum', got {describe(reduction)}")
        self._reduction = str(reduction)

    @property
    def reduction(self) -> str:
        """How the elements' losses become one: "mean" or "sum". It cannot be changed."""
        return self._reduction

    def elementwise(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return every element's loss ℓ and its derivative ∂ℓ/∂ŷ, both of the shape of `y_pred`.

        Where the loss is `per_row`, ℓ is of shape (..., 1).
        """
        raise TypeError(f"{type(self).__name__} must define elementwise(y_pred, y_true) -> (losses, derivatives)")

    def steps(self, y_pred: Array, y: Array, losses: Array, delta: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute ℓ into `losses` and ∂ℓ/∂ŷ into `delta`; by default they make `elementwise`."""
        yield partial(self._elementwise_into, read_only(y_pred), read_only(y), losses, delta)

    def _elementwise_into(self, y_pred: Array, y: Array, losses: Array, delta: Array) -> None:
        results: Any = self.elementwise(y_pred, y)  # a user's: anything may come
        shapes = [np.shape(result) for result in results] if isinstance(results, tuple) else describe(results)
        if shapes != [losses.shape, delta.shape]:
            wanted = f"both of shape {delta.shape}" if not self.per_row else f"of shapes {losses.shape}, {delta.shape}"
            raise ValueError(f"{self!r}: elementwise must return (losses, derivatives), {wanted}, got {shapes}")
        for result, target in zip(results, (losses, delta), strict=True):
            fits = type(result) is np.ndarray and result.dtype == target.dtype  # no repr at every step
            target[...] = result if fits else as_array(result, f"{self!r}: what elementwise returned", target.dtype)

    # What a loss answers about targets and weights; `shape` is that of the predictions.

    def as_targets(self, y: object, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Array:
        """Return `y` as the targets of predictions of this shape and type; by default numbers of that shape.

        Raises
        ------
        TypeError, ValueError
            If they do not fit, by `name`. Values outside the domain are left to `check_values`.
        """
        array = as_array(y, name, dtype)
        check_same_shape(name, shape, array.shape)
        return array

    def as_weight(self, weight: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return sample weights as one number for each loss, of `loss_shape`."""
        if self.per_row and np.ndim(weight) < len(shape):  # type: ignore[arg-type]
            return as_weight(weight, shape[:-1], dtype)[..., None]
        return as_weight(weight, self.loss_shape(shape), dtype)

    def loss_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the losses ℓ that are weighted and reduced."""
        return (*shape[:-1], 1) if self.per_row else shape

    def divisor(self, y: Array, count: int) -> float:
        """Return what the mean of `count` losses for these targets divides by: `count`, unless overridden."""
        return count

    def letters(self, y: Array, y_pred: Array) -> Mapping[str, Array]:
        """Return the values of other letters in `formulas`, ``{"T": t}`` for ``{T}``. By default there is none."""
        return {}

    def check_values(self, y_pred: Array | None, y: Array) -> None:
        """Raise a ValueError if a prediction or target is outside the loss's domain. By default there is no limit."""

    def through(self, last: Layer) -> Loss | None:
        """Return this loss after the layer `last` as one loss of that layer's input, if there is such a one."""
        return None

    def __call__(self, y_pred: Array, y_true: Array, sample_weight: Array | float | None = None) -> float:
        """Return the loss, and keep ∂L/∂Ŷ for `backward`.

        Parameters
        ----------
        y_pred, y_true : array_like
            Predictions and targets of equal shape. (`CrossEntropy` takes classes too.)
        sample_weight : array_like, optional
            Multiplies each element's loss; anything that broadcasts to the shape of `y_true`. The mean still divides
            by the count of elements, as torch's ``weight=`` does. Where the loss is `per_row`: one a row, shape (...)
            or (..., 1).

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If the shapes differ, a value is not a number, or a target is outside the loss's domain.
        """
        self._delta = None
        dtype = natural_dtype(y_pred)
        who = repr(self)
        y_pred = as_array(y_pred, f"{who}: y_pred", dtype)
        y = self.as_targets(y_true, y_pred.shape, dtype, f"{who}: y_true")
        weight = None if sample_weight is None else self.as_weight(sample_weight, y_pred.shape, dtype)
        delta = np.empty(y_pred.shape, dtype)
        value = Objective(self, y_pred, y, weight, delta, np.empty).run()
        self._delta = delta
        return value

    def backward(self, out: Array | None = None) -> Array:
        """Return Δ = ∂L/∂Ŷ of the last call, in a fresh array or in `out`.

        Raises
        ------
        RuntimeError
            If the loss was not called before.
        """
        if self._delta is None:
            raise RuntimeError(f"{self!r}: backward before forward; call loss(y_pred, y_true) first")
        if out is None:
            return self._delta.copy()
        np.copyto(as_out(out, f"{self!r}", self._delta.shape, self._delta.dtype), self._delta)
        return out

    def _key(self) -> Hashable:
        """What makes two losses interchangeable: by default, only being the same object."""
        return id(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_delta": None}


class Objective:
    """A loss's calls, prepared for given arrays: value and Δ at each `run`.

    Parameters
    ----------
    loss : Loss
    y_pred, y : numpy.ndarray
        Predictions and targets.
    weight : numpy.ndarray or None
        Of the shape of the losses.
    delta : numpy.ndarray
        Where ∂L/∂Ŷ goes.
    empty : callable
        Where buffers come from.
    stated : Loss, optional
        The loss that the caller named, where `loss` is that one fused with the last layer.
    """

    def __init__(
        self,
        loss: Loss,
        y_pred: Array,
        y: Array,
        weight: Array | None,
        delta: Array,
        empty: Empty,
        stated: Loss | None = None,
    ) -> None:
        self.stated = stated or loss
        self.y_pred, self.y = y_pred if self.stated is loss else None, y
        losses = empty(loss.loss_shape(y_pred.shape), delta.dtype)
        self.total, self.scale = np.zeros((), delta.dtype), np.ones((), delta.dtype)
        self.mean, self.count, self.divisor = loss.reduction == "mean", losses.size, 1.0
        self.calls = list(loss.steps(y_pred, y, losses, delta, empty))
        if weight is not None:
            self.calls += [partial(np.multiply, array, weight, array) for array in (losses, delta)]
        self.calls.append(partial(np.add.reduce, losses.reshape(-1), 0, None, self.total))
        self.rescale = partial(np.multiply, delta, self.scale, delta)

    def run(self, divisor: float | None = None) -> float:
        """Compute Δ and return the loss.

        Parameters
        ----------
        divisor : float, optional
            What a mean divides by, where the rows are a block of a larger batch.

        Raises
        ------
        ValueError
            If a value is outside the loss's domain, or the loss is not finite because a target is not.
            (That a prediction is not is the model's affair: the value says it.)
        """
        self.stated.check_values(self.y_pred, self.y)
        if self.mean:
            wanted = self.stated.divisor(self.y, self.count) if divisor is None else divisor
            if wanted != self.divisor:
                self.divisor, self.scale[...] = wanted, 1 / wanted if wanted else 1
        for call in self.calls:
            call()
        if self.divisor != 1:
            self.rescale()
        total: float = self.total.item()
        if self.mean and not self.divisor:
            return float("nan")
        if not cmath.isfinite(total):
            check_finite(f"{self.stated!r}: y_true", self.y)
        return total / self.divisor


def check_loss(loss: object) -> None:
    """Raise a TypeError unless this is a loss."""
    if not isinstance(loss, Loss):
        made = isinstance(loss, type) and issubclass(loss, Loss)
        hint = f"; make one with {loss.__name__}()" if made else ""  # type: ignore[attr-defined]
        raise TypeError(f"loss: expected a Loss such as mb.MSE(), got {describe(loss)}{hint}")


def check_same_shape(name: str, y_pred: tuple[int, ...], y_true: tuple[int, ...]) -> None:
    """Raise a ValueError unless predictions and targets have one shape; a broadcast would be a silent mistake."""
    if y_pred == y_true:
        return
    hint = ""
    if not y_true:
        hint = "; a single target is [y]"
    elif y_pred == (*y_true, 1):
        hint = f"; make the targets a column with {name.rpartition(' ')[2]}[:, None]"
    elif y_true == (*y_pred, 1):
        hint = "; make the predictions a column with y_pred[:, None]"
    elif y_pred == y_true[::-1]:
        hint = "; one of them looks transposed"
    raise ValueError(f"{name} must have the shape of the predictions, {y_pred}, got {y_true}{hint}")


def as_weight(weight: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return `weight` broadcast to `shape`.

    Raises
    ------
    ValueError
        If it does not broadcast to it.
    """
    array = as_array(weight, "sample_weight", dtype)
    check_finite("sample_weight", array)
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        hint = "; one weight a row is sample_weight[:, None]" if array.shape == shape[:1] else ""
        raise ValueError(
            f"sample_weight: expected something that broadcasts to {shape}, got shape {array.shape}{hint}"
        ) from None
