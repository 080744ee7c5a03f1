"""JAX: one jitted function a step, on device arrays, blocked on; parameters and Adam's state donated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import task
from benchmarks.peers import Prepared
from benchmarks.task import Case, Network, outcome

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
Pytree = Any


def forward(network: Network, parameters: Pytree, x: jax.Array) -> jax.Array:
    """Return the network's output."""
    activation = ACTIVATIONS[network.activation]
    for weight, bias in parameters[:-1]:
        x = activation(x @ weight + bias)
    weight, bias = parameters[-1]
    return x @ weight + bias


def objective(network: Network, parameters: Pytree, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the loss."""
    z = forward(network, parameters, x)
    if network.loss == "mse":
        return jnp.mean((z - y) ** 2)
    if network.loss == "bce_logits":
        return jnp.mean(jax.nn.softplus(z) - y * z)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))


def adam(parameters: Pytree, gradients: Pytree, state: Pytree) -> tuple[Pytree, Pytree]:
    """Return parameters and state after a step."""
    m, v, t = state
    t = t + 1
    m = jax.tree.map(lambda m, g: task.BETA1 * m + (1 - task.BETA1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: task.BETA2 * v + (1 - task.BETA2) * g * g, v, gradients)
    rate, root = task.LR / (1 - task.BETA1**t), jnp.sqrt(1 - task.BETA2**t)
    parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + task.EPS), parameters, m, v)
    return parameters, (m, v, t)


def to_device(network: Network, parameters: np.ndarray) -> Pytree:
    """Return the parameters as arrays of their own on the device."""
    parts = [jnp.array(part) for part in network.split_transposed(parameters)]
    return list(zip(parts[::2], parts[1::2], strict=True))


def start(parameters: Pytree, dtype: str) -> Pytree:
    """Return Adam's state before the first step."""
    return jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters), jnp.zeros((), dtype)


def flat(tree: Pytree) -> np.ndarray:
    """Return a tree like the parameters' as one vector, in our order."""
    return Network.join_transposed(jax.tree.leaves(tree))


def prepare(case: Case) -> Prepared:
    """Return the task."""
    if case.dtype == "float64":
        jax.config.update("jax_enable_x64", True)  # a float32 process leaves it off
    network = case.network
    batch = case.batch()
    parameters, x, y = to_device(network, batch.parameters), jnp.asarray(batch.x), jnp.asarray(batch.y)
    if case.task == "predict":
        run = jax.jit(lambda parameters, x: forward(network, parameters, x))
        return Prepared(lambda: run(parameters, x).block_until_ready(), lambda output: outcome(case, output))
    value_and_grad = jax.value_and_grad(lambda parameters, x, y: objective(network, parameters, x, y))
    if case.task == "backprop":
        loss_and_gradients = jax.jit(value_and_grad)

        def backprop() -> tuple[jax.Array, Pytree]:
            value, gradients = loss_and_gradients(parameters, x, y)
            value.block_until_ready()  # one program: they are ready together
            return value, gradients

        return Prepared(backprop, lambda result: outcome(case, (result[0], flat(result[1]))))

    def update(parameters: Pytree, state: Pytree, x: jax.Array, y: jax.Array) -> tuple[Pytree, Pytree, jax.Array]:
        value, gradients = value_and_grad(parameters, x, y)
        return *adam(parameters, gradients, state), value

    jitted = jax.jit(update, donate_argnums=(0, 1))
    now = [parameters, start(parameters, case.dtype)]

    def train() -> jax.Array:
        now[0], now[1], value = jitted(now[0], now[1], x, y)
        return value.block_until_ready()

    return Prepared(train, lambda _: outcome(case, flat(now[0]), batch.parameters))
