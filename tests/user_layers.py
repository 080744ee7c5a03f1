"""A layer as a user writes it, for the tests of whatever takes one."""

from __future__ import annotations

import numpy as np

import matbackprop as mb


class Scale(mb.Layer):
    """One parameter a feature: plain forward and backward."""

    scale = mb.Parameter()
    scale_grad = mb.Gradient("scale")

    def __init__(self, features: int) -> None:
        self.in_features = features
        self.scale = np.linspace(0.5, 1.5, features)

    def config(self) -> dict[str, int]:
        return {"features": self.in_features}

    def forward(self, x, out=None):
        self.x = x
        return np.multiply(x, self.scale, out=out)

    def backward(self, delta, out=None):
        self.scale_grad = (delta * self.x).sum(axis=0)
        return np.multiply(delta, self.scale, out=out)
