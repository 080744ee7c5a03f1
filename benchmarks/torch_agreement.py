"""Print how far layers, losses, networks and training are from torch: ``python benchmarks/torch_agreement.py``.

The error of an array is the largest difference in it over the largest number in it, by torch; each entry of the table
is the worst of all arrays of all random draws. A rounding step is 2.2e-16 in float64 and 1.2e-7 in float32.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import torch

import matbackprop as mb

DRAWS = 20
BATCHES = (7, 64, 1000)
STEPS = 200


LAYERS = {
    "Linear(32, 64)": lambda: mb.Linear(32, 64),
    "Linear(32, 64, bias=False)": lambda: mb.Linear(32, 64, bias=False),
    "Linear(1, 64)": lambda: mb.Linear(1, 64),
    "Linear(32, 1)": lambda: mb.Linear(32, 1),
    "Tanh()": mb.Tanh,
    "ReLU()": mb.ReLU,
    "Sigmoid()": mb.Sigmoid,
}
LOSSES = [
    *(loss(reduction) for loss in (mb.MSE, mb.BCE, mb.BCEWithLogits) for reduction in ("mean", "sum")),
    mb.BCEWithLogits(pos_weight=2.5),
    mb.BCEWithLogits(pos_weight=[0.5, 1.0, 4.0]),
    *(mb.Huber(reduction, delta) for reduction in ("mean", "sum") for delta in (1.0, 0.25)),
]
CLASS_LOSSES = [
    *(mb.CrossEntropy(reduction) for reduction in ("mean", "sum")),
    mb.CrossEntropy(label_smoothing=0.1),
    mb.CrossEntropy(class_weight=np.linspace(0.5, 2.0, 10).round(2)),
    mb.CrossEntropy(label_smoothing=0.1, class_weight=np.linspace(0.5, 2.0, 10).round(2)),
]
NETWORKS = [  # widths, activation, loss; BCE after a Sigmoid
    ((8, 16, 3), mb.Tanh, mb.MSE()),
    ((32, 64, 64, 3), mb.Tanh, mb.MSE()),
    ((32, 64, 64, 3), mb.ReLU, mb.MSE()),
    ((30, 16, 3), mb.Tanh, mb.BCE()),
    ((30, 16, 3), mb.ReLU, mb.BCEWithLogits()),
    ((16, *[32] * 6, 3), mb.Sigmoid, mb.MSE()),
]


def twin(layer):
    """Return the torch module that does what the layer does, with the same parameters."""
    if isinstance(layer, mb.Sequential):
        return torch.nn.Sequential(*map(twin, layer))
    if not isinstance(layer, mb.Linear):
        return getattr(torch.nn, type(layer).__name__)()
    module = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.has_bias)
    for name, parameter in module.named_parameters():
        parameter.data = torch.tensor(getattr(layer, name))
    return module


def torch_loss(loss, y_pred, y):
    """Return torch's value of the loss, a tensor."""
    settings = {"reduction": loss.reduction}
    if getattr(loss, "pos_weight", None) is not None:
        settings["pos_weight"] = torch.tensor(loss.pos_weight, dtype=y.dtype)
    if isinstance(loss, mb.Huber):
        settings["delta"] = loss.delta
    if isinstance(loss, mb.CrossEntropy):
        settings["label_smoothing"] = loss.label_smoothing
        if loss.class_weight is not None:
            settings["weight"] = torch.tensor(loss.class_weight, dtype=y_pred.dtype)
    return getattr(torch.nn, f"{type(loss).__name__}Loss")(**settings)(y_pred, y)


