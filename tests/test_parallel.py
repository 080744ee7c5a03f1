"""Row blocks and threads: the same numbers as the plain layers, the same bits for the same call, and no surprises."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_info, threadpool_limits

import matbackprop as mb
from matbackprop.blas import (
    _held,
    _OneThread,
    blas_libraries,
    one_blas_thread,
    one_scipy_blas_thread,
    scipy_blas_libraries,
)
from matbackprop.parallel import FEWEST_ROWS, costs, cut, run_all, share

ROWS = 4 * FEWEST_ROWS + 3


def network(dtype=np.float64, **kwargs) -> mb.Sequential:
    layers = mb.Linear(5, 64), mb.Tanh(), mb.Linear(64, 64), mb.ReLU(), mb.Linear(64, 2), mb.Sigmoid()
    return mb.Sequential(*layers, dtype=dtype, rng=0, **kwargs)


def batch(rows: int = ROWS, dtype=np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x, y, weight = rng.normal(size=(rows, 5)), rng.random((rows, 2)), rng.random((rows, 1))
    return x.astype(dtype), y.astype(dtype), weight.astype(dtype)


def plain(model: mb.Sequential, x, y, loss, weight=None) -> tuple[float, np.ndarray]:
    """Return loss and gradient by the layers' own forward and backward, on the whole batch."""
    value = loss(model.forward(x), y, weight)
    model.backward(loss.backward())
    return value, model.gradients.copy()


@pytest.mark.parametrize("workers", [None, 1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [mb.MSE(), mb.MSE("sum"), mb.BCE(), mb.BCEWithLogits("sum", pos_weight=[1.0, 3.0])])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_same_as_the_plain_layers(dtype, rtol, loss, weighted, workers) -> None:
    model, (x, y, weight) = network(dtype), batch(dtype=dtype)
    weight = weight if weighted else None
    value, gradient = plain(model, x, y, loss, weight)
    ours, gradients = model.value_and_grad(x, y, loss, sample_weight=weight, workers=workers)
    assert_allclose(ours, value, rtol=rtol)
    assert_allclose(gradients, gradient, rtol=0, atol=rtol * np.abs(gradient).max())
    assert_array_equal(model.predict(x, workers=workers).shape, y.shape)
    assert_allclose(model.predict(x, workers=workers), model.forward(x), rtol=rtol)


@pytest.mark.parametrize("workers", [None, 1, 2, 3])
def test_same_call_same_bits(workers) -> None:
    x, y, _ = batch()
    model = network()
    first = model.value_and_grad(x, y, mb.MSE(), workers=workers)
    model.value_and_grad(x[:100], y[:100], mb.BCE())  # whatever came in between
    model.value_and_grad(x, y, mb.MSE(), workers=4)
    for again in (model, network()):
        value, gradient = again.value_and_grad(x, y, mb.MSE(), workers=workers)
        assert value == first[0]
        assert_array_equal(gradient, first[1])


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
@pytest.mark.parametrize("workers", [1, 3])
def test_few_rows(rows, workers) -> None:
    model, (x, y, _) = network(), batch(rows)
    value, gradient = plain(model, x, y, mb.MSE("sum"))
    ours, gradients = model.value_and_grad(x, y, mb.MSE("sum"), workers=workers)
    assert_allclose(ours, value, rtol=1e-14)
    assert_allclose(gradients, gradient, rtol=0, atol=1e-13)
    assert model.predict(x, workers=workers).shape == (rows, 2)


@pytest.mark.parametrize("loss", [mb.MSE(), mb.BCE()])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_target_in_a_late_block_is_found_in_its_place(loss, workers) -> None:
    model, (x, y, _) = network(), batch()
    model.backprop(x, y, loss)
    before = model.gradients.copy()
    y[ROWS - 2, 1] = np.nan
    with pytest.raises(ValueError, match=rf"y_true: .* got nan at \({ROWS - 2}, 1\)"):
        model.backprop(x, y, loss, workers=workers)
    assert_array_equal(model.gradients, before)


def test_overflow_is_no_error_and_errstate_holds_in_every_thread() -> None:
    model, (x, y, _) = network(), batch()
    y[[3, -3]] = 1e200
    with np.errstate(over="ignore"):
        assert model.backprop(x, y, mb.MSE(), workers=2) == np.inf


class Leaky(mb.Layer):
    """A row-wise layer of a user's, with a setting that changes."""

    rowwise = True
    slope = 0.1

    def forward(self, x, out=None):
        self.x = x
        return np.where(x > 0, x, self.slope * x)

    def backward(self, delta, out=None):
        return delta * np.where(self.x > 0, 1, self.slope)


class Centred(mb.Layer):
    """A layer that looks at the whole batch, so that it must not be cut up."""

    def forward(self, x, out=None):
        return np.subtract(x, x.mean(axis=0), out=out)

    def backward(self, delta, out=None):
        return np.subtract(delta, delta.mean(axis=0), out=out)


@pytest.mark.parametrize("layer", [Leaky(), Centred()], ids=["rowwise", "whole batch"])
@pytest.mark.parametrize("workers", [None, 1, 2])
def test_users_layers(layer, workers) -> None:
    model, (x, y, _) = mb.Sequential(mb.Linear(5, 3), layer.copy(), mb.Linear(3, 2), rng=0), batch()
    for slope in (0.1, 0.5):
        model[1].slope = slope
        value, gradient = plain(model, x, y, mb.MSE())
        ours, gradients = model.value_and_grad(x, y, mb.MSE(), workers=workers)
        assert_allclose(ours, value, rtol=1e-13)
        assert_allclose(gradients, gradient, atol=1e-13 * np.abs(gradient).max())
        assert_allclose(model.predict(x, workers=workers), model.forward(x), rtol=1e-12)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
@pytest.mark.parametrize("call", ["backprop", "predict"])
def test_bad_workers(call, workers) -> None:
    model, (x, y, _) = network(), batch(3)
    with pytest.raises((TypeError, ValueError), match="workers: expected a positive integer"):
        model.backprop(x, y, mb.MSE(), workers=workers) if call == "backprop" else model.predict(x, workers=workers)


def test_a_memory_map_is_read_in_blocks(tmp_path) -> None:
    x, y, _ = batch()
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=x.shape)
    mapped[:] = x
    model = network()
    expected = model.value_and_grad(x, y, mb.MSE())
    value, gradient = model.value_and_grad(np.memmap(tmp_path / "x", np.float64, "r", shape=x.shape), y, mb.MSE())
    assert value == expected[0]
    assert_array_equal(gradient, expected[1])


