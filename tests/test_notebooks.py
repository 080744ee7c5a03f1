"""Every network of the four notebooks whose algebra this library completes, number by number.

"Deep dive into backpropagation" (two notebooks of that title: one linear neuron; a 2-2-2-1 tanh network), "A2 -
Neural Nets: Backprop" (2-2-3-1, ReLU and sigmoid) and "Backpropagation by example" (four ReLU networks).
"""

from __future__ import annotations

from math import cosh, tanh
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import matbackprop as mb

DRAWS = range(5)


def close(actual, expected, rtol=1e-13, atol=1e-15):
    assert_allclose(actual, expected, rtol=rtol, atol=atol)


# (loss, sample_weight, c) with ∂E/∂y = c (y - d). The first is the error of the notebook's code, E = (y - d)²; the
# second the one that its figures draw, E = (y - d)²/2.
ERRORS = pytest.mark.parametrize(
    ("loss", "weight", "c"), [(mb.MSE(), None, 2.0), (mb.MSE("sum"), 0.5, 1.0)], ids=["squared", "half-squared"]
)


# "Deep dive into backpropagation", the linear neuron: y = w x + b, E = (y - d)², with d = 3 x + 2.


@ERRORS
@pytest.mark.parametrize("seed", DRAWS)
def test_linear_neuron(seed, loss, weight, c):
    """∂E/∂w = 2 (y - d) x and ∂E/∂b = 2 (y - d), the notebook's two chain rules, and as Δᵀ A and Δᵀ 1."""
    w, b, x = np.random.default_rng(seed).normal(size=3)
    d = 3.0 * x + 2.0
    y = w * x + b
    model = mb.Sequential(mb.Linear(1, 1))
    model.parameters = [w, b]
    for shape in ((1,), (1, 1)):  # unbatched, as the notebook has it, and as a batch of one
        X, D = np.full(shape, x), np.full(shape, d)
        close(model.backprop(X, D, loss, sample_weight=weight), c / 2 * (y - d) ** 2)
        close(model[0].weight_grad, [[c * (y - d) * x]])
        close(model[0].bias_grad, [c * (y - d)])

        assert model.forward(X).shape == shape
        close(model.backward(np.full(shape, c * (y - d))), np.full(shape, c * (y - d) * w))
        delta = np.array([[c * (y - d)]])
        close(model[0].weight_grad, delta.T @ X.reshape(1, 1))
        close(model[0].bias_grad, delta.T @ np.ones(1))


# "Deep dive into backpropagation", 2-2-2-1 with tanh and no bias. The weights are numbered by column: w1 w2 leave x1,
# w3 w4 leave x2; w5 w6 leave y1, w7 w8 leave y2; w9 and w10 leave y3 and y4. The output is linear, as in the
# notebook's code (its formula draws an f around it).


def df(s):
    return 1 / cosh(s) ** 2


def sum_over_paths(x, d, w, c):
    """Return y and [∂E/∂w1, ..., ∂E/∂w10]: each a sum over the paths from that weight to E, in plain scalars."""
    x1, x2 = x
    w1, w2, w3, w4, w5, w6, w7, w8, w9, w10 = w
    s1, s2 = w1 * x1 + w3 * x2, w2 * x1 + w4 * x2
    y1, y2 = tanh(s1), tanh(s2)
    s3, s4 = w5 * y1 + w7 * y2, w6 * y1 + w8 * y2
    y3, y4 = tanh(s3), tanh(s4)
    y = w9 * y3 + w10 * y4
    e = c * (y - d)  # ∂E/∂y
    return y, [
        # ∂E/∂w1 ... ∂E/∂w4: two paths each, through neuron 3 and through neuron 4
        e * w9 * df(s3) * w5 * df(s1) * x1 + e * w10 * df(s4) * w6 * df(s1) * x1,
        e * w9 * df(s3) * w7 * df(s2) * x1 + e * w10 * df(s4) * w8 * df(s2) * x1,
        e * w9 * df(s3) * w5 * df(s1) * x2 + e * w10 * df(s4) * w6 * df(s1) * x2,
        e * w9 * df(s3) * w7 * df(s2) * x2 + e * w10 * df(s4) * w8 * df(s2) * x2,
        # ∂E/∂w5 ... ∂E/∂w8: one path each
        e * w9 * df(s3) * y1,
        e * w10 * df(s4) * y1,
        e * w9 * df(s3) * y2,
        e * w10 * df(s4) * y2,
        # ∂E/∂w9, ∂E/∂w10: the notebook's own two
        e * y3,
        e * y4,
    ]


