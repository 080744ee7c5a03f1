"""What is recorded: the model's own numbers, under the right names, and without a trace on the model."""

from __future__ import annotations

import copy
import json
import pickle
import types
import warnings
from functools import partial

import numpy as np
import pytest
import user_layers
from numpy.testing import assert_allclose, assert_array_equal

import matbackprop as mb
from explain.reference import quantities

LOSSES = [mb.MSE(), mb.MSE("sum"), mb.BCE(), mb.BCE("sum"), mb.BCEWithLogits()]


class Scale(user_layers.Scale):
    """A layer of a user's, with formulas."""

    elementwise = True
    symbols = {"scale": "s"}  # noqa: RUF012 - as a user writes it
    formulas = {  # noqa: RUF012
        "forward": "{x} ⊙ {1} {scale}ᵀ",
        "derivative": "{1} {scale}ᵀ",
        "scale": "({delta} ⊙ {x})ᵀ {1}",
    }


class Leak(mb.Layer):
    """A layer of a user's, with nothing but its passes, and a parameter of no dimensions."""

    slope = mb.Parameter()
    slope_grad = mb.Gradient("slope")

    def __init__(self):
        self.slope = np.array(0.25)

    def forward(self, x, out=None):
        self.x = x
        return np.where(x > 0, x, self.slope * x)

    def backward(self, delta, out=None):
        self.slope_grad = (delta * np.minimum(self.x, 0)).sum()
        return delta * np.where(self.x > 0, 1, self.slope)


class Cube(mb.Tanh):
    """An activation that computes something else than its parent, whose formulas are then not its own."""

    def forward_steps(self, x, out, empty):
        yield partial(np.power, x, 3, out)

    def backward_steps(self, x, y, delta, out, empty):
        yield partial(lambda: np.multiply(delta, 3 * np.cbrt(y) ** 2, out))


def network(rng, *, loss=None, dtype=np.float64, bias=True):
    layers = [mb.Linear(3, 4, bias=bias), mb.Tanh(), mb.Linear(4, 2, bias=bias), mb.ReLU(), mb.Linear(2, 2)]
    if isinstance(loss, mb.BCE):
        layers.append(mb.Sigmoid())
    model = mb.Sequential(*layers, rng=rng, dtype=dtype)
    model.parameters += rng.normal(size=model.parameters.size) / 4  # biases too
    return model


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_random_networks_against_torch(loss, rows, weighted, rng, torch):
    model = network(rng, loss=loss)
    x, y = rng.normal(size=(rows, 3)), rng.uniform(size=(rows, 2))
    weight = rng.uniform(size=(rows, 1)) if weighted else None
    ex = mb.explain(model, x, y, loss, sample_weight=weight, lr=0.1)
    expected = quantities(torch, model, x, y, loss, weight, lr=0.1)
    assert sorted(ex.names) == sorted(expected)
    for step in ex:
        assert step.shape == expected[step.name].shape, step.name
        assert_allclose(step.value, expected[step.name], rtol=1e-12, atol=1e-16, err_msg=step.name)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_float32_against_torch(loss, rng, torch):
    model = network(rng, loss=loss, dtype=np.float32)
    x, y = rng.normal(size=(4, 3)), rng.uniform(size=(4, 2))
    ex = mb.explain(model, x, y, loss, lr=0.1)
    expected = quantities(torch, model, x, y, loss, lr=0.1)
    for step in ex:
        assert step.value.dtype == np.float32
        assert_allclose(step.value, expected[step.name], rtol=1e-5, atol=1e-7, err_msg=step.name)


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_numbers_are_those_of_backprop_to_the_bit(loss, rows, rng):
    model = network(rng, loss=loss)
    x, y = rng.normal(size=(rows, 3)), rng.uniform(size=(rows, 2))
    ex = mb.explain(model, x, y, loss)
    value, gradient = model.value_and_grad(x, y, loss)
    assert_array_equal(ex["L"].value, value)
    assert_array_equal(np.concatenate([ex[f"∂L/∂{n}{k}"].value.ravel() for k in "123" for n in "Wb"]), gradient)
    assert_array_equal(ex["Ŷ"].value, model.predict(x))


