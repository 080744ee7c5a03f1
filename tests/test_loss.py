"""Loss: what all losses share, and losses of a user's own."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import matbackprop as mb

PRED = np.array([[0.2, 0.9], [0.6, 0.5], [0.1, 0.3]])
TRUE = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
WEIGHTS = {
    "none": None,
    "number": 0.5,
    "rows": [[1.0], [2.0], [0.0]],
    "columns": [3.0, 1.0],
    "all": np.arange(6.0).reshape(3, 2),
}


class Huber(mb.Loss):
    """A loss with a setting, by the formula of P. Huber, 1964."""

    def __init__(self, limit=0.25, reduction="mean"):
        super().__init__(reduction)
        self.limit = limit

    def elementwise(self, y_pred, y_true):
        error = y_pred - y_true
        small = np.abs(error) <= self.limit
        return (
            np.where(small, error**2 / 2, self.limit * (np.abs(error) - self.limit / 2)),
            np.clip(error, -self.limit, self.limit),
        )


#: Each element's loss and derivative, from the formulas in the docstrings.
FORMULAS = {
    "MSE": (mb.MSE, lambda p, y: (p - y) ** 2, lambda p, y: 2 * (p - y)),
    "BCE": (mb.BCE, lambda p, y: -y * np.log(p) - (1 - y) * np.log(1 - p), lambda p, y: (p - y) / (p * (1 - p))),
    "BCEWithLogits": (
        mb.BCEWithLogits,
        lambda p, y: np.log1p(np.exp(p)) - y * p,
        lambda p, y: 1 / (1 + np.exp(-p)) - y,
    ),
    "Huber": (
        lambda reduction: Huber(0.25, reduction),
        lambda p, y: Huber(0.25).elementwise(p, y)[0],
        lambda p, y: np.clip(p - y, -0.25, 0.25),
    ),
    "mb.Huber": (
        lambda reduction: mb.Huber(reduction, 0.25),
        lambda p, y: Huber(0.25).elementwise(p, y)[0],
        lambda p, y: np.clip(p - y, -0.25, 0.25),
    ),
}
each_loss = pytest.mark.parametrize(("make", "element", "derivative"), FORMULAS.values(), ids=FORMULAS)


@each_loss
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_reduction_and_weights(make, element, derivative, weight, reduction, dtype) -> None:
    loss, scale = make(reduction), 1 / PRED.size if reduction == "mean" else 1
    factor = (1.0 if weight is None else np.asarray(weight)) * scale
    rtol = 1e-13 if dtype is np.float64 else 2e-6
    value = loss(PRED.astype(dtype), TRUE, weight)
    assert type(value) is float
    assert value == pytest.approx((factor * element(PRED, TRUE)).sum(), rel=rtol)
    assert loss.backward().dtype == dtype
    assert np.allclose(loss.backward(), factor * derivative(PRED, TRUE), rtol=rtol)


@each_loss
def test_in_a_model(make, element, derivative) -> None:
    """Δ reaches the input of an identity unchanged: the gradient of its bias is Σ Δ."""
    model = mb.Sequential(mb.Linear(2, 2))
    model[0].weight = np.eye(2)
    assert model.backprop(PRED, TRUE, make("mean")) == pytest.approx(element(PRED, TRUE).mean())
    assert np.allclose(model[0].bias_grad, derivative(PRED, TRUE).sum(axis=0) / 6)


@each_loss
def test_backward_is_fresh_and_takes_out(make, element, derivative) -> None:
    loss = make("mean")
    loss(PRED, TRUE)
    first = loss.backward()
    first[:] = np.nan
    out = np.empty_like(PRED)
    assert loss.backward(out=out) is out
    kept = out.copy()
    loss(PRED / 2, TRUE)
    assert np.array_equal(out, kept)
    assert not np.array_equal(loss.backward(), kept)


@each_loss
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 2)])
def test_shapes(make, element, derivative, shape) -> None:
    loss = make("sum")
    pred, true = np.full(shape, 0.25), np.ones(shape)
    assert loss(pred, true) == pytest.approx(element(pred, true).sum())
    assert loss.backward().shape == shape
    if 0 in shape:
        assert np.isnan(make("mean")(pred, true))


EQUAL = [
    mb.MSE(), mb.MSE("sum"), mb.BCE(), mb.BCE("sum"), mb.BCEWithLogits(), mb.BCEWithLogits("sum"),
    mb.BCEWithLogits(pos_weight=2.0), mb.BCEWithLogits(pos_weight=[2.0]), mb.BCEWithLogits(pos_weight=[1.0, 2.0]),
    mb.Huber(), mb.Huber("sum"), mb.Huber(delta=2.0), mb.CrossEntropy(), mb.CrossEntropy("sum"),
    mb.CrossEntropy(label_smoothing=0.1), mb.CrossEntropy(class_weight=[1.0, 2.0]),
    mb.CrossEntropy("sum", label_smoothing=0.1, class_weight=[1.0, 2.0]),
]  # fmt: skip


@pytest.mark.parametrize("loss", EQUAL, ids=repr)
def test_equality_hash_and_repr(loss) -> None:
    names = vars(mb)
    for twin in (eval(repr(loss), dict(names)), copy.copy(loss), copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin == loss
        assert hash(twin) == hash(loss)
        assert twin is not loss
    assert [other == loss for other in EQUAL].count(True) == 1
    assert loss != "MSE()"


def test_a_loss_of_ones_own_equals_itself_only() -> None:
    loss = Huber()
    assert loss == loss  # noqa: PLR0124
    assert loss != Huber()
    kind = type("MyMSE", (mb.MSE,), {})
    assert kind() != mb.MSE()


def test_equal_losses_share_a_plan() -> None:
    model = mb.Sequential(mb.Linear(2, 2), rng=0)
    for _ in range(5):
        model.backprop(PRED, TRUE, mb.MSE())
    assert len(model._engine.plans._plans) == 1
    model.backprop(PRED, TRUE, mb.MSE("sum"))
    assert len(model._engine.plans._plans) == 2


def test_settings_may_change_between_calls() -> None:
    model, loss = mb.Sequential(mb.Linear(2, 2), rng=0), Huber(0.25)
    first = model.backprop(PRED, TRUE, loss)
    loss.limit = 0.01
    assert model.backprop(PRED, TRUE, loss) < first


def test_settings_cannot_change_under_a_plan() -> None:
    loss = mb.BCEWithLogits(pos_weight=2.0)
    for each, name in (
        (loss, "reduction"), (mb.Huber(), "delta"), (mb.CrossEntropy(), "label_smoothing"),
        (mb.CrossEntropy(), "class_weight"), (mb.Dropout(), "p"),
    ):  # fmt: skip
        with pytest.raises(AttributeError):
            setattr(each, name, 0.5)
    loss.pos_weight[...] = 3.0
    assert loss.pos_weight == 2.0


def test_a_loss_that_is_a_dataclass() -> None:
    @dataclass
    class Scaled(mb.Loss):
        factor: float

        def elementwise(self, y_pred, y_true):
            return self.factor * (y_pred - y_true) ** 2, 2 * self.factor * (y_pred - y_true)

    model = mb.Sequential(mb.Linear(2, 1), rng=0)
    x, y = np.ones((3, 2)), np.zeros((3, 1))
    assert model.backprop(x, y, Scaled(3.0)) == pytest.approx(3 * model.backprop(x, y, mb.MSE()), rel=1e-14)


def test_half_squared_error() -> None:
    """E = (y - d)²/2, as the notebooks' figures draw it."""
    loss = mb.MSE("sum")
    assert loss([[3.0]], [[1.0]], sample_weight=0.5) == 2.0
    assert np.array_equal(loss.backward(), [[2.0]])


