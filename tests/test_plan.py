"""Plans: the contract at the top of plan.py on who may overwrite what, tested by poisoning what it calls dead."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.plan import COPY_BYTES, TrainingPlan

NAN = float("nan")


class Square(mb.Layer):
    """A user's layer, with the flags as a user leaves them: keeps everything, nothing in place."""

    gain = mb.Parameter()
    gain_grad = mb.Gradient("gain")

    def __init__(self):
        self.gain = 1.5

    def forward(self, x, out=None):
        self.x = x
        return np.multiply(x, self.gain * x, out=out)

    def backward(self, delta, out=None):
        self.gain_grad = (delta * self.x**2).sum()
        return np.multiply(delta, 2 * self.gain * self.x, out=out)


class Shift(mb.Layer):
    """A user's layer that keeps nothing and works in place."""

    keeps_input = keeps_output = False
    in_place = True

    def forward(self, x, out=None):
        return np.add(x, 0.25, out=out)

    def backward(self, delta, out=None):
        return np.multiply(delta, 1.0, out=out)


def chain(*widths: int, between: type[mb.Layer] = mb.Tanh, last: Iterable[mb.Layer] = (), **kwargs) -> mb.Sequential:
    layers = []
    for width, following in itertools.pairwise(widths):
        layers += [mb.Linear(width, following), between()]
    return mb.Sequential(*layers[:-1], *last, rng=0, **kwargs)


MODELS = {
    "tanh": lambda: chain(3, 5, 4, 1),
    "relu-float32": lambda: chain(3, 5, 7, 1, between=mb.ReLU, dtype=np.float32),
    "relu-complex": lambda: chain(3, 5, 1, between=mb.ReLU, dtype=np.complex128),
    "sigmoid-end": lambda: chain(3, 5, 1, between=mb.Sigmoid, last=[mb.Sigmoid()]),
    "stacked": lambda: mb.Sequential(
        mb.Linear(3, 4), Shift(), mb.Tanh(), Shift(), mb.ReLU(), mb.Sigmoid(), Shift(), Shift(), mb.Linear(4, 1), rng=0
    ),
    "activation-first": lambda: mb.Sequential(
        mb.Tanh(), mb.ReLU(), mb.Linear(3, 4), mb.Sigmoid(), mb.Linear(4, 1), rng=0
    ),
    "users": lambda: mb.Sequential(mb.Linear(3, 4), Square(), mb.Tanh(), Square(), Shift(), mb.Linear(4, 1), rng=0),
    "user-first": lambda: mb.Sequential(Square(), mb.Tanh(), mb.Linear(3, 1), rng=0),
    "nested": lambda: mb.Sequential(
        mb.Sequential(mb.Linear(3, 4), mb.Tanh(), rng=1),
        mb.Sequential(mb.Linear(4, 4), mb.Tanh(), mb.Linear(4, 1), rng=2),
    ),
    "linear": lambda: mb.Sequential(mb.Linear(3, 1), rng=0),
    "no-bias": lambda: mb.Sequential(mb.Linear(3, 2, bias=False), mb.Tanh(), mb.Linear(2, 1, bias=False), rng=0),
}  # fmt: skip
LOSSES = [mb.MSE(), mb.BCE(), mb.BCEWithLogits("sum", pos_weight=2.0)]


