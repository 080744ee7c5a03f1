"""Checkpoints: a run that is stopped and goes on comes to the same bits as one that was never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.files import read_tensors, write_tensors

RNG = np.random.default_rng(5)
X = RNG.uniform(-1, 1, (60, 3))
Y = (X.sum(axis=1, keepdims=True) > 0).astype(float)
SUFFIXES = [".npz", ".safetensors"]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path) -> Path:
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"run{request.param}"


def network(*layers: mb.Layer) -> mb.Sequential:
    return mb.Sequential(mb.Linear(3, 4), mb.Tanh(), *layers, mb.Linear(4, 1), mb.Sigmoid(), rng=0)


OPTIONS = {
    "plain": lambda: {"optimizer": mb.Adam(0.01)},
    "momentum": lambda: {"optimizer": mb.SGD(0.1, momentum=0.9, nesterov=True)},
    "rmsprop": lambda: {"optimizer": mb.RMSprop(0.01, centered=True, momentum=0.5)},
    "everything": lambda: {
        "optimizer": mb.AdamW(0.01, amsgrad=True),
        "schedule": mb.CosineAnnealingLR(6),
        "validation": 0.2,
        "metrics": {"right": lambda p, y: np.mean((p > 0.5) == y)},
        "early_stopping": 4,
        "clip_norm": 0.5,
        "penalty": mb.L2(1e-3),
    },
    "plateau": lambda: {"optimizer": mb.SGD(0.5), "schedule": mb.ReduceLROnPlateau(patience=0), "validation": (X, Y)},
    "warm-up": lambda: {"optimizer": mb.SGD(0.5), "schedule": mb.WarmUp(3, mb.StepLR(2, 0.5))},
    "in order": lambda: {"optimizer": mb.Adam(), "shuffle": False},
}


def run(model: mb.Sequential, epochs: int, **options) -> mb.History:
    options = {"progress": False, "rng": 3, "batch_size": 7, "loss": mb.BCE(), **options}
    return mb.fit(model, X, Y, options.pop("loss"), options.pop("optimizer"), epochs=epochs, **options)


def same(one: mb.History, other: mb.History) -> bool:
    """Return whether two histories agree in everything but the time."""
    names = [name for name in one if name != "seconds"]
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_run_is_the_uninterrupted_one(name, path):
    whole, parts = network(), network()
    expected = run(whole, 6, **OPTIONS[name]())
    for epochs in (1, 2, 4, 6):
        history = run(parts, epochs, checkpoint=path, resume=True, **OPTIONS[name]())
        parts = network() if epochs < 6 else parts
    assert np.array_equal(whole.parameters, parts.parameters)
    assert same(history, expected)
    assert history.best_epoch == expected.best_epoch


def test_generators_of_layers_go_on_too(path):
    whole, parts = network(mb.Dropout(0.5, rng=1)), network(mb.Dropout(0.5, rng=1))
    run(whole, 4, optimizer=mb.Adam())
    run(parts, 2, optimizer=mb.Adam(), checkpoint=path)
    again = network(mb.Dropout(0.5, rng=1))
    run(again, 4, optimizer=mb.Adam(), checkpoint=path, resume=True)
    assert np.array_equal(whole.parameters, again.parameters)


@pytest.mark.parametrize("kind", [np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_every_generator_of_numpys_goes_on(kind, tmp_path):
    whole, parts = network(), network()
    run(whole, 4, optimizer=mb.Adam(), rng=np.random.Generator(kind(1)))
    run(network(), 2, optimizer=mb.Adam(), rng=np.random.Generator(kind(1)), checkpoint=tmp_path / "a.npz")
    rng = np.random.Generator(kind(99))
    run(parts, 4, optimizer=mb.Adam(), rng=rng, checkpoint=tmp_path / "a.npz", resume=True)
    assert np.array_equal(whole.parameters, parts.parameters)


def test_an_interrupted_epoch_is_run_again(path):
    """Ctrl-C in mid-epoch leaves the file as it was at the end of the epoch before."""
    whole, parts, calls = network(), network(), []

    class Press(mb.Layer):
        def forward(self, x, out=None):
            calls.append(1)
            if len(calls) == 23:
                os.kill(os.getpid(), signal.SIGINT)
            return x.copy()

        def backward(self, delta, out=None):
            return delta.copy()

    run(whole, 5, optimizer=mb.Adam())
    pressed = mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 1), Press(), mb.Sigmoid(), rng=0)
    history = run(pressed, 5, optimizer=mb.Adam(), checkpoint=path)
    assert history.stopped == "interrupted in epoch 3, after 5 of its 9 steps"
    del calls[:]
    pressed = mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 1), Press(), mb.Sigmoid(), rng=0)
    calls.extend(range(99))
    run(pressed, 5, optimizer=mb.Adam(), checkpoint=path, resume=True)
    np.testing.assert_allclose(pressed.parameters, whole.parameters, rtol=1e-12)  # BCE is fused with Sigmoid either way
    del parts


def test_a_finished_run_is_not_trained_further(path):
    def options():
        return {"optimizer": mb.SGD(0.0), "early_stopping": 2, "checkpoint": path, "resume": True}

    model = network()
    first = run(model, 9, **options())
    again = network()
    second = run(again, 9, **options())
    assert first.stopped == second.stopped
    assert first.stopped.startswith("early stopping: loss was best in epoch 1, 2 epochs before; the model has")
    assert same(first, second)
    assert np.array_equal(model.parameters, again.parameters)


def test_every_so_many_epochs_and_the_last(tmp_path, monkeypatch):
    path, written = tmp_path / "a.npz", []
    write = mb.Checkpoint.write
    monkeypatch.setattr(mb.Checkpoint, "write", lambda self, *a: (written.append(1), write(self, *a)))
    run(network(), 7, optimizer=mb.Adam(), checkpoint=mb.Checkpoint(path, every=3))
    assert len(written) == 3


def test_a_file_that_is_there_is_not_overwritten(path):
    run(network(), 1, optimizer=mb.Adam(), checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="is there already; pass resume=True to go on from it, or delete it"):
        run(network(), 1, optimizer=mb.Adam(), checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": mb.Adam(0.5)}, "optimizer was 'Adam(lr=0.01)' and is 'Adam(lr=0.5)'"),
        ({"batch_size": 8}, "batch_size was 7 and is 8"),
        ({"loss": mb.MSE()}, r"loss was 'BCE()' and is 'MSE()'"),
        ({"validation": 0.5}, "validation was None and is 30"),
        ({"clip_norm": 1.0}, "clip_norm was None and is 1.0"),
        ({"rng": np.random.Generator(np.random.MT19937(1))}, "generator was a PCG64, and this one is a MT19937"),
    ],
)
def test_other_settings_are_refused(path, change, words):
    run(network(), 2, optimizer=mb.Adam(0.01), checkpoint=path)
    model = network()
    before = model.parameters.copy()
    with pytest.raises(ValueError, match="resume: ") as caught:
        run(model, 3, **{"optimizer": mb.Adam(0.01), "checkpoint": path, "resume": True, **change})
    assert words in str(caught.value)
    assert np.array_equal(model.parameters, before)


def test_another_model_is_refused(path):
    run(network(), 2, optimizer=mb.Adam(), checkpoint=path)
    other = mb.Sequential(mb.Linear(3, 1), mb.Sigmoid(), rng=0)
    with pytest.raises(ValueError, match=r"model was 'Linear\(3, 4\), Tanh\(\), "):
        run(other, 3, optimizer=mb.Adam(), checkpoint=path, resume=True)


def test_a_model_is_no_checkpoint(path):
    mb.save(network(), path)
    with pytest.raises(ValueError, match=r"expected the checkpoint of a training run; for a model use mb\.load"):
        run(network(), 3, optimizer=mb.Adam(), checkpoint=path, resume=True)


KILLED = """
import sys, numpy as np, matbackprop as mb
rng = np.random.default_rng(5)
x = rng.uniform(-1, 1, (60, 3)); y = (x.sum(axis=1, keepdims=True) > 0).astype(float)
model = mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 1), mb.Sigmoid(), rng=0)
print("begun", flush=True)
mb.fit(model, x, y, mb.BCE(), mb.Adam(0.01), epochs=150, batch_size=7, checkpoint=sys.argv[1], resume=True, rng=3,
       progress=False)
