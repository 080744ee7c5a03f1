"""The mean squared error as half a sum of squares: residuals and their Jacobian, for `scipy.optimize.least_squares`."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from matbackprop.flat import size
from matbackprop.layer import read_only
from matbackprop.loss import Loss
from matbackprop.losses import MSE
from matbackprop.sequential import Sequential
from matbackprop.validation import Array

__all__ = ["Data", "LeastSquares"]


class Data(NamedTuple):
    """Inputs, targets and weights, in the type of the model that they are for."""

    x: Array
    y: Array
    weight: Array | None

    def astype(self, dtype: type) -> Data:
        """Return them in another type; classes stay integers."""
        y = self.y.astype(dtype) if self.y.dtype.kind == "f" else self.y
        return Data(self.x.astype(dtype), y, None if self.weight is None else self.weight.astype(dtype))


class LeastSquares:
    """The residuals √(2 w / n) (Ŷ - Y) of a model on given data: half the sum of their squares is the loss.

    Parameters
    ----------
    data : Data
    loss : Loss

    Raises
    ------
    TypeError, ValueError
        If the loss is not `MSE`, or a weight is negative.
    """

    def __init__(self, data: Data, loss: Loss) -> None:
        if type(loss) is not MSE:
            raise TypeError(f"objective: only MSE is a sum of squares, the loss is {loss!r}; use minimize")
        self.x, self.y, weight = data
        if weight is None:
            weight = np.broadcast_to(np.ones((), self.y.dtype), self.y.shape)
        elif (weight < 0).any():
            raise ValueError("objective: sample_weight: least squares needs weights that are not negative")
        self.scale: Array = np.sqrt(weight * (2 / (self.y.size if loss.reduction == "mean" else 1)))

    def residuals(self, y_pred: Array) -> Array:
        """Return the residuals of these predictions, shape (N out,)."""
        return ((y_pred - self.y) * self.scale).reshape(-1)

    def jacobian(self, model: Sequential) -> Array:
        """Return the derivative of the residuals at the model's parameters, shape (N out, P)."""
        rows = self.x.reshape(-1, self.x.shape[-1])
        scale = self.scale.reshape(len(rows), -1)
        by_rows = all(layer.rowwise for layer in model.leaves())
        result = _by_rows(model, rows, scale) if by_rows else _by_passes(model, rows, scale)
        return result.reshape(-1, model.parameters.size)


def _by_rows(model: Sequential, x: Array, scale: Array) -> Array:
    """Return it, shape (N, out, P), by one backward pass an output."""
    leaves = model.leaves()
    inputs = [x]
    for layer in leaves:
        inputs.append(layer.forward(read_only(inputs[-1])))
    result = np.empty((*scale.shape, model.parameters.size))
    for k in range(scale.shape[1]):
        delta, stop = np.zeros(scale.shape), model.parameters.size
        delta[:, k] = scale[:, k]
        for layer, below in zip(reversed(leaves), reversed(inputs[:-1]), strict=True):
            start = stop - size(layer)
            if start < stop:
                layer.row_gradients(below, read_only(delta), result[:, k, start:stop])
            if start == 0:
                break  # nothing to train below
            delta, stop = layer.backward(read_only(delta)), start
    return result


def _by_passes(model: Sequential, x: Array, scale: Array) -> Array:
    """Return it, shape (N, out, P), by one backward pass a residual."""
    result = np.empty((*scale.shape, model.parameters.size))
    model.forward(x)
    for entry in product(*map(range, scale.shape)):
        delta = np.zeros(scale.shape)
        delta[entry] = scale[entry]
        model.backward(delta)
        result[entry] = model.gradients
    return result