def batch(model: mb.Sequential, rows: int, features: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    arrays = rng.normal(size=(rows, features)), rng.random((rows, 1)).round(), rng.random((rows, 1)) + 0.5
    return tuple(array.astype(model.dtype) for array in arrays)


def each_model_and_loss() -> list:
    pairs = [(name, loss) for name in MODELS for loss in LOSSES]
    # BCE wants probabilities
    return [pytest.param(n, f, id=f"{n}-{f!r}") for n, f in pairs if n == "sigmoid-end" or not isinstance(f, mb.BCE)]


@pytest.mark.parametrize(("name", "loss"), each_model_and_loss())
def test_nothing_lives_from_one_step_to_the_next(name, loss) -> None:
    model, twin = MODELS[name](), MODELS[name]()
    for rows in (7, 7, 3, 1, 7, 9, 3, 0, 9):
        x, y, _ = batch(model, rows)
        model._engine.plans.workspace.poison()
        model.gradients[:] = NAN
        value = model.backprop(x, y, loss)
        fresh = twin.copy()  # no plan was made for it yet
        assert value == fresh.backprop(x, y, loss) or rows == 0
        assert np.array_equal(model.gradients, fresh.gradients)


@pytest.mark.parametrize(("name", "loss"), each_model_and_loss())
def test_a_plan_computes_what_the_layers_do(name, loss) -> None:
    """Sharing buffers changes nothing: `forward` and `backward` give every layer fresh arrays."""
    model = MODELS[name]()
    x, y, weight = batch(model, 7)
    value, gradient = model.value_and_grad(x, y, loss, sample_weight=weight)
    rtol = 1e-3 if model.dtype == np.float32 else 1e-9
    assert np.allclose(loss(model(x), y, weight), value, rtol=rtol)
    model.backward(loss.backward())
    assert np.allclose(model.gradients, gradient, rtol=rtol, atol=rtol / 1000)


class Step:
    """One training step of a plan, layer by layer; after each, everything that the contract calls dead is poisoned."""

    def __init__(self, plan: TrainingPlan, x: np.ndarray) -> None:
        assert plan.first is not None
        self.plan, self.x = plan, x
        self.workspace = plan.workspace
        self.forward = self.split(plan.forward, plan.first[0], "forward")
        self.backward = self.split(plan.backward, plan.first[1], "backward")
        self.deltas = [self.workspace.take(("delta", i), (0,), x.dtype).base for i in range(2)]
        self.poisoned = 0

    def split(self, calls: list, first: list, which: str) -> dict[int, list]:
        """Return each layer's own calls, by counting what the layer yields."""
        plan, groups, rest = self.plan, {}, iter(calls)
        order = range(1, len(plan.layers)) if which == "forward" else range(len(plan.layers) - 1, 0, -1)
        for index in order:
            layer, x, y = plan.layers[index], plan.outputs[index - 1], plan.outputs[index]
            empty = plan.workspace.scratch("counting")
            if which == "forward":
                count = len(list(layer.forward_steps(x, y, empty)))
            else:
                out = np.empty_like(x) if index > plan.lowest else None
                count = (
                    0 if index < plan.lowest else len(list(layer.backward_steps(x, y, np.empty_like(y), out, empty)))
                )
            groups[index] = [next(rest) for _ in range(count)]
        assert next(rest, None) is None
        return {**groups, 0: list(first)}

    def poison(self, live: list) -> None:
        for (name, _), flat in list(self.workspace._buffers.items()):
            if name[0] != "counting" and not any(np.shares_memory(flat, array) for array in live):
                flat.fill(NAN if flat.dtype.kind in "fc" else True)
                self.poisoned += 1

    def kept(self, until: int) -> list:
        """What the layers below `until` keep for their backward pass (rule 3)."""
        plan, live = self.plan, []
        for index, layer in enumerate(plan.layers[:until]):
            if index >= plan.lowest:
                live += [plan.outputs[index]] if layer.keeps_output else []
                live += [plan.outputs[index - 1] if index else plan.x] if layer.keeps_input else []
        return live

    def run(self, y: np.ndarray, weight: np.ndarray | None) -> float:
        plan = self.plan
        plan.x[...], plan.y[...] = self.x, y
        given = [plan.y]
        if weight is not None:
            plan.weight[...] = weight
            given.append(plan.weight)
        for index in range(len(plan.layers)):
            for call in self.forward[index]:
                call()
            self.poison([*given, plan.outputs[index], *self.kept(index + 1)])
        value = plan.objective.run()
        current = 0
        self.poison([self.deltas[current], *self.kept(len(plan.layers))])
        for index in range(len(plan.layers) - 1, -1, -1):
            for call in self.backward[index]:
                call()
            if index > plan.lowest and not plan.layers[index].in_place:
                current = 1 - current
            self.poison([self.deltas[current], *self.kept(index)])
        return value


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "loss"), each_model_and_loss())
def test_what_the_contract_calls_dead_is_dead(name, loss, weighted) -> None:
    model = MODELS[name]()
    for rows in (9, 6):  # the second plan's buffers are all views of the first one's
        x, y, weight = batch(model, rows)
        weight = weight if weighted else None
        value = model.backprop(x, y, loss, sample_weight=weight)
    expected = model.gradients.copy()
    plan = list(model._engine.plans._plans.values())[-1]
    assert plan.x_shape == x.shape

    model.gradients[:] = NAN
    step = Step(plan, x)
    assert step.run(y, weight) == value
    assert np.array_equal(model.gradients, expected)
    assert step.poisoned > 3


def last_plan(model: mb.Sequential, rows: int, loss: mb.Loss = LOSSES[0]) -> TrainingPlan:
    model.backprop(*batch(model, rows, model.in_features or 3)[:2], loss)
    return list(model._engine.plans._plans.values())[-1]


def shared(plan: TrainingPlan) -> list[bool]:
    return [np.shares_memory(a, b) for a, b in zip(plan.outputs, plan.outputs[1:], strict=False)]


def test_activations_work_in_place() -> None:
    assert shared(last_plan(MODELS["tanh"](), 5)) == [True, False, True, False]
    # Linear Shift Tanh Shift ReLU Sigmoid Shift Shift Linear: a kept output is not written over
    assert shared(last_plan(MODELS["stacked"](), 5)) == [True, True, False, True, False, False, True, False]
    assert shared(last_plan(MODELS["activation-first"](), 5)) == [False, False, True, False]
    assert shared(last_plan(MODELS["users"](), 5)) == [False, False, False, False, False]


