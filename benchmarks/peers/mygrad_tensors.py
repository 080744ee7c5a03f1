"""MyGrad: tensors over NumPy arrays; no_autodiff for predictions, Adam in place on the arrays."""

from __future__ import annotations

from typing import Any

import mygrad as mg
import numpy as np
from mygrad.nnet.activations import relu, sigmoid
from mygrad.nnet.losses import softmax_crossentropy

from benchmarks.peers import Prepared
from benchmarks.peers.numpy_adam import NumpyAdam
from benchmarks.task import Case, outcome

ACTIVATIONS = {"tanh": mg.tanh, "relu": relu, "sigmoid": sigmoid}
mg.turn_memory_guarding_off()  # its documentation's advice where speed matters


def prepare(case: Case) -> Prepared:
    """Return the task."""
    network, batch = case.network, case.batch()
    tensors = [mg.tensor(part) for part in network.split_transposed(batch.parameters)]
    activation = ACTIVATIONS[network.activation]

    def forward() -> Any:
        x: Any = batch.x
        for index in range(0, len(tensors), 2):
            x = mg.matmul(x, tensors[index]) + tensors[index + 1]
            if index < len(tensors) - 2:
                x = activation(x)
        return x

    def objective() -> Any:
        z = forward()
        if network.loss == "mse":
            return mg.mean((z - batch.y) ** 2)
        if network.loss == "bce_logits":
            return mg.mean(mg.logaddexp(0, z) - batch.y * z)
        return softmax_crossentropy(z, batch.y)

    if case.task == "predict":

        def predict() -> np.ndarray:
            with mg.no_autodiff:
                return forward().data

        return Prepared(predict, lambda output: outcome(case, output))

    def backprop() -> Any:
        value = objective()
        value.backward()
        return value

    def gradients() -> np.ndarray:
        return network.join_transposed(tensor.grad for tensor in tensors)

    if case.task == "backprop":
        return Prepared(backprop, lambda value: outcome(case, (value.item(), gradients())))
    arrays = [tensor.data for tensor in tensors]
    optimizer = NumpyAdam(arrays)

    def train() -> Any:
        value = backprop()
        optimizer.step([tensor.grad for tensor in tensors])
        return value

    return Prepared(train, lambda _: outcome(case, network.join_transposed(arrays), batch.parameters))
