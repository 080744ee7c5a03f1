"""The one room of the checker that knows layers, models and losses: they become functions of a dict of arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from matbackprop.calls import run
from matbackprop.flat import named_gradients, named_parameters
from matbackprop.gradcheck.causes import Hypothesis
from matbackprop.gradcheck.directional import STEP
from matbackprop.gradcheck.problem import BadGradient, Problem
from matbackprop.layer import Layer
from matbackprop.layers import Linear
from matbackprop.loss import Loss
from matbackprop.sequential import Sequential
from matbackprop.validation import Array

__all__ = [
    "derivative_of_branch",
    "draw",
    "layer_problem",
    "layered_problem",
    "model_problem",
    "model_values",
    "parameters_of",
]

#: Arrays by the names that reports use.
Arrays = dict[str, Array]

FIRST_ROW = "comes from the first row of the batch alone"
LAST_ROW = "lacks the last row of the batch"


class Twins:
    """A layer's copies in other types: a complex one for complex steps, a longdouble one for differences."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._made: dict[np.dtype[Any], Layer] = {}

    def at(self, values: Arrays) -> Layer:
        """Return the copy in the type of these parameters, holding them."""
        dtype = np.result_type(*values.values())
        if dtype not in self._made:
            own = parameters_of(self.layer)
            if dtype == np.result_type(*own.values(), *(values.values() if not own else ())):
                self._made[dtype] = self.layer
            else:
                copy = self.layer.copy()
                self._made[dtype] = (copy if isinstance(copy, Sequential) else Sequential(copy)).astype(dtype)
        layer = self._made[dtype]
        for target, name in zip(parameters_of(layer).values(), parameters_of(self.layer), strict=True):
            target[...] = values[name]
        return layer

    def check_untouched(self, layer: Layer, values: Arrays) -> None:
        """Raise a BadGradient if the copy that held these parameters holds others now."""
        for now, name in zip(parameters_of(layer).values(), parameters_of(self.layer), strict=True):
            if not np.array_equal(now, values[name], equal_nan=True):
                raise BadGradient(
                    f"{self.layer!r}: a pass modifies the parameter {name}, which is the optimizer's to change; "
                    "work on a copy"
                )


def draw(layer: Layer) -> None:
    """Draw the weights that wait until they are needed: the check needs them, and needs the same ones all along."""
    for _, part in layer.walk():
        if isinstance(part, Sequential):
            _ = part.parameters
        else:
            part.initialize()


def parameters_of(layer: Layer) -> Arrays:
    """Return the parameters of a layer and of all below it, live, by name."""
    draw(layer)
    return named_parameters(layer)


def gradients_of(layer: Layer, names: Arrays) -> Arrays:
    """Return copies of the gradients of a layer, under the names given."""
    found = [array.copy() for array in named_gradients(layer).values()]
    return dict(zip(names, found, strict=True))


def layer_problem(layer: Layer, x: Array, rng: np.random.Generator) -> tuple[Problem, list[Hypothesis]]:
    """Return L = Σ Δ ⊙ layer(x) for a random Δ, as a function of the layer's parameters and of "x".

    The layer given is used and changed.
    """
    shape = layer.forward(x).shape
    delta = (rng.choice((-1.0, 1.0), shape) * rng.uniform(0.5, 1.5, shape)).astype(x.dtype)
    twins, own = Twins(layer), parameters_of(layer)

    def forward(values: Arrays) -> tuple[Layer, Array]:
        used = twins.at(values)
        return used, used.forward(values["x"])

    def fun(values: Arrays, weight: Array = delta) -> Any:
        return np.add.reduce((forward(values)[1] * weight).reshape(-1))

    def grad(values: Arrays) -> Arrays:
        used, _ = forward(values)
        upstream = delta.astype(np.result_type(*values.values()))
        kept = upstream.copy()
        dx = used.backward(upstream)
        if not np.array_equal(kept, upstream):
            raise BadGradient(f"{layer!r}: backward modifies its delta; whoever passed it reads it again")
        twins.check_untouched(used, values)
        return {"x": dx, **gradients_of(used, own)}

    problem = Problem(fun, grad, {"x": x, **{name: array.copy() for name, array in own.items()}})
    problem.batch = len(x) if x.ndim > 1 else None
    hypotheses = []
    if x.ndim == 2 and len(x) > 1:
        for text, row in ((LAST_ROW, slice(-1, None)), (FIRST_ROW, slice(1, None))):
            part = delta.copy()
            part[row] = 0.0
            hypotheses.append(Hypothesis(text, partial(fun, weight=part)))
    for name, array in own.items():
        if array.ndim == 2 and len(array) == len(array.T) > 1:
            hypotheses.append(Hypothesis(f"is that of {name} transposed", partial(_with_transposed, fun, name)))
    if not own and shape == x.shape:
        hypotheses += _elementwise_mistakes(layer, x, delta)
    return problem, hypotheses


