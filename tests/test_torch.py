"""Against torch: every layer, every loss, whole networks and training, in float64 and float32.

The expected numbers are torch's own, computed on the spot by its autograd and its optimiser.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import matbackprop as mb

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])

# Bounds in units of the type's rounding step, about four times what is seen; 80 of them are 1.8e-14 in float64 and
# 9.5e-6 in float32. TIGHT is for one layer or loss; LOOSE for where rounding errors add up or are magnified.
TIGHT, LOOSE = 10, 80


def agree(ours, theirs, steps, *, each=False, scale=None):
    """Assert equal type and shape and, within the bound, values; NaN and infinity only where torch has them.

    The bound is relative to the largest entry of the array: an entry that is a sum of terms which cancel has no
    relative accuracy of its own, in torch as little as here. Where nothing cancels, `each` asks it of every entry;
    where all entries may, `scale` says how large the terms were.
    """
    theirs = np.asarray(theirs.detach()) if hasattr(theirs, "detach") else theirs
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    rtol = steps * np.finfo(theirs.dtype).eps
    scale = np.abs(theirs).max(initial=0) if scale is None else scale
    np.testing.assert_allclose(ours, theirs, *((rtol, 0) if each else (0, np.nan_to_num(rtol * scale))))


def twin(torch, layer):
    """Return the torch module that does what the layer does, with the same parameters."""
    if isinstance(layer, mb.Sequential):
        return torch.nn.Sequential(*(twin(torch, part) for part in layer))
    if not isinstance(layer, mb.Linear):
        return getattr(torch.nn, type(layer).__name__)()
    dtype = getattr(torch, layer.weight.dtype.name)
    module = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.has_bias, dtype=dtype)
    for name, parameter in module.named_parameters():
        parameter.data = torch.tensor(getattr(layer, name))
    return module


def torch_loss(torch, loss, y_pred, y, weight=None):
    """Return torch's value of the loss, a tensor. It has no weighted MSE or Huber: those are written out."""
    y = torch.tensor(y)
    weight = None if weight is None else torch.tensor(weight, dtype=y.dtype)
    how = {"reduction": loss.reduction}
    if isinstance(loss, mb.BCE):
        return torch.nn.BCELoss(weight, **how)(y_pred, y)
    if isinstance(loss, mb.BCEWithLogits):
        p = None if loss.pos_weight is None else torch.tensor(loss.pos_weight, dtype=y.dtype)
        return torch.nn.BCEWithLogitsLoss(weight, pos_weight=p, **how)(y_pred, y)
    make, settings = (
        (torch.nn.HuberLoss, {"delta": loss.delta}) if isinstance(loss, mb.Huber) else (torch.nn.MSELoss, {})
    )
    if weight is None:
        return make(**settings, **how)(y_pred, y)
    return getattr(weight * make(**settings, reduction="none")(y_pred, y), loss.reduction)()


def flat_gradients(torch, module):
    return torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()])


# Layers alone.

LINEAR = {
    f"Linear({i}, {o}, bias={bias})": lambda dtype, i=i, o=o, bias=bias: mb.Linear(i, o, bias=bias, dtype=dtype, rng=0)
    for i, o in [(3, 2), (1, 4), (5, 1), (1, 1), (64, 33)]
    for bias in (True, False)
}
LAYERS = LINEAR | {layer.__name__: lambda dtype, layer=layer: layer() for layer in (mb.Tanh, mb.ReLU, mb.Sigmoid)}


