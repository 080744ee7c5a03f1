"""The network that hidden_layer_sizes and activation stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.sequential import Sequential
from matbackprop.validation import as_size, describe

__all__ = ["Architecture"]

#: What stands after each hidden Linear, by scikit-learn's names.
ACTIVATIONS: dict[str, Callable[[], Any] | None] = {
    "relu": ReLU,
    "tanh": Tanh,
    "logistic": Sigmoid,
    "identity": None,
}


class Architecture(NamedTuple):
    """The hidden layers: their sizes, and what makes the layer that follows each. Equal ones make equal networks."""

    sizes: tuple[int, ...]
    make: Callable[[], Any] | None

    @classmethod
    def of(cls, hidden_layer_sizes: Any, activation: Any) -> Architecture:
        """Return the architecture of these settings.

        Raises
        ------
        TypeError, ValueError
            If a setting is not of its kind.
        """
        sizes = np.atleast_1d(np.asarray(hidden_layer_sizes, object)).tolist()
        known = isinstance(activation, str) and activation in ACTIVATIONS
        if isinstance(activation, Layer):
            raise TypeError(
                f"activation: got the layer {activation!r}, but each hidden layer needs one of its own; pass "
                f"{type(activation).__name__} without parentheses, or lambda: {activation!r}"
            )
        if not known and not callable(activation):
            raise ValueError(
                f"activation: expected one of {list(ACTIVATIONS)} or a function that returns a layer, "
                f"got {describe(activation)}"
            )
        make = ACTIVATIONS[activation] if known else activation
        return cls(tuple(as_size(size, "hidden_layer_sizes") for size in sizes), make)

    def build(self, inputs: int, outputs: int, dtype: Any, rng: np.random.Generator) -> Sequential:
        """Return the network, with weights drawn by `rng`.

        Raises
        ------
        TypeError
            If the activation's function returns something else than a layer.
        """
        layers: list[Layer] = []
        for size in self.sizes:
            layers.append(Linear(inputs, inputs := size))
            if self.make is not None:
                layer = self.make()
                if not isinstance(layer, Layer):
                    raise TypeError(
                        f"activation: expected a function that returns a layer, it returned {describe(layer)}"
                    )
                layers.append(layer)
        return Sequential(*layers, Linear(inputs, outputs), dtype=dtype, rng=rng)
