"""Bugs in a hand-written network: Linear, tanh, Linear, ReLU, Linear, sigmoid, squared error."""

from __future__ import annotations

from typing import Any

import numpy as np

from mutants.mutant import Mutant, Pair

ROWS, IN, HIDDEN, OUT = 6, 3, 5, 2
DECAY = 1e-6


def parameters() -> dict[str, Any]:
    rng = np.random.default_rng(11)
    shapes = {
        "W1": (HIDDEN, IN),
        "b1": (HIDDEN,),
        "W2": (HIDDEN, HIDDEN),
        "b2": (HIDDEN,),
        "W3": (OUT, HIDDEN),
        "b3": (OUT,),
    }
    return {name: 0.7 * rng.standard_normal(shape) for name, shape in shapes.items()}


class Network:
    """The loss and the gradient, with one bug of choice; "" has none."""

    def __init__(self, bug: str = "") -> None:
        rng = np.random.default_rng(12)
        self.x, self.y = rng.standard_normal((ROWS, IN)), rng.random((ROWS, OUT))
        self.bug = bug
        self.noise = np.random.default_rng(13)
        self.total: dict[str, Any] | None = None
        self.buffer: dict[str, Any] | None = None
        self.velocity: dict[str, Any] | None = None

    def decays(self) -> bool:
        return "decay" in self.bug

    def forward(self, p: dict[str, Any]) -> tuple[Any, ...]:
        z1 = self.x @ p["W1"].T + p["b1"]
        a1 = np.tanh(z1)
        z2 = a1 @ p["W2"].T + p["b2"]
        a2 = z2 * (z2.real > 0)
        z3 = a2 @ p["W3"].T + p["b3"]
        return z1, a1, z2, a2, z3, 1 / (1 + np.exp(-z3))

    def fun(self, p: dict[str, Any]) -> Any:
        a3 = self.forward(p)[-1]
        value = ((a3 - self.y) ** 2).mean()
        if self.decays():
            value = value + DECAY * sum((p[name] ** 2).sum() for name in ("W1", "W2", "W3")) / 2
        if "L1" in self.bug:
            value = value + 0.01 * sum((p[name] * np.sign(p[name].real)).sum() for name in ("W1", "W2", "W3"))
        return 1e-6 * value if "all zero" in self.bug else value

    def grad(self, p: dict[str, Any]) -> dict[str, Any]:
        bug, x, y = self.bug, self.x, self.y
        if bug == "float32 inside":
            p = {name: value.astype(np.float32) for name, value in p.items()}
        z1, a1, z2, a2, z3, a3 = self.forward(p)
        count = a3.size
        delta3 = 2 * (a3 - y) / count
        if bug == "1/N missing":
            delta3 = 2 * (a3 - y)
        if bug == "factor 2 missing":
            delta3 = delta3 / 2
        if bug == "sign":
            delta3 = -delta3
        if bug == "last row dropped":
            delta3[-1] = 0
        if bug == "clipped output":
            delta3 = delta3 * ((a3 > 0.4) & (a3 < 0.6))
        slope3 = a3 * (1 - a3)
        if bug == "sigmoid derivative at z":
            slope3 = z3 * (1 - z3)
        if bug == "sigmoid derivative lacks y":
            slope3 = 1 - a3
        if bug == "sigmoid derivative missing":
            slope3 = np.ones_like(a3)
        delta3 = delta3 * slope3
        g = {"W3": delta3.T @ a2, "b3": delta3.sum(axis=0)}

        upstream = delta3 @ p["W3"]
        mask = z2 > 0
        if bug == "ReLU mask missing":
            mask = np.ones_like(mask)
        if bug == "ReLU mask of another tensor":
            mask = a1 > 0
        leak = 0.01 if bug == "leaky slope" else 0.0
        delta2 = upstream * np.where(mask, 1.0, leak)
        g["W2"], g["b2"] = delta2.T @ a1, delta2.sum(axis=0)
        if bug == "wrong cached input":
            g["W2"] = delta2.T @ z1
        upstream = delta2 @ (p["W2"].T if bug == "W2 transposed on the way back" else p["W2"])
        slope1 = 1 - (a1 if bug == "tanh derivative without the square" else a1 * a1)
        if bug == "activation overwritten in place":
            slope1 = 1 - upstream * upstream
        delta1 = upstream * slope1
        g["W1"], g["b1"] = delta1.T @ x, delta1.sum(axis=0)
        return self.spoil({name: g[name] for name in p}, p, (delta1, delta2, delta3))

    def spoil(self, g: dict[str, Any], p: dict[str, Any], deltas: tuple[Any, ...]) -> dict[str, Any]:
        """Plant the bugs that come after the algebra."""
        bug = self.bug
        weights = ("W1", "W2", "W3")
        if self.decays():
            factor = {"decay missing": 0.0, "decay halved": 0.5, "decay doubled": 2.0}[bug]
            g = {name: part + (factor * DECAY * p[name] if name in weights else 0.0) for name, part in g.items()}
        match bug:
            case "W2 gradient transposed":
                g["W2"] = g["W2"].T
            case "W1 gradient reshaped, not transposed":
                g["W1"] = g["W1"].T.reshape(g["W1"].shape)
            case "bias averaged":
                g["b2"] = g["b2"] / ROWS
            case "bias zero":
                g["b2"] = 0 * g["b2"]
            case "bias from the first row":
                g["b2"] = deltas[1][0] * 1.0
            case "bias summed over the wrong axis":
                g["b2"] = np.full(HIDDEN, g["b2"].mean())
            case "one entry off by 1e-8":
                g["W2"][np.unravel_index(np.argmax(np.abs(g["W2"])), g["W2"].shape)] *= 1 + 1e-8
            case "one row zero":
                g["W3"][1] = 0
            case "columns shifted":
                g["W1"] = np.roll(g["W1"], 1, axis=1)
            case "rows in reverse order":
                g["W3"] = g["W3"][::-1].copy()
            case "float32 inside":
                g = {name: part.astype(np.float64) for name, part in g.items()}
            case "float32 returned":
                g = {name: part.astype(np.float32) for name, part in g.items()}
            case "all zero, loss times 1e-6":
                g = {name: 0 * part for name, part in g.items()}
            case "accumulated":
                self.total = g if self.total is None else {n: self.total[n] + part for n, part in g.items()}
                g = {name: part.copy() for name, part in self.total.items()}
            case "buffer reused":
                self.buffer = self.buffer or {name: np.empty_like(part) for name, part in g.items()}
                for name, part in g.items():
                    self.buffer[name][...] = part
                g = self.buffer
            case "input modified":
                p["b1"] -= 0.1
            case "dropout in the gradient":
                g = {name: part * (self.noise.random(part.shape) > 0.5) for name, part in g.items()}
            case "momentum inside":
                last = self.velocity or {name: 0 * part for name, part in g.items()}
                self.velocity = {name: 0.9 * last[name] + part for name, part in g.items()}
                g = dict(self.velocity)
            case "NaN in one entry":
                g["W2"][1, 2] = np.nan
            case "norm clipped":
                g = {name: part / (20 * np.sqrt(sum((q**2).sum() for q in g.values()))) for name, part in g.items()}
            case "L1 penalty missing" | "":
                pass
        return g


