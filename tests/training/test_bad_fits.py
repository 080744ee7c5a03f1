"""Bad arguments of fit: the right error, in words that help, and nothing changed."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

import matbackprop as mb

X, Y = np.linspace(-1, 1, 40).reshape(20, 2), np.linspace(0, 1, 20)[:, None]
NAN = float("nan")


def one(**changes):
    """Call fit with one thing changed."""
    model = changes.pop("model", None) or mb.Sequential(mb.Linear(2, 1), mb.Sigmoid(), rng=0)
    arguments = {"x": X, "y": Y, "loss": mb.BCE(), "optimizer": mb.SGD(0.1), "epochs": 2, "progress": False, "rng": 0}
    before = model.parameters.copy() if isinstance(model, mb.Sequential) else None
    try:
        return mb.fit(model, **{**arguments, **changes})
    finally:
        if before is not None:
            assert np.array_equal(model.parameters, before)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": mb.Linear(2, 1)}, TypeError, "model: expected a Sequential, got Linear"),
        (
            {"model": mb.Sequential(mb.Linear(2, 1), rng=0, dtype=np.complex128)},
            TypeError,
            "expected a real model, got one of complex128",
        ),
        ({"loss": mb.BCE}, TypeError, "make one with BCE()"),
        ({"loss": None}, TypeError, "expected a Loss"),
        ({"optimizer": mb.Adam}, TypeError, "expected an Optimizer such as mb.Adam(), got ABCMeta <class"),
        ({"optimizer": "adam"}, TypeError, "expected an Optimizer such as mb.Adam(), got str 'adam'"),
        ({"epochs": 0}, ValueError, "epochs: expected a positive integer"),
        ({"epochs": 1.5}, TypeError, "epochs: expected a positive integer"),
        ({"batch_size": 0}, ValueError, "batch_size: expected a positive integer"),
        ({"batch_size": 2.0}, TypeError, "batch_size: expected a positive integer"),
        ({"batch_size": 21}, ValueError, "batch_size is 21, but there are 20 examples"),
        ({"batch_size": 17, "validation": 0.2}, ValueError, "batch_size is 17, but there are 16 examples"),
        ({"x": X[:10]}, ValueError, "as many examples in x as in y, got 10 and 20"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "there are no examples"),
        ({"x": 3.0}, ValueError, "x: expected one entry an example"),
        ({"x": X[0], "y": Y[:2, 0]}, ValueError, "one example alone is x[None], a column of examples x[:, None]"),
        (
            {"y": None, "x": lambda: None},
            TypeError,
            "the function is to return an iterable of batches (x, y), got None",
        ),
        ({"x": None}, TypeError, "x: expected an array of numbers, got None"),
        ({"x": X + 1j}, TypeError, "expected real numbers"),
        ({"x": np.ma.masked_array(X)}, TypeError, "masked array"),
        ({"x": X.astype(object)}, TypeError, "dtype object"),
        ({"x": X[:, :1]}, ValueError, "expected inputs of 2 features"),
        ({"y": Y[:, 0]}, ValueError, "(20, 1), got (20,); make the targets a column with y[:, None]"),
        ({"y": Y + 1}, ValueError, "fit: y: BCE(): expected values in [0, 1], got "),
        ({"y": np.where(Y > 0.9, NAN, Y)}, ValueError, "fit: y: expected finite numbers, got nan at (18, 0)"),
        ({"y": None}, TypeError, "y is None, so x must be an iterable of batches"),
        ({"y": None, "x": [X]}, TypeError, "batch 0 of the iterable must be (x, y)"),
        ({"y": None, "x": []}, ValueError, "the iterable gave no batch in epoch 1"),
        ({"y": None, "x": [(X, Y)], "batch_size": 3}, ValueError, "batch_size: is for arrays"),
        ({"y": None, "x": [(X, Y)], "validation": 0.2}, ValueError, "a fraction is for arrays"),
        ({"validation": 0.0}, ValueError, "a fraction lies between 0 and 1"),
        ({"validation": 1.0}, ValueError, "a fraction lies between 0 and 1"),
        ({"validation": NAN}, ValueError, "a fraction lies between 0 and 1"),
        ({"validation": 0.01}, ValueError, "is 0, which leaves 20"),
        ({"validation": 0.99}, ValueError, "is 20, which leaves 0"),
        ({"validation": True}, TypeError, "validation: expected None, a fraction"),
        ({"validation": (X,)}, TypeError, "validation: expected None, a fraction"),
        ({"validation": (X, Y[:3])}, ValueError, "as many examples in x as in y"),
        ({"validation": (X[:0], Y[:0])}, ValueError, "at least one"),
        ({"validation": (X, Y + 1)}, ValueError, "validation y"),
        ({"validation": (X[:, :1], Y)}, ValueError, "fit: validation x: layer 0, Linear(2, 1): expected inputs of 2"),
        ({"validation": (X, np.hstack([Y, Y]))}, ValueError, "fit: validation y must have the shape"),
        ({"validation": (X, Y, np.ones(20))}, ValueError, "fit: validation sample_weight"),
        ({"y": None, "x": [(X[:0], Y[:0]), (X, Y)]}, ValueError, "batch 0 of the iterable has no rows"),
        ({"metrics": {"a": mb.accuracy}}, ValueError, "are measured on validation data"),
        ({"metrics": {"loss": mb.accuracy}, "validation": 0.2}, ValueError, "'loss' is a column of the history"),
        ({"metrics": {"a": 3}, "validation": 0.2}, TypeError, "expected functions by name"),
        ({"metrics": 3, "validation": 0.2}, TypeError, "metrics: expected a dict"),
        ({"early_stopping": 0}, ValueError, "patience"),
        ({"early_stopping": mb.EarlyStopping(monitor="validation_loss")}, ValueError, "pass validation=0.2"),
        ({"callbacks": [3]}, TypeError, "callbacks: expected functions of an Epoch, got int 3"),
        ({"sample_weight": np.ones(7)}, ValueError, "an entry for each of the 20 examples"),
        ({"sample_weight": np.ones(20)}, ValueError, "sample_weight[:, None]"),
        ({"sample_weight": NAN}, ValueError, "sample_weight"),
        ({"schedule": 3}, TypeError, "schedule"),
        ({"clip_norm": 0}, ValueError, "clip_norm: expected a positive number"),
        ({"clip_norm": 10**400}, ValueError, "clip_norm: expected a positive number"),
        ({"clip_norm": "1"}, TypeError, "clip_norm: expected a positive number"),
        ({"penalty": 0.1}, TypeError, "penalty: expected an L1 or L2, got float 0.1"),
        ({"checkpoint": 3}, TypeError, "Checkpoint: path: expected a path as str or os.PathLike, got int 3"),
        ({"checkpoint": "run.ckpt"}, ValueError, "expected a name that ends in .safetensors or .npz, got '.ckpt'"),
        ({"checkpoint": "nowhere/run.npz"}, FileNotFoundError, "there is no directory nowhere"),
        ({"resume": True}, ValueError, "nothing to go on from"),
        ({"resume": 1}, TypeError, "resume: expected True or False"),
        ({"progress": "yes"}, TypeError, "progress: expected True or False"),
        ({"shuffle": None}, TypeError, "shuffle: expected True or False"),
        ({"rng": "seed"}, TypeError, "rng: expected None, a seed"),
        ({"workers": 0}, ValueError, "workers"),
    ],
)
def test_bad_arguments(changes, error, words):
    with pytest.raises(error, match=re.escape(words)):
        one(**changes)


def test_a_row_that_does_not_fit_later_names_the_step():
    batches = [(X[:5], Y[:5]), (X[:5], Y[:4])]
    with pytest.raises(ValueError, match="shape of the predictions") as caught:
        one(y=None, x=batches, optimizer=mb.SGD(0.0))
    assert caught.value.__notes__ == ["fit: in epoch 1, step 2; rows are counted within the batch"]


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_an_error_between_epochs_has_the_history_so_far(error):
    def fail(epoch: mb.Epoch) -> None:
        if epoch.number == 2:
            raise error

    with pytest.raises(error) as caught:
        one(epochs=9, callbacks=fail, optimizer=mb.SGD(0.0))
    assert caught.value.history["loss"].shape == (3,)
    assert not caught.value.history.completed


def test_a_metric_that_is_no_number():
    with pytest.raises(TypeError, match="'m' must return a number, got None"):
        one(validation=0.2, metrics={"m": lambda p, y: None}, optimizer=mb.SGD(0.0))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"patience": 0}, ValueError, "patience: expected a positive integer"),
        ({"min_delta": -1.0}, ValueError, "min_delta: expected a finite number of at least 0"),
        ({"min_delta": NAN}, ValueError, "min_delta: expected a finite number of at least 0"),
        ({"monitor": 3}, TypeError, "monitor: expected the name of a column of the history"),
        ({"mode": "least"}, ValueError, "mode: expected one of"),
        ({"restore_best": 1}, TypeError, "restore_best: expected True or False"),
    ],
)
def test_bad_rules_of_early_stopping(arguments, error, words):
    with pytest.raises(error, match=words):
        mb.EarlyStopping(**arguments)


def test_a_class_that_there_is_not_is_found_before_the_first_step():
    model = mb.Sequential(mb.Linear(2, 3), rng=0)
    for y in ([0] * 19 + [3], np.arange(20, dtype=np.uint8)):
        with pytest.raises(ValueError, match=r"fit: y: expected classes 0...2, got 3 at"):
            one(model=model, loss=mb.CrossEntropy(), y=y)


def test_weights_of_rows_are_never_taken_for_those_of_outputs():
    """In a batch of as many rows as there are outputs, (B,) broadcasts to (B, out)."""
    model = mb.Sequential(mb.Linear(2, 4), rng=0)
    y = np.ones((20, 4))
    for change in ({"sample_weight": np.ones(20)}, {"validation": (X[:4], y[:4], np.ones(4))}):
        with pytest.raises(ValueError, match=r"sample_weight\[:, None\]"):
            one(model=model, loss=mb.MSE(), y=y, batch_size=4, **change)


def test_generator_and_rate_are_left_alone_too(tmp_path):
    rng, optimizer = np.random.default_rng(5), mb.SGD(0.1)
    state = rng.bit_generator.state
    with pytest.raises(ValueError, match="batch_size is 15"):  # after the rows for validation were drawn
        one(rng=rng, optimizer=optimizer, validation=0.5, batch_size=15)
    assert rng.bit_generator.state == state

    checkpoint = {"checkpoint": tmp_path / "run.npz", "schedule": mb.StepLR(1)}
    mb.fit(mb.Sequential(mb.Linear(2, 1), rng=0), X, Y, mb.MSE(), mb.SGD(0.1), epochs=1, progress=False, **checkpoint)
    with pytest.raises(ValueError, match="of a run with other settings"):
        one(rng=rng, optimizer=optimizer, resume=True, checkpoint=checkpoint["checkpoint"], schedule=mb.WarmUp(3))
    assert rng.bit_generator.state == state
    assert optimizer.lr == 0.1


def test_an_optimiser_that_trained_another_model():
    def model():
        return mb.Sequential(mb.Linear(2, 1), mb.Sigmoid(), rng=0)

    first, second, optimizer = model(), model(), mb.Adam()
    options = {"epochs": 2, "progress": False, "rng": 0}
    mb.fit(first, X, Y, mb.BCE(), optimizer, **options)
    optimizer.weight_decay = 0.1  # has the calls prepared anew
    with pytest.raises(ValueError, match=r"optimizer: its state is of another model's training, 2 steps.*reset\(\)"):
        one(model=second, optimizer=optimizer)
    assert optimizer.steps == 2
    mb.fit(first, X, Y, mb.BCE(), optimizer, **options)
    mb.fit(second, X, Y, mb.BCE(), copy.copy(optimizer), **options)  # a copy goes with a copy
    state = optimizer.state_dict()
    optimizer.reset()
    mb.fit(second, X, Y, mb.BCE(), optimizer, **options)
    optimizer.load_state_dict(state)
    mb.fit(model(), X, Y, mb.BCE(), optimizer, **options)
    plain = mb.SGD(0.1)  # has no state
    for _ in range(2):
        mb.fit(model(), X, Y, mb.BCE(), plain, **options)
