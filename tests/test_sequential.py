"""Sequential: the flat vectors, state, copies, slices, and the same bits again."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

import matbackprop as mb

X = np.random.default_rng(0).normal(size=(6, 2))
Y = np.random.default_rng(1).normal(size=(6, 1))


def net(**kwargs) -> mb.Sequential:
    return mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1, bias=False), rng=0, **kwargs)


def nested(**kwargs) -> mb.Sequential:
    inner = mb.Sequential(mb.Linear(3, 4), mb.Sequential(mb.ReLU(), mb.Linear(4, 2), rng=1), rng=2)
    return mb.Sequential(mb.Linear(2, 3), inner, mb.Sigmoid(), mb.Linear(2, 1), rng=0, **kwargs)


def results(model: mb.Sequential) -> list[bytes]:
    """Everything that a model computes, as bits."""
    value, gradient = model.value_and_grad(X, Y, mb.MSE())
    y = model.forward(X)
    dx = model.backward(np.ones_like(y))
    return [np.asarray(value).tobytes(), *(a.tobytes() for a in (gradient, y, dx, model.gradients, model.predict(X)))]


MODELS = {"net": net, "nested": nested, "float32": lambda: nested(dtype=np.float32)}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


# The flat vectors.


@each_model
def test_the_vectors_are_live_views(make) -> None:
    model = make()
    parameters, gradients = model.parameters, model.gradients
    model.backprop(X, Y, mb.MSE())
    start = 0
    for _, layer in model.walk():
        for name, array in layer._parameters.items():
            for view, flat in ((getattr(layer, name), parameters), (getattr(layer, f"{name}_grad"), gradients)):
                span = flat[start : start + array.size]
                assert np.shares_memory(view, span)
                assert np.array_equal(view.ravel(), span)
            setattr(layer, name, np.full(array.shape, 7.0))
            assert (parameters[start : start + array.size] == 7).all()
            setattr(layer, f"{name}_grad", np.full(array.shape, 3.0))
            assert (gradients[start : start + array.size] == 3).all()
            start += array.size
    assert start == parameters.size == gradients.size
    model.parameters -= 0.5 * model.gradients
    assert (model[0].weight == 5.5).all()
    model.parameters = np.arange(start)
    model.gradients = np.zeros(start)
    assert model.parameters is parameters
    assert model.gradients is gradients
    assert model[0].bias_grad.sum() == 0
    assert np.array_equal(model[0].weight, np.arange(6.0).reshape(3, 2))


def test_nested_vectors_are_views_into_the_outer_ones() -> None:
    model = nested()
    inner, innermost = model[1], model[1][1]
    assert inner.parameters.size == 16 + 10
    for part, start, stop in ((inner, 9, 35), (innermost, 25, 35)):
        assert np.shares_memory(part.parameters, model.parameters)
        part.parameters[:] = start
        part.gradients[:] = start
        assert (model.parameters[start:stop] == start).all()
        assert (model.gradients[start:stop] == start).all()
        assert (part.parameters == start).all()
    assert (innermost[1].weight == 25).all()


def test_a_step_through_the_inner_model_is_seen_outside() -> None:
    model, twin = nested(), nested()
    model[1].parameters -= 0.5
    twin.parameters[9:35] -= 0.5
    assert results(model) == results(twin)


def test_nothing_that_was_handed_out_is_overwritten() -> None:
    model = nested()
    handed = [model.forward(X), model.predict(X), model.value_and_grad(X, Y, mb.MSE())[1], *model.state_dict().values()]
    model.forward(X)
    handed.append(model.backward(np.ones((6, 1))))
    before = [array.copy() for array in handed]
    model.parameters += 1
    for other in (X * 2, X[:3], np.vstack([X, X])):
        model.predict(other)
        model.value_and_grad(other, np.ones((len(other), 1)), mb.MSE())
        model.backward(model.forward(other))
    for array, then in zip(handed, before, strict=True):
        assert np.array_equal(array, then)


# The same bits.


def test_a_seed_decides_all_weights_or_says_that_it_does_not() -> None:
    with pytest.raises(ValueError, match=r"layer 0, Sequential\(.*without a seed.*give rng to it"):
        mb.Sequential(mb.Sequential(mb.Linear(2, 1)), rng=0)
    first, second = (mb.Sequential(mb.Sequential(mb.Linear(2, 1), rng=0), mb.Linear(1, 1), rng=1) for _ in range(2))
    assert np.array_equal(first.parameters, second.parameters)
    loaded = mb.Sequential(mb.Linear(2, 1))
    loaded.load_state_dict(first[0].state_dict())
    assert mb.Sequential(loaded, mb.Linear(1, 1), rng=0).parameters.size == 5


@each_model
def test_the_same_call_gives_the_same_bits(make) -> None:
    model = make()
    assert results(model) == results(model) == results(make())
    model.backprop(X[:2], Y[:2], mb.MSE("sum"))  # another plan in between
    assert results(model) == results(make())


@each_model
def test_backprop_agrees_with_the_passes_by_hand(make) -> None:
    model, loss = make(), mb.MSE()
    value, gradient = model.value_and_grad(X, Y, loss)
    assert loss(model(X), Y) == pytest.approx(value, rel=1e-5)
    model.backward(loss.backward())
    assert np.allclose(model.gradients, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (0, 2), (1, 2), (3, 2), (2, 3, 2), (2, 0, 2)])
def test_shapes(shape) -> None:
    model = nested()
    x = np.ones(shape)
    y = np.zeros((*shape[:-1], 1))
    assert model.predict(x).shape == model(x).shape == y.shape
    assert model.backward(y).shape == shape
    value = model.backprop(x, y, mb.MSE("sum"))
    assert value == pytest.approx((model.predict(x) ** 2).sum())


def test_predict_in_blocks_is_predict() -> None:
    model = mb.Sequential(mb.Linear(2, 64), mb.Tanh(), mb.Linear(64, 3), rng=0)
    x = np.random.default_rng(0).normal(size=(5000, 2))
    assert np.allclose(model.predict(x), model.forward(x), rtol=1e-13, atol=1e-15)


# State, copies.


def test_state_dict_has_torchs_names(torch) -> None:
    def build(kit) -> object:
        chain, linear, tanh = kit.Sequential, kit.Linear, kit.Tanh
        inner = chain(linear(3, 4), chain(tanh(), linear(4, 2)))
        return chain(linear(2, 3), inner, tanh(), linear(2, 1, bias=False))

    theirs, ours = build(torch.nn), build(mb)
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(theirs.state_dict())  # tensors too
    assert np.allclose(ours(X), theirs(torch.tensor(X, dtype=torch.float32)).detach().numpy(), atol=1e-6)


def test_state_dict_by_name() -> None:
    assert list(nested().state_dict()) == [
        "0.weight", "0.bias", "1.0.weight", "1.0.bias", "1.1.1.weight", "1.1.1.bias", "3.weight", "3.bias",
    ]  # fmt: skip


@each_model
def test_state_goes_round(make) -> None:
    model, other = make(), make()
    other.parameters[:] = 0
    state = model.state_dict()
    other.load_state_dict(state)
    assert results(model) == results(other)
    for array in state.values():
        array[:] = 9
    assert results(model) == results(make())


def test_state_may_be_the_models_own_views() -> None:
    model = mb.Sequential(mb.Linear(2, 2, bias=False), mb.Linear(2, 2, bias=False), rng=0)
    first, second = model[0].weight.copy(), model[1].weight.copy()
    model.load_state_dict({"0.weight": model[1].weight, "1.weight": model[0].weight})
    assert np.array_equal(model[0].weight, second)
    assert np.array_equal(model[1].weight, first)


COPIES = {
    "copy": lambda model: model.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "astype": lambda model: model.astype(model.dtype),
    "repr": lambda model: then_load(eval(repr(model), dict(vars(mb))), model),
}


def then_load(twin: mb.Sequential, model: mb.Sequential) -> mb.Sequential:
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
@each_model
def test_copies_are_equal_and_independent(make, how) -> None:
    model = make()
    results(model)  # caches, plans and gradients are there
    twin = how(model)
    assert repr(twin) == repr(model)
    assert type(twin) is mb.Sequential
    assert twin.dtype == model.dtype
    assert [part.adopted for _, part in twin.walk()] == [False] + [True] * (len(list(twin.walk())) - 1)
    assert results(twin) == results(model)
    before = results(model)
    twin.parameters[:] = 0
    twin.gradients[:] = 0
    twin[0].weight = np.ones((3, 2))
    twin.backprop(X, Y, mb.MSE())
    assert results(model) == before
    assert not np.shares_memory(twin.parameters, model.parameters)


@pytest.mark.parametrize("protocol", [0, 1])
def test_old_pickle_protocols(protocol) -> None:
    assert results(pickle.loads(pickle.dumps(net(), protocol))) == results(net())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128, np.longdouble])
def test_astype(dtype) -> None:
    model = nested()
    cast = model.astype(dtype)
    assert cast.dtype == cast(X).dtype == cast.predict(X).dtype == cast[1][0].weight.dtype == cast[1].dtype == dtype
    assert cast.value_and_grad(X, Y, mb.MSE())[1].dtype == dtype
    assert np.array_equal(cast.parameters, model.parameters.astype(dtype))
    assert model.dtype == np.float64
    assert model.parameters.dtype == np.float64


class Named(mb.Sequential):
    """A user's model with something of its own."""

    def __init__(self, *layers, name="mine"):
        super().__init__(*layers)
        self.name = name


