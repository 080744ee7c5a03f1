"""Against derivatives taken without any calculus: complex steps and finite differences of the forward pass alone.

f'(x) = Im f(x + ih) / h for h = 1e-200 is exact to rounding, since nothing is subtracted; it needs a forward pass that
works for complex numbers. Central differences need nothing, and find half as many digits.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import matbackprop as mb


def complex_step(f, x, h=1e-200):
    """Return ∂f/∂x, of the shape of x, for a function f of an array to a number."""
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        z = x.astype(np.complex128)
        z[index] += 1j * h
        gradient[index] = f(z).imag / h
    return gradient


def differences(f, x):
    """Return ∂f/∂x by central differences with two Richardson extrapolations, for nine steps from 1/8 to 2e-6.

    Of the results for neighbouring steps, those that differ least are taken: large steps cross a kink of ReLU, small
    ones leave nothing but rounding error.
    """
    steps = 0.125 / 4.0 ** np.arange(9)
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        d = np.array([(f(_moved(x, index, h)) - f(_moved(x, index, -h))) / (2 * h) for h in steps])
        for power in (16, 256):  # the errors of h² and h⁴ cancel
            d = (power * d[1:] - d[:-1]) / (power - 1)
        gradient[index] = d[np.abs(np.diff(d)).argmin()]
    return gradient


def _moved(x, index, h):
    x = x.copy()
    x[index] += h
    return x


# The function and what it promises, relative to the largest entry of the gradient: an entry may be a sum that cancels.
methods = pytest.mark.parametrize(
    ("derivative", "rtol"), [(complex_step, 1e-14), (differences, 1e-8)], ids=["complex step", "differences"]
)


def agree(gradient, expected, rtol):
    assert gradient.shape == expected.shape
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=rtol * np.abs(expected).max(initial=0))


# Layers alone: with s = Σ v ⊙ f(x), backward(v) is the product of the vector v and the Jacobian of f.

LINEAR = {
    f"Linear({i}, {o}, bias={bias})": lambda dtype, i=i, o=o, bias=bias: mb.Linear(i, o, bias=bias, dtype=dtype)
    for i, o in [(3, 2), (1, 4), (5, 1), (1, 1)]
    for bias in (True, False)
}
LAYERS = LINEAR | {layer.__name__: lambda dtype, layer=layer: layer() for layer in (mb.Tanh, mb.ReLU, mb.Sigmoid)}


@methods
@pytest.mark.parametrize("leading", [(), (0,), (1,), (7,), (2, 3)], ids=str)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_vector_jacobian_products_of_a_layer(rng, make, leading, derivative, rtol):
    layer = make(np.float64)
    names = [name for name in ("weight", "bias") if getattr(layer, name, None) is not None]
    point = {name: rng.normal(size=getattr(layer, name).shape) for name in names}
    point["x"] = rng.normal(size=(*leading, layer.in_features or 4))

    def projected(**moved):
        at = point | moved
        layer = make(np.result_type(*at.values()))
        for name in names:
            setattr(layer, name, at[name])
        return (v * layer.forward(at["x"])).sum()

    for name in names:
        setattr(layer, name, point[name])
    v = rng.normal(size=layer.forward(point["x"]).shape)
    gradients = {"x": layer.backward(v)} | {name: getattr(layer, f"{name}_grad") for name in names}
    for name, value in point.items():
        agree(gradients[name], derivative(lambda moved, name=name: projected(**{name: moved}), value), rtol)


def test_the_derivative_of_relu_at_zero_is_zero():
    """It is the left derivative. A central difference would say 1/2."""
    x = np.array([[0.0, -0.0, 1.0, -1.0, 5e-324]])
    relu = mb.ReLU()
    relu.forward(x)
    expected = [[0, 0, 1, 0, 1]]
    np.testing.assert_array_equal(relu.backward(np.ones_like(x)), expected)
    np.testing.assert_array_equal(complex_step(lambda z: mb.ReLU().forward(z).sum(), x), expected)


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
        lambda reduction: mb.Huber(reduction, delta=0.5),
    )
]
#: A row a loss: classes or probabilities.
ROW_LOSSES = [
    mb.CrossEntropy(reduction, label_smoothing=smoothing, class_weight=weight)
    for reduction in ("mean", "sum")
    for smoothing in (0.0, 0.2)
    for weight in (None, [0.5, 1.0, 4.0])
]


def random_weight(rng, shape, kind):
    return None if kind is None else rng.uniform(0, 2, {"rows": (*shape[:-1], 1), "all": shape}[kind])


@methods
@pytest.mark.parametrize("weight", [None, "rows", "all"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (7, 3), (3,)], ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_loss(rng, loss, shape, weight, derivative, rtol):
    # A probability stays inside (0, 1) for every step that is taken.
    y_pred = rng.uniform(0.2, 0.8, shape) if isinstance(loss, mb.BCE) else rng.normal(0, 2, shape)
    y, weight = rng.random(shape), random_weight(rng, shape, weight)
    loss(y_pred, y, weight)
    agree(loss.backward(), derivative(lambda moved: loss(moved, y, weight), y_pred), rtol)


@methods
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("targets", ["classes", "probabilities"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (7, 3), (2, 4, 3), (3,)], ids=str)
@pytest.mark.parametrize("loss", ROW_LOSSES, ids=repr)
def test_loss_of_rows(rng, loss, shape, targets, weighted, derivative, rtol):
    z = rng.normal(0, 3, shape)
    y = rng.integers(0, 3, shape[:-1]) if targets == "classes" else rng.dirichlet([1.0, 1.0, 1.0], shape[:-1])
    weight = rng.uniform(0, 2, shape[:-1]) if weighted else None
    loss(z, y, weight)
    agree(loss.backward(), derivative(lambda moved: loss(moved, y, weight), z), rtol)


@methods
def test_huber_at_its_kink(derivative, rtol):
    """Where the error is exactly ±δ the two branches meet with one slope."""
    loss, y_pred, y = mb.Huber("sum", delta=0.5), np.array([0.5, -0.5, 0.0, 2.0]), np.zeros(4)
    assert loss(y_pred, y) == 0.125 + 0.125 + 0.5 * (2.0 - 0.25)
    np.testing.assert_array_equal(loss.backward(), [0.5, -0.5, 0.0, 0.5])
    agree(loss.backward(), derivative(lambda moved: loss(moved, y), y_pred), max(rtol, 1e-5 * (rtol > 1e-10)))


# Networks.


def random_problem(seed):
    """Return a model of random depth, widths, activations and nesting, with a loss, a batch and weights for it."""
    rng = np.random.default_rng(seed)
    loss = LOSSES[seed % len(LOSSES)]
    widths = [*map(int, rng.integers(1, 6, rng.integers(1, 4))), 3]
    activations = [(), (mb.Tanh,), (mb.ReLU,), (mb.Sigmoid,), (mb.ReLU, mb.Tanh, mb.Sigmoid)]
    layers = []
    for i, o in pairwise(widths):
        layers += [mb.Linear(i, o, bias=rng.random() < 0.7), *(a() for a in activations[rng.integers(5)])]
    if isinstance(loss, mb.BCE):
        layers.append(mb.Sigmoid())
    start, stop = sorted(rng.integers(0, len(layers) + 1, 2))
    if start < stop:
        layers[start:stop] = [mb.Sequential(*layers[start:stop], rng=rng)]
    model = mb.Sequential(*layers, rng=rng)
    model.parameters += rng.normal(0, 0.1, model.parameters.shape)  # biases start at zero

    # Not one row of one input: ∂L/∂X would be one number, with no larger entry to measure cancellation against.
    shape = (rng.choice([0, 7] if widths[0] == 1 else [0, 1, 7]), 3)
    weight = random_weight(rng, shape, [None, "rows", "all"][rng.integers(3)])
    return model, loss, rng.normal(size=(shape[0], widths[0])), rng.random(shape), weight


def loss_of(model, loss, y, weight):
    """Return L as a function of the parameters and of the inputs, real or complex.

    It goes through `forward` and the loss, layer by layer: no plan, no fusion of Sigmoid and BCE, no backward.
    """
    models = {np.dtype(dtype): model.astype(dtype) for dtype in (np.float64, np.complex128)}

    def value(parameters, x):
        model = models[np.result_type(parameters, x)]
        model.parameters = parameters
        return loss(model.forward(x), y, weight)

    return value


def check_network(model, loss, x, y, weight, derivative, rtol):
    function = loss_of(model, loss, y, weight)
    of_parameters = derivative(lambda moved: function(moved, x), model.parameters)
    of_x = derivative(lambda moved: function(model.parameters, moved), x)
    if not x.size and loss.reduction == "mean":
        of_parameters[:] = 0  # the mean of nothing is NaN, but nothing depends on the parameters

    value, gradient = model.value_and_grad(x, y, loss, sample_weight=weight)
    np.testing.assert_allclose(value, function(model.parameters, x), rtol=1e-14)
    agree(gradient, of_parameters, rtol)

    loss(model.forward(x), y, weight)
    agree(model.backward(loss.backward()), of_x, rtol)
    agree(model.gradients, of_parameters, rtol)


@methods
@pytest.mark.parametrize("seed", range(60))
def test_network(seed, derivative, rtol):
    check_network(*random_problem(seed), derivative, rtol)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_network_with_units_exactly_at_the_kink(rng, loss):
    """No bias and an input of zeros: all of that row's pre-activations are 0, where ReLU has the derivative 0."""
    layers = [mb.Linear(2, 4, bias=False), mb.ReLU(), mb.Linear(4, 4, bias=False), mb.ReLU(), mb.Linear(4, 3)]
    model = mb.Sequential(*layers, *([mb.Sigmoid()] if isinstance(loss, mb.BCE) else []), rng=0)
    x = np.array([[0.0, 0.0], [1.0, -2.0], [-0.5, 0.3]])
    check_network(model, loss, x, rng.random((3, 3)), random_weight(rng, (3, 3), "rows"), complex_step, 1e-14)
    assert not model.backward(np.ones((3, 3)))[0].any()