def test_the_model_and_the_loss_stay_as_they_are(rng):
    model, loss = network(rng), mb.MSE()
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    output = model.forward(x)
    loss(output, y)
    model.gradients[...] = np.arange(model.gradients.size)
    parameters, gradients, delta = model.parameters.copy(), model.gradients.copy(), loss.backward()
    mb.explain(model, x + 1, y, loss, lr=0.5).paths("W1", 0, 0)
    assert_array_equal(model.parameters, parameters)
    assert_array_equal(model.gradients, gradients)
    assert_array_equal(loss.backward(), delta)
    dx = model.backward(delta)  # of the forward pass before
    other = copy.deepcopy(model)
    other.forward(x)
    assert_array_equal(dx, other.backward(delta))


def test_the_values_are_frozen_and_do_not_follow_the_model(rng):
    model = network(rng)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    ex = mb.explain(model, x, y, mb.MSE())
    before = [step.value.copy() for step in ex]
    x += 1
    y += 1
    model.backprop(x, y, mb.MSE())
    model.parameters -= model.gradients
    for step, value in zip(ex, before, strict=True):
        assert_array_equal(step.value, value)
        with pytest.raises(ValueError, match="read-only"):
            step.value[...] = 0


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 5, 3)])
def test_leading_dimensions_become_rows(shape, rng):
    model, x = network(rng), rng.normal(size=shape)
    y = rng.normal(size=(*shape[:-1], 2))
    ex = mb.explain(model, x, y, mb.MSE(), sample_weight=rng.uniform(size=y.shape))
    rows = int(np.prod(shape[:-1]))
    assert ex["X"].shape == (rows, 3)
    assert ex["w"].shape == ex["Y"].shape == ex["Δ3"].shape == (rows, 2)
    assert bool(ex.notes) == (len(shape) != 2)
    assert_array_equal(ex["Z3"].value, model.predict(x).reshape(rows, 2))


def test_no_rows(rng):
    ex = mb.explain(network(rng), np.empty((0, 3)), np.empty((0, 2)), mb.MSE(), lr=0.1)
    assert ex["Δ1"].shape == (0, 4)
    assert np.isnan(float(ex["L"]))
    assert_array_equal(ex["∂L/∂W1"].value, np.zeros((4, 3)))
    for text in (str(ex), ex.to_markdown(), ex.to_latex(), ex.to_html(), json.dumps(ex.to_dict())):
        assert "Z" in text


def test_a_nested_chain_is_one_chain(rng):
    inner = mb.Sequential(mb.Linear(3, 2, rng=1), mb.Tanh())
    flat = mb.Sequential(inner[0].copy(), mb.Tanh(), mb.Linear(2, 1, rng=2))
    nested = mb.Sequential(inner, flat[2].copy())
    x, y = rng.normal(size=(3, 3)), rng.normal(size=(3, 1))
    one, other = mb.explain(nested, x, y, mb.MSE()), mb.explain(flat, x, y, mb.MSE())
    assert one.names == other.names
    for first, second in zip(one, other, strict=True):
        assert first.formula == second.formula
        assert_array_equal(first.value, second.value)