def tanh_network(seed):
    """Return x, d, w1 ... w10, and the model with W1 = [[w1, w3], [w2, w4]], and so on."""
    rng = np.random.default_rng(seed)
    x, d, w = rng.normal(size=2), rng.normal(), rng.normal(size=10)
    model = mb.Sequential(
        mb.Linear(2, 2, bias=False), mb.Tanh(), mb.Linear(2, 2, bias=False), mb.Tanh(), mb.Linear(2, 1, bias=False)
    )
    model[0].weight = w[:4].reshape(2, 2).T
    model[2].weight = w[4:8].reshape(2, 2).T
    model[4].weight = w[8:].reshape(1, 2)
    return x, d, w, model


@ERRORS
@pytest.mark.parametrize("shape", [(2,), (1, 2)], ids=["unbatched", "batch of one"])
@pytest.mark.parametrize("seed", DRAWS)
def test_tanh_network(seed, shape, loss, weight, c):
    x, d, w, model = tanh_network(seed)
    y, expected = sum_over_paths(x, d, w, c)
    X, D = x.reshape(shape), np.full((*shape[:-1], 1), d)

    close(model.forward(X), np.full(D.shape, y))
    close(model.backprop(X, D, loss, sample_weight=weight), c / 2 * (y - d) ** 2)
    # w_k stand in the gradient of a weight matrix by column
    gradients = [g for k in (0, 2, 4) for g in model[k].weight_grad.T.ravel()]
    close(gradients, expected, rtol=1e-12)

    # The same ten as entries of the matrix products: Δ3 = ∂E/∂y, Δ2 = Δ3 W3 ⊙ f'(Z2), Δ1 = Δ2 W2 ⊙ f'(Z1)
    W1, W2, W3 = (model[k].weight for k in (0, 2, 4))
    A0 = x.reshape(1, 2)
    Z1 = A0 @ W1.T
    A1 = np.tanh(Z1)
    Z2 = A1 @ W2.T
    A2 = np.tanh(Z2)
    delta3 = c * (A2 @ W3.T - d)
    delta2 = delta3 @ W3 / np.cosh(Z2) ** 2
    delta1 = delta2 @ W2 / np.cosh(Z1) ** 2
    close(model[4].weight_grad, delta3.T @ A2, rtol=1e-12)
    close(model[2].weight_grad, delta2.T @ A1, rtol=1e-12)
    close(model[0].weight_grad, delta1.T @ A0, rtol=1e-12)

    model.forward(X)
    close(model.backward(np.reshape(delta3, D.shape)), (delta1 @ W1).reshape(shape), rtol=1e-12)


@pytest.mark.parametrize("seed", DRAWS)
def test_tanh_network_on_a_batch_is_the_mean_of_the_examples(seed):
    _, _, w, model = tanh_network(seed)
    rng = np.random.default_rng(seed + 100)
    X, D = rng.normal(size=(6, 2)), rng.normal(size=(6, 1))
    model.backprop(X, D, mb.MSE())
    each = [sum_over_paths(x, d, w, 2.0)[1] for x, (d,) in zip(X.tolist(), D.tolist(), strict=True)]
    gradients = [g for k in (0, 2, 4) for g in model[k].weight_grad.T.ravel()]
    close(gradients, np.mean(each, axis=0), rtol=1e-12, atol=1e-14)