def test_memory_does_not_grow_with_the_batch() -> None:
    """The workers' buffers hold a block: twice the rows need no more."""
    model = network()
    sizes = []
    for rows in (8 * FEWEST_ROWS, 64 * FEWEST_ROWS):
        model.backprop(np.ones((rows, 5)), np.ones((rows, 2)), mb.MSE(), workers=2)
        sizes.append(sum(worker.plans.workspace.nbytes for worker in model._engine.workers))
    assert sizes[1] == sizes[0]


def test_cut_covers_the_rows_once_in_order() -> None:
    cases = (1, 1, 1), (10, 3, 2), (1000, 64, 3), (7, 512, 7), (0, 512, 1), (10_200, 2048, 1), (10_200, 600, 1)
    for rows, block, workers in cases:
        parts = cut(rows, block, workers)
        assert len(parts) == workers
        assert len({len(part) for part in parts}) == 1
        edges = [(piece.start, piece.stop) for part in parts for piece in part]
        assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
        assert edges[-1][1] == rows
        assert max(stop - start for start, stop in edges) <= block


@pytest.mark.parametrize(
    ("rows", "block", "workers", "starts"),
    [
        (10_200, 2048, 1, [0, 2048, 4096, 6144, 8192]),
        (9000, 2048, 1, [0, 1920, 3712, 5504, 7296]),  # 1800 rows each, and up to a multiple of 128
        (1300, 1024, 1, [0, 768]),
        (1024, 512, 1, [0, 512]),
        (1023, 512, 1, [0, 512]),  # 511.5 each
        (1300, 512, 1, [0, 434, 867]),  # less than 512 rows each: as they come
        (4097, 1024, 2, [0, 768, 1408, 2048, 2816, 3456]),  # threads get as much each, and cut it evenly
        (1025, 2048, 2, [0, 512]),
    ],
)
def test_long_blocks_are_cut_evenly_but_for_the_last(rows, block, workers, starts) -> None:
    assert [part.start for worker in cut(rows, block, workers) for part in worker] == starts


