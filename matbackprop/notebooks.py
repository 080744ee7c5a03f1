"""The networks of the teaching notebooks whose algebra this project finishes, with their data and losses.

Numbers are the notebooks' own where they are fixed there, else drawn from a seeded generator, as they are drawn there.
A notebook that stores its weights (in, out) has them transposed here, to (out, in).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.loss import Loss
from matbackprop.losses import BCE, MSE
from matbackprop.sequential import Sequential
from matbackprop.validation import Array

__all__ = ["NETWORKS", "Example", "load"]


class Example(NamedTuple):
    """A network with one batch of data and a loss."""

    title: str  # of the notebook
    model: Sequential
    loss: Loss
    x: Array
    y: Array


DEEP_DIVE, A2, BY_EXAMPLE = "Deep dive into backpropagation", "A2 - Neural Nets: Backprop", "Backpropagation by example"


def _with(*layers: Layer, weights: list[tuple[object, object]]) -> Sequential:
    """Return the chain with these weights and biases, in the order of its Linear layers."""
    model = Sequential(*layers, rng=0)
    linear = [layer for layer in model if isinstance(layer, Linear)]
    for layer, (weight, bias) in zip(linear, weights, strict=True):
        layer.weight, layer.bias = weight, bias
    return model


def _linear_1_1() -> Example:
    """A single linear neuron that is to learn y = 3 x + 2."""
    x = np.random.default_rng(0).standard_normal((1, 1))
    return Example(DEEP_DIVE, Sequential(Linear(1, 1), rng=0), MSE(), x, 3 * x + 2)


def _tanh_2_2_2_1() -> Example:
    """Two hidden layers of tanh, without biases, on one random example."""
    rng = np.random.default_rng(0)
    layers = Linear(2, 2, bias=False), Tanh(), Linear(2, 2, bias=False), Tanh(), Linear(2, 1, bias=False)
    return Example(
        DEEP_DIVE, Sequential(*layers, rng=rng), MSE(), rng.standard_normal((1, 2)), rng.standard_normal((1, 1))
    )


def _relu_bce_2_2_3_1() -> Example:
    """Two hidden layers of ReLU and a sigmoid, under the binary cross-entropy, with weights of 0 and ±1."""
    model = _with(
        Linear(2, 2), ReLU(), Linear(2, 3), ReLU(), Linear(3, 1), Sigmoid(),
        weights=[
            ([[1, 0], [0, 1]], [0, 0]),
            ([[1, 1], [-1, 1], [1, 0]], [0, 0, 0]),
            ([[1, -1, 0]], [0]),
        ],
    )  # fmt: skip
    return Example(A2, model, BCE(), np.array([[1.0, -1.0]]), np.array([[0.0]]))


def _by_example(*weights: tuple[object, object]) -> Example:
    layers: list[Layer] = []
    for weight, _ in weights:
        units, inputs = np.asarray(weight).shape
        layers += [Linear(inputs, units), ReLU()]
    return Example(BY_EXAMPLE, _with(*layers, weights=list(weights)), MSE(), np.array([[0.5]]), np.array([[0.95]]))


#: Name and maker of each, from the simplest on.
NETWORKS: dict[str, Callable[[], Example]] = {
    "linear-1-1": _linear_1_1,
    "relu-1-1": lambda: _by_example(([[0.3]], [0.4])),
    "relu-1-1-1": lambda: _by_example(([[0.3]], [0.4]), ([[0.2]], [0.1])),
    "relu-1-2-1": lambda: _by_example(([[0.3], [0.2]], [0.4, 0.1]), ([[0.1, 0.7]], [0.3])),
    "relu-1-2-2-1": lambda: _by_example(
        ([[0.3], [0.2]], [0.4, 0.1]), ([[0.1, 0.6], [0.8, 0.7]], [0.3, 0.2]), ([[0.4, 0.6]], [0.3])
    ),
    "tanh-2-2-2-1": _tanh_2_2_2_1,
    "relu-bce-2-2-3-1": _relu_bce_2_2_3_1,
}


def load(name: str) -> Example:
    """Return the example of that name, freshly made.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> from matbackprop.notebooks import load
    >>> example = load("relu-1-1")
    >>> round(example.model.backprop(example.x, example.y, example.loss), 4)
    0.16
    """
    if name not in NETWORKS:
        raise ValueError(f"expected one of {list(NETWORKS)}, got {name!r}")
    return NETWORKS[name]()
