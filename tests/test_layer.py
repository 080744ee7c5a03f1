"""Layer: layers of a user's own, in every place that a layer can stand."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from user_layers import Scale

import matbackprop as mb

X = np.array([[1.0, 2.0, -1.0], [0.5, -3.0, 4.0]])
DELTA = np.array([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]])


class Cube(mb.Layer):
    """No parameters; uses `out`."""

    def forward(self, x, out=None):
        self.x = x
        return np.power(x, 3, out=out)

    def backward(self, delta, out=None):
        return np.multiply(delta, 3 * self.x**2, out=out)


class CarelessCube(Cube):
    """The same, in fresh arrays whatever `out` is."""

    def forward(self, x, out=None):
        return super().forward(x)

    def backward(self, delta, out=None):
        return super().backward(delta)


class Gain(Scale):
    """A single number."""

    def __init__(self):
        self.scale = 2.0

    def backward(self, delta, out=None):
        self.scale_grad = (delta * self.x).sum()
        return np.multiply(delta, self.scale, out=out)


class Twice(mb.Layer):
    """Changes the width: (x, -x)."""

    def output_width(self, width):
        return 2 * width

    def forward(self, x, out=None):
        return np.concatenate([x, -x], axis=-1, out=out)

    def backward(self, delta, out=None):
        left, right = np.split(delta, 2, axis=-1)
        return np.subtract(left, right, out=out)


class Holding(mb.Layer):
    """Passes its work on to another layer, plus the input: x + f(x)."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x, out=None):
        return np.add(x, self.inner.forward(x), out=out)

    def backward(self, delta, out=None):
        return np.add(delta, self.inner.backward(delta), out=out)


def linear() -> mb.Linear:
    layer = mb.Linear(3, 3)
    layer.weight, layer.bias = WEIGHT, [0.5, 0.0, -1.0]
    return layer


WEIGHT = np.array([[1.0, 0.0, 2.0], [-1.0, 0.5, 0.0], [0.0, 3.0, -2.0]])
SCALE = np.array([0.5, 1.0, 1.5])
SUM = DELTA.sum(axis=0)

#: What makes the layer; its output, ∂L/∂x and flat gradient for X and DELTA, from the formulas on paper.
LAYERS = {
    "cube": (Cube, X**3, 3 * X**2 * DELTA, []),
    "careless": (CarelessCube, X**3, 3 * X**2 * DELTA, []),
    "scale": (lambda: Scale(3), X * SCALE, DELTA * SCALE, (DELTA * X).sum(axis=0)),
    "gain": (Gain, 2 * X, 2 * DELTA, [(DELTA * X).sum()]),
    "holds-linear": (
        lambda: Holding(linear()),
        X + X @ WEIGHT.T + [0.5, 0.0, -1.0],
        DELTA + DELTA @ WEIGHT,
        np.concatenate([(DELTA.T @ X).ravel(), SUM]),
    ),
    "holds-sequential": (
        lambda: Holding(mb.Sequential(Scale(3), Cube())),
        X + (X * SCALE) ** 3,
        DELTA + DELTA * 3 * (X * SCALE) ** 2 * SCALE,
        (DELTA * 3 * (X * SCALE) ** 2 * X).sum(axis=0),
    ),
}
each_layer = pytest.mark.parametrize(("make", "y", "dx", "gradient"), LAYERS.values(), ids=LAYERS)

#: The places in a model where the layer can stand; the rest of the model changes nothing.
PLACES = {
    "only": mb.Sequential,
    "nested": lambda layer: mb.Sequential(mb.Sequential(mb.Sequential(layer))),
    "first": lambda layer: mb.Sequential(layer, identity()),
    "last": lambda layer: mb.Sequential(identity(), layer),
    "copied": lambda layer: mb.Sequential(layer).copy(),
    "pickled": lambda layer: pickle.loads(pickle.dumps(mb.Sequential(layer))),
    "sliced": lambda layer: mb.Sequential(layer, identity(), identity())[:2],
}


def identity() -> mb.Linear:
    layer = mb.Linear(3, 3, bias=False)
    layer.weight = np.eye(3)
    return layer


def own_gradient(model: mb.Sequential, size: int, place: str) -> np.ndarray:
    return model.gradients[model.gradients.size - size :] if place == "last" else model.gradients[:size]


@each_layer
def test_alone(make, y, dx, gradient) -> None:
    layer = make()
    assert np.allclose(layer.forward(X), y, rtol=1e-14)
    assert np.allclose(layer.backward(DELTA), dx, rtol=1e-14)
    gradients = [array.ravel() for _, part in layer.walk() for array in part._gradients.values()]
    assert np.allclose(np.concatenate([*gradients, []]), gradient, rtol=1e-14)


@pytest.mark.parametrize("place", PLACES)
@each_layer
def test_in_a_model(make, y, dx, gradient, place) -> None:
    model = PLACES[place](make())
    assert np.allclose(model(X), y, rtol=1e-14)
    assert np.allclose(model.predict(X), y, rtol=1e-14)
    assert np.allclose(model.forward(X, out=np.empty((2, 3))), y, rtol=1e-14)
    assert np.allclose(model.backward(DELTA), dx, rtol=1e-14)
    assert np.allclose(own_gradient(model, len(gradient), place), gradient, rtol=1e-14)

    loss = mb.MSE("sum")  # whose Δ is 2 (y - target)
    model.gradients[:] = np.nan
    for _ in range(3):
        value = model.backprop(X, y - DELTA / 2, loss)
        assert value == pytest.approx((DELTA**2 / 4).sum(), rel=1e-12)
        assert np.allclose(own_gradient(model, len(gradient), place), gradient, rtol=1e-9, atol=1e-12)


