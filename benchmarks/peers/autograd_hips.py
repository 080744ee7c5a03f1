"""autograd: value_and_grad of the loss over the list of weights and biases; Adam in place on NumPy arrays."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
from autograd import value_and_grad

from benchmarks.peers import Prepared
from benchmarks.peers.numpy_adam import NumpyAdam
from benchmarks.task import Case, Network, outcome

ACTIVATIONS = {"tanh": anp.tanh, "relu": lambda z: anp.maximum(z, 0), "sigmoid": lambda z: 1 / (1 + anp.exp(-z))}


def forward(network: Network, parameters: list[Any], x: Any) -> Any:
    """Return the network's output."""
    activation = ACTIVATIONS[network.activation]
    for index in range(0, len(parameters), 2):
        x = anp.dot(x, parameters[index]) + parameters[index + 1]
        if index < len(parameters) - 2:
            x = activation(x)
    return x


def objective(network: Network, parameters: list[Any], x: Any, y: Any) -> Any:
    """Return the loss."""
    z = forward(network, parameters, x)
    if network.loss == "mse":
        return anp.mean((z - y) ** 2)
    if network.loss == "bce_logits":
        return anp.mean(anp.logaddexp(0, z) - y * z)
    top = anp.max(z, axis=1, keepdims=True)
    log_sum = top[:, 0] + anp.log(anp.sum(anp.exp(z - top), axis=1))
    return anp.mean(log_sum - z[anp.arange(len(y)), y])


def prepare(case: Case) -> Prepared:
    """Return the task."""
    batch = case.batch()
    arrays = case.network.split_transposed(batch.parameters)
    if case.task == "predict":
        return Prepared(lambda: forward(case.network, arrays, batch.x), lambda output: outcome(case, output))
    gradient = value_and_grad(lambda parameters: objective(case.network, parameters, batch.x, batch.y))
    if case.task == "backprop":
        return Prepared(
            lambda: gradient(arrays),
            lambda result: outcome(case, (result[0], Network.join_transposed(result[1]))),
        )
    optimizer = NumpyAdam(arrays)

    def train() -> Any:
        value, gradients = gradient(arrays)
        optimizer.step(gradients)
        return value

    return Prepared(train, lambda _: outcome(case, Network.join_transposed(arrays), batch.parameters))