@pytest.mark.parametrize(
    ("widths", "itemsize", "workers", "predict", "block"),
    [
        ((32, 64, 64, 1), 4, 1, False, 512),  # 289 features, 1156 bytes: 907 rows take 1 MiB
        ((4, 32, 16, 4), 4, 1, False, 2048),
        ((4, 32, 16, 4), 8, 1, False, 1024),
        ((2, 2, 2, 1), 4, 1, False, 8192),
        ((*[32] * 17, 1), 4, 1, False, 1024),  # 33 layers of 32 units: 1024 rows have 2**15 entries
        ((784, 256, 256, 10), 4, 1, False, 512),
        ((784, 256, 256, 10), 4, 1, True, 1024),
        ((32, 64, 64, 1), 4, 1, True, 2048),  # two arrays of 64 units
        ((32, 64, 64, 1), 8, 1, True, 1024),
        ((32, 64, 64, 1), 4, 2, False, 2048),
        ((4, 32, 16, 4), 4, 2, False, 4096),  # 17 units on average: of 2048 rows, fewer than 2**17 entries
        ((2, 2, 2, 1), 4, 2, False, 16384),
        ((2, 2, 2, 1), 4, 2, True, 16384),
        ((*[32] * 17, 1), 8, 2, False, 1024),  # of 2048 rows 17 MiB
        ((*[24, 8] * 16, 1), 4, 1, False, 2048),  # 16 units on average
        ((*[4] * 200, 1), 8, 1, False, 1024),  # of 8192 rows, 100 MiB
    ],
)
def test_the_block_follows_from_the_widths(widths, itemsize, workers, predict, block) -> None:
    layers = [part for a, b in pairwise(widths) for part in (mb.Linear(a, b), mb.Tanh())][:-1]
    mb.Sequential(*layers, rng=0)
    shares = share(costs(layers, widths[0]), 1 << 20, itemsize, workers, predict=predict)
    assert (shares.workers, shares.block) == (workers, block)


def test_inputs_of_no_features() -> None:
    model = mb.Sequential(mb.Tanh())
    assert model.predict(np.empty((3, 0))).shape == (3, 0)


class FakeLibrary:
    """A BLAS of eight threads."""

    filepath, threads = "libfake.so", 8

    def get_num_threads(self) -> int:
        return self.threads

    def set_num_threads(self, threads: int) -> None:
        self.threads = threads


def test_contexts_of_one_library_do_not_undo_each_other() -> None:
    """NumPy and SciPy may share a library, or each have one."""
    library = FakeLibrary()
    one, other = _OneThread(lambda: [library]), _OneThread(lambda: [library])
    with one:
        with other:
            assert library.threads == 1
        assert library.threads == 1
        library.threads = 4  # as another thread may: each thread has its own number in some builds
        with other:
            assert library.threads == 1
    assert library.threads == 8


def test_contexts_of_several_threads() -> None:
    """The first to come leaves first; from whatever thread, the library is lowered, and is then as it was."""
    inside, leave, seen = threading.Event(), threading.Event(), []

    def threads() -> list[int]:
        return [library.get_num_threads() for library in blas_libraries()]

    def other() -> None:
        with one_blas_thread:
            inside.set()
            leave.wait()

    def alone() -> None:
        with one_blas_thread:
            seen.append(threads())

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        thread = threading.Thread(target=other)
        with one_blas_thread:
            thread.start()
            inside.wait()
        assert set(threads()) == {1}
        leave.set()
        thread.join()
        assert threads() == before
        thread = threading.Thread(target=alone)
        thread.start()
        thread.join()
        assert threads() == before
        assert set(seen[0]) == {1}


def test_numpys_blas_and_scipys() -> None:
    numpys = [library.filepath for library in blas_libraries()]
    scipys = [library.filepath for library in scipy_blas_libraries()]
    if any("numpy.libs" in path for path in numpys):  # both from wheels
        assert not any("scipy.libs" in path for path in numpys)
        assert all("scipy.libs" in path for path in scipys)
    assert numpys
    assert scipys


