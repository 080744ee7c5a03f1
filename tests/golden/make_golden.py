"""Write golden.json: what torch computes for every layer, every loss, some networks and a short training.

Run it with torch installed, ``python tests/golden/make_golden.py``. It uses torch and NumPy alone, and
tests/test_golden.py reads the file without torch. Inputs are random numbers of three decimals, the same for both types;
a layer or loss is the name and the keyword arguments that make it, in torch as in matbackprop.
"""

from __future__ import annotations

import datetime as dt
import json
from functools import partial
from pathlib import Path

import numpy as np

TYPES = ("float64", "float32")
LEARNING_RATE = 0.1
STEPS = 20


def linear(i, o, *, bias=True):
    return ["Linear", {"in_features": i, "out_features": o, "bias": bias}]


TANH, RELU, SIGMOID = (["Tanh", {}], ["ReLU", {}], ["Sigmoid", {}])
LINEAR = [linear(i, o, bias=bias) for i, o in [(3, 2), (1, 4), (5, 1), (1, 1)] for bias in (True, False)]
LOSSES = [
    [name, {"reduction": reduction, **extra}]
    for reduction in ("mean", "sum")
    for name, extra in [
        ("MSE", {}),
        ("BCE", {}),
        ("BCEWithLogits", {}),
        ("BCEWithLogits", {"pos_weight": 2.5}),
        ("BCEWithLogits", {"pos_weight": [0.5, 1.0, 4.0]}),
    ]
]
CLASS_WEIGHT = [0.5, 1.0, 4.0]
LATER_LOSSES = [  # with their kind of targets; drawn after everything else
    *(["Huber", {"reduction": reduction, "delta": delta}] for reduction in ("mean", "sum") for delta in (1.0, 0.25)),
    *(
        ["CrossEntropy", {"reduction": reduction, "label_smoothing": smoothing, "class_weight": weight}]
        for reduction in ("mean", "sum")
        for smoothing in (0.0, 0.1)
        for weight in (None, CLASS_WEIGHT)
    ),
]
NETWORKS = [  # layers, loss, whether the elements are weighted
    ([linear(1, 1)], LOSSES[0], False),
    ([*[linear(2, 2, bias=False), TANH] * 2, linear(2, 1, bias=False), TANH], LOSSES[5], False),
    ([linear(2, 2), RELU, linear(2, 3), RELU, linear(3, 1), SIGMOID], LOSSES[1], False),
    ([linear(4, 5), TANH, linear(5, 3), SIGMOID], LOSSES[6], True),
    ([linear(3, 6, bias=False), SIGMOID, linear(6, 4), RELU, linear(4, 3)], LOSSES[4], True),
    ([linear(3, 3), linear(3, 2), RELU, TANH, SIGMOID], LOSSES[0], True),
]


LATER_NETWORKS = [
    ([linear(4, 5), TANH, linear(5, 3)], LATER_LOSSES[0], True),
    ([linear(4, 5), TANH, linear(5, 3)], LATER_LOSSES[4], False),
    ([linear(4, 5), RELU, linear(5, 3)], LATER_LOSSES[7], True),
]


def decimals(values):
    """Return numbers that JSON writes in a few characters, and that mean the same in both types."""
    return np.asarray(values).round(3).tolist()


def exact(tensor):
    """Return a tensor's numbers, each in the fewest digits from which its type reads it back."""
    array = tensor.detach().numpy()
    return np.array([float(str(value)) for value in array.reshape(-1)]).reshape(array.shape).tolist()


def build(torch, spec, dtype):
    """Make a layer, or a chain of a list of them, in this type."""
    if not isinstance(spec[0], str):
        return torch.nn.Sequential(*(build(torch, part, dtype) for part in spec))
    name, arguments = spec
    return getattr(torch.nn, name)(**arguments).to(dtype)


