"""What is measured: a network, a batch size, a type and a task; its data, and what has to come out.

The expected values come from plain NumPy in float64, written here a second time, so that neither the library nor any of
its peers is the judge of the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

ACTIVATIONS = ("tanh", "relu", "sigmoid")
LOSSES = ("mse", "cross_entropy", "bce_logits")
TASKS = ("backprop", "train", "predict")
DTYPES = ("float32", "float64")

#: Adam's settings in the training step. The rate is so small that thousands of timed steps leave the network as it is:
#: one that has learnt its few rows by heart has gradients that vanish, and numbers below the normal range are slow.
LR, BETA1, BETA2, EPS = 1e-5, 0.9, 0.999, 1e-8
#: Training steps made before the parameters are compared.
TRIAL_STEPS = 2
#: At that rate the gradient hardly changes, so that Adam's β hardly count. So each peer takes, once a network and type,
#: so many steps on so many rows at this rate too.
BRISK_LR, BRISK_STEPS, BRISK_ROWS = 0.05, 10, 8
#: The largest relative difference from the expected values, in the largest entry for values, gradients and predictions.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
#: The same for what two steps of Adam changed, in the Euclidean norm. The first step follows the gradient's sign, which
#: rounding decides where an entry is nearly zero; and in float32 the sum with a parameter rounds a percent of it away.
TOLERANCE_TRAINED = {"float32": 3e-2, "float64": 1e-6}

BLOCK = 4096  # rows at a time in the expected values

Arrays = dict[str, Any]


class Disagreement(Exception):
    """A peer that computes something else."""


@dataclass(frozen=True)
class Network:
    """Linear layers of these widths with the activation between them, and a loss on the last one's output."""

    widths: tuple[int, ...]
    activation: str = "tanh"
    loss: str = "mse"

    @property
    def name(self) -> str:
        """The widths, joined; the same width many times over as WIDTHxTIMES."""
        parts: list[list[int]] = []
        for width in self.widths:
            if parts and parts[-1][0] == width:
                parts[-1][1] += 1
            else:
                parts.append([width, 1])
        return "-".join(f"{w}x{n}" if n > 3 else "-".join([str(w)] * n) for w, n in parts)

    def __str__(self) -> str:
        loss = "" if self.loss == "mse" else f":{self.loss}"
        return f"{self.name}:{self.activation}{loss}"

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(out, in) of every weight."""
        return [(out, into) for into, out in pairwise(self.widths)]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(out * into + out for out, into in self.shapes)

    def split(self, flat: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """View a vector of parameters, or gradients, as (weight (out, in), bias (out,)) of each layer."""
        parts, at = [], 0
        for out, into in self.shapes:
            weight = flat[at : at + out * into].reshape(out, into)
            bias = flat[at + out * into : at + out * into + out]
            parts.append((weight, bias))
            at += out * into + out
        return parts

    def split_transposed(self, flat: np.ndarray) -> list[np.ndarray]:
        """Return copies, [weight (in, out), bias (out,), ...]: how those have it who write x @ w + b."""
        return [np.array(part.T, order="C") for pair in self.split(flat) for part in pair]

    @staticmethod
    def join_transposed(parts: Iterable[Any]) -> np.ndarray:
        """Return what `split_transposed` has split, or its gradients, as one vector."""
        return np.concatenate([np.asarray(part).T.ravel() for part in parts])


def as_network(value: object) -> Network:
    """Return a network, given one or ``"784-128-128-10:relu:mse"``; activation and loss may be left out.

    A part such as 32x16 stands for sixteen layers of 32.
    """
    if isinstance(value, Network):
        return value
    text = str(value)
    shape, *rest = text.split(":")
    if len(rest) > 2:
        raise ValueError(f"network {text!r}: expected WIDTHS[:ACTIVATION[:LOSS]]")
    widths: list[int] = []
    for part in shape.split("-"):
        width, _, times = part.partition("x")
        if not width.isdecimal() or not (times or "1").isdecimal() or not int(width) or not int(times or 1):
            raise ValueError(f"network {text!r}: expected widths such as 784-128-10 or 32x16-1, got {part!r}")
        widths += [int(width)] * int(times or 1)
    if len(widths) < 2:
        raise ValueError(f"network {text!r}: expected two widths or more")
    network = Network(tuple(widths), *(word or default for word, default in zip(rest, ("tanh", "mse"), strict=False)))
    for kind, word, known in (("activation", network.activation, ACTIVATIONS), ("loss", network.loss, LOSSES)):
        if word not in known:
            raise ValueError(f"network {text!r}: {kind} {word!r} is none of {', '.join(known)}")
    if network.loss == "cross_entropy" and widths[-1] < 2:
        raise ValueError(f"network {text!r}: cross_entropy needs two outputs or more")
    return network


class Batch(NamedTuple):
    """Parameters and data of a case."""

    parameters: np.ndarray  # (P,)
    x: np.ndarray  # (N, in)
    y: np.ndarray  # (N, out), or for classes (N,)


@dataclass(frozen=True)
class Case:
    """One thing to do, on the cores and threads that the process has."""

    network: Network
    rows: int
    dtype: str
    task: str

    def __post_init__(self) -> None:
        if self.task not in TASKS or self.dtype not in DTYPES or self.rows < 1:
            raise ValueError(f"expected rows >= 1, a dtype of {DTYPES} and a task of {TASKS}, got {self}")

    def __str__(self) -> str:
        return f"{self.network} {self.dtype} N={self.rows} {self.task}"

    def batch(self) -> Batch:
        """Draw parameters and data: the same for everybody."""
        network, dtype = self.network, np.dtype(self.dtype)
        rng = np.random.default_rng([len(network.widths), *network.widths])
        parameters = np.zeros(network.size, dtype)
        for weight, bias in network.split(parameters):
            out, into = weight.shape
            weight[...] = rng.uniform(-1, 1, weight.shape) * np.sqrt(6 / (into + out))
            bias[...] = rng.uniform(-0.1, 0.1, out)
        rng = np.random.default_rng(self.rows)
        x = rng.random((self.rows, network.widths[0]), dtype)
        x -= dtype.type(0.5)
        outputs = network.widths[-1]
        if network.loss == "cross_entropy":
            return Batch(parameters, x, rng.integers(0, outputs, self.rows))
        y = rng.random((self.rows, outputs), dtype)
        return Batch(parameters, x, np.rint(y) if network.loss == "bce_logits" else y)

    def multiplications(self) -> int:
        """Return the number of scalar multiplications in the bare products, to tell long cells from short ones."""
        sizes = [out * into for out, into in self.network.shapes]
        return self.rows * (sum(sizes) if self.task == "predict" else 3 * sum(sizes) - sizes[0])


# What has to come out, in float64.


def _activate(kind: str, z: np.ndarray) -> np.ndarray:
    return {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0), "sigmoid": lambda z: 1 / (1 + np.exp(-z))}[kind](z)


def _slope(kind: str, a: np.ndarray) -> np.ndarray:
    return {"tanh": lambda a: 1 - a * a, "relu": lambda a: a > 0, "sigmoid": lambda a: a * (1 - a)}[kind](a)


def _forward(network: Network, flat: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    outputs, layers = [x], network.split(flat)
    for index, (weight, bias) in enumerate(layers):
        z = outputs[-1] @ weight.T + bias
        outputs.append(z if index == len(layers) - 1 else _activate(network.activation, z))
    return outputs


def _loss(kind: str, z: np.ndarray, y: np.ndarray, rows: int) -> tuple[float, np.ndarray]:
    """Return a block's share of the mean loss, and ∂L/∂z."""
    if kind == "mse":
        count = rows * z.shape[1]
        return float(((z - y) ** 2).sum() / count), 2 * (z - y) / count
    if kind == "bce_logits":
        count = rows * z.shape[1]
        value = np.logaddexp(0, z) - y * z
        return float(value.sum() / count), (1 / (1 + np.exp(-z)) - y) / count
    log_sum = np.logaddexp.reduce(z, axis=1, keepdims=True)
    here = np.arange(len(z)), y
    delta = np.exp(z - log_sum)
    delta[here] -= 1
    return float((log_sum[:, 0] - z[here]).sum() / rows), delta / rows


