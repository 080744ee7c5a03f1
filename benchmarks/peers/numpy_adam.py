"""Adam in place, for the peers that bring gradients as NumPy arrays and no optimiser for one step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt

import numpy as np

from benchmarks import task


class NumpyAdam:
    """One array after the other, without temporary arrays."""

    def __init__(self, parameters: Sequence[np.ndarray]) -> None:
        self.parameters, self.t = parameters, 0
        self.state = [(np.zeros_like(p), np.zeros_like(p), np.empty_like(p)) for p in parameters]

    def step(self, gradients: Iterable[np.ndarray]) -> None:
        """Change the parameters in place."""
        self.t += 1
        rate, root = task.LR / (1 - task.BETA1**self.t), 1 / sqrt(1 - task.BETA2**self.t)
        for p, g, (m, v, s) in zip(self.parameters, gradients, self.state, strict=True):
            np.multiply(m, task.BETA1, out=m)
            np.multiply(g, 1 - task.BETA1, out=s)
            np.add(m, s, out=m)
            np.multiply(v, task.BETA2, out=v)
            np.multiply(g, g, out=s)
            np.multiply(s, 1 - task.BETA2, out=s)
            np.add(v, s, out=v)
            np.sqrt(v, out=s)
            np.multiply(s, root, out=s)
            np.add(s, task.EPS, out=s)
            np.divide(m, s, out=s)
            np.multiply(s, rate, out=s)
            np.subtract(p, s, out=p)
