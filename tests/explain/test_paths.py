"""The scalar view: the products along the paths of each weight sum to the entry of the matrix."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import matbackprop as mb
from explain.test_record import Cube, Leak, Scale
from matbackprop.worked.paths import LIMIT


def every_entry(ex):
    """Yield name and index of every entry of every parameter."""
    for stage in ex.stages:
        for name in stage.parameters.values():
            for index in np.ndindex(ex[name].shape):
                yield name, index


NETWORKS = {
    "linear": lambda: [mb.Linear(2, 3), mb.Linear(3, 2)],
    "tanh": lambda: [mb.Linear(3, 2), mb.Tanh(), mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 2)],
    "no bias, two activations in a row": lambda: [mb.Linear(2, 2, bias=False), mb.ReLU(), mb.Tanh(), mb.Linear(2, 1)],
    "an activation first": lambda: [mb.Sigmoid(), mb.Linear(2, 2), mb.Sigmoid()],
    "layers of a user's": lambda: [mb.Linear(2, 2), Cube(), Scale(2), mb.Linear(2, 2), Scale(2)],
    "nested": lambda: [mb.Sequential(mb.Linear(2, 2), mb.Tanh(), rng=1), mb.Sequential(mb.Linear(2, 2), rng=2)],
}


@pytest.mark.parametrize("loss", [mb.MSE(), mb.BCE("sum")], ids=repr)
@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_every_entry_is_the_sum_over_its_paths(layers, rows, loss, rng):
    layers = layers()
    if isinstance(loss, mb.BCE) and type(layers[-1]) is not mb.Sigmoid:
        layers.append(mb.Sigmoid())
    model = mb.Sequential(*layers)
    model.parameters = rng.normal(size=model.parameters.size)
    x = rng.normal(size=(rows, model.in_features or 2))
    y = rng.uniform(size=model.predict(x).shape)
    ex = mb.explain(model, x, y, loss)
    for name, index in every_entry(ex):
        paths = ex.paths(name, *index)
        entry = ex[f"∂L/∂{name}"].value[index]
        scale = sum(abs(path.product) for path in paths)  # rounding is of the terms, which may cancel
        assert_allclose(paths.total, entry, rtol=0, atol=1e-14 * scale)
        assert paths.entry == entry
        for path in paths:
            factors = [f for f in path.factors if f.name in ex]
            assert len(factors) >= len(path.factors) - 1
            assert [f.value for f in factors] == [ex[f.name].value[f.index] for f in factors]  # each is on the record


def test_the_paths_themselves():
    model = mb.Sequential(mb.Linear(2, 2, bias=False), mb.Tanh(), mb.Linear(2, 1, bias=False), rng=0)
    ex = mb.explain(model, [[1.0, 2.0], [3.0, 4.0]], [[0.0], [1.0]], mb.MSE())
    paths = ex.paths("W1", 1, 0)
    assert [path.symbols for path in paths] == [
        "Δ2[0,0] · W2[0,1] · ∂A1/∂Z1[0,1] · A0[0,0]",
        "Δ2[1,0] · W2[0,1] · ∂A1/∂Z1[1,1] · A0[1,0]",
    ]
    assert [path.row for path in paths] == [0, 1]
    assert paths[0].units == (("Z1", 1), ("A1", 1), ("Z2", 0))
    assert paths[1].product == np.prod([factor.value for factor in paths[1].factors])
    text = str(paths)
    assert text.startswith("∂L/∂W1[1,0]: 2 paths over 2 examples\n  Δ2[0,0] · W2[0,1] · ")
    assert "sum = " in text
    assert "in the matrix: " in text
    assert paths.weight == "W1[1,0]"
    assert repr(paths).startswith("<Paths: ∂L/∂W1[1,0], 2 of them, sum ")
    assert ex.paths("W1", -1, -2).weight == "W1[1,0]"  # as NumPy counts


def test_a_single_path_is_one_path():
    ex = mb.explain(mb.Sequential(mb.Linear(1, 1)), [[2.0]], [[0.0]], mb.MSE())
    assert str(ex.paths("b1", 0)).startswith("∂L/∂b1[0]: 1 path\n  Δ1[0,0] · ∂Z1[0,0]/∂b1[0]\n")


def test_the_fused_loss_is_one_factor():
    model = mb.Sequential(mb.Linear(1, 1, bias=False), mb.Sigmoid())
    model.parameters = [40.0]
    ex = mb.explain(model, [[1.0]], [[0.0]], mb.BCE())
    assert ex.paths("W1", 0, 0)[0].symbols == "Δ1[0,0] · A0[0,0]"
    assert ex.paths("W1", 0, 0).total == 1  # by the separate factors it would be 0


def test_a_parameter_that_every_unit_shares(rng):
    class Shared(Leak):
        elementwise = True

    model = mb.Sequential(mb.Linear(2, 3), Shared(), mb.Linear(3, 2), rng=rng)
    ex = mb.explain(model, rng.normal(size=(2, 2)), rng.normal(size=(2, 2)), mb.MSE())
    paths = ex.paths("slope2")
    assert len(paths) == 2 * 3 * 2
    assert_allclose(paths.total, ex["∂L/∂slope2"].value, rtol=1e-13)


def test_a_vector_that_every_unit_shares(rng):
    """It has an entry a unit, and yet each goes into all of them."""

    class Mixed(mb.Layer):
        mixes = "weight"
        weight, gain = mb.Parameter(), mb.Parameter()
        weight_grad, gain_grad = mb.Gradient("weight"), mb.Gradient("gain")
        into = np.array([[1.0, 2.0], [-1.0, 4.0]])

        def __init__(self):
            self.weight, self.gain = np.eye(2), np.ones(2)

        def forward(self, x, out=None):
            self.x = x
            return x @ self.weight.T + self.into @ self.gain

        def backward(self, delta, out=None):
            self.weight_grad, self.gain_grad = delta.T @ self.x, self.into.T @ delta.sum(axis=0)
            return delta @ self.weight

    model = mb.Sequential(Mixed(), mb.Tanh(), mb.Linear(2, 1), rng=rng)
    ex = mb.explain(model, rng.normal(size=(3, 2)), rng.normal(size=(3, 1)), mb.MSE())
    for index in (0, 1):
        assert len(ex.paths("gain1", index)) == 6
        assert_allclose(ex.paths("gain1", index).total, ex["∂L/∂gain1"].value[index], rtol=1e-12)
    assert len(ex.paths("b2", 0)) == 3


def test_too_many_paths(rng):
    model = mb.Sequential(*(mb.Linear(10, 10) for _ in range(5)), rng=0)
    ex = mb.explain(model, rng.normal(size=(3, 10)), rng.normal(size=(3, 10)), mb.MSE())
    assert len(ex.paths("W3", 1, 2)) == 300
    with pytest.raises(ValueError, match=rf"W1\[1,2\] has 30,000 paths to the loss, and at most {LIMIT:,} are listed"):
        ex.paths("W1", 1, 2)


def test_a_layer_whose_paths_nobody_knows(rng):
    model = mb.Sequential(mb.Linear(2, 2), Leak(), mb.Linear(2, 1), rng=rng)
    ex = mb.explain(model, np.ones((1, 2)), np.ones((1, 1)), mb.MSE())
    with pytest.raises(ValueError, match=r"paths: layer 1, Leak\(\) says neither .* set elementwise = True"):
        ex.paths("W1", 0, 0)
    assert len(ex.paths("W3", 0, 1)) == 1  # above it there is no doubt


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("W7", 0, 0), KeyError, "no parameter 'W7'; there are W1, b1"),
        (("A0", 0, 0), KeyError, "no parameter 'A0'"),
        ((1, 0, 0), TypeError, "expected a parameter's name, one of W1, b1, got int 1"),
        (("W1",), IndexError, r"W1 has shape \(1, 2\): expected 2 indices, got \(\)"),
        (("W1", 0), IndexError, "expected 2 indices"),
        (("W1", 1, 0), IndexError, r"W1 has shape \(1, 2\): no entry \(1, 0\)"),
        (("W1", 0, -3), IndexError, "no entry"),
        (("W1", 0, 1.0), TypeError, "W1: expected integers as index, got float 1.0"),
        (("W1", 0, True), TypeError, "W1: expected integers as index, got bool True"),
        (("b1", None), TypeError, "b1: expected integers as index, got None"),
    ],
)
def test_bad_input(arguments, error, message):
    ex = mb.explain(mb.Sequential(mb.Linear(2, 1)), [[1.0, 2.0]], [[0.0]], mb.MSE())
    with pytest.raises(error, match=message):
        ex.paths(*arguments)
    with pytest.raises(error, match=message):
        ex.plot(arguments)