# "A2 - Neural Nets: Backprop": 2-2-3-1, ReLU, ReLU, sigmoid, BCE; x = (1, -1), y = 0, weights as in the notebook,
# biases 0.
#
# Forward. z2 = W1 x = (1, -1), h2 = (1, 0). z3 = W2 h2 is the first column of W2: (1, -1, 1), h3 = (1, 0, 1).
# z = W3 h3 = 1. With σ = σ(1) = e / (1 + e): h = σ, and y = 0 leaves L = -log(1 - σ) = log(1 + e).
#
# Backward. ∂L/∂h = 1 / (1 - σ) = 1 + e. ∂L/∂z = (1 + e) σ (1 - σ) = σ = ŷ - y.
# ∂L/∂W3 = σ h3 = (σ, 0, σ), ∂L/∂b3 = σ. ∂L/∂h3 = σ W3 = (σ, -σ, 0); the second unit is silent: ∂L/∂z3 = (σ, 0, 0).
# ∂L/∂W2 = ∂L/∂z3 ⊗ h2: σ at (1, 1) alone; ∂L/∂b2 = (σ, 0, 0). ∂L/∂h2 = W2ᵀ ∂L/∂z3 = σ (1, 1); the second unit is
# silent: ∂L/∂z2 = (σ, 0). ∂L/∂W1 = ∂L/∂z2 ⊗ x = σ [[1, -1], [0, 0]], ∂L/∂b1 = (σ, 0).
# ∂L/∂x = W1ᵀ ∂L/∂z2 = (σ, 0).

A2_STATE = {
    "0.weight": [[1.0, 0.0], [0.0, 1.0]],
    "0.bias": [0.0, 0.0],
    "2.weight": [[1.0, 1.0], [-1.0, 1.0], [1.0, 0.0]],
    "2.bias": [0.0, 0.0, 0.0],
    "4.weight": [[1.0, -1.0, 0.0]],
    "4.bias": [0.0],
}
A2_X, A2_Y = np.array([[1.0, -1.0]]), np.array([[0.0]])
S = np.e / (1 + np.e)
A2_FORWARD = [  # after each layer
    ("z2", [[1, -1]]),
    ("h2", [[1, 0]]),
    ("z3", [[1, -1, 1]]),
    ("h3", [[1, 0, 1]]),
    ("z", [[1]]),
    ("h", [[S]]),
]
A2_LOSS = np.log(1 + np.e)
A2_BACKWARD = {
    "h": [[1 + np.e]],
    "z": [[S]],
    "h3": [[S, -S, 0]],
    "z3": [[S, 0, 0]],
    "h2": [[S, S]],
    "z2": [[S, 0]],
    "x": [[S, 0]],
}
A2_GRADIENTS = {
    "0.weight": [[S, -S], [0, 0]],
    "0.bias": [S, 0],
    "2.weight": [[S, 0], [0, 0], [0, 0]],
    "2.bias": [S, 0, 0],
    "4.weight": [[S, 0, S]],
    "4.bias": [S],
}


def a2_model():
    model = mb.Sequential(mb.Linear(2, 2), mb.ReLU(), mb.Linear(2, 3), mb.ReLU(), mb.Linear(3, 1), mb.Sigmoid())
    model.load_state_dict(A2_STATE)
    return model


def named_gradients(model):
    """Return {"0.weight": ∂L/∂W, ...}."""
    return {name: getattr(model[int(name[0])], f"{name[2:]}_grad") for name in model.state_dict()}


def walk(model, loss, x, y):
    """Return every intermediate, L, and the gradient of every intermediate, by the layers' own passes."""
    values, gradients = {}, {}
    for layer, (name, _) in zip(model, A2_FORWARD, strict=True):
        x = values[name] = layer.forward(x)
    value = loss(x, y)
    delta = gradients["h"] = loss.backward()
    for layer, name in zip(reversed(list(model)), ("z", "h3", "z3", "h2", "z2", "x"), strict=True):
        delta = gradients[name] = layer.backward(delta)
    return values, value, gradients


def test_a2_every_intermediate_and_every_gradient():
    model = a2_model()
    values, value, gradients = walk(model, mb.BCE(), A2_X, A2_Y)
    for name, expected in A2_FORWARD:
        close(values[name], expected)
    close(value, A2_LOSS)
    for name, expected in A2_BACKWARD.items():
        close(gradients[name], expected)
    for name, gradient in named_gradients(model).items():
        close(gradient, A2_GRADIENTS[name])