def test_names_and_formulas(rng):
    ex = mb.explain(network(rng, loss=mb.BCE()), np.zeros((2, 3)), np.zeros((2, 2)), mb.BCE(), lr=0.1)
    formulas = {step.name: step.formula for step in ex}
    assert formulas["A0"] == "A0 = X"
    assert formulas["Z1"] == "Z1 = A0 W1ᵀ + 1 b1ᵀ"
    assert formulas["A1"] == "A1 = tanh Z1"
    assert formulas["A2"] == "A2 = max(Z2, 0)"
    assert formulas["A3"] == "A3 = Ŷ = 1 / (1 + e^-Z3)"
    assert formulas["L"] == "L = 1/n Σ (-Y ⊙ log Ŷ - (1 - Y) ⊙ log(1 - Ŷ))"
    assert formulas["∂L/∂A3"] == "∂L/∂A3 = ∂L/∂Ŷ = 1/n (Ŷ - Y) / (Ŷ ⊙ (1 - Ŷ))"
    assert formulas["Δ3"] == "Δ3 = ∂L/∂Z3 = ∂L/∂A3 ⊙ ∂A3/∂Z3 = 1/n (Ŷ - Y)"
    assert formulas["∂L/∂W3"] == "∂L/∂W3 = Δ3ᵀ A2"
    assert formulas["∂L/∂b3"] == "∂L/∂b3 = Δ3ᵀ 1"
    assert formulas["∂L/∂A2"] == "∂L/∂A2 = Δ3 W3"
    assert formulas["∂A2/∂Z2"] == "∂A2/∂Z2 = [A2 > 0]"
    assert formulas["Δ2"] == "Δ2 = ∂L/∂Z2 = ∂L/∂A2 ⊙ ∂A2/∂Z2"
    assert formulas["∂A1/∂Z1"] == "∂A1/∂Z1 = (1 - A1) ⊙ (1 + A1)"
    assert formulas["∂L/∂X"] == "∂L/∂X = Δ1 W1"
    assert formulas["W1⁺"] == "W1⁺ = W1 - η ∂L/∂W1"
    assert ex["Δ3"].latex == (
        r"\Delta_{3} = \frac{\partial L}{\partial Z_{3}} = \frac{\partial L}{\partial A_{3}} \odot "
        r"\frac{\partial A_{3}}{\partial Z_{3}} = \frac{1}{n} \left( \hat{Y} - Y \right)"
    )
    assert ex["Z1"].latex == r"Z_{1} = A_{0} W_{1}^{\top} + \mathbf{1} b_{1}^{\top}"
    phases = [step.phase for step in ex]
    assert phases == sorted(phases, key=["given", "forward", "loss", "backward", "update"].index)


@pytest.mark.parametrize(
    ("weight", "reduction", "formula"),
    [
        (None, "sum", "L = Σ (Ŷ - Y)²"),
        (0.5, "sum", "L = Σ w ⊙ (Ŷ - Y)²"),
        (0.5, "mean", "L = 1/n Σ w ⊙ (Ŷ - Y)²"),
    ],
)
def test_weights_and_reduction_in_the_loss(weight, reduction, formula, rng):
    model = mb.Sequential(mb.Linear(2, 1), rng=rng)
    ex = mb.explain(model, np.ones((2, 2)), np.zeros((2, 1)), mb.MSE(reduction), sample_weight=weight)
    assert ex["L"].formula == formula
    assert ("w" in ex) == (weight is not None)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("X", "A0"), ("Ŷ", "A3"), ("Y\u0302", "A3"), ("Yhat", "A3"), ("y_hat", "A3"), ("dL/dW1", "∂L/∂W1"),
        ("dL/dX", "∂L/∂X"), ("∂L/∂A0", "∂L/∂X"), ("Delta2", "Δ2"), ("∆2", "Δ2"), ("∂L/∂Z2", "Δ2"), ("dL/dZ2", "Δ2"),
        ("∂L/∂Ŷ", "∂L/∂A3"), ("dL/dYhat", "∂L/∂A3"), ("dA1/dZ1", "∂A1/∂Z1"), ("W1+", "W1⁺"), ("W1^+", "W1⁺"),
        ("Y", "Y"), ("L", "L"),
    ],
)  # fmt: skip
def test_spellings(spelling, name, rng):
    ex = mb.explain(network(rng, loss=mb.BCE()), np.zeros((1, 3)), np.zeros((1, 2)), mb.BCE(), lr=1.0)
    assert ex[spelling].name == name
    assert spelling in ex