def test_sigmoid_before_bce_is_left_out() -> None:
    model = MODELS["sigmoid-end"]()
    assert len(last_plan(model, 5, mb.BCE()).layers) == len(model) - 1
    assert len(last_plan(model, 5, mb.MSE()).layers) == len(model)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 64, 200])
def test_memory(rows, dtype) -> None:
    """An output a Linear and activation, two Δ and a scratch of the widest layer, x if it is small, 4 of the loss."""
    model = chain(32, 64, 48, 1, dtype=dtype)
    plan = last_plan(model, rows)
    small = rows * 32 * model.dtype.itemsize <= COPY_BYTES
    assert (plan.x is not None) == small
    widths = (64 + 48 + 1) + 3 * 64 + 32 * small + 4 * 1
    assert plan.workspace.nbytes <= rows * widths * model.dtype.itemsize
    grown = plan.workspace.grown
    for fewer in (rows, 1, rows // 2, rows):
        last_plan(model, fewer)
    assert plan.workspace.grown == grown


@pytest.mark.parametrize("more", [0, 1])
def test_a_larger_input_is_used_where_it_is(more) -> None:
    rows = COPY_BYTES // (512 * 8) + more
    model = chain(512, 1, dtype=np.float64)
    plan = last_plan(model, rows)
    assert (plan.x is None) == bool(more)
    x = np.random.default_rng(0).standard_normal((rows, 512))
    for given in (x, 2 * x, np.asfortranarray(x)):
        np.testing.assert_allclose(model.predict(given), given @ model[0].weight.T + model[0].bias, 1e-12)


def test_plans_are_reused_and_bounded() -> None:
    model = MODELS["tanh"]()
    first = last_plan(model, 50)
    for rows in (1, 50, 2, 50):
        last_plan(model, rows)
    assert first in model._engine.plans._plans.values()
    for rows in range(1, 50):
        last_plan(model, rows)
    assert len(model._engine.plans._plans) <= model._engine.plans.limit


def test_no_delta_below_the_lowest_parameters() -> None:
    plan = last_plan(MODELS["activation-first"](), 5)
    assert plan.lowest == 2
    assert plan.first is not None
    assert plan.first[1] == []


@pytest.mark.parametrize("features", [3, 3000])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed", "broadcast", "read-only"])
def test_inputs_are_not_touched(layout, features) -> None:
    model = mb.Sequential(mb.Linear(features, 2), mb.Tanh(), mb.Linear(2, 1), rng=0)
    x, y, weight = batch(model, 8, features)
    if layout == "broadcast":
        x[:] = x[0]
    value = model.backprop(x.copy(), y, mb.MSE(), sample_weight=weight)
    gradients = model.gradients.copy()
    given = {
        "C": x,
        "F": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=0)[::2],
        "reversed": x[::-1].copy()[::-1],
        "broadcast": np.broadcast_to(x[0], x.shape),
        "read-only": x.copy(),
    }[layout]
    given.flags.writeable = layout not in ("broadcast", "read-only")
    before = [array.copy() for array in (given, y, weight)]
    for _ in range(2):
        assert model.backprop(given, y, mb.MSE(), sample_weight=weight) == value
        assert np.array_equal(model.gradients, gradients)
    for array, then in zip((given, y, weight), before, strict=True):
        assert np.array_equal(array, then)


@pytest.mark.parametrize("widths", [(3, 4, 2), (64, 64, 64)])  # with the second, BLAS is held to one thread
def test_predict_again_returns_fresh_arrays(widths):
    rng, model = np.random.default_rng(0), chain(*widths, dtype=np.float64)
    x, other = rng.standard_normal((500, widths[0])), rng.standard_normal((500, widths[0]))
    for _ in range(2):
        first = model.predict(x)
        kept = first.copy()
        model.predict(other)
        assert np.array_equal(first, kept)


def test_predict_again_is_predict():
    """The quick way in for a batch like the last one: the same bits, a fresh array, and never for another batch."""
    rng = np.random.default_rng(0)
    model = mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 2), rng=0)
    x, other = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    first, second, again = model.predict(x), model.predict(other), model.predict(x)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.shares_memory(first, again)
    assert model.predict(x[:4]).shape == (4, 2)
    assert np.array_equal(model.predict(np.asfortranarray(x)), first)
    assert np.array_equal(model.predict(x.tolist()), first)
    model.parameters *= 2
    assert not np.array_equal(model.predict(x), first)
    with pytest.raises(TypeError, match="expected real numbers"):
        model.predict(x + 1j)
    model.predict(x)
    with pytest.raises(ValueError, match="expected inputs of 3 features"):
        model.predict(x[:, :2])
    with pytest.raises(ValueError, match="workers"):
        model.predict(x, workers=0)


def test_predict_again_in_threads():
    rng = np.random.default_rng(0)
    model = mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 2), rng=0)
    batches = [rng.standard_normal((5, 3)) for _ in range(8)]
    expected = [model.predict(x) for x in batches]

    def work(index: int) -> bool:
        return all(np.array_equal(model.predict(batches[index]), expected[index]) for _ in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
