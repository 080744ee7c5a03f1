"""Random correct gradients, of many kinds: whatever is not a PASS on them is a false alarm, or a missed chance.

Each seed makes one problem: a network of random shape, activations, loss, batch, type and saturation, or a function
with a hand-written gradient, some of which complex steps cannot enter; its value is scaled by 1, 1e-8 or 1e8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import matbackprop as mb
from matbackprop.gradcheck import GradientReport, check_gradient
from matbackprop.gradcheck.api import check_problem
from matbackprop.gradcheck.models import model_problem
from matbackprop.gradcheck.problem import Problem

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any], Any]
Maker = Callable[[Any, np.random.Generator], Pair]


def check(seed: int, among: Sequence[Maker] | None = None) -> tuple[str, GradientReport]:
    """Return the kind of problem that a seed makes, and the report of its check.

    Functions are taken from `among`, by default all of `FUNCTIONS`.
    """
    rng = np.random.default_rng([20_000, seed])
    scale = float(rng.choice([1.0, 1.0, 1e-8, 1e8]))
    if rng.random() < 0.6:
        return network(rng, scale)
    name, (fun, grad, x0) = function(rng, FUNCTIONS if among is None else among)
    single = rng.random() < 0.25
    if single:
        x0, scale = (
            {k: v.astype(np.float32) for k, v in x0.items()} if isinstance(x0, dict) else x0.astype(np.float32),
            1.0,
        )
    factor: Any = scale if not single else np.float32(scale)

    def scaled(x: Any) -> Any:
        return factor * fun(x)

    def scaled_gradient(x: Any) -> Any:
        g = grad(x)
        return {k: factor * v for k, v in g.items()} if isinstance(g, dict) else factor * g

    kind = f"{name}, {'float32' if single else 'float64'}"
    return kind, check_gradient(scaled, scaled_gradient, x0, rng=rng)


def network(rng: np.random.Generator, scale: float) -> tuple[str, GradientReport]:
    """Check the gradient of a random network by its parameters."""
    widths = rng.integers(1, 13, size=int(rng.integers(2, 6)))
    layers: list[mb.Layer] = []
    for inputs, outputs in pairwise(widths):
        layers.append(mb.Linear(int(inputs), int(outputs), bias=bool(rng.random() < 0.9)))
        layers.append(rng.choice([mb.Tanh, mb.ReLU, mb.Sigmoid])())
    loss: mb.Loss = mb.MSE(rng.choice(["mean", "sum"]))
    draw = rng.random()
    if draw < 0.3:
        layers[-1], loss = mb.Sigmoid(), mb.BCE(rng.choice(["mean", "sum"]))
    elif draw < 0.5:
        layers.pop()
        loss = mb.BCEWithLogits(rng.choice(["mean", "sum"]))
    model = mb.Sequential(*layers, rng=rng)
    strength = float(rng.choice([1.0, 1.0, 1.0, 4.0, 15.0]))
    model.parameters = strength * (model.parameters + 0.1 * rng.standard_normal(model.parameters.size))
    dtype = np.dtype(np.float32 if rng.random() < 0.25 else np.float64)
    model = model.astype(dtype)
    count = int(rng.choice([1, 2, 7, 32]))
    x = rng.standard_normal((count, int(widths[0]))).astype(dtype)
    if rng.random() < 0.2:
        x[rng.random(x.shape) < 0.3] = 0.0
    y = rng.integers(0, 2, (count, int(widths[-1]))).astype(dtype)
    problem, hypotheses = model_problem(model, loss, x, y)
    problem = rescaled(problem, scale)
    kind = f"network, {dtype.name}" + (", saturated" if strength > 1 else "")
    return kind, check_problem(problem, rng, name=repr(model), hypotheses=hypotheses)


def rescaled(problem: Problem, scale: float) -> Problem:
    """Return the same problem with the value times `scale`."""
    fun, grad = problem._fun, problem._grad
    assert grad is not None
    x0 = problem.packing.unpack(problem.packing.x0)

    def gradient(x: Any) -> Any:
        return {name: part.dtype.type(scale) * part for name, part in grad(x).items()}

    return Problem(lambda x: scale * fun(x), gradient, x0)


def function(rng: np.random.Generator, among: Sequence[Maker]) -> tuple[str, Pair]:
    """Return a function with a hand-written gradient."""
    n = int(rng.integers(1, 40))
    x = rng.standard_normal(n)
    maker = among[int(rng.integers(len(among)))]
    return maker.__name__, maker(x, rng)


def quadratic(x: Any, rng: np.random.Generator) -> Pair:
    a = rng.standard_normal((x.size, x.size))
    b = rng.standard_normal(x.size)
    return lambda x: 0.5 * x @ (a + a.T) @ x - b @ x, lambda x: ((a + a.T) @ x - b).astype(x.dtype), x


def log_sum_exp(x: Any, rng: np.random.Generator) -> Pair:
    def fun(x: Any) -> Any:
        top = x.real.max()
        return top + np.log(np.exp(x - top).sum())

    def grad(x: Any) -> Any:
        e = np.exp(x - x.real.max())
        return e / e.sum()

    return fun, grad, 3 * x


def rosenbrock(x: Any, rng: np.random.Generator) -> Pair:
    from scipy.optimize import rosen, rosen_der

    def grad(x: Any) -> Any:
        return rosen_der(x).astype(x.dtype)

    return rosen, grad, np.concatenate([x, [0.3]])


def gaussian(x: Any, rng: np.random.Generator) -> Pair:
    data = rng.standard_normal(20)

    def fun(p: Any) -> Any:
        r = (data - p["mu"]) / np.exp(p["log_sigma"])
        return (0.5 * r * r + p["log_sigma"]).mean()

    def grad(p: Any) -> Any:
        r = (data - p["mu"]) / np.exp(p["log_sigma"])
        kind = p["mu"].dtype
        return {
            "mu": np.asarray(-(r / np.exp(p["log_sigma"])).mean(), kind),
            "log_sigma": np.asarray((1 - r * r).mean(), kind),
        }

    return fun, grad, {"mu": np.array(x[0]), "log_sigma": np.array(0.1 * x[0])}


def logistic(x: Any, rng: np.random.Generator) -> Pair:
    from scipy.special import expit

    a, y = rng.standard_normal((15, x.size)), rng.integers(0, 2, 15)

    def fun(w: Any) -> Any:
        z = a @ w
        return (np.logaddexp(0, z) - y * z).mean()

    return fun, lambda w: (a.T @ (expit(a @ w) - y) / 15).astype(w.dtype), x


def absolute(x: Any, rng: np.random.Generator) -> Pair:
    return lambda x: (np.abs(x) ** 3).sum(), lambda x: 3 * x * np.abs(x), x


def norm(x: Any, rng: np.random.Generator) -> Pair:
    return np.linalg.norm, lambda x: x / np.linalg.norm(x), x


def hinge(x: Any, rng: np.random.Generator) -> Pair:
    a = rng.standard_normal((15, x.size))
    return (
        lambda w: np.maximum(0, 1 - a @ w).sum() + 0.05 * w @ w,
        lambda w: (-a.T @ (a @ w < 1) + 0.1 * w).astype(w.dtype),
        x,
    )


def linear(x: Any, rng: np.random.Generator) -> Pair:
    """A gradient that is constant, and the small rest of a long sum."""
    rows = int(rng.choice([1, 10, 300, 3000]))
    a = centred(rng, rows, x.size)
    way = rng.integers(3)

    def grad(w: Any) -> Any:
        g = a.mean(0) if way == 0 else a.T @ np.full(rows, 1 / rows) if way == 1 else sum(a) / rows
        return np.array(g, w.dtype)

    black_box = rng.random() < 0.3
    return (lambda w: float((a @ w).mean())) if black_box else (lambda w: (a @ w).mean()), grad, x


def at_zero(x: Any, rng: np.random.Generator) -> Pair:
    """A least squares fit that starts from weights of zero, all or some; its gradient is there a small rest as well."""
    a = centred(rng, 100, x.size)
    y = 1 + 0.1 * rng.standard_normal(100)
    start = x * (rng.random(x.size) < rng.choice([0.0, 0.5]))
    return lambda w: 0.5 * ((a @ w - y) ** 2).mean(), lambda w: (a.T @ (a @ w - y) / 100).astype(w.dtype), start


def centred(rng: np.random.Generator, rows: int, columns: int) -> Any:
    """Return a matrix whose columns have means much smaller than their entries."""
    a = rng.standard_normal((rows, columns))
    return a - a.mean(0) + 10.0 ** rng.uniform(-8, 0) * rng.uniform(0.5, 1.5, columns)


def beside_kinks(x: Any, rng: np.random.Generator) -> Pair:
    """Every entry close to a kink, some with a smooth function beside it; complex steps see nothing of it."""
    start = 1 + 10.0 ** rng.uniform(-8, -1) * rng.choice((-1.0, 1.0), x.size) * rng.uniform(0.5, 1.5, x.size)
    smooth = rng.choice([0.0, 1.0])
    return (
        lambda z: np.abs(z - 1).sum() + smooth * np.sin(z).sum(),
        lambda z: (np.sign(z - 1) + smooth * np.cos(z)).astype(z.dtype),
        start,
    )


def oscillating(x: Any, rng: np.random.Generator) -> Pair:
    """Faster than the first difference steps, by far; complex steps are kept out."""
    k = 10.0 ** rng.uniform(0, 6)
    return lambda z: float(np.sin(k * z).sum()), lambda z: (k * np.cos(k * z)).astype(z.dtype), x


FUNCTIONS: tuple[Maker, ...] = (
    quadratic,
    log_sum_exp,
    rosenbrock,
    gaussian,
    logistic,
    absolute,
    norm,
    hinge,
    linear,
    at_zero,
    beside_kinks,
    oscillating,
)


def tally(seeds: Iterable[int]) -> tuple[Counter[tuple[str, str]], list[tuple[int, str, str]]]:
    """Return how often each kind of problem got each verdict, and every seed that was no PASS, with the reason."""
    counts: Counter[tuple[str, str]] = Counter()
    others: list[tuple[int, str, str]] = []
    for seed in seeds:
        kind, report = check(seed)
        counts[kind, str(report.verdict)] += 1
        if not report:
            others.append((seed, f"{kind}: {report.verdict}", report.reason or report.cause))
    return counts, others