def test_no_such_step(rng):
    ex = mb.explain(network(rng), np.zeros((1, 3)), np.zeros((1, 2)), mb.MSE())
    with pytest.raises(KeyError, match=r"no step 'dW1'; did you mean 'dL/dW1'\? there are A0, "):
        ex["dW1"]
    with pytest.raises(KeyError, match=r"no step 'W7'; did you mean 'W3'\? there are A0, Y, W1, b1, .*∂L/∂X"):
        ex["W7"]
    assert "W7" not in ex
    assert 3 not in ex
    for name in (3, None, ["W1"]):
        with pytest.raises(TypeError, match=r"expected the name of a step, such as 'A0', got .*; \.steps is in order"):
            ex[name]
    assert [step.name for step in ex] == ex.names
    assert len(ex) == len(ex.names)


def test_a_step_is_its_value(rng):
    ex = mb.explain(network(rng), np.zeros((1, 3)), np.ones((1, 2)), mb.MSE())
    assert_array_equal(ex["Δ3"], ex["Δ3"].value)
    assert np.asarray(ex["Δ3"], np.float32).dtype == np.float32
    assert np.linalg.norm(ex["Δ3"]) > 0
    assert float(ex["L"]) == ex["L"].value
    copied = np.array(ex["Δ3"])
    copied[...] = 0  # a copy may be written to
    assert repr(ex["Δ3"]).startswith("Δ3 = ∂L/∂Z3 = ∂L/∂Ŷ = 1/n · 2 (Ŷ - Y), shape (1, 2):\n[[")
    assert "WorkedExample" in repr(ex)


# The cancellation of Sigmoid and BCE


def test_where_the_factors_have_lost_their_digits(torch):
    """At z = 40 the product of BCE's derivative and σ' is 0, and Δ is 1, as torch's loss of logits has it."""
    model = mb.Sequential(mb.Linear(1, 1, bias=False), mb.Sigmoid())
    model.parameters = [1.0]
    z = torch.tensor([[40.0], [-2.0]], dtype=torch.float64, requires_grad=True)
    value = torch.nn.functional.binary_cross_entropy_with_logits(z, torch.zeros_like(z))
    value.backward()
    ex = mb.explain(model, [[40.0], [-2.0]], [[0.0], [0.0]], mb.BCE())
    assert_allclose(ex["Δ1"].value, z.grad.numpy(), rtol=1e-15)
    assert_allclose(float(ex["L"]), value.item(), rtol=1e-15)
    assert ex["∂A1/∂Z1"].value[0, 0] == 0
    assert "lost its digits" in ex["Δ1"].note
    assert len(ex["Δ1"].boards) == 1  # no product that is not equal to the result

    ex = mb.explain(model, [[4.0], [-2.0]], [[0.0], [1.0]], mb.BCE())
    assert ex["Δ1"].note == ""
    assert len(ex["Δ1"].boards) == 2
    assert_allclose(ex["Δ1"].value, ex["∂L/∂A1"].value * ex["∂A1/∂Z1"].value, rtol=1e-12)


def test_a_sigmoid_alone_is_not_fused():
    ex = mb.explain(mb.Sequential(mb.Sigmoid()), [[0.3]], [[1.0]], mb.BCE())
    assert ex.names == ["A0", "Y", "A1", "L", "∂L/∂A1", "∂A1/∂A0", "∂L/∂X"]
    assert_allclose(ex["∂L/∂X"].value, ex["A1"].value - 1, rtol=1e-15)


# Losses of a row, and layers that draw


