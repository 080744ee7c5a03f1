"""Shapes, memory layouts and types of inputs, `out=`, and who owns what: one table, `OPERATIONS`, for everything.

Whatever the layout, the result is that of the same numbers in C order, no input is modified, and nothing that was
handed out changes later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from user_layers import Scale

import matbackprop as mb
from matbackprop.parallel import FEWEST_ROWS

#: Leading shapes: one example alone, batches of 0, 1 and 7, sequences (N, T, ...), and inputs above the bytes up to
#: which a plan copies its input.
LEADS = [(), (0,), (1,), (7,), (7, 2), (0, 2), (7, 0), (2, 3, 4)]
LARGE, COPY_BYTES = [(5000,), (50, 100)], 1 << 15


@pytest.fixture(autouse=True)
def _copy_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matbackprop.plan.COPY_BYTES", COPY_BYTES)


LAYERS = {  # each maps 3 features to 3, so that `out` can be the input
    "Linear": lambda: mb.Linear(3, 3, rng=0),
    "Linear without bias": lambda: mb.Linear(3, 3, bias=False, rng=0),
    "Tanh": mb.Tanh,
    "ReLU": mb.ReLU,
    "Sigmoid": mb.Sigmoid,
    "Sequential": lambda: mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 3), rng=0),
    "Sequential of one": lambda: mb.Sequential(mb.Linear(3, 3), rng=0),
    "Sequential that starts with an activation": lambda: mb.Sequential(mb.Tanh(), mb.Linear(3, 3), mb.Sigmoid(), rng=0),
    "Sequential nested": lambda: mb.Sequential(
        mb.Sequential(mb.Linear(3, 4), mb.ReLU(), rng=0), mb.Sequential(mb.Linear(4, 3), mb.Sigmoid(), rng=1)
    ),
    "Sequential with activations in a row": lambda: mb.Sequential(
        mb.Linear(3, 3), mb.Tanh(), mb.Sigmoid(), mb.ReLU(), mb.Tanh(), mb.Linear(3, 3), rng=0
    ),
    "Sequential with a user's layer": lambda: mb.Sequential(mb.Linear(3, 3), Scale(3), mb.Sigmoid(), rng=0),
}
MODELS = {name: make for name, make in LAYERS.items() if name.startswith("Sequential")}
LOSSES = [mb.MSE, mb.BCE, mb.BCEWithLogits, lambda: mb.MSE("sum"), lambda: mb.BCEWithLogits("sum", [1.0, 2.0, 3.0])]


def close(actual, expected):
    assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


def gradients(layer):
    """Return copies of the gradients of a layer's parameters."""
    found = (getattr(layer, name, None) for name in ("gradients", "weight_grad", "bias_grad"))
    return [gradient.copy() for gradient in found if gradient is not None]


def passes(make):
    def run(x, delta):
        layer = make()
        return layer.forward(x), layer.backward(delta), *gradients(layer)

    return run


def predict(make):
    return lambda x: (make().predict(x),)


def backprop(make, loss):
    def run(x, y, weight):
        model = make()
        value = model.backprop(x, y, loss, sample_weight=weight)
        first = model.gradients.copy()
        again, gradient = model.value_and_grad(x, y, loss, sample_weight=weight)
        assert_array_equal([value, *first], [again, *gradient])
        step_by_step = loss(model.forward(x), y, sample_weight=weight)
        model.backward(loss.backward())
        close([step_by_step, *model.gradients], [value, *gradient])
        return np.array(value), gradient

    return run


def evaluate(make):
    def run(y_pred, y, weight):
        loss = make()
        value = loss(y_pred, y, sample_weight=weight)
        return np.array(value), loss.backward()

    return run


class Operation(NamedTuple):
    """Something that takes `arity` arrays of shape (..., 3); `like_input` of its results have that shape too."""

    name: str
    arity: int
    run: Callable
    like_input: tuple[int, ...]


