"""Bugs in free functions, and in the glue between a function and an optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np

import matbackprop as mb
from matbackprop.gradcheck import check_hessian_product
from mutants.mutant import Mutant, Pair

RNG = np.random.default_rng(31)
A, Y = RNG.standard_normal((9, 4)), RNG.integers(0, 3, 9)
X = RNG.standard_normal((3, 4))


def cross_entropy(w: Any) -> Any:
    z = A @ w.T
    top = z.real.max(axis=1, keepdims=True)
    return (np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(9), Y]).mean()


def residual(w: Any) -> Any:
    e = np.exp(A @ w.T)
    return e / e.sum(axis=1, keepdims=True) - np.eye(3)[Y]


def simple(name: str, grad: Any, cause: str) -> Mutant:
    return Mutant(name, lambda: Pair(cross_entropy, grad, X.copy()), cause)


def glue_fun(v: Any) -> Any:
    """Fit y = W x + b, with the parameters in one vector for an optimiser: W first, then b."""
    w, b = v[:12].reshape(3, 4), v[12:]
    return ((A @ w.T + b - np.eye(3)[Y]) ** 2).mean()


def glue_parts(v: Any) -> tuple[Any, Any]:
    w, b = v[:12].reshape(3, 4), v[12:]
    delta = 2 * (A @ w.T + b - np.eye(3)[Y]) / 27
    return delta.T @ A, delta.sum(axis=0)


def glue(name: str, grad: Any, cause: str) -> Mutant:
    x0 = np.random.default_rng(32).standard_normal(15)
    return Mutant(f"glue: {name}", lambda: Pair(glue_fun, grad, x0.copy()), cause)


def hessian(name: str, factor: Any, cause: str) -> Mutant:
    a = A.T @ A

    def grad(x: Any) -> Any:
        return a @ x + x**3

    def hessp(x: Any, p: Any) -> Any:
        return factor(a, x, p)

    w = np.array([1.0, -0.5, 2.0, 0.7])
    x0 = np.array([0.3, -1.2, 0.8, 1.5])
    return Mutant(
        f"hessp: {name}",
        lambda: Pair(lambda x: w @ grad(x), lambda x: hessp(x, w), x0.copy()),
        cause,
        check=lambda seed: check_hessian_product(grad, hessp, x0, rng=seed),
    )


def barrier(name: str, grad: Any, cause: str) -> Mutant:
    return Mutant(name, lambda: Pair(lambda x: -np.log(x).sum() + x @ x, grad, np.array([0.2, 1.3, 2.4, 0.01])), cause)


def skip(x: Any) -> Any:
    """A residual connection: tanh(x) + x, squared."""
    return ((np.tanh(x) + x) ** 2).sum()


MUTANTS = [
    simple("softmax: y - p", lambda w: -residual(w).T @ A / 9, r"whole gradient is the negative"),
    simple("softmax: summed", lambda w: residual(w).T @ A, r"9 times too large.*summed where"),
    simple("softmax: label forgotten", lambda w: (residual(w) + np.eye(3)[Y]).T @ A / 9, r"wrong|factor"),
    simple(
        "softmax: labels shifted by one",
        lambda w: (residual(w) + np.eye(3)[Y] - np.eye(3)[(Y + 1) % 3]).T @ A / 9,
        r"wrong|factor|places",
    ),
    simple(
        "softmax: one class zero",
        lambda w: np.array([1.0, 1.0, 0.0])[:, None] * (residual(w).T @ A / 9),
        r"zero where.*last row",
    ),
    simple(
        "epsilon in one of both", lambda w: residual(w).T @ A / (9 + 1e-7), r"common factor of 1 - 1.11e-08.*epsilon"
    ),
    simple("constant added", lambda w: residual(w).T @ A / 9 + 1e-5, r"off by the constant"),
    glue(
        "bias packed first", lambda v: np.concatenate([part.ravel() for part in glue_parts(v)[::-1]]), r"wrong places"
    ),
    glue("sign of an ascent", lambda v: -np.concatenate([p.ravel() for p in glue_parts(v)]), r"negative"),
    glue(
        "learning rate inside",
        lambda v: 0.01 * np.concatenate([p.ravel() for p in glue_parts(v)]),
        r"100 times too small",
    ),
    glue(
        "Fortran order",
        lambda v: np.concatenate([glue_parts(v)[0].ravel(order="F"), glue_parts(v)[1]]),
        r"wrong places",
    ),
    glue(
        "bias forgotten",
        lambda v: np.concatenate([glue_parts(v)[0].ravel(), np.zeros(3)]),
        r"zero where it should not be",
    ),
    glue(
        "cut to integers",
        lambda v: np.concatenate([np.trunc(10 * p).ravel() for p in glue_parts(v)]) / 10,
        r"wrong|zero",
    ),
    hessian("cubic term forgotten", lambda a, x, p: a @ p, r"too small|no common factor|wrong|lacks"),
    hessian("x for p", lambda a, x, p: a @ p + 3 * x**2 * x, r"no common factor|wrong"),
    hessian("factor 2", lambda a, x, p: 2 * (a @ p + 3 * x**2 * p), r"2 times too large"),
    barrier("log: sign", lambda x: 1 / x + 2 * x, r"no common factor|wrong"),
    barrier(
        "log: regularised", lambda x: -1 / (x + 1e-9) + 2 * x, r"right but for|float32|epsilon|no common factor|lacks"
    ),
    Mutant(
        "residual connection: skip path dropped",
        lambda: Pair(skip, lambda x: 2 * (np.tanh(x) + x) * (1 - np.tanh(x) ** 2), np.linspace(-1, 2, 7)),
        r"no common factor|wrong",
    ),
    Mutant(
        "value of another point",
        lambda: Pair(skip, lambda x: 2 * (np.tanh(x) + x) * (2 - np.tanh(x + 1e-6) ** 2), np.linspace(-1, 2, 7)),
        r"wrong|float32|no common factor",
    ),
    Mutant(
        "jac=True: gradient of the sum, value of the mean",
        lambda: Pair(lambda x: ((x**2).mean(), 2 * x), None, np.array([1.0, 2.0, -0.5])),
        r"3 times too large",
        check=lambda seed: mb.check_gradient(lambda x: ((x**2).mean(), 2 * x), np.array([1.0, 2.0, -0.5]), rng=seed),
    ),
]