@pytest.mark.parametrize("shape", [(4,), (), (2, 2)], ids=str)
@pytest.mark.parametrize("options", [{}, {"class_weight": [1.0, 2.0, 3.0]}, {"label_smoothing": 0.1}], ids=str)
def test_classes(options, shape, rng, torch):
    model = mb.Sequential(mb.Linear(2, 3), rng=rng)
    x, y = rng.normal(size=(*shape, 2)), rng.integers(3, size=shape)
    weight = rng.uniform(size=shape)
    loss = mb.CrossEntropy(**options)
    ex = mb.explain(model, x, y, loss, sample_weight=weight)
    value, gradient = model.value_and_grad(x, y, loss, sample_weight=weight)
    assert float(ex["L"]) == value
    assert_array_equal(np.concatenate([ex["∂L/∂W1"].value.ravel(), ex["∂L/∂b1"].value]), gradient)
    assert_array_equal(ex["Y"].value, y.ravel())
    assert ex["w"].shape == (y.size, 1)
    if not options:
        assert ex["Δ1"].formula == "Δ1 = ∂L/∂Z1 = ∂L/∂Ŷ = 1/n w ⊙ (softmax Ŷ - T)"
        assert ex["L"].note.startswith("T: the targets as probabilities")
        z = torch.tensor(ex["Z1"].value, requires_grad=True)
        each = torch.nn.functional.cross_entropy(z, torch.tensor(y.ravel()), reduction="none")
        (each * torch.tensor(weight.ravel())).mean().backward()
        assert_allclose(ex["Δ1"].value, z.grad.numpy(), rtol=1e-12)
    assert_allclose(ex.paths("W1", 1, 0).total, ex["∂L/∂W1"].value[1, 0], rtol=1e-12)
    assert "softmax" in str(ex) + ex.to_latex() + ex.to_html()


@pytest.mark.parametrize(
    ("options", "letter", "expected"),
    [
        ({}, "T", [[0, 1, 0], [0, 0, 1]]),
        # w ⊙ ((1 - ε) t + ε/C), by hand
        ({"label_smoothing": 0.3, "class_weight": [1.0, 2.0, 4.0]}, "U", [[0.1, 1.6, 0.4], [0.1, 0.2, 3.2]]),
    ],
    ids=["plain", "smoothed"],
)
@pytest.mark.parametrize("given", ["classes", "probabilities"])
def test_the_targets_of_classes_are_put_in(given, options, letter, expected, rng):
    model = mb.Sequential(mb.Linear(2, 3), rng=rng)
    y = [1, 2] if given == "classes" else [[0, 1, 0], [0, 0, 1]]
    ex = mb.explain(model, rng.normal(size=(2, 2)), y, mb.CrossEntropy(**options))
    for step in ("L", "Δ1"):
        assert_allclose(ex[step].right.terms[letter].value, expected, rtol=1e-15)
        assert len(ex[step].boards) == 1
    z, u, n = ex["Z1"].value, np.array(expected), ex["L"].right.terms["n"].value
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert_allclose(float(ex["L"]), (-u * np.log(p)).sum() / n, rtol=1e-12)
    assert_allclose(ex["Δ1"].value, (u.sum(axis=1, keepdims=True) * p - u) / n, rtol=1e-12)


def test_letters_of_a_losss_own(rng):
    class Scaled(mb.Loss):
        formulas = types.MappingProxyType(
            {"loss": "{K} ⊙ ({y_pred} - {y_true})²", "derivative": "2 {K} ⊙ ({y_pred} - {y_true})"}
        )

        def elementwise(self, y_pred, y_true):
            error = y_pred - y_true
            return 3 * error * error, 6 * error

        def letters(self, y, y_pred):
            return {"K": np.full(y_pred.shape, 3.0)}

    ex = mb.explain(mb.Sequential(mb.Linear(1, 1), rng=0), [[1.0]], [[2.0]], Scaled())
    assert ex["L"].formula == "L = 1/n Σ K ⊙ (Ŷ - Y)²"
    assert "[3] ⊙ ([" in ex.to_text(100)


def test_huber(rng):
    model = mb.Sequential(mb.Linear(2, 1), rng=rng)
    ex = mb.explain(model, np.ones((2, 2)), [[0.1], [9.0]], mb.Huber(delta=0.5))
    assert ex["Δ1"].formula == "Δ1 = ∂L/∂Z1 = ∂L/∂Ŷ = 1/n min(max(Ŷ - Y, -0.5), 0.5)"
    assert ex["L"].note == "C is the error Ŷ - Y limited to ±0.5."


