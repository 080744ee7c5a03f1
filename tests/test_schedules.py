"""Schedules: torch's rates, or the closed form where torch's rounding adds up; no bad setting, state or loss."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import mpmath
import numpy as np
import pytest

import matbackprop as mb

NAN, INF = float("nan"), float("inf")
EPOCHS = 150


def rates(schedule, lr, epochs=EPOCHS, losses=None):
    """Return the rates of so many epochs."""
    losses = [None] * epochs if losses is None else losses
    return [schedule.start(lr), *(schedule.step(loss) for loss in losses[: epochs - 1])]


def torch_rates(torch, make, lr, losses=None, closed=False):
    """Return torch's, as the scheduler that ``make(optimizer)`` returns has it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    result = []
    for epoch in range(EPOCHS):
        result.append(scheduler._get_closed_form_lr()[0] if closed else optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SequentialLR's own
            scheduler.step(*([] if losses is None else [losses[epoch]]))
    return result


@pytest.mark.parametrize("lr", [0.1, 3.0, 1e-7])
@pytest.mark.parametrize(("size", "gamma"), [(1, 0.97), (30, 0.1), (7, 1.0), (40, 0.0), (10, 1.5)])
def test_step(torch, lr, size, gamma):
    expected = torch_rates(torch, lambda o: torch.optim.lr_scheduler.StepLR(o, size, gamma), lr)
    np.testing.assert_allclose(rates(mb.StepLR(size, gamma), lr), expected, 1e-13, 0)


@pytest.mark.parametrize(("length", "lowest"), [(150, 0.0), (149, 1e-4), (1, 0.0), (40, 0.01), (1000, 0.0)])
def test_cosine(torch, length, lowest):
    """By torch's closed form (its schedule's rates, each from the last, drift from it), and past T as well."""
    lr, make = 0.1, torch.optim.lr_scheduler.CosineAnnealingLR
    ours = rates(mb.CosineAnnealingLR(length, lowest), lr)
    closed = torch_rates(torch, lambda o: make(o, length, eta_min=lowest), lr, closed=True)
    np.testing.assert_allclose(ours, closed, 0, 1e-16)
    drifting = torch_rates(torch, lambda o: make(o, length, eta_min=lowest), lr)
    np.testing.assert_allclose(ours, drifting, 0, 1e-12)


def test_cosine_to_the_last_digit():
    """By mpmath, at 50 digits: near the end, where 1 + cos cancels, too."""
    length, lr = 1000, 0.1
    with mpmath.workdps(50):
        exact = [float(mpmath.mpf(lr) * (1 + mpmath.cos(mpmath.pi * epoch / length)) / 2) for epoch in range(length)]
    np.testing.assert_allclose(rates(mb.CosineAnnealingLR(length), lr, length), exact, 1e-15, 0)
    schedule = mb.CosineAnnealingLR(length)
    assert rates(schedule, lr, length + 1)[-1] == 0.0
    assert schedule.rate(lr, 2 * length) == lr


@pytest.mark.parametrize("epochs", [1, 5, 100, 200])
@pytest.mark.parametrize("then", [None, "step", "cosine"])
def test_warm_up(torch, epochs, then):
    from torch.optim import lr_scheduler as theirs

    follow = {
        None: (None, lambda o: theirs.ConstantLR(o, factor=1.0)),
        "step": (mb.StepLR(3, 0.9), lambda o: theirs.StepLR(o, 3, 0.9)),
        "cosine": (mb.CosineAnnealingLR(40, 1e-3), lambda o: theirs.CosineAnnealingLR(o, 40, eta_min=1e-3)),
    }
    ours, after = follow[then]

    def sequence(optimizer):
        line = theirs.LinearLR(optimizer, start_factor=0.1, total_iters=epochs)
        return theirs.SequentialLR(optimizer, [line, after(optimizer)], milestones=[epochs])

    expected = torch_rates(torch, sequence, 0.1)
    np.testing.assert_allclose(rates(mb.WarmUp(epochs, ours), 0.1), expected, 1e-12, 1e-14)


def test_warm_up_then_plateau():
    """The plateau begins when the line ends, from the base rate, and sees the losses from then on."""
    schedule = mb.WarmUp(2, mb.ReduceLROnPlateau(patience=0, factor=0.5), start_factor=0.5)
    assert rates(schedule, 1.0, 7, [1.0, 1.0, 3.0, 2.0, 2.0, 2.0]) == [0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"patience": 0, "factor": 0.9},
        {"patience": 2, "cooldown": 3, "factor": 0.7},
        {"patience": 1, "min_lr": 0.01, "factor": 0.5},
        {"patience": 1, "eps": 1e-3},
        {"patience": 3, "threshold": 0.05, "threshold_mode": "abs"},
        {"patience": 3, "threshold": 0.2},
        {"mode": "max", "patience": 2, "threshold_mode": "abs", "factor": 0.8},
        {"mode": "max", "patience": 2, "factor": 0.8, "cooldown": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["falling", "noise", "negative", "nan"])
def test_plateau(torch, settings, kind):
    rng = np.random.default_rng(0)
    losses = np.exp(-np.arange(EPOCHS) / 40) + 0.1 * rng.random(EPOCHS)
    if kind == "noise":
        losses = rng.normal(size=EPOCHS)
    elif kind == "negative":
        losses -= 2
    elif kind == "nan":
        losses[rng.random(EPOCHS) < 0.2] = NAN
        losses[[5, 50]] = INF
    expected = torch_rates(torch, lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, **settings), 0.1, losses)
    schedule = mb.ReduceLROnPlateau(**settings)
    np.testing.assert_array_equal(rates(schedule, 0.1, EPOCHS, losses), expected)
    np.testing.assert_array_equal(rates(schedule, 0.1, EPOCHS, losses), expected)  # start forgets what was


