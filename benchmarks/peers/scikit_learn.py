"""scikit-learn's MLP without its checks: what `fit` runs for each batch, and `predict`'s fast pass.

Its squared loss is half the sum over outputs and the mean over rows, in the value divided by the outputs once more, in
the gradient not. Value and gradient are scaled by the constants that this makes before they are compared.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

from benchmarks import task
from benchmarks.peers import Prepared
from benchmarks.task import Case, Network, outcome

ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "logistic"}


def build(network: Network, parameters: np.ndarray) -> Any:
    """Return an estimator as `fit` has it after its preparations."""
    model = (MLPRegressor if network.loss == "mse" else MLPClassifier)(
        activation=ACTIVATIONS[network.activation], alpha=0
    )
    model.loss = "squared_error" if network.loss == "mse" else "log_loss"
    model.out_activation_ = {"mse": "identity", "bce_logits": "logistic", "cross_entropy": "softmax"}[network.loss]
    model.n_layers_, model.n_outputs_ = len(network.widths), network.widths[-1]
    model.coefs_ = [np.array(weight.T, order="C") for weight, _ in network.split(parameters)]
    model.intercepts_ = [np.array(bias) for _, bias in network.split(parameters)]
    return model


def flat(weights: list[np.ndarray], biases: list[np.ndarray]) -> np.ndarray:
    """Return its lists as one vector, in our order."""
    return np.concatenate([part for w, b in zip(weights, biases, strict=True) for part in (w.T.ravel(), b.ravel())])


def prepare(case: Case) -> Prepared:
    """Return the task."""
    network, (parameters, x, y) = case.network, case.batch()
    model = build(network, parameters)
    outputs = network.widths[-1]
    if case.task == "predict":
        if network.loss != "mse":
            model.out_activation_ = "identity"  # the others give logits
        return Prepared(lambda: model._forward_pass_fast(x, check_input=False), lambda output: outcome(case, output))
    if network.loss == "cross_entropy":
        y = np.eye(outputs, dtype=case.dtype)[y]
    value_scale = {"mse": 2, "cross_entropy": 1, "bce_logits": 1 / outputs}[network.loss]
    scale = {"mse": 2 / outputs, "cross_entropy": 1, "bce_logits": 1 / outputs}[network.loss]
    activations: list[Any] = [x] + [None] * (len(network.widths) - 1)
    deltas: list[Any] = [None] * (len(network.widths) - 1)
    weights, biases = [np.empty_like(w) for w in model.coefs_], [np.empty_like(b) for b in model.intercepts_]

    def backprop() -> Any:
        return model._backprop(x, y, None, activations, deltas, weights, biases)

    if case.task == "backprop":
        return Prepared(
            backprop, lambda r: outcome(case, (r[0] * value_scale, flat(r[1], r[2]) * np.dtype(case.dtype).type(scale)))
        )
    own = model.coefs_ + model.intercepts_
    optimizer = AdamOptimizer(own, task.LR, task.BETA1, task.BETA2)

    def train() -> Any:
        value, weights, biases = backprop()
        # Its ε stands beside the root of v, not of v̂, and beside a gradient of another scale.
        optimizer.epsilon = task.EPS / scale * sqrt(1 - task.BETA2 ** (optimizer.t + 1))
        optimizer.update_params(own, weights + biases)
        return value * value_scale

    return Prepared(train, lambda _: outcome(case, flat(model.coefs_, model.intercepts_), parameters))