def test_the_mask_of_a_dropout(rng):
    model = mb.Sequential(mb.Linear(2, 8), mb.Dropout(0.5, rng=3), mb.Linear(8, 1), rng=0)
    x, y = rng.normal(size=(2, 2)), rng.normal(size=(2, 1))
    state = model[1].rng.bit_generator.state
    ex = mb.explain(model, x, y, mb.MSE())
    assert model[1].rng.bit_generator.state == state  # the model draws as if nothing had been
    mask = ex["∂A1/∂Z1"].value
    assert set(np.unique(mask)) == {0.0, 2.0}
    assert_array_equal(ex["A1"].value, ex["Z1"].value * mask)
    assert_array_equal(ex["Δ1"].value, ex["∂L/∂A1"].value * mask)
    assert ex["A1"].formula == "A1 = Z1 ⊙ M"
    value, gradient = model.value_and_grad(x, y, mb.MSE())  # with the same mask
    assert float(ex["L"]) == value
    assert_array_equal(ex["∂L/∂W1"].value.ravel(), gradient[:16])
    assert_allclose(ex.paths("W1", 3, 1).total, ex["∂L/∂W1"].value[3, 1], rtol=1e-12)


# Layers and losses of a user's


def test_layers_of_a_users(rng):
    model = mb.Sequential(Scale(2), mb.Linear(2, 3), Cube(), Leak(), mb.Linear(3, 1), rng=rng)
    x, y = rng.normal(size=(3, 2)), rng.normal(size=(3, 1))
    ex = mb.explain(model, x, y, mb.MSE(), lr=0.1)
    value, gradient = model.value_and_grad(x, y, mb.MSE())
    assert float(ex["L"]) == value
    names = ["s1", "W2", "b2", "slope3", "W4", "b4"]
    assert_array_equal(np.concatenate([ex[f"∂L/∂{name}"].value.ravel() for name in names]), gradient)
    assert_allclose(np.concatenate([ex[f"{n}⁺"].value.ravel() for n in names]), model.parameters - 0.1 * gradient)
    assert ex["Z1"].formula == "Z1 = A0 ⊙ 1 s1ᵀ"
    assert ex["∂L/∂s1"].formula == "∂L/∂s1 = (Δ1 ⊙ A0)ᵀ 1"
    assert ex["∂Z1/∂A0"].formula == "∂Z1/∂A0 = 1 s1ᵀ"
    assert_array_equal(ex["∂Z1/∂A0"].value, np.tile(model[0].scale, (3, 1)))
    # what says nothing of itself is named by its class
    assert ex["A2"].formula == "A2 = Cube(Z2)"
    assert ex["∂A2/∂Z2"].formula == "∂A2/∂Z2"
    assert_allclose(ex["∂A2/∂Z2"].value, 3 * ex["Z2"].value ** 2)
    assert ex["Z3"].formula == "Z3 = Leak(A2)"
    assert ex["∂L/∂slope3"].formula == "∂L/∂slope3 = Δ3 ∂Z3/∂slope3"
    assert ex["∂L/∂A2"].formula == "∂L/∂A2 = Δ3 ∂Z3/∂A2"
    for text in (str(ex), ex.to_markdown(), ex.to_latex(), ex.to_html(), json.dumps(ex.to_dict())):
        assert "slope" in text


def test_a_loss_of_a_users(rng):
    class L1(mb.Loss):
        def elementwise(self, y_pred, y_true):
            error = y_pred - y_true
            return np.abs(error), np.sign(error)

    class Half(mb.MSE):
        formulas = {"loss": "({y_pred} - {y_true})² / 2", "derivative": "{y_pred} - {y_true}"}  # noqa: RUF012

        def elementwise(self, y_pred, y_true):
            error = y_pred - y_true
            return error**2 / 2, error

    class Quartic(mb.MSE):
        def elementwise(self, y_pred, y_true):
            error = y_pred - y_true
            return error**4, 4 * error**3

    model = mb.Sequential(mb.Linear(2, 1), rng=rng)
    x, y = rng.normal(size=(2, 2)), rng.normal(size=(2, 1))
    formulas = {}
    for loss in (L1(), Half(), Quartic()):
        ex = mb.explain(model, x, y, loss)
        assert float(ex["L"]) == model.backprop(x, y, loss)
        assert_array_equal(ex["∂L/∂W1"].value, model[0].weight_grad)
        formulas[type(loss)] = ex["L"].formula, ex["Δ1"].formula
    assert formulas[L1] == ("L = 1/n Σ ℓ(Ŷ, Y)", "Δ1 = ∂L/∂Z1 = ∂L/∂Ŷ = 1/n ∂ℓ/∂Ŷ")
    assert formulas[Half] == ("L = 1/n Σ (Ŷ - Y)² / 2", "Δ1 = ∂L/∂Z1 = ∂L/∂Ŷ = 1/n (Ŷ - Y)")
    assert formulas[Quartic] == formulas[L1]  # its parent's formulas are not its own


