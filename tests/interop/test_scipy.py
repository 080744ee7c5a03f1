"""mb.objective: value, gradient, H v, residuals and Jacobian as SciPy wants them, and what comes of the model."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import least_squares, minimize
from user_layers import Scale

import matbackprop as mb
from matbackprop.gradcheck import check_hessian_product


class Rowwise(Scale):
    """A row-wise layer of a user's own, with a parameter."""

    rowwise = True


class Centre(mb.Layer):
    """Takes the batch's mean away: not row-wise."""

    def forward(self, x, out=None):
        return np.subtract(x, x.mean(axis=0), out=out)

    def backward(self, delta, out=None):
        return np.subtract(delta, delta.mean(axis=0), out=out)


class RealOnly(Rowwise):
    """Cannot take complex numbers."""

    def forward(self, x, out=None):
        np.floor(x)
        return super().forward(x, out)


class Absolute(mb.Loss):
    """Takes complex numbers and gives a wrong second derivative: np.sign of z is z / |z|."""

    def elementwise(self, y_pred, y_true):
        error = y_pred - y_true
        return np.abs(error) ** 1.5, 1.5 * np.sign(error) * np.abs(error) ** 0.5


def network(hidden: mb.Layer, *rest: mb.Layer, rng=0) -> mb.Sequential:
    model = mb.Sequential(mb.Linear(3, 4), hidden, mb.Linear(4, 2), *rest, rng=rng)
    model.parameters += np.random.default_rng(7).normal(scale=0.1, size=model.parameters.size)  # biases, too
    return model


def batch(rows: int = 9, loss: mb.Loss | None = None):
    rng = np.random.default_rng(1)
    x, y, weight = rng.normal(size=(rows, 3)), rng.random((rows, 2)), rng.uniform(0.2, 2.0, (rows, 1))
    return x, y.argmax(axis=1) if isinstance(loss, mb.CrossEntropy) else y, weight


CASES = {
    "tanh": (lambda: network(mb.Tanh()), mb.MSE()),
    "relu": (lambda: network(mb.ReLU()), mb.MSE("sum")),
    "fused": (lambda: network(mb.Sigmoid(), mb.Sigmoid()), mb.BCE()),
    "logits": (lambda: network(mb.Tanh()), mb.BCEWithLogits(pos_weight=[0.5, 3.0])),
    "huber": (lambda: network(mb.Tanh()), mb.Huber(delta=0.3)),
    "classes": (lambda: network(mb.Tanh()), mb.CrossEntropy(label_smoothing=0.1)),
    "own layer": (lambda: network(Rowwise(4), mb.Tanh()), mb.MSE()),
    "not row-wise": (lambda: network(mb.Tanh(), Centre()), mb.MSE()),
}


@pytest.fixture(params=CASES)
def case(request):
    make, loss = CASES[request.param]
    return make(), loss


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_the_model_s(case, rows, weighted) -> None:
    model, loss = case
    x, y, weight = batch(rows, loss)
    weight = weight if weighted else None
    f = mb.objective(model, x, y, loss, sample_weight=weight, penalty=mb.L2(0.6, biases=True))
    value, gradient = f(model.parameters)
    expected, slope = model.value_and_grad(x, y, loss, sample_weight=weight)
    assert_allclose(value, expected + 0.3 * np.sum(model.parameters**2), rtol=1e-14)
    assert_allclose(gradient, slope + 0.6 * model.parameters, rtol=1e-13, atol=1e-16)


def test_the_checker_bears_out_gradient_and_hessian(case) -> None:
    model, loss = case
    x, y, weight = batch(loss=loss)
    f = mb.objective(model, x, y, loss, sample_weight=weight, penalty=mb.L2(0.2))
    assert mb.check_gradient(f, f.x0, rng=0), str(mb.check_gradient(f, f.x0, rng=0))
    report = check_hessian_product(lambda p: f(p)[1], f.hessp, f.x0, rng=0)
    assert report, str(report)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["tanh", "relu", "fused", "logits", "huber", "classes"])
