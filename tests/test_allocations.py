"""In steady state a training step allocates no array: counted at NumPy's own allocator, and by tracemalloc.

tracemalloc sees what is still there at the end; a temporary array that comes and goes within a step it does not. So
every request to NumPy's data allocator is counted too, by a memory handler (NEP 49) that passes it on to the old one.
"""

from __future__ import annotations

import ctypes
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import matbackprop as mb

CALLS = 100
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t


class Handler(ctypes.Structure):
    """PyDataMem_Handler of numpy/ndarraytypes.h, version 1, with the allocator's members in line."""

    _fields_ = [
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("ctx", POINTER),
        ("malloc", ctypes.PYFUNCTYPE(POINTER, POINTER, SIZE)),
        ("calloc", ctypes.PYFUNCTYPE(POINTER, POINTER, SIZE, SIZE)),
        ("realloc", ctypes.PYFUNCTYPE(POINTER, POINTER, POINTER, SIZE)),
        ("free", POINTER),
    ]


def _c_api(index: int, *types: object) -> Callable[..., object]:
    """Return a function of NumPy's C API by its place in the table (numpy/__multiarray_api.h)."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = POINTER, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(np._core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(POINTER))
    return ctypes.PYFUNCTYPE(*types)(table[index])


_set_handler = _c_api(304, ctypes.py_object, ctypes.py_object)
_get_handler = _c_api(305, ctypes.py_object)
_default = ctypes.cast(
    ctypes.pythonapi.PyCapsule_GetPointer(_get_handler(), b"mem_handler"), ctypes.POINTER(Handler)
).contents  # fmt: skip
_count, _least = [0], [0]  # how many requests, and of how many bytes at least they are counted


def _counted(name: str) -> object:
    function = getattr(_default, name)

    def passed_on(ctx, *args):
        _count[0] += args[-1] * (args[0] if name == "calloc" else 1) >= _least[0]
        return function(ctx, *args)

    return dict(Handler._fields_)[name](passed_on)


# Kept for good: an array that outlives the counting is freed through it.
_counting = Handler(b"counting", 1, _default.ctx, *map(_counted, ("malloc", "calloc", "realloc")), _default.free)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, [POINTER, ctypes.c_char_p, POINTER]
_NAME = b"mem_handler"
_capsule = _new_capsule(ctypes.addressof(_counting), _NAME, None)


@contextmanager
def counting(least: int) -> Iterator[list[int]]:
    """Count the requests for array memory in the block: ``[number]``."""
    _count[0], _least[0] = 0, least
    old = _set_handler(_capsule)
    try:
        yield _count
    finally:
        _set_handler(old)


def requests(call: Callable[[], object], calls: int = CALLS, warm: int = 3, least: int = 0) -> int:
    """Return how often the calls asked for array memory, of at least so many bytes, after a few to warm up."""
    for _ in range(warm):
        call()
    with counting(least) as count:
        for _ in range(calls):
            call()
    return count[0]


def remaining(call: Callable[[], object], calls: int = CALLS, warm: int = 3) -> int:
    """Return how many arrays more there are after the calls, by tracemalloc."""
    arrays = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)

    def traces() -> int:
        return len(tracemalloc.take_snapshot().filter_traces([arrays]).traces)

    tracemalloc.start()
    try:
        for _ in range(warm):
            call()
        before = traces()
        for _ in range(calls):
            call()
        return traces() - before
    finally:
        tracemalloc.stop()


class Halved(mb.Layer):
    """y = x/2, so that a Sigmoid before it is not fused with the loss."""

    def forward(self, x, out=None):
        return np.multiply(x, HALF[x.dtype], out=out)

    def backward(self, delta, out=None):
        return np.multiply(delta, HALF[delta.dtype], out=out)


HALF = {np.dtype(kind): np.asarray(0.5, kind) for kind in (np.float32, np.float64)}


def network(activation: type[mb.Layer], *end: mb.Layer, features: int = 30, dtype: type = np.float64) -> mb.Sequential:
    return mb.Sequential(
        mb.Linear(features, 16), activation(), mb.Linear(16, 8), activation(), mb.Linear(8, 1), *end, dtype=dtype, rng=0
    )


def batch(rows: int, features: int, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(rows, features)), rng.random((rows, 1)).round(), rng.random((rows, 1))
    return x.astype(dtype), y.astype(dtype), weight.astype(dtype)


#: The loss, what the network ends in, and how many numbers (results of a reduction, arrays of no dimensions) a step may
#: still ask memory for, whatever the size of the batch: the checks that values are in [0, 1], and masks.
LOSSES = {
    "MSE": (mb.MSE(), (), 0),
    "Huber": (mb.Huber(), (), 0),
    "BCE fused": (mb.BCE(), (mb.Sigmoid,), 3),
    "BCE": (mb.BCE(), (mb.Sigmoid, Halved), 6),
    "BCEWithLogits": (mb.BCEWithLogits(pos_weight=2.0), (), 3),
}
#: The batch sizes of one training run: 64, and a shorter last batch.
SIZES = {"1": (1,), "64": (64,), "64 and 25": (64, 25)}


def steps(model: mb.Sequential, loss: mb.Loss, sizes: tuple[int, ...], weighted: bool) -> Callable[[], None]:
    """Return a function that makes one step with each of the batch sizes."""
    x, y, weight = batch(max(sizes), model.in_features, model.dtype)
    shift = np.full_like(model.parameters, 1e-3)
    batches = [(x[:rows], y[:rows], weight[:rows] if weighted else None) for rows in sizes]

    def step() -> None:
        for some_x, some_y, some_weight in batches:
            model.backprop(some_x, some_y, loss, sample_weight=some_weight)
            model.parameters -= shift

    return step


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [mb.Tanh, mb.ReLU, mb.Sigmoid])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [30, 600], ids=["small", "large"])
def test_backprop(features, dtype, activation, loss, sizes) -> None:
    loss, end, numbers = LOSSES[loss]
    for weighted in (False, True):
        model = network(activation, *(layer() for layer in end), features=features, dtype=dtype)
        step = steps(model, loss, sizes, weighted)
        assert requests(step) <= (numbers + 3 * weighted) * CALLS * len(sizes)  # weights are checked to be finite
        assert requests(step, least=17) == 0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_backprop_by_tracemalloc(loss, weighted) -> None:
    loss, end, _ = LOSSES[loss]
    model = network(mb.Tanh, *(layer() for layer in end))
    assert remaining(steps(model, loss, (64, 1, 25), weighted)) == 0


CLASSES = 10
#: A class weight's mean counts the classes: so many numbers as there are classes, twice, and no more.
OF_CLASSES = {
    "classes": (mb.CrossEntropy(), 17),
    "probabilities": (mb.CrossEntropy(), 17),
    "smoothed classes": (mb.CrossEntropy(label_smoothing=0.1), 17),
    "smoothed probabilities": (mb.CrossEntropy(label_smoothing=0.1), 17),
    "weighted classes": (mb.CrossEntropy(class_weight=np.ones(CLASSES)), 8 * CLASSES + 1),
    "weighted probabilities": (mb.CrossEntropy(class_weight=np.ones(CLASSES)), 17),
}


def classifier_step(name: str, weighted: bool, *end: mb.Layer, features: int = 30) -> Callable[[], None]:
    loss, rng = OF_CLASSES[name][0], np.random.default_rng(0)
    model = mb.Sequential(mb.Linear(features, 16), mb.Tanh(), *end, mb.Linear(16, CLASSES), dtype="f4", rng=0)
    x, y = rng.normal(size=(64, features)).astype("f4"), rng.integers(0, CLASSES, 64)
    if name.endswith("probabilities"):
        y = np.eye(CLASSES, dtype="f4")[y]
    weight = np.ones(64, "f4") if weighted else None

    def step() -> None:
        for rows in (64, 25):
            model.backprop(x[:rows], y[:rows], loss, sample_weight=None if weight is None else weight[:rows])

    return step


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_backprop_of_classes(name, weighted) -> None:
    step = classifier_step(name, weighted)
    assert requests(step, least=OF_CLASSES[name][1]) == 0
    assert remaining(step) == 0


@pytest.mark.parametrize("features", [30, 600])
def test_dropout(features) -> None:
    assert requests(classifier_step("classes", False, mb.Dropout(), features=features), least=17) == 0
    model = mb.Sequential(mb.Dropout(0.2), mb.Linear(features, 1), rng=0)
    x, y, _ = batch(64, features, np.float64)
    assert requests(lambda: model.backprop(x, y, mb.MSE()), least=17) == 0


def test_strided_input() -> None:
    model = network(mb.Tanh, features=600)
    x, y, _ = batch(128, 600, np.float64)
    assert requests(lambda: model.backprop(x[::2], y[::2], mb.MSE())) == 0


def test_number_for_a_weight() -> None:
    """A number is made an array of no dimensions: nothing of the size of the batch."""
    model = network(mb.Tanh)
    x, y, _ = batch(64, 30, np.float64)
    assert requests(lambda: model.backprop(x, y, mb.MSE(), sample_weight=0.5)) <= 4 * CALLS


@pytest.mark.parametrize("features", [30, 600], ids=["small", "large"])
@pytest.mark.parametrize("first", [mb.Tanh, mb.ReLU, mb.Sigmoid])
def test_activation_first(first, features) -> None:
    model = mb.Sequential(first(), mb.Linear(features, 1), rng=0)
    x, y, _ = batch(64, features, np.float64)
    assert (
        requests(lambda: model.backprop(x, y, mb.MSE()), least=17) == 0
    )  # but the formulas' constants, where x is large


@pytest.mark.parametrize("layer", [mb.Linear(30, 30, rng=0), mb.Tanh(), mb.ReLU(), mb.Sigmoid()], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_alone_with_out(layer, dtype) -> None:
    """No array of the size of the batch; the constants of the formulas are arrays of no dimensions."""
    if isinstance(layer, mb.Linear):
        layer = mb.Sequential(layer.copy(), dtype=dtype)[0]
    x, y, dx = (np.ones((64, 30), dtype) for _ in range(3))

    def both() -> None:
        layer.forward(x, out=y)
        layer.backward(y, out=dx)

    assert requests(both, least=17) == 0
    assert remaining(both) == 0


class Wasteful(mb.Layer):
    """A layer with an allocation planted: of one number, kept or dropped at once."""

    kept: list = []  # noqa: RUF012

    def __init__(self, keep):
        self.keep = keep

    def forward(self, x, out=None):
        array = np.empty(1)
        if self.keep:
            self.kept.append(array)
        np.copyto(out, x)
        return out

    def backward(self, delta, out=None):
        np.copyto(out, delta)
        return out


@pytest.mark.parametrize("keep", [False, True])
def test_a_planted_allocation_is_seen(keep) -> None:
    model = network(mb.Tanh, Wasteful(keep))
    step = steps(model, mb.MSE(), (64,), False)
    assert requests(step) == CALLS
    assert remaining(step) == (CALLS if keep else 0)
    Wasteful.kept.clear()


def test_a_fresh_result_is_seen() -> None:
    model = network(mb.Tanh)
    x, y, _ = batch(64, 30, np.float64)
    assert requests(lambda: model.value_and_grad(x, y, mb.MSE())) == CALLS


OPTIMIZERS = [
    mb.SGD(0.1),
    mb.SGD(0.1, momentum=0.9, dampening=0.1, weight_decay=0.1),
    mb.SGD(0.1, momentum=0.9, nesterov=True),
    mb.Adam(weight_decay=0.1, amsgrad=True),
    mb.AdamW(),
    mb.RMSprop(momentum=0.9, centered=True, weight_decay=0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("size", [99, 100_000])
def test_optimizer(optimizer, dtype, size) -> None:
    """From the second step on: not a number, whether the vectors are the same or, but for the table of numbers, new."""
    optimizer.reset()
    parameters, gradients = np.ones((2, size), dtype)
    assert requests(lambda: optimizer.step(parameters, gradients), calls=20, warm=1) == 0
    assert remaining(lambda: optimizer.step(parameters, gradients), calls=20, warm=1) == 0
    assert requests(lambda: optimizer.step(parameters[:], gradients[:]), calls=20, warm=1, least=129) == 0


def test_training_step() -> None:
    """All of a step: gradients, a penalty, clipping, the update, with a rate that changes."""
    model, optimizer, penalty = network(mb.Tanh), mb.Adam(), mb.L2(1e-3)
    x, y, _ = batch(64, 30, np.float64)
    loss, schedule = mb.MSE(), mb.StepLR(1, 0.9)
    optimizer.lr = schedule.start(1e-3)

    def step() -> None:
        model.backprop(x, y, loss)
        penalty.add_to(model)
        mb.clip_norm(model.gradients, 1e-3)
        optimizer.step(model.parameters, model.gradients)
        optimizer.lr = schedule.step()

    assert requests(step, least=17) == 0
    assert remaining(step) == 0


@pytest.mark.parametrize("penalty", [mb.L1(0.1), mb.L2(0.1, biases=True)], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_penalty(penalty, dtype) -> None:
    model = network(mb.Tanh, features=1100, dtype=dtype)
    assert requests(lambda: penalty.add_to(model), calls=20, least=17) == 0