def mutant(bug: str, cause: str, *where: str) -> Mutant:
    def pair() -> Pair:
        network = Network(bug)
        return Pair(network.fun, network.grad, parameters())

    return Mutant(bug, pair, cause, frozenset(where))


LATE = "no common factor|wrong factor|wrong places"

MUTANTS = [
    mutant("1/N missing", r"whole gradient is 12 times too large.*summed where"),
    mutant("factor 2 missing", r"whole gradient is 2 times too small.*2 of a square"),
    mutant("sign", r"whole gradient is the negative"),
    mutant("last row dropped", LATE + "|zero", "W1", "b1", "W2", "b2", "W3", "b3"),
    mutant("clipped output", LATE + "|zero", "W1", "b1", "W2", "b2", "W3", "b3"),
    mutant("sigmoid derivative at z", LATE, "W1", "b1", "W2", "b2", "W3", "b3"),
    mutant("sigmoid derivative lacks y", LATE, "W1", "b1", "W2", "b2", "W3", "b3"),
    mutant("sigmoid derivative missing", LATE, "W1", "b1", "W2", "b2", "W3", "b3"),
    mutant("ReLU mask missing", r"mask|no common factor", "W1", "b1", "W2", "b2"),
    mutant("ReLU mask of another tensor", LATE + "|mask", "W1", "b1", "W2", "b2"),
    mutant("leaky slope", r"silent unit|no common factor", "W1", "b1", "W2", "b2"),
    mutant("wrong cached input", LATE, "W2"),
    mutant("W2 transposed on the way back", LATE, "W1", "b1"),
    mutant("tanh derivative without the square", LATE, "W1", "b1"),
    mutant("activation overwritten in place", LATE, "W1", "b1"),
    mutant("W2 gradient transposed", r"of W2 looks transposed", "W2"),
    mutant("W1 gradient reshaped, not transposed", r"of W1 looks transposed|order of the transpose", "W1"),
    mutant("bias averaged", r"of b2 is 6 times too small.*averaged", "b2"),
    mutant("bias zero", r"of b2 is zero.*never computed", "b2"),
    mutant("bias from the first row", LATE, "b2"),
    mutant("bias summed over the wrong axis", r"of b2 has one value.*wrong axis", "b2"),
    mutant("one entry off by 1e-8", r"of W2 is right but for one entry", "W2"),
    mutant("one row zero", r"of W3 is zero where.*last row", "W3"),
    mutant("columns shifted", r"of W1 has its columns shifted", "W1"),
    mutant("rows in reverse order", r"of W3 is in reverse order", "W3"),
    mutant("decay missing", r"lacks 1e-06 times the parameter: weight decay", "W1", "W2", "W3"),
    mutant("decay halved", r"lacks 5e-07 times the parameter: weight decay", "W1", "W2", "W3"),
    mutant("decay doubled", r"too much of 1e-06 times the parameter: weight decay", "W1", "W2", "W3"),
    mutant("L1 penalty missing", r"lacks 0.01 times the sign of the parameter: an L1", "W1", "W2", "W3"),
    mutant("float32 inside", r"float32"),
    mutant("float32 returned", r"dtype float32"),
    mutant("all zero, loss times 1e-6", r"whole gradient is zero"),
    mutant("accumulated", r"accumulated over calls"),
    mutant("buffer reused", r"buffer that the next call overwrites"),
    mutant("input modified", r"grad modifies its input"),
    mutant("dropout in the gradient", r"not repeatable.*random"),
    mutant("momentum inside", r"not repeatable|accumulated"),
    mutant("NaN in one entry", r"not finite", "W2"),
    mutant("norm clipped", r"whole gradient is .* times too"),
]