def test_function(torch):
    ours = rates(mb.as_schedule(lambda epoch: 1 / (1 + epoch)), 0.1)
    theirs = torch_rates(torch, lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)), 0.1)
    np.testing.assert_array_equal(ours, theirs)
    same = mb.StepLR(3)
    assert mb.as_schedule(same) is same


def load_step(**state):
    mb.StepLR(3).load_state_dict({"kind": "StepLR", **state})


ALL = [
    mb.StepLR(3, 0.5),
    mb.CosineAnnealingLR(7, 0.01),
    mb.WarmUp(4),
    mb.WarmUp(4, mb.WarmUp(3, mb.ReduceLROnPlateau(patience=1))),
    mb.ReduceLROnPlateau(patience=1, cooldown=1),
    mb.as_schedule(np.sqrt),
]
each = pytest.mark.parametrize("schedule", ALL, ids=repr)


@each
@pytest.mark.parametrize("done", [0, 1, 4, 9, 17])
def test_resumed_is_uninterrupted(schedule, done):
    losses = np.random.default_rng(0).random(30).tolist()
    expected = rates(schedule, 0.1, 30, losses)
    first, second = copy.copy(schedule), copy.copy(schedule)
    rates(first, 0.1, done + 1, losses)
    second.start(5.0)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    pickled = pickle.loads(pickle.dumps(first))
    for other in (second, pickled):
        assert [other.step(loss) for loss in losses[done:-1]] == expected[done + 1 :]


@each
def test_not_started(schedule):
    fresh = copy.copy(schedule)
    fresh.load_state_dict(type(fresh).__new__(type(fresh)).state_dict() if not hasattr(fresh, "then") else new(fresh))
    with pytest.raises(RuntimeError, match="step before start"):
        fresh.step(1.0)


def new(warm_up):
    """Return the state of such a warm-up before it has started."""
    twin = mb.WarmUp(1, None if warm_up.then is None else mb.WarmUp(1, mb.ReduceLROnPlateau()))
    return twin.state_dict()