def test_blas_gets_its_threads_back() -> None:
    def threads() -> list[int]:
        blas = (library for library in threadpool_info() if library["user_api"] == "blas")
        return [library["num_threads"] for library in blas if "scipy.libs" not in library["filepath"]]  # NumPy's own

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with one_blas_thread:
            assert set(threads()) == {1}
            with one_blas_thread:
                pass
            assert set(threads()) == {1}
        assert threads() == before
        with pytest.raises(KeyError), one_blas_thread:
            raise KeyError
        assert threads() == before


def test_a_failing_job_is_heard_of_after_all_have_ended() -> None:
    ended = []

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all([lambda: ended.append(1), fail, lambda: ended.append(2)])
    with pytest.raises(ZeroDivisionError):
        run_all([fail, lambda: ended.append(3)])
    assert sorted(ended) == [1, 2, 3]


class Inner(mb.Layer):
    """A layer that asks a model of its own, with threads."""

    rowwise = True

    def __init__(self):
        self.net = mb.Sequential(mb.Linear(5, 5), rng=0)

    def forward(self, x, out=None):
        return self.net.predict(x, workers=3)

    def backward(self, delta, out=None):
        return delta


class Block(mb.Layer):
    """A row-wise layer that holds a chain with parameters."""

    rowwise = True

    def __init__(self):
        self.net = mb.Sequential(mb.Linear(5, 5, rng=0), mb.Tanh())

    def forward(self, x, out=None):
        return self.net.forward(x, out)

    def backward(self, delta, out=None):
        return self.net.backward(delta, out)


@pytest.mark.parametrize("rows", [7, ROWS])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_layer_that_holds_a_chain(rows, workers) -> None:
    model, (x, y, _) = mb.Sequential(Block(), mb.Linear(5, 2, rng=1)), batch(rows)
    value, gradient = plain(model, x, y, mb.MSE())
    ours, gradients = model.value_and_grad(x, y, mb.MSE(), workers=workers)
    assert_allclose(ours, value, rtol=1e-13)
    assert_allclose(gradients, gradient, rtol=0, atol=1e-13 * np.abs(gradient).max())


class Halves(mb.Layer):
    """A layer that says in_place although its width changes."""

    in_place = True

    def output_width(self, width):
        return width // 2

    def forward(self, x, out=None):
        self.width = x.shape[1]
        return np.add(x[:, ::2], x[:, 1::2], out=out)

    def backward(self, delta, out=None):
        return np.repeat(delta, 2, axis=1)


def test_in_place_is_not_believed_where_the_width_changes() -> None:
    model, (x, y, _) = mb.Sequential(mb.Linear(5, 4), Halves(), mb.Linear(2, 2), rng=0), batch(7)
    value, gradient = plain(model, x, y, mb.MSE())
    ours, gradients = model.value_and_grad(x, y, mb.MSE())
    assert ours == value
    assert_allclose(gradients, gradient, rtol=1e-14)
    assert_allclose(model.predict(x), model.forward(x), rtol=1e-14)


def test_threads_do_not_wait_for_their_like() -> None:
    model, (x, _, _) = mb.Sequential(Inner(), rng=0), batch()
    assert_allclose(model.predict(x, workers=3), model[0].net.predict(x))


class Spread(mb.Loss):
    """A loss of a user's that looks at the whole batch."""

    def elementwise(self, y_pred, y_true):
        self.error = y_pred - y_true
        return (self.error - self.error.mean()) ** 2, 2 * (self.error - self.error.mean())


@pytest.mark.parametrize("workers", [None, 2])
def test_a_users_loss_gets_the_whole_batch(workers) -> None:
    model, (x, y, _) = network(), batch()
    value, gradient = plain(model, x, y, Spread())
    ours, gradients = model.value_and_grad(x, y, Spread(), workers=workers)
    assert_allclose(ours, value, rtol=1e-13)
    assert_allclose(gradients, gradient, rtol=0, atol=1e-13 * np.abs(gradient).max())


