"""Initializers: the size of the weights, when they are drawn, and from which generator."""

from __future__ import annotations

import math

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.initializers import RULES

IN, OUT = 300, 200
#: bound (None: unbounded) and standard deviation of each rule, from the papers' formulas.
SIZES = {
    "glorot": (math.sqrt(6 / (IN + OUT)), math.sqrt(2 / (IN + OUT))),
    "he": (None, math.sqrt(2 / IN)),
    "torch": (1 / math.sqrt(IN), 1 / math.sqrt(3 * IN)),
}


def check_size(weight: np.ndarray, rule: str) -> None:
    bound, deviation = SIZES[rule]
    assert weight.std() == pytest.approx(deviation, rel=0.02)
    assert abs(weight.mean()) < 5 * deviation / math.sqrt(weight.size)
    if bound is None:
        assert np.abs(weight).max() > 3 * deviation
    else:
        assert 0.999 * bound < np.abs(weight).max() <= bound


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule) -> None:
    layer = mb.Linear(IN, OUT, weight_init=rule, rng=0)
    assert layer.weight.shape == (OUT, IN)
    check_size(layer.weight, rule)
    bound = SIZES["torch"][0]
    if rule == "torch":
        assert 0.9 * bound < np.abs(layer.bias).max() <= bound
    else:
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("after", "rule"),
    [
        ([mb.Tanh()], "glorot"),
        ([mb.Sigmoid()], "glorot"),
        ([mb.ReLU()], "he"),
        ([], "glorot"),
        ([mb.Sequential(mb.ReLU()), mb.Tanh()], "he"),
    ],
    ids=str,
)
def test_rule_by_what_follows(after, rule) -> None:
    check_size(mb.Sequential(mb.Linear(IN, OUT), *after, rng=1)[0].weight, rule)


def test_rule_where_a_linear_follows() -> None:
    check_size(mb.Sequential(mb.Linear(IN, OUT), mb.Linear(OUT, 1), mb.ReLU(), rng=1)[0].weight, "glorot")


@pytest.mark.parametrize("layer", [{"weight_init": "torch"}, {"weight_init": "glorot"}])
def test_what_the_layer_says_wins(layer) -> None:
    check_size(mb.Sequential(mb.Linear(IN, OUT, **layer), mb.ReLU(), rng=1)[0].weight, layer["weight_init"])


def test_torch_bounds_are_those_of_torch(torch) -> None:
    theirs = torch.nn.Linear(IN, OUT)
    bound = SIZES["torch"][0]
    for array in (theirs.weight, theirs.bias):
        assert 0.9 * bound < array.abs().max().item() <= bound * (1 + 1e-6)


def net(seed=0, **first) -> mb.Sequential:
    return mb.Sequential(mb.Linear(3, 4, **first), mb.Tanh(), mb.Linear(4, 2), rng=seed)


def test_a_seed_decides_everything() -> None:
    assert np.array_equal(net(7).parameters, net(7).parameters)
    assert np.array_equal(net(7).parameters, net(np.random.default_rng(7)).parameters)
    assert not np.array_equal(net(7).parameters, net(8).parameters)
    assert not np.array_equal(net(None).parameters, net(None).parameters)


def test_a_layers_own_rng_wins() -> None:
    assert np.array_equal(net(1, rng=5)[0].weight, net(2, rng=5)[0].weight)
    assert not np.array_equal(net(1, rng=5)[2].weight, net(2, rng=5)[2].weight)


def test_the_global_seed_is_not_touched() -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert net(None).parameters.any()
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_weights_are_drawn_once_and_late() -> None:
    calls = []

    def rule(shape, rng):
        calls.append(shape)
        return np.arange(math.prod(shape)).reshape(shape)

    layer = mb.Linear(3, 2, weight_init=rule)
    assert not calls
    weight = layer.weight
    model = mb.Sequential(layer, mb.ReLU())
    model.forward(np.ones(3))
    assert calls == [(2, 3)]
    assert np.array_equal(weight, layer.weight)
    assert np.array_equal(model.parameters, [0, 1, 2, 3, 4, 5, 0, 0])


def test_a_callables_array_is_copied() -> None:
    shared = np.ones((2, 3))
    layer = mb.Linear(3, 2, weight_init=lambda shape, rng: shared)
    layer.weight *= 5
    assert shared.max() == 1


def test_an_assigned_weight_survives_adoption() -> None:
    layer = mb.Linear(3, 2)
    layer.weight = np.full((2, 3), 4.0)
    assert np.array_equal(mb.Sequential(layer, mb.ReLU(), rng=0)[0].weight, np.full((2, 3), 4.0))


def test_a_subclass_with_a_parameter_is_drawn_late_too() -> None:
    def init(self):
        mb.Linear.__init__(self, 3, 2)
        self.gain = np.ones(2)

    kind = type("Gained", (mb.Linear,), {"gain": mb.Parameter(), "gain_grad": mb.Gradient("gain"), "__init__": init})
    assert np.array_equal(mb.Sequential(kind(), rng=0).parameters, mb.Sequential(kind(), rng=0).parameters)


def test_a_copy_of_a_layer_not_drawn_yet_is_equal() -> None:
    layer = mb.Linear(3, 2)
    twin = layer.copy()
    assert np.array_equal(layer.weight, twin.weight)