def halved(self, x, out, empty):
    yield from mb.Sigmoid.forward_steps(self, x, out, empty)
    yield lambda: np.multiply(out, 0.5, out)


def sevens(self, y_pred, y_true):
    return np.full_like(y_pred, 7), np.zeros_like(y_pred)


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (type("Halved", (mb.Sigmoid,), {"forward_steps": halved})(), mb.BCE()),
        (mb.Sigmoid(), type("Seven", (mb.BCE,), {"steps": mb.Loss.steps, "elementwise": sevens})()),
    ],
    ids=["sigmoid", "bce"],
)
def test_subclasses_are_not_fused(last, loss) -> None:
    model = mb.Sequential(mb.Linear(2, 2), last, rng=0)
    assert model.backprop(PRED, TRUE, loss) == pytest.approx(loss(model.predict(PRED), TRUE))


def test_an_elementwise_in_a_subclass_is_used() -> None:
    assert type("Seven", (mb.MSE,), {"elementwise": sevens})()(PRED, TRUE) == 7


def test_a_careless_loss_does_not_write_on_the_callers_array() -> None:
    def elementwise(self, y_pred, y_true):
        y_pred -= y_true
        return y_pred**2, 2 * y_pred

    pred = PRED.copy()
    with pytest.raises(ValueError, match="read-only"):
        type("Careless", (mb.Loss,), {"elementwise": elementwise})()(pred, TRUE)
    assert np.array_equal(pred, PRED)


def test_reprs():
    """They are what the constructor takes, for a loss of one's own too."""

    class Quantile(mb.Loss):
        def __init__(self, q, reduction="mean", weights=None):
            super().__init__(reduction)
            self.q, self.weights = q, weights

    assert repr(mb.MSE()) == "MSE()"
    assert repr(mb.BCE("sum")) == "BCE('sum')"
    assert repr(mb.Huber(delta=2)) == "Huber(delta=2.0)"
    assert repr(mb.Huber("sum", 1.5)) == "Huber('sum', delta=1.5)"
    assert repr(mb.BCEWithLogits("sum", pos_weight=[2, 0.1])) == "BCEWithLogits('sum', pos_weight=[2.0, 0.1])"
    assert repr(mb.BCEWithLogits(pos_weight=3)) == "BCEWithLogits(pos_weight=3.0)"
    loss = mb.CrossEntropy(label_smoothing=0.1, class_weight=[1, 2])
    assert repr(loss) == "CrossEntropy(label_smoothing=0.1, class_weight=[1.0, 2.0])"
    assert repr(Quantile(0.9)) == "Quantile(q=0.9)"
    assert repr(Quantile(0.9, "sum", np.ones(2))) == "Quantile(q=0.9, reduction='sum', weights=[1.0, 1.0])"