def test_hessian_products_are_torch_s(torch, name, weighted) -> None:
    make, loss = CASES[name]
    model, (x, y, weight) = make(), batch(loss=loss)
    weight = weight if weighted else np.ones_like(weight)
    tx, ty, tw = map(torch.tensor, (x, y, weight))
    shapes = [array.shape for array in model.state_dict().values()]
    hidden = {"tanh": torch.tanh, "relu": torch.relu, "fused": torch.sigmoid}.get(name, torch.tanh)

    def fun(p):
        w1, b1, w2, b2 = (q.reshape(s) for q, s in zip(p.split([12, 4, 8, 2]), shapes, strict=True))
        z = hidden(tx @ w1.T + b1) @ w2.T + b2
        if name == "fused":  # torch's BCE adds 1e-12 to a denominator when it is differentiated twice: 1e-11 off
            return torch.nn.functional.binary_cross_entropy_with_logits(z, ty, weight=tw)
        if name == "logits":
            positive = torch.tensor([0.5, 3.0], dtype=z.dtype)
            return torch.nn.functional.binary_cross_entropy_with_logits(z, ty, weight=tw, pos_weight=positive)
        if name == "classes":
            losses = torch.nn.functional.cross_entropy(z, ty, label_smoothing=0.1, reduction="none")
            return (tw[:, 0] * losses).mean()
        if name == "huber":
            return (tw * torch.nn.functional.huber_loss(z, ty, delta=0.3, reduction="none")).mean()
        losses = tw * (z - ty) ** 2
        return losses.sum() if name == "relu" else losses.mean()

    f = mb.objective(model, x, y, loss, sample_weight=weight)
    rng = np.random.default_rng(3)
    for _ in range(3):
        v = rng.normal(size=f.x0.size) * 10.0 ** rng.integers(-3, 4)
        value, expected = torch.autograd.functional.hvp(fun, torch.tensor(f.x0), torch.tensor(v))
        assert_allclose(f(f.x0)[0], value.item(), rtol=1e-13)
        assert_allclose(f.hessp(f.x0, v), expected, rtol=0, atol=1e-13 * float(expected.abs().max()))


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["tanh", "relu", "own layer", "not row-wise"])
def test_jacobian_is_that_of_the_residuals(name, weighted, rows) -> None:
    make, loss = CASES[name]
    model, (x, y, weight) = make(), batch(rows)
    f = mb.objective(model, x, y, loss, sample_weight=weight if weighted else None)
    residuals, jacobian = f.residuals(f.x0), f.jacobian(f.x0)
    value, gradient = f(f.x0)
    assert jacobian.shape == (2 * rows, f.x0.size)
    assert_allclose(residuals @ residuals / 2, value, rtol=1e-14)
    assert_allclose(jacobian.T @ residuals, gradient, rtol=0, atol=1e-14 * np.abs(gradient).max())
    twin = model.astype(np.complex128)  # entry by entry, by complex steps of the output
    n = y.size if loss.reduction == "mean" else 1
    scale = np.sqrt(2 / n * np.broadcast_to(weight if weighted else 1.0, y.shape))
    for index in range(f.x0.size):
        twin.parameters = f.x0
        twin.parameters[index] += 1e-200j
        column = (twin.predict(x).imag / 1e-200 * scale).reshape(-1)
        assert_allclose(jacobian[:, index], column, rtol=0, atol=1e-14 * np.abs(jacobian).max())


