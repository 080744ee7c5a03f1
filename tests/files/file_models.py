"""Models of every kind, and layers of a user's own: what the tests of files share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from user_layers import Scale

import matbackprop as mb


class Residual(mb.Layer):
    """A user's layer that holds another one: y = x + inner(x)."""

    def __init__(self, inner: mb.Layer) -> None:
        self.inner = inner

    def config(self) -> dict[str, mb.Layer]:
        return {"inner": self.inner}

    def forward(self, x, out=None):
        return np.add(x, self.inner.forward(x), out=out)

    def backward(self, delta, out=None):
        return np.add(delta, self.inner.backward(delta), out=out)


def net(**kwargs) -> mb.Sequential:
    return mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1, bias=False), mb.Sigmoid(), rng=0, **kwargs)


def nested(**kwargs) -> mb.Sequential:
    inner = mb.Sequential(mb.Linear(3, 4), mb.Sequential(mb.ReLU(), mb.Linear(4, 2), rng=1), rng=2)
    return mb.Sequential(mb.Linear(2, 3, weight_init="he"), inner, mb.Sigmoid(), mb.Linear(2, 1), rng=0, **kwargs)


MODELS: dict[str, Callable[..., mb.Sequential]] = {
    "net": net,
    "nested": nested,
    "dropout": lambda **kwargs: mb.Sequential(
        mb.Linear(2, 3), mb.Dropout(0.1), mb.Linear(3, 2), mb.Dropout(0, rng=1), rng=0, **kwargs
    ),
    "no parameters": lambda **kwargs: mb.Sequential(mb.Tanh(), mb.Sequential(mb.ReLU()), **kwargs),
    "a user's": lambda **kwargs: mb.Sequential(
        Scale(2), Residual(mb.Sequential(mb.Linear(2, 2), mb.Tanh(), Residual(Scale(2)), rng=1)), rng=0, **kwargs
    ),
    "a slice": lambda **kwargs: nested(**kwargs)[2:4],
}