def test_a_subclass_keeps_its_attributes() -> None:
    assert Named(mb.Tanh(), name="mine").copy().name == "mine"


@pytest.mark.parametrize("part", [net(dtype="f4")[0].copy, lambda: net(dtype="f4").copy(), lambda: net().astype("f4")])
def test_a_copy_keeps_its_type_in_another_model(part) -> None:
    assert mb.Sequential(part()).dtype == np.float32


# Slices.


def test_slices_share() -> None:
    model = nested()
    part = model[1:3]
    assert isinstance(part, mb.Sequential)
    assert list(part) == [model[1], model[2]]
    assert np.shares_memory(part.parameters, model.parameters)
    assert np.array_equal(part.parameters, model.parameters[9:35])
    part.parameters[:] = 0.5
    assert (model[1][0].weight == 0.5).all()
    assert np.allclose(model[2:](part[:1](model[:1](X))), model(X), rtol=1e-14)
    assert np.array_equal(model[:].predict(X), model.predict(X))
    assert model[-1] is model[3]
    model[:].backprop(X, Y, mb.MSE())
    expected = model.gradients.copy()
    model.gradients[:] = 0
    model.backprop(X, Y, mb.MSE())
    assert np.array_equal(model.gradients, expected)


def test_a_slice_outlives_its_model() -> None:
    model = net()
    part, expected = model[:2], model[:2].predict(X)
    del model
    gc.collect()
    assert np.array_equal(part.predict(X), expected)