def _with_transposed(fun: Callable[[Arrays], Any], name: str, values: Arrays) -> Any:
    return fun({**values, name: values[name].T})


def _linear(factor: Array, values: Arrays) -> Any:
    """Return Σ c ⊙ x, whose gradient by x is c."""
    return np.add.reduce((values["x"] * factor).reshape(-1))


def derivative_of_branch(layer: Layer, z: Array, sign: float = 1.0) -> Array:
    """Return dA/dZ of an elementwise layer by a complex step, from the branch that forward takes.

    Raises
    ------
    Exception
        Whatever the layer raises on complex input.
    """
    h = sign * STEP
    twin = Sequential(layer.copy()).astype(np.complex128)
    slope: Array = np.imag(twin.forward(z + 1j * h)) / h
    return slope


def _elementwise_mistakes(layer: Layer, x: Array, delta: Array) -> list[Hypothesis]:
    """Return the usual mistakes in the derivative of an activation, as linear functions with that gradient."""
    try:
        slope, at_output = derivative_of_branch(layer, x), derivative_of_branch(layer, layer.forward(x))
    except Exception:  # noqa: BLE001 - a layer that takes no complex input has no such hypotheses
        return []
    output = layer.forward(x).copy()
    cases = {
        "is Δ ⊙ f'(A): the derivative is taken at the output, not at the input": delta * at_output,
        "is Δ ⊙ x (1 - x): the formula for the output is used with the input": delta * x * (1 - x),
        "is Δ ⊙ (1 - x²): the formula for the output is used with the input": delta * (1 - x * x),
        "is Δ itself: the derivative of the activation is missing": delta,
        "is f'(Z) without Δ: the chain rule is missing": slope,
        "is Δ ⊙ f'(Z)²: the derivative is applied twice": delta * slope * slope,
        "is Δ ⊙ A: the derivative lacks a factor, 1 - A?": delta * output,
        "is Δ ⊙ (1 - A): the derivative lacks a factor, A or 1 + A?": delta * (1 - output),
        "is Δ ⊙ (1 - A²), which is the derivative of tanh": delta * (1 - output * output),
        "is Δ ⊙ A (1 - A), which is the derivative of the sigmoid": delta * output * (1 - output),
        "has the mask of Δ in place of the mask of Z": delta * (delta > 0),
    }
    return [Hypothesis(text, partial(_linear, factor)) for text, factor in cases.items()]


def model_problem(model: Sequential, loss: Loss, x: Array, y: Array) -> tuple[Problem, list[Hypothesis]]:
    """Return the loss of a batch as `backprop` computes it, as a function of the model's parameters."""
    twins, own = Twins(model), parameters_of(model)

    def fun(values: Arrays, weight: Array | None = None) -> Any:
        used: Any = twins.at(values)
        return np.asarray(used.backprop(x, y, loss, sample_weight=weight))[()]

    def grad(values: Arrays) -> Arrays:
        used: Any = twins.at(values)
        _, flat = used.value_and_grad(x, y, loss)
        twins.check_untouched(used, values)
        stops = np.cumsum([array.size for array in own.values()])[:-1]
        return {n: part.reshape(a.shape) for (n, a), part in zip(own.items(), np.split(flat, stops), strict=True)}

    problem = Problem(fun, grad, {name: array.copy() for name, array in own.items()})
    problem.batch = len(x) if x.ndim > 1 else None
    hypotheses = []
    if x.ndim == 2 and len(x) > 1:
        rows = np.arange(len(x))[:, None]
        for text, kept in ((LAST_ROW, rows < len(x) - 1), (FIRST_ROW, rows == 0)):
            hypotheses.append(Hypothesis(text, partial(fun, weight=kept.astype(x.dtype))))
    return problem, hypotheses