OPERATIONS = [
    *(Operation(f"{name}, forward and backward", 2, passes(make), (0, 1)) for name, make in LAYERS.items()),
    *(Operation(f"{name}, predict", 1, predict(make), (0,)) for name, make in MODELS.items()),
    *(Operation(f"{name}, backprop", 3, backprop(make, mb.MSE()), ()) for name, make in MODELS.items()),
    Operation("Sequential nested, backprop, BCE", 3, backprop(MODELS["Sequential nested"], mb.BCE()), ()),
    *(Operation(f"{make()!r}", 3, evaluate(make), (1,)) for make in LOSSES),
]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


def draw(rng, operation, lead):
    """Return arrays that suit the operation: within (0, 1), for BCE; activations and Δ see both signs."""
    arrays = [rng.uniform(0.05, 0.95, (*lead, 3)) for _ in range(operation.arity)]
    return [2 * array - 1 for array in arrays] if operation.arity < 3 else arrays


# Memory layouts: the same numbers elsewhere (but for the broadcasts, which repeat some of them).


def strided(array):
    wide = np.full([2 * n for n in array.shape], np.nan, array.dtype)
    view = wide[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def negative(array):
    return np.flip(np.flip(array).copy())


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)[1:]
    view = raw.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


LAYOUTS = {
    "C": np.copy,
    "Fortran": lambda a: a.copy("F"),
    "strided": strided,
    "negative strides": negative,
    "swapped axes": lambda a: np.ascontiguousarray(np.swapaxes(a, 0, -1)).swapaxes(0, -1),
    "broadcast columns": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "broadcast rows": lambda a: np.broadcast_to(a[:1] if a.ndim > 1 else a, a.shape),
    "read-only": read_only,
    "unaligned": unaligned,
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@each_operation
@each_layout
def test_layouts(operation, layout, rng):
    for lead in LEADS + LARGE:
        inputs = [layout(array) for array in draw(rng, operation, lead)]
        before = [np.array(array, order="C") for array in inputs]
        results = operation.run(*inputs)
        expected = operation.run(*(array.copy() for array in before))
        for result, right in zip(results, expected, strict=True):
            assert result.dtype == np.float64
            assert not any(np.shares_memory(result, array) for array in inputs)
            close(result, right)
        for index in operation.like_input:
            assert results[index].shape == (*lead, 3)
        for array, was in zip(inputs, before, strict=True):
            assert_array_equal(array, was)  # untouched


@each_operation
def test_leading_dimensions_are_rows(operation, rng):
    """(N, T, in) gives the numbers of (N T, in), and one example alone those of a batch of one."""
    for lead, rows in [((7, 2), 14), ((), 1), ((2, 3, 4), 24), ((7, 0), 0), ((50, 100), 5000)]:
        inputs = draw(rng, operation, lead)
        for result, flat in zip(
            operation.run(*inputs), operation.run(*(array.reshape(rows, 3) for array in inputs)), strict=True
        ):
            close(result.ravel(), flat.ravel())


@each_operation
def test_no_rows(operation, rng):
    """An empty batch has gradients 0, a mean loss NaN and a summed one 0."""
    results = operation.run(*draw(rng, operation, (0,)))
    if operation.arity == 3:
        value, gradient = results
        assert value == 0 if "sum" in operation.name else np.isnan(value)
        results = [gradient]
    for result in results:
        assert_array_equal(result, np.zeros(result.shape))


# Types. Zeros and ones are the same in all of them.


def memory_map(array, tmp_path):
    mapped = np.memmap(tmp_path / f"{len(list(tmp_path.iterdir()))}.dat", np.float64, "w+", shape=array.shape)
    mapped[...] = array
    mapped.flush()
    return np.memmap(mapped.filename, np.float64, "r", shape=array.shape)


def data_frame(array, tmp_path):
    return pytest.importorskip("pandas").DataFrame(array)


NUMBERS = ["int64", "uint8", "bool", "float16", "float32", ">f8", "longdouble"]
TYPES = {
    "list": lambda array, _: array.tolist(),
    "tuple of rows": lambda array, _: tuple(array),
    "memmap": memory_map,
    "DataFrame": data_frame,
    **{dtype: lambda array, _, dtype=dtype: array.astype(dtype) for dtype in NUMBERS},
}


@each_operation
@pytest.mark.parametrize("convert", TYPES.values(), ids=TYPES)
def test_types(operation, convert, rng, tmp_path):
    """In a float64 model every kind of number gives float64 results; alone, a layer or loss keeps a float type."""
    exact = [rng.integers(0, 2, (7, 3)).astype(np.float64) for _ in range(operation.arity)]
    inputs = [convert(array, tmp_path) for array in exact]
    results = operation.run(*inputs)
    tolerance = 1e-6 if getattr(inputs[0], "dtype", None) == np.float32 else 1e-12
    for result, right in zip(results, operation.run(*exact), strict=True):
        assert type(result) is np.ndarray
        assert_allclose(result.astype(np.float64), right, rtol=tolerance, atol=tolerance)
    for array, was in zip(inputs, exact, strict=True):
        assert_array_equal(np.asarray(array, np.float64), was)


# `out`: where it is, and what it overlaps. `x` is what goes in: the input, or the upstream gradient.


def shifted(x):
    """Return x moved into a buffer, and an `out` that starts one row later in it."""
    buffer = np.empty(x.size + x.shape[-1])
    moved = buffer[: x.size].reshape(x.shape)
    moved[...] = x
    return moved, buffer[x.shape[-1] :].reshape(x.shape)


OUTS = {
    "fresh": lambda x: (x, np.full(x.shape, np.nan)),
    "Fortran": lambda x: (x, np.full(x.shape, np.nan, order="F")),
    "strided": lambda x: (x, strided(np.full(x.shape, np.nan))),
    "negative strides": lambda x: (x, negative(np.full(x.shape, np.nan))),
    "unaligned": lambda x: (x, unaligned(np.full(x.shape, np.nan))),
    "itself": lambda x: (x, x),
    "itself, strided": lambda x: (strided(x),) * 2,
    "itself, reversed": lambda x: (x, x[::-1] if x.ndim > 1 else x),
    "overlapping": shifted,
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("place", OUTS.values(), ids=OUTS)
def test_out(make, place, rng):
    """`out` is returned, and the numbers are those of a fresh result, the gradients too, also where it overlaps."""
    for lead in LEADS + LARGE:
        x, delta = rng.normal(size=(2, *lead, 3))
        expected = passes(make)(x.copy(), delta.copy())

        for forward in (True, False):
            layer = make()
            if forward:
                given, out = place(x.copy())
                y = layer.forward(given, out)
                assert y is out
                close(y, expected[0])
                dx = layer.backward(delta)
            else:
                layer.forward(x)
                given, out = place(delta.copy())
                dx = layer.backward(given, out)
                assert dx is out
            close(dx, expected[1])
            for gradient, right in zip(gradients(layer), expected[2:], strict=True):
                close(gradient, right)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_out_of_backward_may_be_what_forward_kept(make, rng):
    for lead in LEADS + LARGE:
        x, delta = rng.normal(size=(2, *lead, 3))
        _, expected, *parameters = passes(make)(x.copy(), delta)
        for which in ("x", "y"):
            layer = make()
            given = x.copy()
            y = layer.forward(given)
            close(layer.backward(delta, out=given if which == "x" else y), expected)
            for gradient, right in zip(gradients(layer), parameters, strict=True):
                close(gradient, right)


@pytest.mark.parametrize("make", LOSSES, ids=lambda make: repr(make()))
@pytest.mark.parametrize("place", OUTS.values(), ids=OUTS)
def test_out_of_a_loss(make, place, rng):
    for lead in LEADS:
        y_pred, y = rng.uniform(0.05, 0.95, (2, *lead, 3))
        loss = make()
        loss(y_pred, y)
        expected = loss.backward()
        given, out = place(y_pred)
        loss(given, y)
        assert loss.backward(out) is out
        close(out, expected)


# Ownership.


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_what_was_handed_out_never_changes(make, rng):
    model, loss = make(), mb.MSE()

    def use(rows):
        x, y = rng.uniform(0.1, 0.9, (2, rows, 3))
        results = [model(x), model.forward(x)]
        loss(results[-1], y)
        results += [
            loss.backward(),
            loss.backward(),
            model.backward(y),
            model.predict(x),
            model.value_and_grad(x, y, loss)[1],
        ]
        results += model.state_dict().values()
        results += [mb.Tanh().forward(x), *(array for layer in model.leaves() for array in through(layer, rows))]
        return results

    results = [array for rows in (7, 7, 1, 5000, 3) for array in use(rows)]
    live = [model.parameters, model.gradients]
    for index, array in enumerate(results):
        assert not any(np.shares_memory(array, other) for other in results[:index] + live)
    before = [array.copy() for array in results]
    for rows in (7, 9000, 1, 0, 5000):
        use(rows)
        model.parameters += 0.1
        model.load_state_dict({name: array + 1 for name, array in model.state_dict().items()})
    for array, was in zip(results, before, strict=True):
        assert_array_equal(array, was)


def through(layer, rows):
    """Return what one layer of the model, called by itself, hands out."""
    y = layer.forward(np.ones((rows, layer.in_features or 3)))
    return [y, layer.backward(np.ones_like(y))]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_one_model_through_many_shapes(make, rng):
    """Buffers grow, are shared and are served shorter: no call sees anything of the calls before it."""
    model, losses = make(), [mb.MSE(), mb.MSE("sum")]
    leads, layouts = LEADS + LARGE, list(LAYOUTS.values())
    for step in range(100):
        layout, lead, loss = layouts[rng.integers(len(layouts))], leads[rng.integers(len(leads))], losses[step % 2]
        x, y, weight = (layout(array) for array in rng.uniform(0.05, 0.95, (3, *lead, 3)))
        weight = None if rng.integers(2) else weight
        value, gradient = model.value_and_grad(x, y, loss, sample_weight=weight)
        right, right_gradient = make().value_and_grad(x.copy("C"), y.copy("C"), loss, sample_weight=weight)
        close([value, *gradient], [right, *right_gradient])
        close(model.predict(x), make().forward(x.copy("C")))


# predict


WIDE = 512  # features, at which a block has the fewest rows


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rows", [0, 1, FEWEST_ROWS - 1, FEWEST_ROWS, FEWEST_ROWS + 1, 2 * FEWEST_ROWS + 1])
def test_predict_equals_forward_across_blocks(rows, dtype, rng):
    model = mb.Sequential(mb.Linear(3, WIDE), mb.Tanh(), mb.Linear(WIDE, 2), mb.Sigmoid(), rng=0, dtype=dtype)
    x = rng.normal(size=(rows, 3))
    assert_allclose(model.predict(x), model.forward(x), rtol=100 * np.finfo(dtype).eps)
    assert model.predict(x).dtype == dtype


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_predict_from_eight_threads(make, rng):
    """Each thread gets its own answer, bit for bit, and a training pass under way is not disturbed."""
    model = make()
    inputs = [rng.normal(size=(rows, 3)) for rows in (1, 7, 64, 5000, 9000, 3, 20000, 1)]
    expected = [model.predict(x) for x in inputs]
    delta = rng.normal(size=inputs[1].shape)
    model.forward(inputs[1])
    right = model.backward(delta)

    model.forward(inputs[1])
    barrier = threading.Barrier(len(inputs))

    def work(x):
        barrier.wait()
        return [model.predict(x) for _ in range(20)]

    with ThreadPoolExecutor(len(inputs)) as pool:
        for results, answer in zip(pool.map(work, inputs), expected, strict=True):
            for result in results:
                assert_array_equal(result, answer)
    assert_array_equal(model.backward(delta), right)