def _gradient(network: Network, flat: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
    value, gradient = 0.0, np.zeros_like(flat)
    layers, grads = network.split(flat), network.split(gradient)
    for start in range(0, len(batch.x), BLOCK):
        part = slice(start, start + BLOCK)
        outputs = _forward(network, flat, batch.x[part].astype(np.float64))
        y = batch.y[part] if network.loss == "cross_entropy" else batch.y[part].astype(np.float64)
        share, delta = _loss(network.loss, outputs[-1], y, len(batch.x))
        value += share
        for index in range(len(layers) - 1, -1, -1):
            grads[index][0][...] += delta.T @ outputs[index]
            grads[index][1][...] += delta.sum(axis=0)
            if index:
                delta = (delta @ layers[index][0]) * _slope(network.activation, outputs[index])
    return value, gradient


def expected(case: Case, lr: float = LR, steps: int = TRIAL_STEPS) -> Arrays:
    """Return what the task gives: "value" and "gradient", or the "change" of the parameters, or the "output"."""
    batch = case.batch()
    flat = batch.parameters.astype(np.float64)
    if case.task == "predict":
        blocks = [batch.x[start : start + BLOCK].astype(np.float64) for start in range(0, case.rows, BLOCK)]
        return {"output": np.concatenate([_forward(case.network, flat, block)[-1] for block in blocks])}
    if case.task == "backprop":
        value, gradient = _gradient(case.network, flat, batch)
        return {"value": value, "gradient": gradient}
    m, v = np.zeros_like(flat), np.zeros_like(flat)
    for t in range(1, steps + 1):
        _, g = _gradient(case.network, flat, batch)
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
        flat -= lr * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS)
    return {"change": flat - batch.parameters}