def test_the_first_predict_may_come_from_several_threads() -> None:
    for _ in range(20):
        model, barrier, results = mb.Sequential(mb.Linear(3, 50), mb.Tanh(), mb.Linear(50, 1)), threading.Barrier(4), []

        def ask(model=model, barrier=barrier, results=results) -> None:
            barrier.wait()
            results.append(model.predict(np.ones((2, 3))))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        assert all(np.array_equal(result, model.predict(np.ones((2, 3)))) for result in results)


def test_a_slice_of_a_slice_follows() -> None:
    model = mb.Sequential(mb.Linear(2, 2), mb.Tanh(), mb.Linear(2, 2), rng=0)
    part = model[:3][:2]
    part.predict(np.ones((1, 2)))
    gc.collect()
    outer = mb.Sequential(model, mb.Linear(2, 1, rng=0))
    outer.parameters[:] = 0
    assert not part.predict(np.ones((1, 2))).any()
    assert not part.parameters.any()


def test_a_model_and_its_slice_stay_together_in_a_pickle() -> None:
    model = mb.Sequential(mb.Linear(2, 2), mb.Tanh(), mb.Linear(2, 1), rng=0)
    twin, part = pickle.loads(pickle.dumps((model, model[:2])))
    assert np.shares_memory(twin.parameters, twin[0].weight)
    assert np.shares_memory(part.parameters, twin.parameters)


def test_a_failed_conversion_leaves_the_layers_where_they_were() -> None:
    first, second = mb.Sequential(mb.Linear(2, 2), rng=0), mb.Linear(2, 1, rng=0)
    second.weight = [[1e300, 1e300]]
    with pytest.raises(ValueError, match="too large"):
        mb.Sequential(first, second, dtype="float32")
    assert first.dtype == np.float64
    assert np.shares_memory(first.parameters, first[0].weight)
    assert not first.adopted


def test_forward_of_a_subclass_would_not_be_seen() -> None:
    with pytest.raises(TypeError, match=r"Residual: .* would not see forward; derive from Layer"):
        type("Residual", (mb.Sequential,), {"forward": lambda self, x, out=None: x})


def test_a_rule_that_cannot_be_pickled() -> None:
    model = mb.Sequential(mb.Linear(2, 1, weight_init=lambda shape, rng: np.ones(shape)))
    assert np.array_equal(pickle.loads(pickle.dumps(model)).parameters, model.parameters)


