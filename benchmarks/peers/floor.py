"""The floor: the matrix products of the same step and nothing else, on arrays that are there, by NumPy's own BLAS.

The products run over the whole batch, with BLAS's own threads where there are several cores. It computes no result: the
arrays that stand for activations and errors hold random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.peers import Prepared
from benchmarks.task import Case


def prepare(case: Case) -> Prepared:
    """Return the products: Z = A Wᵀ of every layer; for loss and gradients, Δᵀ A too, and Δ W above the first."""
    parameters, x, _ = case.batch()
    rng = np.random.default_rng(0)
    layers = case.network.split(parameters)
    activations = [x] + [
        rng.random((case.rows, out), np.dtype(case.dtype)) - np.dtype(case.dtype).type(0.5)
        for out, _ in case.network.shapes
    ]
    calls: list[Callable[[], object]] = []
    for (weight, _), below, above in zip(layers, activations, activations[1:], strict=False):
        calls.append(partial(np.dot, below, weight.T, np.empty_like(above)))
    if case.task != "predict":
        for index in range(len(layers) - 1, -1, -1):
            weight, delta, below = layers[index][0], activations[index + 1], activations[index]
            calls.append(partial(np.dot, delta.T, below, np.empty_like(weight)))
            if index:
                calls.append(partial(np.dot, delta, weight, np.empty_like(below)))

    def step() -> None:
        for call in calls:
            call()

    return Prepared(step, lambda _: {})
