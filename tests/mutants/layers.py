"""Bugs in layers and losses of the library's kind, as a user who extends it would plant them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import matbackprop as mb
from matbackprop.gradcheck.models import layer_problem, model_problem
from mutants.mutant import Mutant, Pair


class Affine(mb.Layer):
    """A Linear in plain NumPy, with a bug."""

    weight = mb.Parameter()
    bias = mb.Parameter()
    weight_grad = mb.Gradient("weight")
    bias_grad = mb.Gradient("bias")

    def __init__(self, inputs: int, outputs: int, bug: str = "") -> None:
        rng = np.random.default_rng(21)
        self.in_features, self.outputs, self.bug = inputs, outputs, bug
        self.weight, self.bias = rng.standard_normal((outputs, inputs)), rng.standard_normal(outputs)
        self.x: Any = None

    def output_width(self, width: int) -> int:
        return self.outputs

    def forward(self, x: Any, out: Any = None) -> Any:
        if not (self.bug == "stale cache" and self.x is not None and self.x.shape == x.shape):
            self.x = x.copy()
        return x @ self.weight.T + self.bias

    def backward(self, delta: Any, out: Any = None) -> Any:
        rows = len(delta)
        self.weight_grad = delta.T @ self.x
        self.bias_grad = delta.sum(axis=0)
        dx = delta @ self.weight
        match self.bug:
            case "weight transposed":
                dx = delta @ self.weight.T
            case "weight gradient transposed":
                self.weight_grad = self.x.T @ delta
            case "bias averaged":
                self.bias_grad = delta.mean(axis=0)
            case "bias from the first row":
                self.bias_grad = delta[0]
            case "bias zero":
                self.bias_grad = 0 * self.bias
            case "last row dropped":
                self.weight_grad = delta[:-1].T @ self.x[:-1] if rows > 1 else self.weight_grad
            case "gradient accumulated":
                self.sum = getattr(self, "sum", 0) + delta.T @ self.x
                self.weight_grad = self.sum
            case "delta modified":
                delta *= 2
            case "dx in a buffer of its own":
                if getattr(self, "buffer", None) is None or self.buffer.shape != dx.shape:
                    self.buffer = dx.copy()
                self.buffer[...] = dx
                return self.buffer
        return dx

    def __repr__(self) -> str:
        return f"Affine({self.in_features}, {self.outputs})"


class Elementwise(mb.Layer):
    """An activation in plain NumPy, with a bug in its derivative."""

    def __init__(self, function: Callable[[Any], Any], slope: Callable[[Any, Any, Any], Any]) -> None:
        self.function, self.slope = function, slope

    def forward(self, x: Any, out: Any = None) -> Any:
        self.x = x
        self.y = self.function(x)
        return self.y.copy()

    def backward(self, delta: Any, out: Any = None) -> Any:
        return delta * self.slope(self.x, self.y, delta)


def relu(x: Any) -> Any:
    return x * (x.real > 0)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class Weighted(mb.Loss):
    """A weighted squared error whose derivative forgets the weights."""

    def elementwise(self, y_pred: Any, y_true: Any) -> tuple[Any, Any]:
        error = y_pred - y_true
        weight = np.array([1.0, 3.0])
        return weight * error * error, 2 * error


class HalfSquared(mb.Loss):
    """E = (y - d)²/2, with the derivative of the whole square."""

    def elementwise(self, y_pred: Any, y_true: Any) -> tuple[Any, Any]:
        error = y_pred - y_true
        return error * error / 2, 2 * error


def batch(width: int = 4) -> Any:
    return np.random.default_rng(22).standard_normal((5, width))


def of_layer(name: str, make: Callable[[], mb.Layer], cause: str, *where: str) -> Mutant:
    def pair() -> Pair:
        problem, _ = layer_problem(make(), batch(), np.random.default_rng(23))
        assert problem._grad is not None
        return Pair(problem._fun, problem._grad, problem.packing.unpack(problem.packing.x0))

    return Mutant(
        f"layer: {name}", pair, cause, frozenset(where), lambda seed: mb.check_layer(make(), batch(), rng=seed)
    )


def affine(bug: str, cause: str, *where: str) -> Mutant:
    return of_layer(bug, lambda: Affine(4, 4, bug), cause, *where)


def activation(name: str, function: Any, slope: Any, cause: str) -> Mutant:
    return of_layer(name, lambda: Elementwise(function, slope), cause, "x")


def of_model(name: str, layer: Callable[[], mb.Layer], loss: mb.Loss, cause: str, *where: str) -> Mutant:
    def model() -> mb.Sequential:
        return mb.Sequential(mb.Linear(4, 4, rng=24), mb.Tanh(), layer(), mb.Linear(4, 2, rng=25))

    y = np.random.default_rng(26).random((5, 2))

    def pair() -> Pair:
        problem, _ = model_problem(model(), loss, batch(), y)
        assert problem._grad is not None
        return Pair(problem._fun, problem._grad, problem.packing.unpack(problem.packing.x0))

    return Mutant(
        f"model: {name}",
        pair,
        cause,
        frozenset(where),
        lambda seed: mb.check_model(model(), loss, batch(), y, rng=seed),
    )


MUTANTS = [
    affine("weight transposed", r"of x is that of weight transposed", "x"),
    affine("weight gradient transposed", r"of weight looks transposed", "weight"),
    affine("bias averaged", r"of bias is 5 times too small, and 5 is the batch size", "bias"),
    affine("bias from the first row", r"of bias comes from the first row", "bias"),
    affine("bias zero", r"of bias is zero", "bias"),
    affine("last row dropped", r"of weight lacks the last row", "weight"),
    affine("stale cache", r"not repeatable|stale cache"),
    affine("gradient accumulated", r"accumulated"),
    affine("delta modified", r"modifies its delta"),
    affine("dx in a buffer of its own", r"buffer that the next call overwrites"),
    activation("tanh' at the output", np.tanh, lambda x, y, d: 1 - np.tanh(y) ** 2, r"taken at the output"),
    activation(
        "1 - x² for 1 - y²", np.tanh, lambda x, y, d: 1 - x * x, r"formula for the output is used with the input"
    ),
    activation(
        "x(1 - x) for y(1 - y)", sigmoid, lambda x, y, d: x * (1 - x), r"formula for the output is used with the input"
    ),
    activation("sigmoid' = 1 - y", sigmoid, lambda x, y, d: 1 - y, r"lacks a factor"),
    activation("tanh' = 1 - y", np.tanh, lambda x, y, d: 1 - y, r"lacks a factor"),
    activation(
        "derivative of the other activation", np.tanh, lambda x, y, d: y * (1 - y), r"derivative of the sigmoid"
    ),
    activation(
        "derivative missing", np.tanh, lambda x, y, d: np.ones_like(y), r"derivative of the activation is missing"
    ),
    activation("chain rule missing", np.tanh, lambda x, y, d: (1 - y * y) / d, r"without Δ"),
    activation("ReLU: mask missing", relu, lambda x, y, d: np.ones_like(y), r"derivative of the activation is missing"),
    activation("ReLU: mask of delta", relu, lambda x, y, d: d > 0, r"mask of Δ"),
    activation("ReLU: >= at zero", relu, lambda x, y, d: x >= 0, r"other branch"),
    activation("ReLU: leaky", relu, lambda x, y, d: np.where(x > 0, 1.0, 0.01), r"slope of a silent unit"),
    activation("gradient clipped", np.tanh, lambda x, y, d: np.where(np.abs(y) < 0.9, 1 - y * y, 0), r"clipped"),
    of_model(
        "bias from the first row", lambda: Affine(4, 4, "bias from the first row"), mb.MSE(), r"first row", "2.bias"
    ),
    of_model("last row dropped", lambda: Affine(4, 4, "last row dropped"), mb.MSE(), r"last row", "2.weight"),
    of_model("stale cache", lambda: Affine(4, 4, "stale cache"), mb.MSE(), r"stale cache|not repeatable"),
    of_model("loss: weights forgotten", mb.Tanh, Weighted(), r"wrong|factor"),
    of_model("loss: half a square", mb.Tanh, HalfSquared(), r"whole gradient is 2 times too large"),
]