def test_a_model_that_is_dropped_is_gone_at_once() -> None:
    gc.disable()
    try:
        model = mb.Sequential(mb.Linear(2, 2), mb.Tanh(), rng=0)
        model.backprop(np.ones((5000, 2)), np.ones((5000, 2)), mb.MSE(), workers=2)
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_nothing_is_left_of_a_forward_pass_when_a_model_becomes_part_of_another() -> None:
    model = mb.Sequential(mb.Linear(2, 2), rng=0)
    y = model.forward(np.ones((3, 2)))
    mb.Sequential(model, mb.Linear(2, 1, rng=0))
    with pytest.raises(RuntimeError, match="backward before forward"):
        model.backward(y)


def test_slicing_has_no_effect_on_the_model() -> None:
    model = nested()
    inner = model[1]
    inner.forward(np.ones((2, 3)))
    _ = model[:2]
    inner.backward(np.ones((2, 2)))


def test_a_slice_follows_its_layers_into_another_model() -> None:
    inner = net()
    part = inner[:1]
    outer = mb.Sequential(inner, mb.Tanh())
    outer.parameters[:] = 5
    assert (part.parameters == 5).all()


class Doubled(mb.Layer):
    """A user's layer that remembers its input."""

    factor = mb.Parameter()
    factor_grad = mb.Gradient("factor")

    def __init__(self):
        self.factor = 2.0

    def forward(self, x, out=None):
        self.x = x
        return np.multiply(self.factor, x, out=out)

    def backward(self, delta, out=None):
        self.factor_grad = (delta * self.x).sum()
        return np.multiply(self.factor, delta, out=out)


@pytest.mark.parametrize("part", [lambda model: model[0], lambda model: model[:1]], ids=["nested", "slice"])
def test_backward_after_another_models_pass(part) -> None:
    model = mb.Sequential(mb.Sequential(Doubled()), mb.Linear(2, 1), rng=0)
    inner = part(model)
    inner.forward(X)
    model.backprop(X * 9, Y, mb.MSE())
    with pytest.raises(RuntimeError):
        inner.backward(np.ones_like(X))


class Same(mb.Layer):
    """Hands on the very array that it got."""

    def forward(self, x, out=None):
        return x

    def backward(self, delta, out=None):
        return delta


def test_results_are_fresh_whatever_a_layer_returns() -> None:
    model, x = mb.Sequential(Same()), X.copy()
    y = model.forward(x)
    dx = model.backward(y)
    assert not np.shares_memory(x, y)
    assert not np.shares_memory(y, dx)


def test_results_have_the_models_type_whatever_a_layer_returns() -> None:
    kind = type("Wide", (Same,), {"forward": lambda self, x, out=None: x.astype(np.float64)})
    assert mb.Sequential(mb.Linear(2, 1), kind(), dtype=np.float32).forward(X).dtype == np.float32


def test_no_features() -> None:
    assert mb.Sequential(mb.Tanh()).predict(np.ones((3, 0))).shape == (3, 0)


# Tables.


def test_summary() -> None:
    lines = nested(dtype=np.float32).summary().splitlines()
    assert [line.split() for line in lines] == [
        ["layer", "output", "parameters"],
        ["0", "Linear(2,", "3)", "(N,", "3)", "9"],
        ["1.0", "Linear(3,", "4)", "(N,", "4)", "16"],
        ["1.1.0", "ReLU()", "(N,", "4)", "0"],
        ["1.1.1", "Linear(4,", "2)", "(N,", "2)", "10"],
        ["2", "Sigmoid()", "(N,", "2)", "0"],
        ["3", "Linear(2,", "1)", "(N,", "1)", "3"],
        ["total", "(float32)", "38"],
    ]
    assert len({len(line) for line in lines}) == 1
    assert "(N, ?)" in mb.Sequential(mb.Tanh()).summary()
    assert "(N, 4)" in mb.Sequential(mb.Tanh()).summary(4)


@pytest.mark.parametrize(
    "model",
    [
        net(), nested(), nested(dtype="f4"), net().astype("c16"), net()[1:], nested()[1:3], net().astype(np.longdouble),
        mb.Sequential(mb.Linear(2, 1, bias=False, weight_init="torch")), mb.Sequential(mb.Linear(2, 1, dtype="f4")),
    ],
    ids=repr,
)  # fmt: skip
def test_repr_can_be_typed_back_in(model) -> None:
    twin = eval(repr(model), dict(vars(mb)))
    assert repr(twin) == repr(model)
    assert twin.dtype == model.dtype
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_sequence() -> None:
    model = nested()
    assert len(model) == 4
    assert [model[i] for i in range(4)] == list(model)
    assert model[np.int64(1)] is model[1]
    with pytest.raises(IndexError):
        model[4]
