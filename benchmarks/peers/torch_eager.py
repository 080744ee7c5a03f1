"""torch, eager: nn.Sequential, gradients set to None, the fused Adam, inference_mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import task
from benchmarks.peers import Prepared
from benchmarks.task import Case, Network, outcome

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}
LOSSES = {
    "mse": functional.mse_loss,
    "cross_entropy": functional.cross_entropy,
    "bce_logits": functional.binary_cross_entropy_with_logits,
}


def threads(cores: int) -> None:
    """Keep to so many threads."""
    torch.set_num_threads(cores)
    if torch.get_num_interop_threads() != 1:  # it can be set once
        torch.set_num_interop_threads(1)


def build(network: Network, dtype: str, parameters: np.ndarray) -> torch.nn.Sequential:
    """Return the model with these parameters."""
    layers: list[torch.nn.Module] = []
    for out, into in network.shapes:
        layers += [torch.nn.Linear(into, out, dtype=getattr(torch, dtype)), ACTIVATIONS[network.activation]()]
    net = torch.nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers[::2], network.split(parameters), strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    return net


def flat(tensors: Any) -> np.ndarray:
    """Return the tensors as one vector, in our order, which is torch's."""
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


def prepare(case: Case, compiled: Callable[[Any], Any] = lambda function: function) -> Prepared:
    """Return the task; `compiled` is applied to the functions that compute."""
    parameters, x, y = case.batch()
    net, criterion = build(case.network, case.dtype, parameters), LOSSES[case.network.loss]
    data, target, own = torch.from_numpy(x), torch.from_numpy(y), list(net.parameters())
    if case.task == "predict":
        forward = compiled(net)

        def predict() -> torch.Tensor:
            with torch.inference_mode():
                return forward(data)

        return Prepared(predict, lambda output: outcome(case, output.numpy()))

    objective = compiled(lambda data, target: criterion(net(data), target))

    def backprop() -> torch.Tensor:
        for parameter in own:
            parameter.grad = None
        value = objective(data, target)
        value.backward()
        return value

    if case.task == "backprop":
        return Prepared(backprop, lambda value: outcome(case, (value.item(), flat(p.grad for p in own))))
    optimizer = torch.optim.Adam(own, task.LR, (task.BETA1, task.BETA2), task.EPS, fused=True)

    def train() -> torch.Tensor:
        value = backprop()
        optimizer.step()
        return value

    return Prepared(train, lambda _: outcome(case, flat(own), parameters))