def test_jacobian_is_torch_s(torch) -> None:
    model, (x, y, _) = network(mb.Tanh()), batch()
    f = mb.objective(model, x, y, mb.MSE())
    shapes = [array.shape for array in model.state_dict().values()]

    def residuals(p):
        w1, b1, w2, b2 = (q.reshape(s) for q, s in zip(p.split([12, 4, 8, 2]), shapes, strict=True))
        z = torch.tanh(torch.tensor(x) @ w1.T + b1) @ w2.T + b2
        return ((z - torch.tensor(y)) * (2 / y.size) ** 0.5).reshape(-1)

    p = torch.tensor(f.x0)
    assert_allclose(f.residuals(f.x0), residuals(p), rtol=0, atol=1e-15)
    assert_allclose(f.jacobian(f.x0), torch.func.jacrev(residuals)(p), rtol=0, atol=1e-15)


@pytest.mark.parametrize("layers", [(mb.Linear(3, 2, bias=False),), (mb.Linear(3, 2), mb.Tanh())])
def test_first_layers_without_bias_or_alone(layers) -> None:
    f = mb.objective(mb.Sequential(*layers, rng=0).copy(), *batch()[:2], mb.MSE())
    assert_allclose(f.jacobian(f.x0).T @ f.residuals(f.x0), f(f.x0)[1], rtol=1e-12, atol=1e-16)


def test_one_example_without_a_batch_dimension() -> None:
    model, (x, y, _) = network(mb.Tanh()), batch()
    f, g = mb.objective(model, x[0], y[0], mb.MSE()), mb.objective(model, x[:1], y[:1], mb.MSE())
    assert_allclose(f.jacobian(f.x0), g.jacobian(g.x0))
    assert_allclose(f.hessp(f.x0, f.x0), g.hessp(g.x0, g.x0))