@pytest.mark.parametrize("letter", ["A", "Z", "Δ", "L", "W"])
def test_no_two_quantities_have_one_name(letter, rng):
    class Named(Scale):
        symbols = {"scale": letter}  # noqa: RUF012

    model = mb.Sequential(mb.Linear(2, 2), Named(2), mb.Linear(2, 1), rng=rng)
    ex = mb.explain(model, np.ones((1, 2)), np.zeros((1, 1)), mb.MSE())
    assert len(set(ex.names)) == len(ex)
    assert_array_equal(ex["∂L/∂scale2" if letter != "W" else "∂L/∂W2"].shape, (2,))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{z}", r"\{z\} is none of \{1\}, \{x\}, \{y\}, \{delta\}, \{scale\}"),
        ("({x}", r"a '\)' is missing"),
        ("{x})", r"'\)' closes nothing"),
        ("{x} /", "nothing follows the /"),
        ("{x}^", r"nothing follows the \^"),
        ("{x", r"a '\{' has no partner"),
        ("x}", r"a '\}' has no partner"),
    ],
)
def test_a_formula_that_cannot_be_read(template, why):
    layer = Scale(2)
    layer.formulas = {"forward": template}
    model = mb.Sequential(layer)
    with pytest.raises(ValueError, match=rf"layer 0, Scale\(\): formulas\['forward'\]: .*{why}"):
        mb.explain(model, np.ones((1, 2)), np.ones((1, 2)), mb.MSE())


@pytest.mark.parametrize("formulas", [None, 3, ["forward"], {"forward": 3}, {"note": None}], ids=str)
def test_formulas_that_are_none(formulas):
    layer, loss = Scale(2), mb.MSE()
    layer.formulas = formulas
    with pytest.raises(TypeError, match=r"layer 0, Scale\(\): formulas: expected a dict of strings, got "):
        mb.explain(mb.Sequential(layer), np.ones((1, 2)), np.ones((1, 2)), mb.MSE())
    loss.formulas = formulas
    with pytest.raises(TypeError, match=r"MSE\(\): formulas: expected a dict of strings, got "):
        mb.explain(mb.Sequential(mb.Tanh()), np.ones((1, 2)), np.ones((1, 2)), loss)


@pytest.mark.parametrize("mixes", ["weight", "scale", 5])
def test_mixes_that_is_no_weight(mixes):
    class Mixed(Scale):
        pass

    Mixed.mixes = mixes
    with pytest.raises(ValueError, match=rf"layer 0, Mixed\(\): mixes = {mixes!r}: expected .* \(2, 2\), got "):
        mb.explain(mb.Sequential(Mixed(2)), np.ones((1, 2)), np.ones((1, 2)), mb.MSE())


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": mb.Linear(3, 2)}, TypeError, r"explain: model: expected a Sequential, got Linear.*wrap a layer"),
        ({"model": None}, TypeError, "explain: model: expected a Sequential, got None"),
        ({"loss": mb.MSE}, TypeError, r"loss: expected a Loss.*make one with MSE\(\)"),
        ({"x": np.zeros((1, 4))}, ValueError, "expected inputs of 3 features"),
        ({"x": "text"}, TypeError, "expected an array of numbers"),
        ({"x": None}, TypeError, "expected an array of numbers, got None"),
        ({"y": np.zeros((1, 3))}, ValueError, "backprop: y must have the shape of the predictions"),
        ({"y": np.zeros(2)}, ValueError, "backprop: y must have the shape of the predictions"),
        ({"y": [["a", "b"]]}, TypeError, "expected an array of numbers"),
        ({"sample_weight": np.zeros(3)}, ValueError, "sample_weight: expected something that broadcasts"),
        ({"sample_weight": np.nan}, ValueError, "sample_weight: expected finite numbers"),
        ({"lr": 0}, ValueError, "explain: lr: expected a positive number"),
        ({"lr": -0.1}, ValueError, "explain: lr: expected a positive number"),
        ({"lr": np.nan}, ValueError, "explain: lr: expected a positive number"),
        ({"lr": "0.1"}, TypeError, "explain: lr: expected a positive number"),
        ({"lr": True}, TypeError, "explain: lr: expected a positive number"),
    ],
)
def test_bad_input(change, error, message, rng):
    model = network(rng)
    given = {"model": model, "x": np.zeros((1, 3)), "y": np.zeros((1, 2)), "loss": mb.MSE(), **change}
    gradients = model.gradients.copy()
    with pytest.raises(error, match=message):
        mb.explain(**given)
    assert_array_equal(model.gradients, gradients)


