"""Examples: inputs, targets and weights that were looked at before the first step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from matbackprop.loss import Loss
from matbackprop.sequential import Sequential
from matbackprop.validation import Array, as_numbers, check_features, check_finite

__all__ = ["Examples", "as_examples"]


class Examples(NamedTuple):
    """Arrays of one length, of whatever types they came in, and the types that the model takes x and y in."""

    x: Array
    y: Array
    weight: Array | float | None
    types: tuple[np.dtype[Any], np.dtype[Any]]


def as_examples(model: Sequential, loss: Loss, x: Any, y: Any, weight: Any, name: str) -> Examples:
    """Return the examples, without a copy where they are arrays.

    Raises
    ------
    TypeError, ValueError
        If they do not fit each other, the model or the loss, a target or weight is not finite, or there are none.
    """
    x, y = _as_data(x, f"{name} x"), _as_data(y, f"{name} y")
    if len(x) != len(y):
        raise ValueError(f"{name} x: expected as many examples in x as in y, got {len(x)} and {len(y)}")
    if not len(x):
        raise ValueError(f"{name} x: there are no examples, expected at least one")
    if x.ndim < 2:
        raise ValueError(
            f"{name} x: expected one example a row, shape (N, features), got shape {x.shape}; one example alone is "
            "x[None], a column of examples x[:, None]"
        )
    check_features(f"{name} x: {model[0].label}", x.shape, model.in_features)
    shape = (*x.shape[:-1], model.output_width(x.shape[-1]))
    try:
        first = loss.as_targets(y[:1], (1, *shape[1:]), model.dtype, f"{name} y")
    except (TypeError, ValueError):
        loss.as_targets(y, shape, model.dtype, f"{name} y")  # the same complaint, about all rows
        raise
    check_finite(f"{name} y", y)
    values = loss.as_targets(y, shape, model.dtype, f"{name} y") if y.ndim < len(shape) else y  # small: classes
    try:
        loss.check_values(None, values)
    except ValueError as error:
        raise ValueError(f"{name} y: {str(error).replace(': y_true:', ':')}") from None
    return Examples(x, y, _as_weight(loss, weight, shape, model.dtype, name), (model.dtype, first.dtype))


def _as_weight(
    loss: Loss, weight: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str
) -> Array | float | None:
    """Return sample weights with an entry for each example, a number, or None."""
    if weight is None or not np.ndim(weight):
        return weight  # type: ignore[no-any-return]
    weight = _as_data(weight, f"{name} sample_weight")
    if len(weight) != shape[0]:
        raise ValueError(
            f"{name} sample_weight: expected a number, or an entry for each of the {shape[0]} examples, got shape "
            f"{weight.shape}"
        )
    check_finite(f"{name} sample_weight", weight)
    if weight.ndim < len(shape) - loss.per_row:  # a batch of as many rows as outputs would take them for the outputs'
        raise ValueError(
            f"{name} sample_weight: expected something that broadcasts to {loss.loss_shape(shape)} row by row, got "
            f"shape {weight.shape}; one weight a row is sample_weight[:, None]"
        )
    loss.as_weight(weight[:1], (1, *shape[1:]), dtype)
    return weight  # type: ignore[no-any-return]


def _as_data(value: object, name: str) -> Array:
    """Return `value` as an array of real numbers of whatever type, without a copy where it is one."""
    array = as_numbers(value, name)
    if array.dtype.kind == "c":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}; use .real")
    if array.ndim == 0:
        raise ValueError(f"{name}: expected one entry an example, shape (N, ...), got a single number")
    return array