def loss_of(torch, spec, y_pred, y, weight):
    """Return the loss, a tensor. torch has no weights of elements for some: they are multiplied in by hand."""
    name, arguments = spec[0], dict(spec[1])
    reduction = arguments.pop("reduction")
    if name in ("MSE", "Huber"):
        each = getattr(torch.nn, f"{name}Loss")(reduction="none", **arguments)(y_pred, y)
        return getattr(each if weight is None else weight * each, reduction)()
    if name == "CrossEntropy":
        classes = arguments.pop("class_weight")
        classes = None if classes is None else torch.tensor(classes, dtype=y_pred.dtype)
        make = partial(torch.nn.CrossEntropyLoss, classes, **arguments)
        if weight is None:
            return make(reduction=reduction)(y_pred, y)
        total = (weight.broadcast_to((len(y), 1))[:, 0] * make(reduction="none")(y_pred, y)).sum()
        count = len(y) if classes is None or y.ndim == 2 else classes[y].sum()
        return total / count if reduction == "mean" else total
    arguments["reduction"] = reduction
    if "pos_weight" in arguments:
        arguments["pos_weight"] = torch.tensor(arguments["pos_weight"], dtype=y.dtype)
    return getattr(torch.nn, f"{name}Loss")(weight=weight, **arguments)(y_pred, y)


def random_parameters(rng, module):
    """Return parameters that do not saturate a tanh: there torch's 1 - a² has lost its digits and is no reference."""
    return {name: decimals(rng.normal(0, 0.5, tuple(p.shape))) for name, p in module.named_parameters()}


def load(torch, module, parameters, dtype):
    module.load_state_dict({name: torch.tensor(values, dtype=dtype) for name, values in parameters.items()})


def layer_case(torch, rng, spec, leading):
    """Return a layer's output and gradients under a random upstream gradient."""
    width = spec[1].get("in_features", 4)
    module = build(torch, spec, torch.float64)
    case = {"layer": spec, "parameters": random_parameters(rng, module)}
    case["x"] = decimals(rng.normal(size=(*leading, width)))
    case["upstream"] = decimals(rng.normal(size=(*leading, spec[1].get("out_features", width))))
    for name in TYPES:
        dtype = getattr(torch, name)
        module = build(torch, spec, dtype)
        load(torch, module, case["parameters"], dtype)
        x = torch.tensor(case["x"], dtype=dtype, requires_grad=True)
        y = module(x)
        y.backward(torch.tensor(case["upstream"], dtype=dtype))
        gradients = {key: exact(p.grad) for key, p in module.named_parameters()}
        case[name] = {"y": exact(y), "x_grad": exact(x.grad), "gradients": gradients}
    return case


def targets(rng, spec, shape, probabilities=False):
    """Return any numbers for MSE and Huber, classes or rows of probabilities for CrossEntropy, and for the others
    probabilities, half of them 0 or 1.
    """
    if spec[0] in ("MSE", "Huber"):
        return decimals(rng.normal(size=shape))
    if spec[0] == "CrossEntropy":
        return decimals(rng.dirichlet(np.ones(3), shape[0])) if probabilities else rng.integers(0, 3, shape[0]).tolist()
    return decimals(np.where(rng.random(shape) < 0.5, rng.random(shape), rng.integers(0, 2, shape)))


def as_target(torch, y, dtype):
    """Return targets as a tensor: classes stay integers."""
    return torch.tensor(y, dtype=None if np.asarray(y).dtype.kind == "i" else dtype)


def loss_case(torch, rng, spec, weight, probabilities=False):
    """Return a loss's value and gradient for four rows of three outputs."""
    y_pred = decimals(rng.uniform(0.01, 0.99, (4, 3)) if spec[0] == "BCE" else rng.normal(0, 4, (4, 3)))
    case = {"loss": spec, "y_pred": y_pred, "y": targets(rng, spec, (4, 3), probabilities), "weight": weight}
    for name in TYPES:
        dtype = getattr(torch, name)
        tensor = torch.tensor(y_pred, dtype=dtype, requires_grad=True)
        weights = None if weight is None else torch.tensor(weight, dtype=dtype)
        value = loss_of(torch, spec, tensor, as_target(torch, case["y"], dtype), weights)
        value.backward()
        case[name] = {"value": exact(value), "gradient": exact(tensor.grad)}
    return case