def test_width_changes() -> None:
    model = mb.Sequential(Twice(), mb.Linear(6, 1), rng=0)
    weight = model[1].weight
    assert np.allclose(model(X), X @ (weight[:, :3] - weight[:, 3:]).T + model[1].bias)
    value, gradient = model.value_and_grad(X, np.zeros((2, 1)), mb.MSE("sum"))
    y = model.predict(X)
    assert value == pytest.approx((y**2).sum())
    assert np.allclose(gradient[:6], (2 * y * np.hstack([X, -X])).sum(axis=0))
    model(X)
    assert np.allclose(model.backward(y), y @ (weight[:, :3] - weight[:, 3:]))
    assert "(N, 6)" in model.summary(3)


def test_predict_from_threads() -> None:
    model = mb.Sequential(
        Scale(3), Holding(mb.Sequential(Scale(3), Cube())), mb.Tanh(), Twice(), mb.Linear(6, 2), rng=0
    )
    batches = [np.random.default_rng(seed).normal(size=(50 + seed, 3)) for seed in range(8)]
    alone = [model.predict(x) for x in batches]
    model.forward(X)
    expected = model.backward(np.ones((2, 2)))
    model.forward(X)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            for y, want in zip(pool.map(model.predict, batches), alone, strict=True):
                assert np.array_equal(y, want)
    assert np.array_equal(model.backward(np.ones((2, 2))), expected)  # and nothing was left on the layers


def test_parameters_are_copies_and_views() -> None:
    start = np.ones(3)
    layer = Scale(3)
    layer.scale = start
    assert not np.shares_memory(layer.scale, start)
    model = mb.Sequential(layer, dtype=np.float32)
    assert np.shares_memory(layer.scale, model.parameters)
    assert np.shares_memory(layer.scale_grad, model.gradients)
    layer.scale *= 2
    assert np.array_equal(model.parameters, np.full(3, 2, np.float32))
    view = layer.scale_grad
    layer.scale_grad = [1, 2, 3]
    assert layer.scale_grad is view
    assert np.array_equal(model.gradients, np.array([1, 2, 3], np.float32))


def test_overlapping_assignment() -> None:
    layer = linear()
    layer.weight = layer.weight.T
    assert np.array_equal(layer.weight, WEIGHT.T)


def test_a_parameter_of_none_is_absent() -> None:
    layer = type("Bare", (Scale,), {"__init__": lambda self: setattr(self, "scale", None)})()
    assert layer.scale is None
    assert mb.Sequential(layer).parameters.size == 0


@pytest.mark.parametrize("make", [lambda: Scale(3), linear, mb.Tanh, lambda: Holding(linear())])
@pytest.mark.parametrize("how", [lambda x: x.copy(), copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_a_layer_are_equal_and_independent(make, how) -> None:
    model = mb.Sequential(make())
    layer, twin = model[0], how(model[0])
    assert not twin.adopted
    assert np.array_equal(twin.forward(X), layer.forward(X))
    other = mb.Sequential(twin)
    other.parameters[:] = 9
    assert not np.shares_memory(other.parameters, model.parameters)
    assert not np.any(model.parameters == 9)


def test_a_shallow_copy_does_not_steal() -> None:
    model = mb.Sequential(mb.Linear(3, 1), rng=0)
    mb.Sequential(copy.copy(model[0])).parameters[:] = 9
    assert np.array_equal(model[0].weight.ravel(), model.parameters[:3])


@pytest.mark.parametrize(("dtype", "given"), [(None, np.float32), (np.float64, np.float32), (np.float32, np.float64)])
def test_a_linear_has_its_type_before_it_is_drawn(dtype, given) -> None:
    assert mb.Linear(3, 1, dtype=dtype).forward(X.astype(given)).dtype == (dtype or np.float64)


@pytest.mark.parametrize("wrap", [lambda layer: layer, mb.Sequential])
def test_out_may_be_the_input(wrap) -> None:
    layer, x = wrap(linear()), X.copy()
    layer.forward(x, out=x)
    layer.backward(DELTA)
    inner = layer if isinstance(layer, mb.Linear) else layer[0]
    assert np.allclose(inner.weight_grad, DELTA.T @ X)


@pytest.mark.parametrize("layer", [linear(), mb.Tanh(), mb.ReLU(), mb.Sigmoid()], ids=repr)
def test_delta_may_be_the_out_of_backward(layer) -> None:
    layer.forward(X)
    expected, delta = layer.backward(DELTA), DELTA.copy()
    assert layer.backward(delta, out=delta) is delta
    assert np.array_equal(delta, expected)


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_a_stepped_layer_is_changed_by_its_steps(name) -> None:
    with pytest.raises(TypeError, match=f"Doubled: .*override {name}_steps, or derive from Layer"):
        type("Doubled", (mb.Tanh,), {name: lambda self, x, out=None: x})