"""


def test_killed_runs_go_on(tmp_path):
    """Killed three times, at moments that differ from run to run, and resumed until done."""
    path, kills = tmp_path / "run.npz", 0
    for delay in (0.02, 0.05, 0.1, None):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        if delay is not None:
            time.sleep(delay)
            kills += process.poll() is None
            process.kill()
        process.wait()
        process.stdout.close()
    whole, resumed = network(), network()
    run(whole, 150, optimizer=mb.Adam(0.01))
    run(resumed, 150, optimizer=mb.Adam(0.01), checkpoint=path, resume=True)
    assert np.array_equal(whole.parameters, resumed.parameters)
    assert kills


def test_a_checkpoint_of_another_version_is_refused(path):
    run(network(), 1, optimizer=mb.Adam(), checkpoint=path)
    tensors, state = read_tensors(path)
    write_tensors(path, tensors, {**state, "version": 2})
    with pytest.raises(ValueError, match="in version 2 of the format; this one reads 1"):
        run(network(), 2, optimizer=mb.Adam(), checkpoint=path, resume=True)


class Scale(mb.Layer):
    def __init__(self, k: float) -> None:
        self.k = k

    def forward(self, x, out=None):
        return np.multiply(x, self.k, out=out)

    def backward(self, delta, out=None):
        return np.multiply(delta, self.k, out=out)


def test_another_setting_of_ones_own_layer_is_refused(tmp_path):
    run(network(Scale(2.0)), 2, optimizer=mb.Adam(), checkpoint=tmp_path / "a.npz")
    run(network(Scale(2.0)), 3, optimizer=mb.Adam(), checkpoint=tmp_path / "a.npz", resume=True)
    with pytest.raises(ValueError, match=r"Scale\(\) k=2\.0.* and is .*Scale\(\) k=3\.0"):
        run(network(Scale(3.0)), 3, optimizer=mb.Adam(), checkpoint=tmp_path / "a.npz", resume=True)


def test_other_data_are_refused(tmp_path):
    run(network(), 2, optimizer=mb.Adam(), checkpoint=tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"data was \['x of shape \(60, 3\), float64, "):
        mb.fit(
            network(), X + 1, Y, mb.BCE(), mb.Adam(), epochs=3, batch_size=7, rng=3, progress=False,
            checkpoint=tmp_path / "a.npz", resume=True,
        )  # fmt: skip


def test_two_runs_do_not_write_to_one_file(tmp_path):
    path = tmp_path / "a.npz"

    def other(epoch: mb.Epoch) -> None:
        if epoch.number == 1:
            path.unlink()
            run(network(), 1, optimizer=mb.Adam(), checkpoint=path)

    with pytest.raises(FileExistsError, match=r"another run has written to .*; give each run a file"):
        run(network(), 4, optimizer=mb.Adam(), checkpoint=path, callbacks=[other])


DAMAGE = {
    "a number for the parameters": ({"parameters": np.float64(5)}, {}),
    "NaN in the parameters": ({"parameters": np.full(21, np.nan)}, {}),
    "short parameters": ({"parameters": np.zeros(3)}, {}),
    "other type": ({"parameters": np.zeros(21, np.float32)}, {}),
    "no best": ({"best": None}, {}),
    "short moments": ({"optimizer.m": np.zeros(3)}, {}),
    "no moments": ({"optimizer.m": None}, {}),
    "no history": ({"history.loss": None}, {}),
    "a history of two dimensions": ({"history.loss": np.zeros((2, 2))}, {}),
    "columns of two lengths": ({"history.loss": np.zeros(5)}, {}),
    "no generators": ({}, {"generators": []}),
    "an odd generator": ({}, {"generators": [5]}),
    "a generator without a state": ({}, {"generators": [{"bit_generator": "PCG64"}]}),
    "a list of settings": ({}, {"settings": []}),
    "no settings": ({}, {"settings": None}),
    "an epoch that was not": ({}, {"best_epoch": 99}),
    "an odd epoch": ({}, {"best_epoch": "x"}),
    "a number for the columns": ({}, {"columns": 5}),
    "an odd optimiser": ({}, {"optimizer": {"lr": "x"}}),
    "a schedule": ({}, {"schedule": 5}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_changes_nothing(name, tmp_path):
    from matbackprop.files import read_tensors, write_tensors

    path = tmp_path / "a.npz"

    def options():
        return {"optimizer": mb.Adam(), "schedule": mb.StepLR(1), "early_stopping": 9, "checkpoint": path}

    run(network(), 2, **options())
    tensors, state = read_tensors(path)
    assert len(tensors["parameters"]) == 21
    arrays, entries = DAMAGE[name]
    tensors = {key: value for key, value in {**tensors, **arrays}.items() if value is not None}
    write_tensors(path, tensors, {**state, **entries})
    model, rng, used = network(), np.random.default_rng(8), options()
    before, seeds = model.parameters.copy(), rng.bit_generator.state
    with pytest.raises(ValueError, match=r"fit: resume: .*a\.npz: is damaged, or not of this run: "):
        run(model, 4, resume=True, rng=rng, **used)
    assert np.array_equal(model.parameters, before)
    assert rng.bit_generator.state == seeds
    assert used["optimizer"].steps == 0
    assert used["optimizer"].lr == 0.001