@pytest.mark.parametrize("loss", [mb.BCE(), mb.BCE("sum")], ids=repr)
@pytest.mark.parametrize("shape", [(1,), ()], ids=["batch of one", "unbatched"])
def test_a2_by_the_model(loss, shape):
    """The same gradients from `backprop`, which fuses Sigmoid and BCE, and from forward and backward."""
    model, x, y = a2_model(), A2_X.reshape(*shape, 2), A2_Y.reshape(*shape, 1)
    close(model.backprop(x, y, loss), A2_LOSS)
    expected = np.concatenate([np.ravel(A2_GRADIENTS[name]) for name in A2_STATE])
    close(model.gradients, expected)

    model.gradients.fill(np.nan)
    close(loss(model.forward(x), y), A2_LOSS)
    close(model.backward(loss.backward()), np.reshape(A2_BACKWARD["x"], x.shape))
    close(model.gradients, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a2_against_torch(torch, dtype):
    """Every intermediate keeps its gradient in torch, as in the notebook."""
    model = a2_model().astype(dtype)
    values, value, gradients = walk(model, mb.BCE(), A2_X.astype(dtype), A2_Y.astype(dtype))

    state = {name: torch.tensor(array, requires_grad=True) for name, array in model.state_dict().items()}
    x = a = torch.tensor(A2_X.astype(dtype), requires_grad=True)
    theirs = {"x": x}
    for index, after, f in ((0, "h2", torch.relu), (2, "h3", torch.relu), (4, "h", torch.sigmoid)):
        z = theirs["z" + after[1:]] = torch.nn.functional.linear(a, state[f"{index}.weight"], state[f"{index}.bias"])
        a = theirs[after] = f(z)
        z.retain_grad()
        a.retain_grad()
    loss = torch.nn.functional.binary_cross_entropy(a, torch.tensor(A2_Y.astype(dtype)))
    loss.backward()

    tolerance = {"rtol": 4 * np.finfo(dtype).eps, "atol": 0}
    close(value, loss.item(), **tolerance)
    for name, expected in values.items():
        close(theirs[name].detach().numpy(), expected, **tolerance)
    for name, expected in gradients.items():
        close(theirs[name].grad.numpy(), expected, **tolerance)
    for name, expected in named_gradients(model).items():
        close(state[name].grad.numpy(), expected, **tolerance)


# "Backpropagation by example": x = 0.5, d = 0.95, ReLU after every layer, MSE. The notebook stores a weight as
# (in, out), the transpose of ours, and prints four decimals; gradients are quoted below as it prints them.
# Each row: weights and biases from the input on, the outputs of the layers, the loss, and, from the input on, the
# gradients of weights and biases.

EXAMPLES = {
    "one neuron": SimpleNamespace(
        weights=[[[0.3]]],
        biases=[[0.4]],
        outputs=[[0.55]],
        loss=0.16,
        weight_grads=[[[-0.4]]],
        bias_grads=[[-0.8]],
    ),
    "a hidden neuron": SimpleNamespace(
        weights=[[[0.3]], [[0.2]]],
        biases=[[0.4], [0.1]],
        outputs=[[0.55], [0.21]],
        loss=0.5476,
        weight_grads=[[[-0.148]], [[-0.814]]],
        bias_grads=[[-0.296], [-1.48]],
    ),
    "two hidden neurons": SimpleNamespace(
        weights=[[[0.3, 0.2]], [[0.1], [0.7]]],
        biases=[[0.4, 0.1], [0.3]],
        outputs=[[0.55, 0.2], [0.495]],
        loss=0.2070,
        weight_grads=[[[-0.0455, -0.3185]], [[-0.5005], [-0.1820]]],
        bias_grads=[[-0.0910, -0.6370], [-0.9100]],
    ),
    "two hidden layers": SimpleNamespace(
        weights=[[[0.3, 0.2]], [[0.1, 0.8], [0.6, 0.7]], [[0.4], [0.6]]],
        biases=[[0.4, 0.1], [0.3, 0.2], [0.3]],
        outputs=[[0.55, 0.2], [0.475, 0.78], [0.958]],
        loss=6.4001e-05,  # in float32; exactly 0.008² = 6.4e-5
        weight_grads=[[[0.0042, 0.0053]], [[0.0035, 0.0053], [0.0013, 0.0019]], [[0.0076], [0.0125]]],
        bias_grads=[[0.0083, 0.0106], [0.0064, 0.0096], [0.0160]],
    ),
}
X, D = [0.5], [0.95]
PRINTED = {"rtol": 0, "atol": 0.5001e-4}  # four decimals, and the float32 in which a half was rounded


def example_model(example, dtype=np.float64):
    layers = [layer for w in example.weights for layer in (mb.Linear(*np.shape(w)), mb.ReLU())]
    model = mb.Sequential(*layers, dtype=dtype)
    for k, (w, b) in enumerate(zip(example.weights, example.biases, strict=True)):
        model[2 * k].weight, model[2 * k].bias = np.transpose(w), b
    return model


def halves(model):
    """Return the Linears and the activations."""
    return list(model)[::2], list(model)[1::2]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_by_example(example, dtype):
    model = example_model(example, dtype)
    x = X
    for layer, activation, output in zip(*halves(model), example.outputs, strict=True):
        x = activation.forward(layer.forward(np.asarray(x, dtype)))
        close(x, output, **PRINTED)

    value = model.backprop(X, D, mb.MSE())
    close(value, example.loss, rtol=0, atol=1e-8 if example.loss < 1e-4 else 0.5001e-4)
    if example.loss < 1e-4 and dtype == np.float32:
        assert f"{value:.4e}" == "6.4001e-05"  # to all the digits that the notebook prints
    for layer, weight_grad, bias_grad in zip(halves(model)[0], example.weight_grads, example.bias_grads, strict=True):
        close(layer.weight_grad.T, weight_grad, **PRINTED)
        close(layer.bias_grad, bias_grad, **PRINTED)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_by_example_by_hand(example):
    """No unit is silent, so each Δ is the one above times a weight, and each gradient a product of three numbers.

    From the notebook's formulas: 2 (ŷ - d) · weights on the way · input of the layer, not rounded to four decimals.
    """
    model = example_model(example)
    model.backprop(X, D, mb.MSE())
    inputs = [X, *example.outputs]
    delta = 2 * (np.array(example.outputs[-1]) - D)
    for k in reversed(range(len(example.weights))):
        close(model[2 * k].weight_grad.T, np.outer(inputs[k], delta), rtol=1e-12)
        close(model[2 * k].bias_grad, delta, rtol=1e-12)
        delta = np.array(example.weights[k]) @ delta


def test_by_example_update():
    """One step with learning rate 0.5: weight 0.3 -> 0.5, bias 0.4 -> 0.8, prediction 1.05, loss 0.16 -> 0.01."""
    model = example_model(EXAMPLES["one neuron"])
    close(model.backprop(X, D, mb.MSE()), 0.16)
    model.parameters -= 0.5 * model.gradients
    close(model.parameters, [0.5, 0.8])
    close(model.predict(X), [1.05])
    close(model.backprop(X, D, mb.MSE()), 0.01, rtol=1e-12)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_by_example_against_torch(example, torch):
    model = example_model(example)
    value = model.backprop(X, D, mb.MSE())
    state = {name: torch.tensor(array, requires_grad=True) for name, array in model.state_dict().items()}
    a = torch.tensor(X, dtype=torch.float64)
    for k in range(len(example.weights)):
        a = torch.relu(torch.nn.functional.linear(a, state[f"{2 * k}.weight"], state[f"{2 * k}.bias"]))
    loss = torch.nn.functional.mse_loss(a, torch.tensor(D, dtype=torch.float64))
    loss.backward()
    close(value, loss.item())
    assert_array_equal(list(state), list(model.state_dict()))
    for name, gradient in named_gradients(model).items():
        close(gradient, state[name].grad.numpy(), rtol=1e-12)