def layered_problem(model: Sequential, loss: Loss, x: Array, y: Array) -> Problem:
    """Return the same by `forward`, the loss, its `backward` and the model's: with the gradient by the input, "x"."""
    twins, own = Twins(model), parameters_of(model)

    def fun(values: Arrays) -> Any:
        used: Any = twins.at(values)
        return np.asarray(loss(used.forward(values["x"]), y))[()]

    def grad(values: Arrays) -> Arrays:
        used = twins.at(values)
        loss(used.forward(values["x"]), y)
        dx = used.backward(loss.backward())
        twins.check_untouched(used, values)
        return {"x": dx, **gradients_of(used, own)}

    problem = Problem(fun, grad, {"x": x, **{name: array.copy() for name, array in own.items()}})
    problem.batch = len(x) if x.ndim > 1 else None
    return problem


def model_values(model: Sequential, loss: Loss, x: Array, y: Array) -> Callable[[Array], Array]:
    """Return a function that evaluates the loss for many parameter vectors at once.

    The weights of all of them go through one product each, as a stack (B, out, in).

    Parameters
    ----------
    model : Sequential
        Of `Linear` layers and layers that work on each element.
    loss : Loss
    x, y : array_like, shapes (N, in) and (N, out)
        Or the classes that the loss takes.

    Returns
    -------
    callable
        ``values(points)``, for points of shape (B, P), real or complex.

    Raises
    ------
    TypeError
        If a layer with parameters is no `Linear`.

    Examples
    --------
    >>> import matbackprop as mb
    >>> from matbackprop.gradcheck import model_values
    >>> model = mb.Sequential(mb.Linear(2, 2), mb.Tanh(), mb.Linear(2, 1), rng=0)
    >>> values = model_values(model, mb.MSE(), [[0.0, 1.0]], [[1.0]])
    >>> values(np.stack([model.parameters, model.parameters])).shape
    (2,)
    """
    layers = model.leaves()
    for layer in layers:
        if layer.has_parameters() and type(layer) is not Linear:
            raise TypeError(f"model_values: only Linear layers can be stacked, got {layer.label}")

    def values(points: Array) -> Array:
        dtype, count = np.result_type(points, model.dtype), len(points)
        activation = np.broadcast_to(np.asarray(x, dtype), (count, *np.shape(x)))
        start = 0
        for layer in layers:
            if isinstance(layer, Linear):
                out, width = layer.weight.shape
                weight = points[:, start : start + out * width].reshape(count, out, width)
                start += out * width
                activation = activation @ weight.transpose(0, 2, 1)  # (B, N, in) (B, in, out)
                if layer.has_bias:
                    activation = activation + points[:, None, start : start + out]
                    start += out
            else:
                twin = layer.copy()
                activation = twin.forward(activation.reshape(-1, activation.shape[-1])).reshape(activation.shape)
        targets = loss.as_targets(y, activation.shape[1:], dtype, "model_values: y")
        return _losses(loss, activation, np.broadcast_to(targets, (count, *targets.shape)))

    return values


def _losses(loss: Loss, y_pred: Array, y: Array) -> Array:
    """Return the loss of every batch of a stack."""
    losses, delta = np.empty(loss.loss_shape(y_pred.shape), y_pred.dtype), np.empty_like(y_pred)
    run(loss.steps(y_pred, y.copy(), losses, delta, np.empty))
    total: Array = losses.reshape(len(losses), -1).sum(axis=1)
    return total / loss.divisor(y[0], losses[0].size) if loss.reduction == "mean" else total
