"""`check_layer` and `check_model` on the library's own."""

from typing import Any

import numpy as np
import pytest
from mutants.layers import Affine

import matbackprop as mb
from matbackprop.gradcheck import Verdict, model_values
from matbackprop.gradcheck.models import model_problem

RNG = np.random.default_rng(5)
LAYERS = {
    "linear": lambda: mb.Linear(3, 2, rng=1),
    "linear without bias": lambda: mb.Linear(3, 2, bias=False, rng=1),
    "tanh": mb.Tanh,
    "relu": mb.ReLU,
    "sigmoid": mb.Sigmoid,
    "sequential": lambda: mb.Sequential(mb.Linear(3, 4, rng=1), mb.ReLU(), mb.Linear(4, 2, rng=2), mb.Tanh()),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 4, 3)])
def test_every_layer_passes(name: str, shape: tuple[int, ...]) -> None:
    report = mb.check_layer(LAYERS[name](), RNG.standard_normal(shape), rng=0)
    assert report.verdict is Verdict.PASS, str(report)
    assert {"the batch given", "N = 1", "N = 2", "N = 7", "exact zeros", "saturated"} <= {p.name for p in report.parts}


@pytest.mark.parametrize(
    "last", [(mb.Sigmoid, mb.MSE), (mb.Sigmoid, mb.BCE), (mb.Tanh, mb.MSE), (None, mb.BCEWithLogits)]
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_loss_passes(last: Any, reduction: str, dtype: Any) -> None:
    layers = [mb.Linear(4, 6), mb.Tanh(), mb.Linear(6, 5), mb.ReLU(), mb.Linear(5, 2)]
    model = mb.Sequential(*layers, *([last[0]()] if last[0] else []), rng=3).astype(dtype)
    report = mb.check_model(model, last[1](reduction), RNG.standard_normal((6, 4)), RNG.random((6, 2)), rng=0)
    assert report.verdict is Verdict.PASS, str(report)
    assert "every ReLU unit on and off" in {p.name for p in report.parts}


def test_the_kink_of_relu_is_reported() -> None:
    report = mb.check_layer(mb.ReLU(), RNG.standard_normal((2, 3)), rng=0)
    note = report.parts[-1].notes[0]
    assert note == "at zero the slope is 0 on the left and 1 on the right; the gradient says 0"


def test_what_is_checked_is_not_touched() -> None:
    model = mb.Sequential(mb.Linear(2, 3), mb.ReLU(), mb.Linear(3, 1), rng=0)
    x, y = RNG.standard_normal((4, 2)), RNG.standard_normal((4, 1))
    model.backprop(x, y, mb.MSE())
    before = model.parameters.copy(), model.gradients.copy(), x.copy()
    mb.check_model(model, mb.MSE(), x, y, rng=0)
    mb.check_layer(model[0], x, rng=0)
    for array, kept in zip((model.parameters, model.gradients, x), before, strict=True):
        assert np.array_equal(array, kept)


def test_a_batch_of_one_hides_what_the_other_batches_show() -> None:
    layer, x = Affine(4, 4, "bias averaged"), RNG.standard_normal((1, 4))
    assert mb.check_layer(layer, x, rng=0, points=False).verdict is Verdict.PASS
    assert mb.check_layer(layer, x, rng=0).verdict is Verdict.FAIL


def test_a_layer_without_its_weights_drawn() -> None:
    assert mb.check_layer(mb.Linear(3, 2), RNG.standard_normal((4, 3)), rng=0)
    chain = mb.Sequential(mb.Linear(3, 4), mb.Sequential(mb.Tanh(), mb.Linear(4, 2)), mb.ReLU())
    assert mb.check_layer(chain, RNG.standard_normal((4, 3)), rng=0)
    assert model_problem(chain.copy(), mb.MSE(), np.ones((2, 3)), np.ones((2, 2)))[0].packing.size == 26


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: mb.check_layer(3, [[1.0]]), TypeError, "expected a Layer, got int 3"),
        (lambda: mb.check_layer(mb.Tanh, [[1.0]]), TypeError, "make one first"),
        (lambda: mb.check_layer(mb.Linear(2, 1), [[1.0]]), ValueError, "2 features"),
        (lambda: mb.check_layer(mb.Tanh(), np.empty((0, 3))), ValueError, "at least one row"),
        (lambda: mb.check_layer(mb.Tanh(), None), TypeError, "None"),
        (lambda: mb.check_model(mb.Linear(2, 1), mb.MSE(), [[1.0, 2.0]], [[1.0]]), TypeError, "use check_layer"),
        (lambda: mb.check_model(mb.Sequential(mb.Linear(2, 1)), mb.MSE, [[1.0, 2.0]], [[1.0]]), TypeError, r"MSE\(\)"),
        (lambda: mb.check_model(mb.Sequential(mb.Linear(2, 1)), mb.MSE(), [[1.0, 2.0]], [1.0]), ValueError, "shape"),
        (lambda: mb.check_model(mb.Sequential(mb.Tanh()), mb.MSE(), [[1.0]], [[1.0]]), ValueError, "no parameters"),
    ],
)
def test_arguments_that_do_not_fit(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("loss", [mb.MSE(), mb.BCE(), mb.MSE("sum")])
def test_all_parameters_at_once_give_the_numeric_gradient(loss: mb.Loss) -> None:
    model = mb.Sequential(
        mb.Linear(3, 5), mb.Tanh(), mb.Linear(5, 4, bias=False), mb.ReLU(), mb.Linear(4, 2), mb.Sigmoid(), rng=4
    )
    x, y = RNG.standard_normal((6, 3)), RNG.random((6, 2))
    values = model_values(model, loss, x, y)
    assert values(model.parameters[None])[0] == pytest.approx(model.backprop(x, y, loss), rel=1e-12)
    numeric, error = mb.numerical_gradient(lambda p: p.sum(), model.parameters, batched=values)
    _, gradient = model.value_and_grad(x, y, loss)
    assert (np.abs(numeric - gradient) <= 4 * error).all()
    assert error.max() < 1e-13 * np.abs(gradient).max()


def test_a_stack_needs_linear_layers() -> None:
    with pytest.raises(TypeError, match="only Linear"):
        model_values(mb.Sequential(Affine(4, 4)), mb.MSE(), np.ones((1, 4)), np.ones((1, 4)))


def test_relu_units_that_no_bias_reaches_are_named() -> None:
    model = mb.Sequential(mb.Linear(2, 3, bias=False), mb.ReLU(), mb.Linear(3, 1), rng=0)
    model[0].weight = np.array([[1.0, 2.0], [-1.0, -1.0], [1.0, -1.0]])
    report = mb.check_model(model, mb.MSE(), RNG.uniform(5, 6, (8, 2)), np.ones((8, 1)), rng=0)
    assert report.verdict is Verdict.PASS, str(report)
    notes = [note for note in report.notes if "ReLU" in note]
    assert any("unit 0 is on for every row" in note for note in notes)
    assert any("unit 1 is off for every row" in note for note in notes)
    with_bias = mb.Sequential(mb.Linear(2, 3), mb.ReLU(), mb.Linear(3, 1), rng=0)
    report = mb.check_model(with_bias, mb.MSE(), RNG.uniform(5, 6, (8, 2)), np.ones((8, 1)), rng=0)
    assert not any("ReLU" in note for note in report.notes)


class LastUnit(mb.Layer):
    """A ReLU whose last unit alone is wrong at zero."""

    def forward(self, x: Any, out: Any = None) -> Any:
        self.x = x
        return np.where(x.real > 0, x, 0 * x)

    def backward(self, delta: Any, out: Any = None) -> Any:
        slope = (self.x.real > 0).astype(float)
        slope[:, -1] = np.where(self.x.real[:, -1] == 0, 2.0, slope[:, -1])
        return delta * slope


def test_every_unit_is_looked_at_zero() -> None:
    report = mb.check_layer(LastUnit(), RNG.standard_normal((4, 3)), rng=0)
    assert report.verdict is Verdict.FAIL
    assert any(part.name == "the kink at zero" and part.findings[0].index == (0, 2) for part in report.parts)


@pytest.mark.parametrize("layer", [mb.Sigmoid, mb.Tanh])
def test_smooth_layers_have_no_kink_at_zero_in_float32(layer: Any) -> None:
    report = mb.check_layer(layer(), RNG.standard_normal((4, 3)).astype(np.float32), rng=0)
    assert not any("kink" in part.name for part in report.parts)


class Swish(mb.Layer):
    """x σ(βx), with a bug of choice in backward."""

    beta, beta_grad = mb.Parameter(), mb.Gradient("beta")

    def __init__(self, bug: str = "") -> None:
        super().__init__()
        self.bug = bug
        self.beta = np.array([1.5])

    def forward(self, x: Any, out: Any = None) -> Any:
        self.x, self.s = x, 1 / (1 + np.exp(-self.beta * x))
        return x * self.s

    def backward(self, delta: Any, out: Any = None) -> Any:
        slope = self.s * (1 - self.s)
        self.beta_grad = np.array([(delta * self.x**2 * slope).sum()])
        dx = delta * (self.s + self.beta * self.x * slope)
        if self.bug == "gradient":
            self.beta_grad *= self.beta
        if self.bug == "parameter":
            self.beta *= 0.5
        return dx


def test_every_batch_starts_from_the_parameters_given() -> None:
    report = mb.check_layer(Swish("gradient"), RNG.standard_normal((4, 3)), rng=0)
    assert [part.verdict for part in report.parts] == [Verdict.FAIL] * 6
    for part in report.parts:
        assert "1.5 times too large" in part.cause, str(part)


def test_a_pass_that_modifies_a_parameter() -> None:
    assert mb.check_layer(Swish(), RNG.standard_normal((4, 3)), rng=0)
    model = mb.Sequential(mb.Linear(3, 2, rng=0), Swish("parameter"))
    x, y = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 2))
    for report in (mb.check_layer(Swish("parameter"), x, rng=0), mb.check_model(model, mb.MSE(), x, y, rng=0)):
        assert report.verdict is Verdict.FAIL
        assert "modifies the parameter" in report.cause
        assert "beta" in report.cause