@each
@pytest.mark.parametrize(("lr", "error"), [(NAN, ValueError), (-0.1, ValueError), (INF, ValueError), ("a", TypeError)])
def test_bad_base_rate(schedule, lr, error):
    schedule = copy.copy(schedule)
    schedule.start(0.1)
    before = schedule.state_dict()
    with pytest.raises(error, match="start: lr: expected a finite number of at least 0"):
        schedule.start(lr)
    assert schedule.state_dict() == before


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: mb.StepLR(0), ValueError, "StepLR: step_size: expected a positive integer"),
        (lambda: mb.StepLR(1.5), TypeError, "step_size: expected a positive integer"),
        (lambda: mb.StepLR(2, gamma=-1), ValueError, "gamma: expected a finite number of at least 0"),
        (lambda: mb.StepLR(2, gamma=NAN), ValueError, "gamma"),
        (lambda: mb.CosineAnnealingLR(True), TypeError, "T_max: expected a positive integer"),
        (lambda: mb.CosineAnnealingLR(3, eta_min=INF), ValueError, "eta_min"),
        (lambda: mb.WarmUp(0), ValueError, "WarmUp: epochs"),
        (lambda: mb.WarmUp(3, start_factor=0), ValueError, r"start_factor: expected a number in \(0, 1\]"),
        (lambda: mb.WarmUp(3, 0.1), TypeError, "expected a Schedule or a function of the epoch, got float 0.1"),
        (lambda: mb.WarmUp(3, mb.StepLR), TypeError, r"make one with StepLR\(\.\.\.\)"),
        (lambda: mb.as_schedule(None), TypeError, "expected a Schedule or a function of the epoch, got None"),
        (lambda: mb.ReduceLROnPlateau(factor=1.0), ValueError, r"factor: expected a number in \(0, 1\)"),
        (lambda: mb.ReduceLROnPlateau(patience=-1), ValueError, "patience: expected an integer of at least 0"),
        (lambda: mb.ReduceLROnPlateau(patience=1.0), TypeError, "patience"),
        (
            lambda: mb.ReduceLROnPlateau(mode="low"),
            ValueError,
            r"mode: expected one of \['min', 'max'\], got",
        ),
        (lambda: mb.ReduceLROnPlateau(threshold_mode=None), ValueError, "threshold_mode: expected one of"),
        (lambda: mb.ReduceLROnPlateau(min_lr=NAN), ValueError, "min_lr"),
        (lambda: mb.ReduceLROnPlateau().step(1.0), RuntimeError, r"call start\(lr\)"),
        (lambda: rates(mb.ReduceLROnPlateau(), 0.1, 2), TypeError, "step: expected the loss, a number, got None"),
        (lambda: rates(mb.ReduceLROnPlateau(), 0.1, 2, ["1"]), TypeError, "expected the loss, a number, got str"),
        (lambda: mb.as_schedule(lambda _: -1.0).start(0.1), ValueError, "factor of epoch 0: expected a finite number"),
        (lambda: mb.as_schedule(lambda _: None).start(0.1), TypeError, "factor of epoch 0"),
        (lambda: mb.StepLR(3).load_state_dict({"epoch": 1}), ValueError, "one of its kind, got None"),
        (
            lambda: mb.StepLR(3).load_state_dict(mb.CosineAnnealingLR(3).state_dict()),
            ValueError,
            "its kind, got str 'Cos",
        ),
        (lambda: load_step(epoch=1), ValueError, r"expected \['base_lr', 'epoch'\], got \['epoch'\]"),
        (lambda: mb.StepLR(3).load_state_dict(None), TypeError, "expected what state_dict"),
        (lambda: load_step(epoch=-1, base_lr=1), ValueError, "epoch: expected an integer"),
        (lambda: load_step(epoch=1, base_lr=None), ValueError, "has started or one that"),
        (lambda: mb.WarmUp(3).load_state_dict(ALL[3].state_dict()), ValueError, "and there is none"),
        (lambda: mb.WarmUp(3, mb.StepLR(1)).load_state_dict(mb.WarmUp(3).state_dict()), ValueError, "StepLR.*expected"),
    ],
)
def test_bad_calls(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_settings_set_later():
    schedule = mb.StepLR(3)
    with pytest.raises(ValueError, match="StepLR: gamma"):
        schedule.gamma = NAN
    assert schedule.gamma == 0.1
    schedule.gamma = 0.5
    assert repr(schedule) == "StepLR(step_size=3, gamma=0.5)"
    assert repr(mb.WarmUp(3, mb.CosineAnnealingLR(5))) == "WarmUp(epochs=3, then=CosineAnnealingLR(T_max=5))"


def test_what_follows_is_set_later():
    schedule = mb.WarmUp(1)
    for bad in (3, mb.StepLR):
        with pytest.raises(TypeError, match=r"WarmUp: then: expected a Schedule or a function of the epoch, got"):
            schedule.then = bad
        with pytest.raises(TypeError, match=r"WarmUp: then: expected a Schedule or a function of the epoch, got"):
            mb.WarmUp(1, bad)
    assert schedule.then is None
    schedule.then = lambda epoch: 1 / (1 + epoch)
    assert rates(schedule, 1.0, 3) == [0.1, 1.0, 0.5]
    schedule = mb.as_schedule(abs)
    with pytest.raises(TypeError, match=r"LambdaLR: function: expected a function of the epoch, got float 0\.5"):
        schedule.function = 0.5


def test_a_huge_loss():
    """An integer beyond the floats is as an infinity of its sign."""
    schedule = mb.ReduceLROnPlateau(mode="max", patience=0)
    schedule.start(1.0)
    assert schedule.step(-(10**400)) == 0.1
    assert schedule.step(10**400) == 0.1


def test_a_failing_function_changes_nothing():
    schedule = mb.as_schedule(lambda epoch: 1.0 if epoch < 2 else NAN)
    schedule.start(0.1)
    schedule.step()
    for _ in range(2):
        with pytest.raises(ValueError, match="factor of epoch 2"):
            schedule.step()
    assert schedule.epoch == 1