def network_case(torch, rng, specs, loss, weighted, steps=0):
    """Return a network's prediction, loss and gradients, and where gradient descent takes it in that many steps."""
    module = build(torch, specs, torch.float64)
    case = {"layers": specs, "loss": loss, "parameters": random_parameters(rng, module)}
    linears = [arguments for name, arguments in specs if name == "Linear"]
    case["x"] = decimals(rng.normal(size=(5, linears[0]["in_features"])))
    case["y"] = targets(rng, loss, (5, linears[-1]["out_features"]))
    case["weight"] = decimals(rng.uniform(0, 2, (5, 1))) if weighted else None
    for name in TYPES:
        dtype = getattr(torch, name)
        module = build(torch, specs, dtype)
        load(torch, module, case["parameters"], dtype)
        x = torch.tensor(case["x"], dtype=dtype, requires_grad=True)
        y = as_target(torch, case["y"], dtype)
        weight = torch.tensor(case["weight"], dtype=dtype) if weighted else None
        y_pred = module(x)
        value = loss_of(torch, loss, y_pred, y, weight)
        value.backward()
        gradients = {key: exact(p.grad) for key, p in module.named_parameters()}
        case[name] = {"y_pred": exact(y_pred), "value": exact(value), "x_grad": exact(x.grad), "gradients": gradients}
        if steps:
            case[name] |= train(torch, module, lambda m, x=x, y=y, w=weight: loss_of(torch, loss, m(x), y, w), steps)
    return case


def train(torch, module, objective, steps):
    """Return the loss before each step of torch.optim.SGD, and the parameters after the last."""
    optimizer = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = objective(module)
        value.backward()
        optimizer.step()
        values.append(exact(value))
    return {"values": values, "trained": {key: exact(p) for key, p in module.named_parameters()}}


def main():
    """Compute everything and write the file, one case a line."""
    import torch

    rng = np.random.default_rng(0)
    weights = [None, 0.5, decimals(rng.uniform(0, 2, (4, 1))), decimals(rng.uniform(0, 2, (4, 3)))]
    golden = {
        "layers": [
            layer_case(torch, rng, spec, leading)
            for spec in [*LINEAR, TANH, RELU, SIGMOID]
            for leading in [(1,), (4,), (2, 3)]
        ],
        "losses": [loss_case(torch, rng, spec, weight) for spec in LOSSES for weight in weights],
        "networks": [network_case(torch, rng, *network) for network in NETWORKS],
        "trainings": [network_case(torch, rng, *network, steps=STEPS) for network in NETWORKS[3:5]],
    }
    golden["losses"] += [
        loss_case(torch, rng, spec, weight, probabilities)
        for spec in LATER_LOSSES
        for probabilities in ((False, True) if spec[0] == "CrossEntropy" else (False,))
        for weight in (weights[:3] if spec[0] == "CrossEntropy" else weights)
    ]
    golden["networks"] += [network_case(torch, rng, *network) for network in LATER_NETWORKS]
    golden["trainings"] += [network_case(torch, rng, *network, steps=STEPS) for network in LATER_NETWORKS[:2]]
    about = {"torch": torch.__version__, "date": dt.date.today().isoformat(), "learning_rate": LEARNING_RATE}
    lines = [f'"about": {json.dumps(about)}']
    for kind, cases in golden.items():
        rows = ",\n".join(json.dumps(case, separators=(",", ":"), allow_nan=False) for case in cases)
        lines.append(f'"{kind}": [\n{rows}\n]')
    Path(__file__).with_name("golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