def test_several_models_in_several_threads() -> None:
    x, y, _ = batch()
    expected = network().value_and_grad(x, y, mb.MSE(), workers=2)
    results: list[tuple[float, np.ndarray]] = []

    def work() -> None:
        model = network()
        results.extend(model.value_and_grad(x, y, mb.MSE(), workers=2) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    for value, gradient in results:
        assert value == expected[0]
        assert_array_equal(gradient, expected[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python's own, of forking with threads
def test_a_forked_child_has_threads_of_its_own() -> None:
    model, (x, y, _) = network(), batch()
    expected = model.backprop(x, y, mb.MSE(), workers=2)
    with threadpool_limits(2, user_api="blas"), one_blas_thread, one_scipy_blas_thread:  # as if other threads were
        child = os.fork()
    if child == 0:
        ok = not _held and model.backprop(x, y, mb.MSE(), workers=2) == expected
        os._exit(0 if ok else 1)
    for _ in range(300):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended
    assert status == 0


def test_one_model_in_two_threads_is_refused_rather_than_wrong() -> None:
    model, (x, y, _) = network(), batch(200)
    expected = model.value_and_grad(x, y, mb.MSE())
    wrong, refused = [], []

    def work() -> None:
        for _ in range(100):
            try:
                value, gradient = model.value_and_grad(x, y, mb.MSE())
            except RuntimeError as error:
                refused.append(str(error))
            else:
                if value != expected[0] or not np.array_equal(gradient, expected[1]):
                    wrong.append(value)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all("model.copy()" in message for message in refused)
    assert model.value_and_grad(x, y, mb.MSE())[0] == expected[0]


def test_one_layer_alone_in_two_threads() -> None:
    """What `forward` computes with is its own: only what backward needs is kept in the layer."""
    layer = mb.Linear(512, 512, rng=0, dtype=np.float32)
    layer.initialize()
    wrong: list[float] = []

    def ask(seed: int) -> None:
        x = np.random.default_rng(seed).random((16, 512), np.float32)
        wanted = x @ layer.weight.T
        for _ in range(100):
            error = np.abs(layer.forward(x) - wanted).max()
            if error > 1e-3:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_prediction_does_not_depend_on_what_was_asked_before(monkeypatch) -> None:
    """Of how many workers, say: the blocks follow from this call alone."""
    monkeypatch.setattr("matbackprop.parallel._cores", lambda: 2)
    x = np.random.default_rng(0).random((500, 1000), np.float32)
    model = mb.Sequential(mb.Linear(1000, 1000), mb.Tanh(), mb.Linear(1000, 10), dtype=np.float32, rng=0)
    shapes = []
    monkeypatch.setattr("matbackprop.engine.run_all", lambda jobs: shapes.append(len(jobs)) or run_all(jobs))
    first = model.predict(x)
    model.predict(x, workers=1)
    assert_array_equal(model.predict(x), first)
    assert shapes == [2, 1, 2]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 70, 150])
@pytest.mark.parametrize("width", [60, 300, 650, 1000])
def test_bits_do_not_depend_on_how_many_threads_blas_has(rows, width) -> None:
    """Where BLAS would use them for the work of one worker, it is told not to."""
    model = mb.Sequential(mb.Linear(width, width), mb.Tanh(), mb.Linear(width, 1), dtype=np.float32, rng=0)
    x, y = np.random.default_rng(0).random((rows, width), np.float32), np.ones((rows, 1), np.float32)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            for _ in range(2):  # the second time the quick way
                value, gradient = model.value_and_grad(x, y, mb.MSE())
                results.append((value, gradient, model.predict(x)))
    for value, gradient, output in results[1:]:
        assert value == results[0][0]
        assert_array_equal(gradient, results[0][1])
        assert_array_equal(output, results[0][2])


class Holder(mb.Layer):
    """A layer around a Dropout that says itself what its replicas take over."""

    rowwise = True

    def __init__(self):
        self.dropout = mb.Dropout(0.5, rng=0)
        self.scale = 1.0

    def output_width(self, width):
        return width

    def follow(self, other):
        self.scale = other.scale

    def forward(self, x, out=None):
        return self.scale * self.dropout.forward(x)

    def backward(self, delta, out=None):
        return self.dropout.backward(self.scale * delta)


def test_layers_within_follow_whatever_the_layer_around_them_does() -> None:
    """Otherwise the replicas would draw from one generator, in the order in which the threads come to it."""
    model = mb.Sequential(mb.Linear(5, 5), Holder(), rng=0)
    x, y, _ = batch()
    model.backprop(x, y[:, :1] + np.zeros(5), mb.MSE(), workers=3)
    generators = [worker.layers[1].dropout.rng for worker in model._engine.workers]
    assert len({id(generator) for generator in generators}) == 3