def test_what_is_not_finite_is_shown_as_it_is(rng):
    model = network(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ex = mb.explain(model, [[np.nan, np.inf, -1e300]], [[0.0, 0.0]], mb.MSE())
    assert np.isnan(ex["Z1"].value).all()
    assert ex.to_dict()["steps"][0]["value"] == [[None, None, -1e300]]
    assert "NaN" in str(ex)
    assert "∞" in str(ex)
    json.dumps(ex.to_dict(), allow_nan=False)


def test_nan_under_a_fused_loss(rng):
    """Where backprop gives NaN and no error, so does the worked example, which is to show where it began."""
    model = mb.Sequential(mb.Linear(2, 2), mb.Tanh(), mb.Linear(2, 1), mb.Sigmoid(), rng=rng)
    x, y = [[np.nan, 1.0], [0.5, 1.0]], [[0.0], [1.0]]
    assert np.isnan(model.backprop(x, y, mb.BCE()))
    ex = mb.explain(model, x, y, mb.BCE(), lr=0.1)
    assert_array_equal(np.isnan(ex["∂L/∂Ŷ"].value), [[True], [False]])
    assert_array_equal(ex["∂L/∂W1"].value, model[0].weight_grad)
    assert ex["Δ2"].note == ""  # no digit was lost: there was none
    with pytest.raises(ValueError, match=r"y_true: expected values in \[0, 1\]"):
        mb.explain(model, x, [[2.0], [1.0]], mb.BCE())


@pytest.mark.parametrize("dtype", [np.complex128, np.longdouble])
def test_other_types(dtype, rng):
    model = mb.Sequential(mb.Linear(2, 2), mb.Tanh(), mb.Linear(2, 1), rng=rng).astype(dtype)
    x = rng.normal(size=(2, 2)).astype(dtype)
    ex = mb.explain(model, x + dtype(1e-3j) if dtype == np.complex128 else x, np.zeros((2, 1), dtype), mb.MSE())
    assert ex["Δ1"].value.dtype == dtype
    assert_allclose(np.asarray(ex.paths("W1", 0, 1).total), ex["∂L/∂W1"].value[0, 1], rtol=1e-13)
    for text in (str(ex), ex.to_markdown(), ex.to_latex(), ex.to_html(), json.dumps(ex.to_dict())):
        assert "Z" in text


def test_it_can_be_pickled(rng):
    ex = mb.explain(network(rng), np.ones((1, 3)), np.zeros((1, 2)), mb.MSE())
    twin = pickle.loads(pickle.dumps(ex))
    assert str(twin) == str(ex)
    assert str(twin.paths("b1", 0)) == str(ex.paths("b1", 0))


def test_the_function_is_not_hidden_by_a_module(rng):
    """Whatever of the package is imported first."""
    import matbackprop.worked.command
    import matbackprop.worked.record

    assert callable(mb.explain)
    assert matbackprop.worked.record.explain is mb.explain
