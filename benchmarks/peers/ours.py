"""matbackprop: `backprop`, `backprop` and `Adam.step`, `predict`, each as the README has it."""

from __future__ import annotations

from benchmarks import task
from benchmarks.peers import Prepared
from benchmarks.task import Case, Network, outcome
from matbackprop import MSE, Adam, BCEWithLogits, CrossEntropy, Linear, ReLU, Sequential, Sigmoid, Tanh

ACTIVATIONS = {"tanh": Tanh, "relu": ReLU, "sigmoid": Sigmoid}
LOSSES = {"mse": MSE, "cross_entropy": CrossEntropy, "bce_logits": BCEWithLogits}


def build(network: Network, dtype: str) -> Sequential:
    """Return the model."""
    layers = []
    for out, into in network.shapes:
        layers += [Linear(into, out), ACTIVATIONS[network.activation]()]
    return Sequential(*layers[:-1], dtype=dtype, rng=0)


def prepare(case: Case, workers: int | None = None) -> Prepared:
    """Return the task; `workers` is how many threads share a batch, by default as many as there are cores."""
    parameters, x, y = case.batch()
    model, loss = build(case.network, case.dtype), LOSSES[case.network.loss]()
    model.parameters = parameters
    if case.task == "predict":
        return Prepared(lambda: model.predict(x, workers=workers), lambda output: outcome(case, output))
    if case.task == "backprop":
        return Prepared(
            lambda: model.backprop(x, y, loss, workers=workers), lambda value: outcome(case, (value, model.gradients))
        )
    optimizer = Adam(task.LR, betas=(task.BETA1, task.BETA2), eps=task.EPS)

    def train() -> float:
        value = model.backprop(x, y, loss, workers=workers)
        optimizer.step(model.parameters, model.gradients)
        return value

    return Prepared(train, lambda _: outcome(case, model.parameters, parameters))