# The optimisers.


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "Newton-CG", "trust-ncg"])
def test_minimize_reaches_the_optimum(method) -> None:
    """Logistic regression with a ridge is strictly convex: the gradient vanishes at its one optimum."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = (x @ [[1.0], [-2.0], [0.5]] + rng.normal(size=(80, 1)) > 0).astype(float)
    model = mb.Sequential(mb.Linear(3, 1), rng=0)
    f = mb.objective(model, x, y, mb.BCEWithLogits(), penalty=mb.L2(0.02, biases=True))
    second = {} if "BFGS" in method else {"hessp": f.hessp}
    options = {"xtol": 1e-10} if method == "Newton-CG" else {"gtol": 1e-9}
    if method == "L-BFGS-B":
        options["ftol"] = 0.0
    result = minimize(f, f.x0, jac=True, method=method, options=options, **second)
    model.parameters = result.x
    assert np.abs(f(result.x)[1]).max() < 1e-7  # Newton-CG compares values, which do not show less than √ε
    assert_allclose(f(model.parameters)[0], result.fun, rtol=1e-14)


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox"])
def test_least_squares_fits_what_can_be_fitted(method) -> None:
    x, y, weight = batch(20)
    truth = network(mb.Tanh(), rng=5)
    model = truth.copy()
    model.parameters += 0.1 * np.random.default_rng(2).normal(size=model.parameters.size)
    y = truth.predict(x)
    f = mb.objective(model, x, y, mb.MSE(), sample_weight=weight)
    result = least_squares(f.residuals, f.x0, f.jacobian, method=method, max_nfev=500 if method != "lm" else None)
    model.parameters = result.x
    assert result.cost < 1e-10
    assert_allclose(mb.MSE()(model.predict(x), y, weight), result.cost, rtol=1e-6, atol=1e-25)


def test_float32_models_are_optimised_in_float64() -> None:
    x, y, _ = batch(30)
    model = network(mb.Tanh()).astype(np.float32)
    x, y = x.astype(np.float32), y.astype(np.float32)
    f, g = mb.objective(model, x, y, mb.MSE()), mb.objective(model.astype(np.float64), x, y, mb.MSE())
    (value, gradient), (expected, slope) = f(f.x0), g(g.x0)
    assert f.x0.dtype == gradient.dtype == np.float64
    assert value == expected
    assert_array_equal(gradient, slope)
    assert_array_equal(f.hessp(f.x0, f.x0), g.hessp(f.x0, f.x0))
    result = minimize(f, f.x0, jac=True, method="L-BFGS-B")
    model.parameters = result.x
    assert model.dtype == np.float32
    assert_allclose(mb.MSE()(model.predict(x), y), result.fun, rtol=1e-5)


# The model, the data, and several callers.


def test_the_model_is_left_alone() -> None:
    model, (x, y, _) = network(mb.Tanh()), batch()
    model.backprop(x, y, mb.MSE())
    parameters, gradients = model.parameters.copy(), model.gradients.copy()
    f = mb.objective(model, x, y, mb.MSE())
    point = f.x0 + 1.0
    before = f(point)
    f.hessp(point, point), f.residuals(point), f.jacobian(point)
    f.x0[:] = np.nan
    with pytest.raises(ValueError, match="expected shape"):
        f(point[:-1])
    assert_array_equal(model.parameters, parameters)
    assert_array_equal(model.gradients, gradients)
    model.parameters = 0 * parameters  # nor does the objective follow the model
    after = f(point)
    assert before[0] == after[0]
    assert_array_equal(before[1], after[1])
    assert_array_equal(f.x0, parameters)


def test_results_are_never_overwritten() -> None:
    f = mb.objective(network(mb.Tanh()), *batch()[:2], mb.MSE())
    calls = (lambda p: f(p)[1], lambda p: f.hessp(p, f.x0), f.residuals, f.jacobian)
    kept = [call(f.x0) for call in calls]
    copies = [array.copy() for array in kept]
    for call in calls:
        call(f.x0 + 1)
    for array, copy in zip(kept, copies, strict=True):
        assert_array_equal(array, copy)


def test_several_threads_wait_for_one_another() -> None:
    f = mb.objective(network(mb.Tanh()), *batch()[:2], mb.MSE())
    points = [f.x0 + shift for shift in (0.0, 0.5, 1.0)]
    expected = [(f(p)[0], f.hessp(p, p), f.jacobian(p)) for p in points]
    wrong = []

    def work(p, right) -> None:
        for _ in range(30):
            found = f(p)[0], f.hessp(p, p), f.jacobian(p)
            if not all(np.array_equal(a, b) for a, b in zip(found, right, strict=True)):
                wrong.append(p)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(points, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pickles() -> None:
    f = mb.objective(network(mb.Tanh()), *batch()[:2], mb.MSE())
    f.hessp(f.x0, f.x0)
    g = pickle.loads(pickle.dumps(f))
    assert f(f.x0)[0] == g(g.x0)[0]
    assert_array_equal(f.hessp(f.x0, f.x0), g.hessp(f.x0, f.x0))


def test_no_step_no_product() -> None:
    f = mb.objective(network(mb.Tanh()), *batch()[:2], mb.MSE())
    assert_array_equal(f.hessp(f.x0, 0 * f.x0), 0 * f.x0)


# Bad calls.


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"model": mb.Linear(3, 2)}, TypeError, "model: expected a Sequential"),
        ({"model": mb.Sequential(mb.Linear(3, 2), dtype=np.complex128)}, TypeError, "expected a real model"),
        ({"model": mb.Sequential(mb.Tanh())}, ValueError, "no parameters"),
        ({"loss": mb.MSE}, TypeError, r"make one with MSE\(\)"),
        ({"penalty": 0.1}, TypeError, "penalty: expected an L1 or L2"),
        ({"workers": 0}, ValueError, "workers"),
        ({"x": np.zeros((0, 3)), "y": np.zeros((0, 2))}, ValueError, "at least one example"),
        ({"x": np.zeros((9, 4))}, ValueError, "expected inputs of 3 features"),
        ({"x": np.zeros((9, 4))}, ValueError, "objective: x: expected inputs of 3 features"),
        ({"x": np.full((9, 3), np.nan)}, ValueError, "objective: x: expected finite numbers"),
        ({"y": np.full((9, 2), np.inf)}, ValueError, "objective: y: expected finite numbers"),
        ({"y": np.zeros((8, 2))}, ValueError, "shape of the predictions"),
        ({"y": np.zeros(9)}, ValueError, "shape of the predictions"),
        ({"sample_weight": np.ones(9)}, ValueError, r"sample_weight\[:, None\]"),
        ({"loss": mb.BCEWithLogits(), "y": np.full((9, 2), 2.0)}, ValueError, "labels are 0 and 1"),
        ({"model": network(mb.Dropout(0.5))}, ValueError, r"two evaluations .*Dropout"),
    ],
)
def test_bad_arguments_are_named(change, error, match) -> None:
    x, y, _ = batch()
    arguments = {"model": network(mb.Tanh()), "x": x, "y": y, "loss": mb.MSE(), **change}
    with pytest.raises(error, match=match):
        mb.objective(**arguments)


def test_a_model_that_has_diverged_is_no_start() -> None:
    model = network(mb.Tanh())
    model.parameters[-1] = np.inf
    with pytest.raises(ValueError, match="loss at the model's parameters is inf"):
        mb.objective(model, *batch()[:2], mb.MSE())


@pytest.mark.parametrize("value", [None, "p", np.zeros(25), np.zeros((26, 1)), np.zeros(26) + 0j])
def test_bad_vectors_are_refused(value) -> None:
    f = mb.objective(network(mb.Tanh()), *batch()[:2], mb.MSE())
    for call in (f, f.residuals, f.jacobian, lambda p: f.hessp(p, f.x0), lambda v: f.hessp(f.x0, v)):
        with pytest.raises((TypeError, ValueError), match=r"objective: [pv]: expected"):
            call(value)


def test_least_squares_is_for_mse_without_penalty() -> None:
    model, (x, y, weight) = network(mb.Tanh()), batch()
    for f, match in (
        (mb.objective(model, x, y, mb.BCEWithLogits()), "only MSE"),
        (mb.objective(model, x, y, mb.MSE(), penalty=mb.L1(1.0)), "no place for a penalty"),
        (mb.objective(model, x, y, mb.MSE(), sample_weight=-weight), "not negative"),
    ):
        for call in (f.residuals, f.jacobian):
            with pytest.raises((TypeError, ValueError), match=match):
                call(f.x0)


def test_what_cannot_take_complex_steps_says_so() -> None:
    x, y, _ = batch()
    f = mb.objective(mb.Sequential(mb.Linear(3, 2), RealOnly(2), rng=0), x, y, mb.MSE())
    g = mb.objective(network(mb.Tanh()), x, y, Absolute())
    for _ in range(2):
        with pytest.raises(TypeError, match="cannot take complex numbers: ufunc 'floor'"):
            f.hessp(f.x0, f.x0)
        with pytest.raises(TypeError, match="differences do not bear out"):
            g.hessp(g.x0, g.x0)
    assert np.isfinite(f(f.x0)[0])


def test_hessp_where_relu_sits_on_its_kink(rng):
    """Rows of zeros and biases of 0, as blank pictures under fresh weights have them."""
    x, y = np.vstack([np.zeros(3), rng.standard_normal((20, 3))]), rng.standard_normal((21, 2))
    model = mb.Sequential(mb.Linear(3, 4), mb.ReLU(), mb.Linear(4, 2), rng=0)
    f = mb.objective(model, x, y, mb.MSE())
    v = np.ones(f.x0.size)
    expected = mb.objective(model, x[1:], y[1:], mb.MSE("sum")).hessp(f.x0, v) / y.size
    expected[-2:] += 2 * v[-2:] / y.size  # of the blank row only the last biases have a gradient: 2 (b - y) / n
    np.testing.assert_allclose(f.hessp(f.x0, v), expected, rtol=1e-12)
