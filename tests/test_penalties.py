"""Penalties: value and gradient against their definitions, torch's weight decay and finite differences."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from user_layers import Scale

import matbackprop as mb

NAN, INF = float("nan"), float("inf")
penalties = pytest.mark.parametrize("penalty", [mb.L1, mb.L2])


def network(dtype=np.float64, rng=0):
    model = mb.Sequential(
        mb.Linear(3, 5), mb.Tanh(), mb.Sequential(mb.Linear(5, 4, bias=False), rng=rng), dtype=dtype, rng=rng
    )
    model.parameters += 0.1
    model.gradients = np.arange(model.gradients.size)
    return model


def weights(model):
    return [value for value in model.state_dict().values() if value.ndim == 2]


def expected(model, penalty, strength):
    """Return value and gradient as the definitions have them."""
    everything = np.concatenate([array.reshape(-1) for array in weights(model)])
    factor = np.concatenate([np.full(value.size, value.ndim == 2) for value in model.state_dict().values()])
    if penalty is mb.L2:
        return strength / 2 * (everything**2).sum(), strength * model.parameters * factor
    return strength * np.abs(everything).sum(), strength * np.sign(model.parameters) * factor


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-15), ("float32", 1e-6), ("longdouble", 1e-15)])
@pytest.mark.parametrize("strength", [0.0, 0.01, 3.0])
@penalties
def test_definition(penalty, strength, dtype, tolerance):
    model = network(dtype)
    value, gradient = expected(model, penalty, strength)
    before, parameters = model.gradients.copy(), model.parameters.copy()
    assert penalty(strength).add_to(model) == pytest.approx(float(value), rel=tolerance)
    np.testing.assert_allclose(model.gradients, before + gradient, tolerance)
    np.testing.assert_array_equal(model.parameters, parameters)


@penalties
def test_biases_too(penalty):
    model = network()
    model.gradients[:] = 0
    value = penalty(0.5, biases=True).add_to(model)
    scale = np.abs(model.parameters).sum() if penalty is mb.L1 else (model.parameters**2).sum() / 2
    assert value == pytest.approx(0.5 * scale)
    assert (model.gradients != 0).all()


@penalties
def test_in_pieces(penalty, monkeypatch):
    model, other = network(), network()
    value = penalty(0.5).add_to(model)
    monkeypatch.setattr("matbackprop.penalties.PIECE", 4)
    assert penalty(0.5).add_to(other) == pytest.approx(value, rel=1e-15)
    np.testing.assert_array_equal(other.gradients, model.gradients)


@penalties
def test_by_differences(penalty):
    """The gradient of loss and penalty together."""
    model = mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 2), rng=0)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    term = penalty(0.3)

    def value_and_grad(parameters):
        model.parameters = parameters
        value = model.backprop(x, y, mb.MSE())
        return value + term.add_to(model), model.gradients.copy()

    report = mb.check_gradient(
        lambda p: value_and_grad(p)[0], lambda p: value_and_grad(p)[1], rng.normal(size=model.parameters.size)
    )
    report.raise_for_verdict()


@penalties
def test_by_a_complex_step(penalty):
    """The value of a complex model is analytic in each parameter."""
    model = network()
    model.gradients[:] = 0
    penalty(0.3).add_to(model)
    stepped = model.astype(np.complex128)
    slopes = []
    for index in range(stepped.parameters.size):
        stepped.parameters = model.parameters
        stepped.parameters[index] += 1e-30j
        slopes.append(penalty(0.3).add_to(stepped).imag / 1e-30)
    np.testing.assert_allclose(slopes, model.gradients, 1e-14)


def test_as_weight_decay_in_torch(torch):
    """``L2(λ)`` over everything is SGD's weight decay λ, ours and torch's."""
    model, decayed = network(), network()
    model.gradients = decayed.gradients = np.linspace(-1, 1, model.gradients.size)
    theirs = torch.tensor(model.parameters.copy(), requires_grad=True)
    theirs.grad = torch.tensor(model.gradients.copy())
    torch.optim.SGD([theirs], lr=0.1, weight_decay=0.3).step()
    mb.SGD(0.1, weight_decay=0.3).step(decayed.parameters, decayed.gradients)
    mb.L2(0.3, biases=True).add_to(model)
    mb.SGD(0.1).step(model.parameters, model.gradients)
    np.testing.assert_allclose(model.parameters, theirs.detach().numpy(), 1e-15)
    np.testing.assert_allclose(model.parameters, decayed.parameters, 1e-15)


def test_no_slope_at_zero():
    model = mb.Sequential(mb.Linear(2, 1))
    model.parameters, model.gradients = [0.0, -0.0, 0.0], np.zeros(3)
    assert mb.L1(3.0).add_to(model) == 0.0
    np.testing.assert_array_equal(model.gradients, 0)


@penalties
def test_nothing_to_penalise(penalty):
    for model in (mb.Sequential(Scale(3)), mb.Sequential(mb.Tanh())):
        model.gradients[:] = 1.0
        assert penalty(0.5).add_to(model) == 0.0
        assert (model.gradients == 1).all()


@penalties
def test_several_models_and_changes(penalty):
    """One penalty for two models in turn, with another strength, and after a model has become part of another."""
    term, first, second = penalty(0.5), network(), network(np.float32, rng=1)
    for strength in (0.5, 2.0):
        term.strength = strength
        for model in (first, second, first):
            assert term.add_to(model) == pytest.approx(float(expected(model, penalty, strength)[0]), rel=1e-6)
    outer = mb.Sequential(first, mb.Linear(4, 1))
    outer.gradients[:] = 0
    assert term.add_to(outer) == pytest.approx(expected(outer, penalty, 2.0)[0])
    assert term.add_to(first) == pytest.approx(expected(first, penalty, 2.0)[0])
    for twin in (copy.copy(term), copy.deepcopy(term), pickle.loads(pickle.dumps(term))):
        assert twin.add_to(second) == term.add_to(second)
    without = term.add_to(outer)
    term.biases = True
    assert term.add_to(outer) > without


@penalties
@pytest.mark.parametrize("bad", [-1, NAN, INF, None, "1", True, 1j, [1.0]])
def test_bad_strength(penalty, bad):
    error = ValueError if type(bad) in (int, float) else TypeError
    term = penalty(1)
    with pytest.raises(error, match=f"{penalty.__name__}: strength: expected a finite number of at least 0"):
        penalty(bad)
    with pytest.raises(error, match="strength"):
        term.strength = bad
    assert repr(term) == f"{penalty.__name__}(strength=1.0)"


@penalties
def test_bad_calls(penalty):
    for bad in (None, np.zeros(3), [1.0], mb.Linear(2, 1), mb.Sequential):
        with pytest.raises(TypeError, match=r"strength=1.0\): expected a model, a Sequential, got"):
            penalty(1).add_to(bad)
    with pytest.raises(TypeError, match="biases: expected True or False"):
        penalty(1, biases=1)