@dtypes
@pytest.mark.parametrize("leading", [(), (0,), (1,), (7,), (2, 3), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layer(torch, rng, make, leading, dtype):
    layer = make(dtype)
    if getattr(layer, "has_bias", False):
        layer.bias = rng.normal(size=layer.bias.shape)
    module, each = twin(torch, layer), not isinstance(layer, mb.Linear)
    x = rng.normal(size=(*leading, layer.in_features or 4)).astype(dtype)
    if each:
        x[..., 0] = 0  # the kink of ReLU

    x_torch = torch.tensor(x, requires_grad=True)
    y_torch, y = module(x_torch), layer.forward(x)
    agree(y, y_torch, TIGHT, each=each)

    upstream = rng.normal(size=y.shape).astype(dtype)
    y_torch.backward(torch.tensor(upstream))
    # torch takes tanh' = 1 - a², which loses digits as a nears 1; (1 - a)(1 + a) does not.
    agree(layer.backward(upstream), x_torch.grad, LOOSE if isinstance(layer, mb.Tanh) else TIGHT, each=each)
    for name, parameter in module.named_parameters():
        agree(getattr(layer, f"{name}_grad"), parameter.grad, TIGHT)


# Losses.

LOSSES = [
    make(reduction)
    for reduction in ("mean", "sum")
    for make in (
        mb.MSE,
        mb.BCE,
        mb.BCEWithLogits,
        lambda reduction: mb.BCEWithLogits(reduction, pos_weight=2.5),
        lambda reduction: mb.BCEWithLogits(reduction, pos_weight=[0.5, 1.0, 4.0]),
        mb.Huber,
        lambda reduction: mb.Huber(reduction, delta=0.25),
    )
]


@dtypes
@pytest.mark.parametrize("weights", [None, (), (1,), "rows", "all"], ids=str)
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (7, 3), (2, 5, 3), (3,)], ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_loss(torch, rng, loss, shape, weights, dtype):
    y_pred = rng.uniform(0, 1, shape) if isinstance(loss, mb.BCE) else rng.normal(0, 3, shape)
    y = np.where(rng.random(shape) < 0.5, rng.random(shape), rng.integers(0, 2, shape))
    y_pred, y = y_pred.astype(dtype), y.astype(dtype)
    if weights is not None:
        weights = {"rows": (*shape[:-1], 1), "all": shape}.get(weights, weights)
        weights = rng.uniform(0, 2, weights).astype(dtype)

    y_torch = torch.tensor(y_pred, requires_grad=True)
    value_torch = torch_loss(torch, loss, y_torch, y, weights)
    value_torch.backward()
    value = loss(y_pred, y, weights)
    assert type(value) is float
    agree(np.asarray(value, dtype), value_torch, TIGHT, each=True)
    agree(loss.backward(), y_torch.grad, TIGHT)


@dtypes
def test_bce_is_clamped_where_a_prediction_is_certain(torch, dtype):
    loss, y_pred, y = mb.BCE("sum"), np.array([0, 0, 1, 1], dtype), np.array([0, 1, 0, 1], dtype)
    y_torch = torch.tensor(y_pred, requires_grad=True)
    value_torch = torch_loss(torch, loss, y_torch, y)
    value_torch.backward()
    assert loss(y_pred, y) == value_torch.item() == 200
    agree(loss.backward(), y_torch.grad.numpy(), TIGHT, each=True)


# Networks.


def random_problem(seed, dtype):
    """Return a model of random depth, widths, activations and nesting, with a loss, a batch and weights for it."""
    rng = np.random.default_rng(seed)
    loss = LOSSES[seed % len(LOSSES)]
    widths = [*map(int, rng.integers(1, 25, rng.integers(1, 6))), 3]
    activations = [(), (mb.Tanh,), (mb.ReLU,), (mb.Sigmoid,), (mb.ReLU, mb.Tanh, mb.Sigmoid)]
    layers = []
    for i, o in pairwise(widths):
        layers += [mb.Linear(i, o, bias=rng.random() < 0.7), *(a() for a in activations[rng.integers(5)])]
    if isinstance(loss, mb.BCE):
        layers.append(mb.Sigmoid())
    for _ in range(2):
        start, stop = sorted(rng.integers(0, len(layers) + 1, 2))
        if start < stop:
            layers[start:stop] = [mb.Sequential(*layers[start:stop], rng=rng)]
    model = mb.Sequential(*layers, dtype=dtype, rng=rng)
    model.parameters += rng.normal(0, 0.1, model.parameters.shape)  # biases start at zero

    rows = rng.choice([0, 1, 7, 64, 2000])
    x, y = rng.normal(size=(rows, widths[0])).astype(dtype), rng.random((rows, 3)).astype(dtype)
    weight = rng.uniform(0, 2, (rows, 1)).astype(dtype) if rng.random() < 0.5 else None
    return model, loss, x, y, weight


def size_of_terms(model, delta):
    """Return how large ∂L/∂X would be if nothing cancelled: the backward pass with |Δ| and |W|.

    A narrow layer can make all of ∂L/∂X hang on one number, a sum whose terms are thousands of times larger.
    """
    for layer in reversed(model.leaves()):
        delta = np.abs(delta)
        delta = delta @ np.abs(layer.weight) if isinstance(layer, mb.Linear) else layer.backward(delta)
    return delta.max(initial=0)


@dtypes
@pytest.mark.parametrize("seed", range(100))
def test_network(torch, seed, dtype):
    model, loss, x, y, weight = random_problem(seed, dtype)
    module, x_torch = twin(torch, model), torch.tensor(x, requires_grad=True)
    y_torch = module(x_torch)
    value_torch = torch_loss(torch, loss, y_torch, y, weight)
    value_torch.backward()
    gradient_torch = flat_gradients(torch, module)

    agree(model.predict(x), y_torch, LOOSE)
    y_pred = model.forward(x)
    agree(y_pred, y_torch, LOOSE)
    agree(np.asarray(loss(y_pred, y, weight), dtype), value_torch, LOOSE)
    delta = loss.backward()
    agree(model.backward(delta), x_torch.grad, LOOSE, scale=size_of_terms(model, delta))
    agree(model.gradients, gradient_torch, LOOSE)

    model.gradients = np.full_like(model.gradients, np.nan)
    value = model.backprop(x, y, loss, sample_weight=weight)
    agree(np.asarray(value, dtype), value_torch, LOOSE)
    agree(model.gradients, gradient_torch, LOOSE)

    value, gradient = model.value_and_grad(x, y, loss, sample_weight=weight)
    agree(np.asarray(value, dtype), value_torch, LOOSE)
    agree(gradient, gradient_torch, LOOSE)


@dtypes
def test_state_dict_goes_to_torch_and_back(torch, dtype):
    model = random_problem(3, dtype)[0]
    module = twin(torch, model)
    state = model.state_dict()
    assert list(state) == list(module.state_dict())

    there = twin(torch, random_problem(3, dtype)[0])
    for parameter in there.parameters():
        parameter.data.zero_()
    there.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    for name, tensor in there.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name], strict=True)

    back = model.copy()
    back.parameters = np.zeros_like(back.parameters)
    back.load_state_dict({name: tensor.numpy() for name, tensor in there.state_dict().items()})
    np.testing.assert_array_equal(back.parameters, model.parameters, strict=True)


