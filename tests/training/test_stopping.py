"""How a run ends before its time: numbers that are not finite, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.files import read_tensors

X = np.linspace(-1, 1, 40).reshape(20, 2)
Y = X.sum(axis=1, keepdims=True)
QUIET = {"progress": False, "rng": 0, "batch_size": 5}


def network(*layers: mb.Layer) -> mb.Sequential:
    return mb.Sequential(mb.Linear(2, 3), *(layers or (mb.Tanh(),)), mb.Linear(3, 1), rng=0)


class Explode(mb.Layer):
    """The identity, until `broken` is set: then one output is infinite."""

    broken = False

    def forward(self, x, out=None):
        y = x.copy()
        if self.broken:
            y[1, 2] = np.inf
        return y

    def backward(self, delta, out=None):
        return delta.copy()


def test_the_layer_where_it_began_is_named():
    layer = Explode()
    model = network(layer)
    kept = []

    def after(epoch: mb.Epoch) -> None:
        kept.append(model.parameters.copy())
        layer.broken = epoch.number == 1

    with pytest.raises(mb.Diverged) as caught:
        mb.fit(model, X, Y, mb.MSE(), mb.Adam(), epochs=5, callbacks=[after], **QUIET)
    error = caught.value
    assert (error.epoch, error.step, error.layer) == (2, 0, "layer 1, Explode()")
    assert error.history.epochs == 2
    assert "the loss became inf in epoch 3, step 1: the output of layer 1, Explode() is the first with" in str(error)
    assert "Try a smaller learning rate (it is 0.001), or clip_norm=1.0" in str(error)
    assert np.array_equal(model.parameters, kept[-1])


def test_a_learning_rate_that_is_too_large():
    model = network(mb.ReLU())
    before = model.parameters.copy()
    optimizer = mb.SGD(1e308, momentum=0.9)
    message = r"layer 0, Linear\(2, 3\) has an infinity in its weight, left by the update before"
    with pytest.raises(mb.Diverged, match=message):
        mb.fit(model, X, 100 * Y, mb.MSE(), optimizer, epochs=5, **QUIET)
    assert np.array_equal(model.parameters, before)
    assert optimizer.steps == 0


def test_the_last_update_is_looked_at_too():
    model = network()
    message = "the last update made parameters that are not finite"
    with pytest.raises(mb.Diverged, match=message) as caught:
        mb.fit(model, X, 100 * Y, mb.MSE(), mb.SGD(1e308), epochs=1, progress=False, batch_size=20)
    assert np.isfinite(model.parameters).all()
    assert caught.value.layer is not None


class Steep(mb.Loss):
    """The sum of -1e30 ŷ / n: a small value, and gradients whose squares leave float32."""

    def elementwise(self, y_pred, y_true):
        return 0 * y_pred, np.full_like(y_pred, 1e30)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop"])
def test_a_squared_gradient_that_overflows(name):
    """It would leave its parameter where it is for good: the parameters alone do not show it."""
    model = mb.Sequential(mb.Linear(2, 1), rng=0, dtype=np.float32)
    before, optimizer = model.parameters.copy(), getattr(mb, name)(0.1)
    message = rf"the last update left the optimiser with no sound state in epoch 1.*: {name}: v: expected .*got inf"
    with pytest.raises(mb.Diverged, match=message) as caught:
        mb.fit(model, X, np.full((len(X), 1), 1e30), Steep(), optimizer, epochs=1, **QUIET)
    assert np.array_equal(model.parameters, before)
    assert (optimizer.steps, caught.value.layer) == (0, None)


def test_inputs_that_are_not_finite():
    x = X.copy()
    x[7, 1] = np.nan
    with pytest.raises(mb.Diverged, match="x has NaN or an infinity in row 7") as caught:
        mb.fit(network(), x, Y, mb.MSE(), mb.Adam(), epochs=5, shuffle=False, **QUIET)
    assert (caught.value.epoch, caught.value.step, caught.value.layer) == (0, 1, None)
    assert "Try leaving out such rows" in str(caught.value)
    assert "learning rate" not in str(caught.value)


def test_inputs_of_large_scale_are_mentioned():
    with pytest.warns(RuntimeWarning), pytest.raises(mb.Diverged, match=r"the largest here is 1e\+200"):
        mb.fit(network(mb.ReLU()), X * 1e200, Y, mb.MSE(), mb.Adam(), epochs=5, clip_norm=1.0, **QUIET)


def test_ctrl_c_waits_for_the_step_and_keeps_what_there_is():
    ended = []

    class Press(mb.Layer):
        calls = 0

        def forward(self, x, out=None):
            Press.calls += 1
            if Press.calls == 10:  # epoch 3, step 2
                os.kill(os.getpid(), signal.SIGINT)
            ended.append(False)
            return x.copy()

        def backward(self, delta, out=None):
            ended[-1] = True
            return delta.copy()

    model = mb.Sequential(mb.Linear(2, 2), Press(), mb.Linear(2, 1), rng=0)
    optimizer = mb.Adam()
    history = mb.fit(model, X, Y, mb.MSE(), optimizer, epochs=100, **QUIET)
    assert history.stopped == "interrupted in epoch 3, after 2 of its 4 steps"
    assert history.epochs == 2
    assert all(ended)
    assert optimizer.steps == 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait():
    def press(epoch: mb.Epoch) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        mb.fit(network(), X, Y, mb.MSE(), mb.Adam(), epochs=3, callbacks=[press], **QUIET)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("epochs", [2, 9])
def test_ctrl_c_between_epochs_keeps_the_epoch_that_is_done(tmp_path, epochs):
    calls = []

    def press(y_pred, y_true):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.0

    model, path = network(), tmp_path / "run.npz"
    history = mb.fit(
        model, X, Y, mb.MSE(), mb.Adam(), epochs=epochs, validation=(X, Y), metrics={"m": press},
        checkpoint=mb.Checkpoint(path, every=5), **QUIET,
    )  # fmt: skip
    assert (history.interrupted, history.completed) == (True, epochs == 2)
    assert history.stopped == ("all 2 epochs done" if epochs == 2 else "interrupted after epoch 2")
    tensors, state = read_tensors(path)
    assert np.array_equal(tensors["parameters"], model.parameters)
    assert len(tensors["history.loss"]) == history.epochs == 2
    assert state["finished"] is None  # so that it can go on


def test_ctrl_c_goes_back_to_the_best_if_that_was_asked_for():
    values, states = iter([2.0, 1.0, 3.0]), []

    def press(epoch: mb.Epoch) -> None:
        states.append(epoch.model.parameters.copy())
        if epoch.number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    model = network()
    history = mb.fit(
        model, X, Y, mb.MSE(), mb.Adam(), epochs=9, validation=(X, Y), metrics={"m": lambda p, y: next(values)},
        early_stopping=mb.EarlyStopping(5, monitor="m"), callbacks=[press], **QUIET,
    )  # fmt: skip
    assert history.best_epoch == 1
    assert np.array_equal(model.parameters, states[1])


def test_another_thread_and_another_handler_are_left_alone():
    results = []
    thread = threading.Thread(
        target=lambda: results.append(mb.fit(network(), X, Y, mb.MSE(), mb.Adam(), epochs=1, **QUIET))
    )
    thread.start()
    thread.join()
    assert results[0].epochs == 1

    seen = []
    previous = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        press = lambda epoch: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
        history = mb.fit(network(), X, Y, mb.MSE(), mb.Adam(), epochs=2, callbacks=[press], **QUIET)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert history.epochs == len(seen) == 2


def test_diverged_goes_through_pickle():
    """As processes of a pool send it."""
    import pickle

    with pytest.raises(mb.Diverged) as caught:
        mb.fit(network(mb.ReLU()), X, 100 * Y, mb.MSE(), mb.SGD(1e308), epochs=5, **QUIET)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.epoch, again.step, again.layer) == (0, 1, "layer 0, Linear(2, 3)")
    assert again.history == caught.value.history


def test_infinite_inputs_that_an_activation_hides():
    """tanh ∞ = 1: only the update shows it, a step later; the row is named all the same."""
    x = X.copy()
    x[11, 0] = np.inf
    with pytest.raises(mb.Diverged, match=r"x has NaN or an infinity in row 11\. Try leaving out such rows"):
        mb.fit(network(), x, Y, mb.MSE(), mb.Adam(), epochs=5, **QUIET)


def test_a_model_that_is_not_finite_to_begin_with():
    model = network()
    model[0].weight = np.full((3, 2), np.nan)
    with pytest.raises(ValueError, match="fit: model: the parameters of Sequential"):
        mb.fit(model, X, Y, mb.MSE(), mb.Adam(), epochs=5, **QUIET)


def test_a_model_that_becomes_part_of_another():
    def wrap(epoch: mb.Epoch) -> None:
        mb.Sequential(epoch.model, mb.Tanh())

    with pytest.raises(RuntimeError, match="a callback has made the model part of another one"):
        mb.fit(network(), X, Y, mb.MSE(), mb.Adam(), epochs=5, callbacks=[wrap], **QUIET)