def error(ours, theirs):
    """Return the largest difference between two arrays over the largest number in torch's."""
    theirs = theirs.detach().numpy()
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def flat(tensors):
    """Return tensors as one vector, as `Sequential.parameters` has them."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def network(rng, widths, activation, loss, dtype):
    """Return a model with small random biases, its torch twin, and 1000 rows to put through them."""
    layers = [layer for i, o in pairwise(widths) for layer in (mb.Linear(i, o), activation())][:-1]
    model = mb.Sequential(*layers, *([mb.Sigmoid()] if isinstance(loss, mb.BCE) else []), dtype=dtype, rng=rng)
    model.parameters += rng.normal(0, 0.1, model.parameters.shape)
    x = rng.normal(size=(1000, widths[0])).astype(dtype)
    return model, twin(model), x, rng.random((1000, widths[-1])).astype(dtype)


# Each of these yields what an error is about, "value" or "gradient", and the error.


def compare_layer(rng, dtype, make):
    for rows in BATCHES:
        model = mb.Sequential(make(), dtype=dtype, rng=rng)
        model.parameters += rng.normal(0, 0.1, model.parameters.shape)
        module, layer = twin(model)[0], model[0]
        x = rng.normal(size=(rows, layer.in_features or 64)).astype(dtype)
        x_torch = torch.tensor(x, requires_grad=True)
        y, y_torch = layer.forward(x), module(x_torch)
        upstream = rng.normal(size=y.shape).astype(dtype)
        y_torch.backward(torch.tensor(upstream))
        yield "value", error(y, y_torch)
        yield "gradient", error(layer.backward(upstream), x_torch.grad)
        for name, parameter in module.named_parameters():
            yield "gradient", error(getattr(layer, f"{name}_grad"), parameter.grad)


def compare_loss(rng, dtype, loss):
    for rows in BATCHES:
        shape = (rows, 3)
        y_pred = rng.uniform(0.01, 0.99, shape) if isinstance(loss, mb.BCE) else rng.normal(0, 3, shape)
        y_pred, y = y_pred.astype(dtype), rng.random(shape).astype(dtype)
        y_torch = torch.tensor(y_pred, requires_grad=True)
        value_torch = torch_loss(loss, y_torch, torch.tensor(y))
        value_torch.backward()
        yield "value", error(np.asarray(loss(y_pred, y), dtype), value_torch)
        yield "gradient", error(loss.backward(), y_torch.grad)


def compare_class_loss(rng, dtype, loss, probabilities):
    for rows in BATCHES:
        z = rng.normal(0, 3, (rows, 10)).astype(dtype)
        y = rng.dirichlet(np.ones(10), rows).astype(dtype) if probabilities else rng.integers(0, 10, rows)
        z_torch = torch.tensor(z, requires_grad=True)
        value_torch = torch_loss(loss, z_torch, torch.tensor(y))
        value_torch.backward()
        yield "value", error(np.asarray(loss(z, y), dtype), value_torch)
        yield "gradient", error(loss.backward(), z_torch.grad)


def compare_network(rng, dtype, widths, activation, loss):
    model, module, x, y = network(rng, widths, activation, loss, dtype)
    for rows in BATCHES:
        x_torch = torch.tensor(x[:rows], requires_grad=True)
        module.zero_grad()
        y_torch = module(x_torch)
        value_torch = torch_loss(loss, y_torch, torch.tensor(y[:rows]))
        value_torch.backward()
        gradient_torch = flat(parameter.grad for parameter in module.parameters())

        value = model.backprop(x[:rows], y[:rows], loss)
        yield "value", error(np.asarray(value, dtype), value_torch)
        yield "gradient", error(model.gradients, gradient_torch)

        y_pred = model.forward(x[:rows])
        yield "value", error(y_pred, y_torch)
        loss(y_pred, y[:rows])
        yield "gradient", error(model.backward(loss.backward()), x_torch.grad)
        yield "gradient", error(model.gradients, gradient_torch)


def compare_training(rng, dtype, widths, activation, loss):
    """Yield the errors after every step; the second column is that of the parameters."""
    model, module, x, y = network(rng, widths, activation, loss, dtype)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(STEPS):
        rows = slice(64 * (step % 16), 64 * (step % 16) + 64)  # the last of an epoch is shorter
        value = model.backprop(x[rows], y[rows], loss)
        model.parameters -= 0.1 * model.gradients
        optimizer.zero_grad()
        value_torch = torch_loss(loss, module(torch.tensor(x[rows])), torch.tensor(y[rows]))
        value_torch.backward()
        optimizer.step()
        yield "value", error(np.asarray(value, dtype), value_torch)
        yield "gradient", error(model.parameters, flat(module.parameters()))


def print_row(name, compare, *case, draws=DRAWS):
    """Print one row of the table: the worst errors over random draws, the same draws for both types."""
    worst = dict.fromkeys(product(("float64", "float32"), ("value", "gradient")), 0.0)
    for dtype, seed in product(("float64", "float32"), range(draws)):
        for what, value in compare(np.random.default_rng(seed), dtype, *case):
            worst[dtype, what] = max(worst[dtype, what], value)
    print(f"| {name:<44} |", " | ".join(f"{value:>17.1e}" for value in worst.values()), "|")


def print_table(title, value, gradient):
    """Print the head of a table."""
    columns = [f"{what}, {dtype}" for dtype in ("f64", "f32") for what in (value, gradient)]
    print(f"\n| {title:<44} |", " | ".join(f"{column:>17}" for column in columns), "|")
    print(f"|{'-' * 46}|", ":|".join("-" * 18 for _ in columns), ":|", sep="")


def main():
    torch.set_num_threads(1)  # two pools of threads get in each other's way
    print(f"matbackprop {mb.__version__} on NumPy {np.__version__}, against torch {torch.__version__}")
    print_table("layer", "output", "gradients")
    for name, make in LAYERS.items():
        print_row(name, compare_layer, make)
    print_table("loss", "value", "gradient")
    for loss in LOSSES:
        print_row(repr(loss), compare_loss, loss)
    for loss, probabilities in product(CLASS_LOSSES, (False, True)):
        weighted = ", weighted" * (loss.class_weight is not None)
        smoothed = f", smoothing {loss.label_smoothing}" * (loss.label_smoothing > 0)
        name = f"CrossEntropy {loss.reduction}{smoothed}{weighted}, {'soft' if probabilities else 'classes'}"
        print_row(name, compare_class_loss, loss, probabilities)
    names = ["-".join(map(str, widths)) + f" {f.__name__}, {loss!r}" for widths, f, loss in NETWORKS]
    print_table("network", "loss, output", "gradients")
    for name, case in zip(names, NETWORKS, strict=True):
        print_row(name, compare_network, *case)
    print_table(f"{STEPS} steps of training, after each", "loss", "parameters")
    for name, case in zip(names, NETWORKS, strict=True):
        print_row(name, compare_training, *case, draws=2)


if __name__ == "__main__":
    main()