# Training.

TRAININGS = {
    "tanh, MSE": (lambda: [mb.Linear(3, 8), mb.Tanh(), mb.Linear(8, 2)], mb.MSE(), 0.1),
    "relu, BCEWithLogits": (
        lambda: [mb.Linear(3, 16), mb.ReLU(), mb.Linear(16, 8), mb.ReLU(), mb.Linear(8, 2)],
        mb.BCEWithLogits(pos_weight=2.0),
        0.05,
    ),
    "tanh, sigmoid, BCE": (lambda: [mb.Linear(3, 8), mb.Tanh(), mb.Linear(8, 2), mb.Sigmoid()], mb.BCE("sum"), 0.01),
}


@dtypes
@pytest.mark.parametrize(("layers", "loss", "lr"), TRAININGS.values(), ids=TRAININGS)
def test_training_stays_together(torch, rng, layers, loss, lr, dtype):
    """200 steps of mini-batch SGD, every fourth batch shorter, the first among them; compared after each step."""
    x = rng.normal(size=(50, 3)).astype(dtype)
    y = (x[:, :2] * x[:, 1:] > 0).astype(dtype)
    model = mb.Sequential(*layers(), dtype=dtype, rng=0)
    module = twin(torch, model)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    values = []
    for step in range(200):
        start = 16 * ((step + 3) % 4)
        rows = slice(start, start + 16)
        value = model.backprop(x[rows], y[rows], loss)
        model.parameters -= lr * model.gradients

        optimizer.zero_grad()
        value_torch = torch_loss(torch, loss, module(torch.tensor(x[rows])), y[rows])
        value_torch.backward()
        optimizer.step()

        agree(np.asarray(value, dtype), value_torch, LOOSE)
        agree(model.parameters, torch.cat([parameter.reshape(-1) for parameter in module.parameters()]), LOOSE)
        values.append(value)
    assert sum(values[-4:]) < 0.95 * sum(values[:4])  # it learns: what is compared does move