def outcome(case: Case, values: Any, parameters: np.ndarray | None = None) -> Arrays:
    """Return what a peer computed in the form of `expected`.

    `values` are (value, flat gradient) of a backprop, the parameters after a training step, or the output.
    """
    if case.task == "predict":
        return {"output": np.asarray(values)}
    if case.task == "backprop":
        return {"value": float(values[0]), "gradient": np.asarray(values[1])}
    start = case.batch().parameters if parameters is None else parameters
    return {"change": np.asarray(values).astype(np.float64) - start}


def compare(case: Case, got: Arrays, wanted: Arrays) -> dict[str, float]:
    """Return the relative difference of each result.

    Raises
    ------
    Disagreement
        If one is beyond the tolerance, is not finite, or has another shape or type.
    """
    errors = {}
    for name, right in wanted.items():
        result = np.asarray(got[name])
        if result.shape != np.shape(right):
            raise Disagreement(f"{name}: shape {result.shape}, expected {np.shape(right)}")
        if name in ("gradient", "output") and result.dtype != case.dtype:
            raise Disagreement(f"{name}: computed in {result.dtype}, expected {case.dtype}")
        norm = np.linalg.norm if name == "change" else (lambda a: np.abs(a).max())
        tolerance = (TOLERANCE_TRAINED if name == "change" else TOLERANCE)[case.dtype]
        scale = float(norm(np.atleast_1d(right)))
        error = float(norm(np.atleast_1d(result.astype(np.float64) - right)))
        errors[name] = error / scale if scale else error
        if not errors[name] <= tolerance:
            raise Disagreement(f"{name}: relative difference {errors[name]:.2g}, at most {tolerance:g} is rounding")
    return errors
