"""Optimisers: the same trajectories as torch's, the same bits after a break, and no bad setting or vector.

tests/golden/make_optimizers.py wrote the golden trajectories, for those who have no torch.
"""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import matbackprop as mb
from matbackprop.blas import axpy, scipy_blas_libraries
from matbackprop.prepared import BLAS_ENTRIES

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("optimizers.json").read_text(encoding="utf-8"))
NAN, INF = float("nan"), float("inf")

CASES = [
    ("SGD", {"lr": 0.01}),
    ("SGD", {"lr": 0.01, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4}),
    ("Adam", {"betas": (0.0, 0.0)}),
    ("Adam", {"amsgrad": True}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.5}),
    ("AdamW", {"weight_decay": 0.0}),
    ("AdamW", {"amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "eps": 1e-4}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
]
cases = pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda value: str(value).replace("'", ""))
each = pytest.mark.parametrize(("name", "settings"), [CASES[6], CASES[12], CASES[14], CASES[22]])


def make(name, settings, **changes):
    return getattr(mb, name)(**{**settings, **changes})


def vectors(rng, dtype, size=50, steps=100):
    """Return parameters, and gradients for that many steps: of very different sizes, some of them always 0."""
    scale = 10.0 ** rng.uniform(-3, 3, size) * (rng.random(size) < 0.9)
    parameters, gradients = rng.normal(size=size), rng.normal(size=(steps, size)) * scale
    if np.dtype(dtype).kind == "c":
        parameters, gradients = parameters + 1j * parameters[::-1], gradients + 1j * gradients[::-1]
    return parameters.astype(dtype), gradients.astype(dtype)


def run(optimizer, parameters, gradients):
    parameters = parameters.copy()
    for gradient in gradients:
        optimizer.step(parameters, gradient)
    return parameters


# The same as torch.


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6), ("complex128", 1e-14), ("complex64", 1e-6)]
)
@cases
def test_as_torch(torch, rng, name, settings, dtype, tolerance):
    """Given gradients, each step's parameters, to so much of the largest."""
    parameters, gradients = vectors(rng, dtype)
    ours, theirs = make(name, settings), torch.tensor(parameters.copy(), requires_grad=True)
    optimizer = getattr(torch.optim, name)([theirs], foreach=False, **settings)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        ours.step(parameters, gradient)
        golden = theirs.detach().numpy()
        assert parameters.dtype == golden.dtype
        np.testing.assert_allclose(parameters, golden, 0, tolerance * np.abs(golden).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["optimizer"]).replace("'", ""))
def test_golden(case, dtype):
    name, settings = case["optimizer"]
    optimizer, parameters = make(name, settings), np.array(GOLDEN["start"], dtype)
    for step, gradient in enumerate(np.array(GOLDEN["gradients"], dtype), 1):
        optimizer.step(parameters, gradient)
        if str(step) in case[dtype]:
            golden = np.array(case[dtype][str(step)], dtype)
            np.testing.assert_allclose(parameters, golden, 0, 20 * np.finfo(dtype).eps * np.abs(golden).max())


@each
def test_in_training(torch, name, settings):
    """Each with the gradients of its own engine: a network, 50 steps."""
    model = mb.Sequential(mb.Linear(3, 8), mb.Tanh(), mb.Linear(8, 2), rng=0)
    twin = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).to(torch.float64)
    twin.load_state_dict({key: torch.tensor(value) for key, value in model.state_dict().items()})
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    ours, theirs = make(name, settings), getattr(torch.optim, name)(twin.parameters(), **settings)
    for _ in range(50):
        model.backprop(x, y, mb.MSE())
        ours.step(model.parameters, model.gradients)
        theirs.zero_grad()
        torch.nn.MSELoss()(twin(torch.tensor(x)), torch.tensor(y)).backward()
        theirs.step()
    golden = torch.cat([parameter.detach().reshape(-1) for parameter in twin.parameters()]).numpy()
    np.testing.assert_allclose(model.parameters, golden, 0, 1e-12 * np.abs(golden).max())


# The rules' own properties.


def test_longdouble_keeps_its_digits(rng):
    """One step of Adam from the formula, in longdouble: m̂ = g and v̂ = g²."""
    parameters, gradients = vectors(rng, np.longdouble, steps=1)
    expected = parameters - np.longdouble(1e-3) * gradients[0] / (np.abs(gradients[0]) + np.longdouble(1e-8))
    np.testing.assert_allclose(run(mb.Adam(), parameters, gradients), expected, 1e-16, 0)


@cases
def test_in_pieces(rng, name, settings, monkeypatch):
    """A vector that is worked on in pieces, the last of them shorter, comes out to the bit as one that is not."""
    parameters, gradients = vectors(rng, np.float64, size=1000, steps=5)
    whole = run(make(name, settings), parameters, gradients)
    monkeypatch.setattr("matbackprop.prepared.CHUNK_BYTES", 8 * 300)
    np.testing.assert_array_equal(run(make(name, settings), parameters, gradients), whole)


@cases
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-5), (np.float64, 1e-14), (np.complex128, 1e-14)])
def test_many_parameters_by_blas(rng, name, settings, dtype, rtol, monkeypatch):
    """BLAS adds a multiple with one rounding instead of two, and the same bits whatever its threads."""
    parameters, gradients = vectors(rng, dtype, size=BLAS_ENTRIES, steps=3)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            optimizer = make(name, settings)
            results.append(run(optimizer, parameters, gradients))
            assert optimizer._axpy is not None
    np.testing.assert_array_equal(*results)
    monkeypatch.setattr("matbackprop.prepared.BLAS_ENTRIES", 1 << 40)
    plain = run(make(name, settings), parameters, gradients)
    np.testing.assert_allclose(results[0], plain, rtol, rtol * np.abs(plain - parameters).max())
    assert (results[0] != plain).any()


def watched_axpy(monkeypatch):
    """Return the list to which each call of BLAS adds its numbers of threads."""
    real, threads = axpy(np.dtype(np.float64)), []

    def watched(*args):
        threads.append([library.get_num_threads() for library in scipy_blas_libraries()])
        real(*args)

    monkeypatch.setattr("matbackprop.prepared.axpy", lambda dtype: watched)
    return threads


def test_blas_keeps_to_one_thread(monkeypatch):
    """As in backprop: threads of BLAS's own wait for one another where other work shares the cores."""
    threads = watched_axpy(monkeypatch)
    w, g = np.ones(BLAS_ENTRIES), np.ones(BLAS_ENTRIES)
    optimizer = mb.SGD(0.1)
    with threadpool_limits(2, user_api="blas"):
        optimizer.step(w, g)
        optimizer.update(np.ones(3), np.ones(3))  # which prepares a step without BLAS
        optimizer.step(w, g)
        assert all(library.get_num_threads() == 2 for library in scipy_blas_libraries())
    assert len(threads) > 2
    assert all(number == 1 for numbers in threads for number in numbers)


@cases
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_many_parameters_anywhere_in_memory(rng, name, settings, dtype):
    """BLAS's function would work on copies of vectors that are not aligned."""
    parameters, gradients = vectors(rng, dtype, size=BLAS_ENTRIES, steps=2)
    expected = run(make(name, settings), parameters, gradients)
    for odd_parameters, odd_gradients in ((True, False), (False, True)):
        optimizer = make(name, settings)
        w = unaligned(parameters) if odd_parameters else parameters.copy()
        for gradient in gradients:
            optimizer.step(w, unaligned(gradient) if odd_gradients else gradient)
        rtol = 1e-5 if dtype == np.float32 else 1e-14
        np.testing.assert_allclose(w, expected, rtol, rtol * np.abs(expected - parameters).max())


def unaligned(vector):
    """Return a copy that begins at an odd address."""
    memory = np.empty(vector.nbytes + 1, np.uint8)
    result = memory[1:].view(vector.dtype)
    result[...] = vector
    assert not result.flags.aligned
    return result


@pytest.mark.parametrize(("size", "expected"), [(BLAS_ENTRIES - 1, NAN), (BLAS_ENTRIES, 1.0)])
def test_a_rate_of_zero_and_gradients_that_are_nan(size, expected):
    """Arithmetic has 0 · NaN = NaN; BLAS leaves a vector alone to which it is to add nothing."""
    w = np.ones(size)
    mb.SGD(0.0).step(w, np.full(size, NAN))
    np.testing.assert_array_equal(w, expected)


def test_a_complex_parameter_is_two_numbers(monkeypatch):
    threads = watched_axpy(monkeypatch)
    for size in (BLAS_ENTRIES // 2 - 1, BLAS_ENTRIES // 2):
        mb.SGD(0.1).step(np.ones(size, complex), np.ones(size, complex))
        assert bool(threads) == (size == BLAS_ENTRIES // 2)


def test_after_a_step_that_could_not_be_prepared_the_next_one_is(monkeypatch):
    """Loading BLAS can fail, or be interrupted."""
    optimizer, old, new = mb.Adam(), np.zeros(10), np.zeros(BLAS_ENTRIES)
    optimizer.step(old, np.ones(10))
    optimizer.reset()
    before = old.copy()
    gradients = np.ones(BLAS_ENTRIES)
    with monkeypatch.context() as patch:
        patch.setattr("matbackprop.prepared.axpy", lambda dtype: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(new, gradients)
    optimizer.step(new, gradients)
    np.testing.assert_allclose(new, -1e-3, 1e-6)
    np.testing.assert_array_equal(old, before)


def test_blas_is_loaded_for_many_parameters_alone():
    code = (
        "import sys, numpy as np, matbackprop as mb; step = lambda n, t: mb.Adam().step(np.ones(n, t), np.ones(n, t))"
    )
    code += f"; step({BLAS_ENTRIES - 1}, float); print('scipy.linalg' in sys.modules); step({BLAS_ENTRIES}, float)"
    code += f"; print('scipy.linalg' in sys.modules); step({BLAS_ENTRIES}, np.longdouble)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_after_a_step_by_blas_an_optimizer_is_still_copied_and_pickled(rng):
    parameters, gradients = vectors(rng, np.float64, size=BLAS_ENTRIES, steps=2)
    optimizer = mb.Adam()
    optimizer.step(parameters, gradients[0])
    twins = copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))
    after = [parameters.copy() for _ in (optimizer, *twins)]
    for each_one, vector in zip((optimizer, *twins), after, strict=True):
        each_one.step(vector, gradients[1])
    np.testing.assert_array_equal(after[0], after[1])
    np.testing.assert_array_equal(after[0], after[2])


@pytest.mark.parametrize("size", [0, 1])
@each
def test_few_parameters(rng, name, settings, size):
    parameters, gradients = vectors(rng, np.float64, size)
    assert np.isfinite(run(make(name, settings), parameters, gradients)).all()


@cases
def test_a_rate_of_zero_changes_nothing(rng, name, settings):
    parameters, gradients = vectors(rng, np.float64)
    np.testing.assert_array_equal(run(make(name, settings, lr=0.0), parameters, gradients), parameters)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centred_rmsprop_where_nothing_varies(dtype):
    """v - ḡ² rounds to a negative number here; torch's parameters become NaN."""
    parameters, gradient = np.zeros(100, dtype), np.linspace(0.1, 1, 100).astype(dtype)
    optimizer = mb.RMSprop(lr=1e-9, centered=True)
    for _ in range(5000):
        optimizer.step(parameters, gradient)
    assert (optimizer._state["v"] < optimizer._state["mean"] ** 2).any()
    assert np.isfinite(parameters).all()


def test_a_nan_gradient_shows(rng):
    parameters, gradients = vectors(rng, np.float64)
    gradients[3, 7] = NAN
    result = run(mb.Adam(), parameters, gradients)
    assert np.isnan(result[7])
    assert np.isfinite(np.delete(result, 7)).all()


def test_gradients_are_not_modified(rng):
    parameters, gradients = vectors(rng, np.float64)
    before = gradients.copy()
    run(mb.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1), parameters, gradients)
    np.testing.assert_array_equal(gradients, before)


# Settings that change between steps.


def test_rate_set_between_steps(torch, rng):
    parameters, gradients = vectors(rng, np.float64)
    theirs = torch.tensor(parameters.copy(), requires_grad=True)
    ours, optimizer = mb.AdamW(), torch.optim.AdamW([theirs])
    schedule = mb.StepLR(10, gamma=0.5)
    ours.lr = schedule.start(ours.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, gamma=0.5)
    for gradient in gradients:
        ours.step(parameters, gradient)
        ours.lr = schedule.step()
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(parameters, theirs.detach().numpy(), 0, 1e-14)


@pytest.mark.parametrize(
    ("name", "settings", "later"),
    [
        ("SGD", {"lr": 0.01}, {"weight_decay": 0.1}),
        ("SGD", {"lr": 0.01, "momentum": 0.9}, {"nesterov": True, "weight_decay": 0.1}),
        ("SGD", {"lr": 0.01}, {"momentum": 0.9}),
        ("Adam", {}, {"betas": (0.5, 0.9), "weight_decay": 0.1, "eps": 1e-3}),
        ("AdamW", {"weight_decay": 0.0}, {"weight_decay": 0.1}),
        ("RMSprop", {}, {"alpha": 0.5, "momentum": 0.5}),
    ],
)
def test_settings_changed_between_steps(torch, rng, name, settings, later):
    """With the same two vectors throughout, so that it is the setting that has the calls prepared anew."""
    parameters, gradients = vectors(rng, np.float64, steps=20)
    theirs = torch.tensor(parameters.copy(), requires_grad=True)
    ours, optimizer = make(name, settings), getattr(torch.optim, name)([theirs], foreach=False, **settings)
    given = np.empty_like(parameters)
    for step, gradient in enumerate(gradients):
        if step == 10:
            for key, value in later.items():
                setattr(ours, key, value)
            optimizer.param_groups[0].update(later)
            optimizer.state[theirs].setdefault("momentum_buffer", torch.zeros_like(theirs))
        given[:] = gradient
        ours.step(parameters, given)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(parameters, theirs.detach().numpy(), 0, 1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_off_and_on_again(torch, rng, nesterov):
    """The velocity begins as the gradient, whenever it does, and is kept while there is no momentum."""
    phases = [
        {"momentum": 0.0, "nesterov": False, "dampening": 0.0 if nesterov else 0.4},
        {"momentum": 0.9, "nesterov": nesterov},
        {"nesterov": False, "momentum": 0.0},
        {"momentum": 0.5, "nesterov": nesterov},
    ]
    parameters, gradients = vectors(rng, np.float64, steps=20)
    theirs = torch.tensor(parameters.copy(), requires_grad=True)
    ours, optimizer = mb.SGD(0.01), torch.optim.SGD([theirs], 0.01, foreach=False)
    for step, gradient in enumerate(gradients):
        if step % 5 == 0:
            for key, value in phases[step // 5].items():
                setattr(ours, key, value)
            optimizer.param_groups[0].update(phases[step // 5])
        if step % 5 == 3:
            resumed = mb.SGD(0.5)
            resumed.load_state_dict(ours.state_dict())
            ours = resumed
        ours.step(parameters, gradient)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        golden = theirs.detach().numpy()
        np.testing.assert_allclose(parameters, golden, 0, 1e-14 * np.abs(golden).max(), err_msg=str(step))


# State: breaks, copies, and another model.


@each
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_resumed_is_uninterrupted(rng, name, settings, dtype, tmp_path):
    """To the bit, through JSON and an .npz, and into an optimiser of other settings."""
    parameters, gradients = vectors(rng, dtype, steps=20)
    expected = run(make(name, settings), parameters, gradients)

    first = make(name, settings)
    halfway = run(first, parameters, gradients[:10])
    state = first.state_dict()
    arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    numbers = json.loads(json.dumps({key: value for key, value in state.items() if key not in arrays}))
    assert all(isinstance(value, (int, float, str)) for value in numbers.values())
    np.savez(tmp_path / "state.npz", **arrays)
    second = getattr(mb, name)(lr=0.5)
    second.load_state_dict({**numbers, **np.load(tmp_path / "state.npz")})
    np.testing.assert_array_equal(run(second, halfway, gradients[10:]), expected)
    assert second.steps == 20
    assert repr(second) == repr(first)


def test_a_state_is_a_copy(rng):
    parameters, gradients = vectors(rng, np.float64)
    optimizer = mb.Adam()
    run(optimizer, parameters, gradients[:1])
    state = optimizer.state_dict()
    before = state["m"].copy()
    run(optimizer, parameters, gradients)
    np.testing.assert_array_equal(state["m"], before)
    optimizer.load_state_dict(state)
    run(optimizer, parameters, gradients)
    np.testing.assert_array_equal(state["m"], before)


@each
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies(rng, name, settings, duplicate):
    parameters, gradients = vectors(rng, np.float64, steps=20)
    expected = run(make(name, settings), parameters, gradients)
    original = make(name, settings)
    halfway = run(original, parameters, gradients[:10])
    twin = duplicate(original)
    run(original, halfway, gradients[:3])
    np.testing.assert_array_equal(run(twin, halfway, gradients[10:]), expected)
    assert repr(twin) == repr(original)


def test_before_the_first_step():
    optimizer = mb.Adam()
    assert optimizer.state_dict() == {
        "kind": "Adam",
        "steps": 0,
        "lr": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
    }
    optimizer.load_state_dict(mb.Adam(lr=0.5).state_dict())
    assert optimizer.lr == 0.5


def test_reset(rng):
    parameters, gradients = vectors(rng, np.float64)
    optimizer = mb.Adam(lr=0.01)
    expected = run(optimizer, parameters, gradients)
    with pytest.raises(ValueError, match=r"its state is of 50 parameters of float64, got 3 of float64.*reset\(\)"):
        optimizer.step(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"50 parameters of float64, got 50 of float32.*reset\(\)"):
        optimizer.step(np.zeros(50, "f"), np.zeros(50, "f"))
    assert optimizer.steps == 100
    optimizer.reset()
    assert optimizer.steps == 0
    np.testing.assert_array_equal(run(optimizer, parameters, gradients), expected)
    optimizer.reset()
    optimizer.step(np.zeros(3, "f"), np.zeros(3, "f"))


def test_other_vectors(rng):
    """Of the same size: each step changes the parameters that it is given, by the gradients that it is given."""
    (first, second), (one, two) = np.zeros((2, 5)), rng.normal(size=(2, 5))
    optimizer = mb.SGD(1.0)
    for parameters, gradients in ((first, one), (second, one), (second, two), (first, two)):
        before = parameters.copy()
        optimizer.step(parameters, gradients)
        np.testing.assert_array_equal(parameters, before - gradients)


def test_a_model_whose_vectors_move(rng):
    """A model that becomes part of another gets new vectors; the optimiser follows what it is given."""
    model = mb.Sequential(mb.Linear(3, 1), rng=0)
    optimizer, twin, expected = mb.Adam(), mb.Adam(), model.parameters.copy()
    for turn in range(3):
        if turn == 1:
            outer = mb.Sequential(model)
        gradient = rng.normal(size=4)
        model.gradients = gradient
        optimizer.step(model.parameters, model.gradients)
        twin.step(expected, gradient)
        np.testing.assert_array_equal(model.parameters, expected)
    np.testing.assert_array_equal(outer.parameters, expected)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"m": None}, TypeError, "m: expected a NumPy vector, got None"),
        ({"m": np.zeros((2, 2))}, ValueError, "m: expected one flat vector"),
        ({"m": np.zeros(4, int)}, TypeError, "m: expected one of"),
        ({"m": np.zeros(3)}, ValueError, "v: expected 3 numbers of float64, as before"),
        ({"m": np.zeros(4, "f")}, ValueError, "v: expected 4 numbers of float32, as before"),
        ({"v": ...}, ValueError, r"expected the vectors \['m', 'v'\], got \['m'\]"),
        ({"v_max": np.zeros(4)}, ValueError, r"got \['m', 'v', 'v_max'\]"),
        ({"amsgrad": True}, ValueError, r"expected the vectors \['m', 'v', 'v_max'\]"),
        ({"amsgrad": 1}, TypeError, "amsgrad: expected True or False"),
        ({"lr": NAN}, ValueError, "lr: expected a finite number of at least 0, got float nan"),
        ({"beta1": 1.0}, ValueError, r"beta1: expected a number in \[0, 1\)"),
        ({"beta2": ...}, ValueError, r"\['beta2'\] missing"),
        ({"steps": -1}, ValueError, "steps: expected an integer of at least 0"),
        ({"steps": 1.5}, TypeError, "steps: expected an integer of at least 0"),
        ({"steps": ...}, ValueError, r"\['steps'\] missing"),
        ({"steps": 0}, ValueError, r"steps is 0, and there are vectors: \['m', 'v'\]"),
        ({"m": np.array([0, 1, NAN, 0])}, ValueError, r"m: expected finite numbers, got nan at 2"),
        ({"m": np.array([0, 1, 1, -INF])}, ValueError, r"m: expected finite numbers, got -inf at 3"),
        ({"v": np.array([0, INF, 1, 0])}, ValueError, r"v: expected finite numbers of at least 0, got inf at 1"),
        ({"v": np.array([0, 1, 1, -1e-9])}, ValueError, r"v: expected finite numbers of at least 0, got -1e-09 at 3"),
        ({"kind": "AdamW"}, ValueError, "expected the state of one of its kind, got str 'AdamW'"),
        ({"kind": ...}, ValueError, "expected the state of one of its kind, got None"),
    ],
)
def test_bad_state(rng, changes, error, words):
    optimizer = mb.Adam()
    run(optimizer, *vectors(rng, np.float64, 4))
    state = {key: value for key, value in {**optimizer.state_dict(), **changes}.items() if value is not ...}
    before = optimizer.state_dict()
    with pytest.raises(error, match=words):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])


@pytest.mark.parametrize(
    ("name", "settings", "slot"), [(*CASES[10][:2], "v_max"), (*CASES[13], "v"), (*CASES[22], "v")]
)
def test_squares_are_not_negative(rng, name, settings, slot):
    """Of complex numbers neither part is; and of the other slots a number may be."""
    for dtype in (np.float32, np.complex128):
        optimizer = make(name, settings)
        run(optimizer, *vectors(rng, dtype, steps=3))
        state = optimizer.state_dict()
        make(name, settings).load_state_dict(state)
        assert any((state[key].real < 0).any() for key in set(optimizer.slots) - {"v", "v_max"})
        state[slot][7] = -1
        with pytest.raises(ValueError, match=rf"{slot}: expected finite numbers of at least 0, got .*-1.* at 7"):
            make(name, settings).load_state_dict(state)


def test_states_of_others():
    with pytest.raises(ValueError, match="expected the state of one of its kind, got str 'SGD'"):
        mb.Adam().load_state_dict(mb.SGD(0.1).state_dict())
    with pytest.raises(TypeError, match="expected what state_dict"):
        mb.SGD(0.1).load_state_dict([])
    optimizer = mb.SGD(0.1, momentum=0.5, nesterov=True)
    with pytest.raises(ValueError, match=r"nesterov needs momentum"):
        optimizer.load_state_dict({**optimizer.state_dict(), "momentum": 0.0})
    assert optimizer.momentum == 0.5


# Bad settings.

NOT_NUMBERS = [None, True, np.True_, "0.1", [0.1], np.array(0.1), 1j, np.zeros(2)]


def settings_of(name):
    numbers = {key for key, value in make(name, {"lr": 0.1}).state_dict().items() if type(value) is float}
    return sorted(numbers)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_bad_settings(name):
    """Given to the constructor, or set later; and then the old one is still there."""
    optimizer = make(name, {"lr": 0.1})
    for key in settings_of(name):
        below_one = key in {"beta1", "beta2", "momentum", "alpha", "dampening"}
        bad = [(value, TypeError) for value in NOT_NUMBERS]
        bad += [(value, ValueError) for value in (NAN, INF, -INF, -0.1, -1, 10**400)]
        bad += [(1.5, ValueError)] * below_one + [(1.0, ValueError)] * (below_one and key != "dampening")
        old = getattr(optimizer, key)
        for value, error in bad:
            with pytest.raises(error, match=rf"^{name}: {key}: expected a .*number .*, got "):
                setattr(optimizer, key, value)
            assert getattr(optimizer, key) == old
            if not key.startswith("beta"):
                with pytest.raises(error, match=rf"^{name}: {key}: expected a .*number .*, got "):
                    make(name, {"lr": 0.1}, **{key: value})


@pytest.mark.parametrize(
    "flag", [("SGD", "nesterov"), ("Adam", "amsgrad"), ("AdamW", "amsgrad"), ("RMSprop", "centered")]
)
@pytest.mark.parametrize("value", [None, 0, 1, "False", np.zeros(2)])
def test_bad_flags(flag, value):
    name, key = flag
    with pytest.raises(TypeError, match=f"{name}: {key}: expected True or False, got"):
        make(name, {"lr": 0.1}, **{key: value})


@pytest.mark.parametrize(
    ("betas", "error", "words"),
    [
        (0.9, TypeError, "betas: expected two numbers"),
        ("ab", TypeError, "betas: expected two numbers"),
        ((0.9,), TypeError, "betas: expected two numbers"),
        ((0.9, 1.0), ValueError, r"betas\[1\]: expected a number in \[0, 1\), got float 1.0"),
        ((-0.1, 0.9), ValueError, r"betas\[0\]: expected a number in \[0, 1\), got float -0.1"),
        ((0.5, "a"), TypeError, r"betas\[1\]"),
    ],
)
def test_bad_betas(betas, error, words):
    optimizer = mb.Adam()
    with pytest.raises(error, match=words):
        mb.Adam(betas=betas)
    with pytest.raises(error, match=words):
        optimizer.betas = betas
    assert optimizer.betas == (0.9, 0.999)


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match=r"nesterov needs momentum above 0 and no dampening, got momentum=0.0"):
        mb.SGD(0.1, nesterov=True)
    optimizer = mb.SGD(0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match=r"dampening=0.5"):
        optimizer.dampening = 0.5
    with pytest.raises(ValueError, match=r"momentum=0.0"):
        optimizer.momentum = 0
    assert (optimizer.momentum, optimizer.dampening) == (0.9, 0.0)
    with pytest.raises(AttributeError):
        del optimizer.momentum


def test_repr():
    assert repr(mb.SGD(0.1, momentum=0.9)) == "SGD(lr=0.1, momentum=0.9)"
    assert repr(mb.Adam()) == "Adam()"
    assert repr(mb.Adam(lr=1, betas=[0.5, 0.9])) == "Adam(lr=1.0, betas=(0.5, 0.9))"
    assert repr(mb.AdamW(weight_decay=0)) == "AdamW(weight_decay=0.0)"
    assert repr(mb.RMSprop(centered=True)) == "RMSprop(centered=True)"


# Bad vectors.


def read_only(array):
    array.flags.writeable = False
    return array


SHARED = np.zeros(5)


@pytest.mark.parametrize(
    ("parameters", "gradients", "error", "words"),
    [
        (
            [1.0],
            np.zeros(1),
            TypeError,
            r"parameters: expected a NumPy vector, got list \[1.0\]; pass model.parameters",
        ),
        (np.zeros(2), [1.0, 2.0], TypeError, "gradients: expected a NumPy vector, got list"),
        (np.zeros(2), None, TypeError, "gradients: expected a NumPy vector, got None"),
        (np.ma.zeros(2), np.zeros(2), TypeError, "parameters: expected a NumPy vector, got MaskedArray"),
        (np.zeros((2, 2)), np.zeros((2, 2)), ValueError, r"parameters: expected one flat vector.*reshape\(-1\)"),
        (np.zeros(()), np.zeros(()), ValueError, "expected one flat vector"),
        (np.zeros(2, int), np.zeros(2, int), TypeError, "parameters: expected one of .*float64.*dtype int"),
        (np.zeros(2, np.float16), np.zeros(2, np.float16), TypeError, "parameters: expected one of"),
        (np.zeros(2), np.zeros(2, "f"), TypeError, "gradients: expected the parameters' dtype, float64, got float32"),
        (np.zeros(2), np.zeros(2, complex), TypeError, "expected the parameters' dtype, float64, got complex128"),
        (np.zeros(2), np.zeros(3), ValueError, r"gradients: expected the parameters' shape, \(2,\), got \(3,\)"),
        (np.zeros(6)[::2], np.zeros(3), ValueError, "parameters: expected a contiguous vector, got one with strides"),
        (np.zeros(3), np.zeros(3)[::-1], ValueError, "gradients: expected a contiguous vector"),
        (read_only(np.zeros(2)), np.zeros(2), ValueError, "parameters: they are read-only"),
        (SHARED[:4], SHARED[1:], ValueError, "parameters and gradients share memory"),
    ],
)
def test_bad_vectors(parameters, gradients, error, words):
    optimizer = mb.Adam()
    with pytest.raises(error, match=f"^Adam: .*{words}" if "share" not in words else words):
        optimizer.step(parameters, gradients)
    assert optimizer.steps == 0
    optimizer.step(np.zeros(7), np.ones(7))


def test_none_is_never_the_vectors_of_before():
    optimizer, parameters = mb.Adam(), np.zeros(2)
    with pytest.raises(TypeError, match="parameters: expected a NumPy vector, got None"):
        optimizer.step(None, None)
    optimizer.step(parameters, np.ones(2))
    optimizer.weight_decay = 0.1
    with pytest.raises(TypeError, match="gradients: expected a NumPy vector, got None"):
        optimizer.step(parameters, None)
    assert optimizer.steps == 1


# A user's own.


class Signs(mb.Optimizer):
    """Signum (Bernstein et al., 2018), plainly written."""

    slots = ("m",)

    def __init__(self, lr=0.1, *, beta=0.5):
        super().__init__(lr)
        self.beta = beta

    def update(self, parameters, gradients, m):
        m += (1 - self.beta) * (gradients - m)
        parameters -= self.lr / self.steps * np.sign(m)


def test_an_optimiser_of_ones_own():
    """m = 0.5, then 0.5 - 1.25 < 0."""
    optimizer, parameters = Signs(), np.array([1.0])
    optimizer.step(parameters, np.array([1.0]))
    assert parameters == pytest.approx(0.9)
    twin, resumed, other = copy.copy(optimizer), parameters.copy(), Signs(lr=5)
    optimizer.step(parameters, np.array([-3.0]))
    assert parameters == pytest.approx(0.95)
    other.load_state_dict(twin.state_dict())
    other.step(resumed, np.array([-3.0]))
    np.testing.assert_array_equal(resumed, parameters)
    assert repr(optimizer) == "Signs()"
    assert repr(Signs(1, beta=0.2)) == "Signs(lr=1.0, beta=0.2)"
    with pytest.raises(ValueError, match="Signs: lr"):
        optimizer.lr = -1


def test_a_rule_with_something_added(rng):
    class Shrinking(mb.Adam):
        def update(self, parameters, gradients, **state):
            super().update(parameters, gradients, **state)
            parameters *= 0.5

    parameters, gradients = vectors(rng, np.float64, steps=3)
    expected, adam = parameters.copy(), mb.Adam(amsgrad=True)
    for gradient in gradients:
        adam.step(expected, gradient)
        expected *= 0.5
    np.testing.assert_array_equal(run(Shrinking(amsgrad=True), parameters, gradients), expected)


def test_mistakes_in_ones_own():
    class Returning(mb.Optimizer):
        def update(self, parameters, gradients):
            return parameters - self.lr * gradients

    class Writing(mb.Optimizer):
        def update(self, parameters, gradients):
            gradients *= self.lr

    with pytest.raises(TypeError, match=r"Returning: update returned ndarray.*in place"):
        Returning(0.1).step(np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="read-only"):
        Writing(0.1).step(np.zeros(2), np.zeros(2))
    for slots in ("m", None, (1,), ("a b",), ("lr",), ("steps", "m"), ["gradients"]):
        with pytest.raises(TypeError, match=r"Wrong: slots: .*(expected names|something else already)"):
            type("Wrong", (mb.Optimizer,), {"slots": slots})
    with pytest.raises(TypeError, match="abstract"):
        mb.Optimizer(0.1)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_a_step_is_whole_where_warnings_are_errors(name):
    """Overflow is no event within a step, of a parameter that has a sound gradient least of all."""
    optimizer, twin = (make(name, {"lr": 0.1, "weight_decay": 1e38}) for _ in range(2))
    parameters, expected = np.full((2, 3), 9, "f")
    with np.errstate(all="raise"):
        optimizer.step(parameters, np.array([1e30, -1e30, np.inf], "f"))
    with np.errstate(all="ignore"):
        twin.step(expected, np.array([1e30, -1e30, np.inf], "f"))
    np.testing.assert_array_equal(parameters, expected)


def test_a_user_s_rule_warns_as_it_did():
    class Careless(mb.Optimizer):
        def update(self, parameters, gradients):
            parameters -= self.lr * gradients**2

    with pytest.raises(RuntimeWarning, match="overflow"):
        Careless(0.1).step(np.zeros(2), np.full(2, 1e200))


def test_a_misspelt_setting():
    for optimizer in (mb.SGD(0.1), mb.Adam(), mb.AdamW(), mb.RMSprop()):
        name = type(optimizer).__name__
        with pytest.raises(AttributeError, match=rf"{name} has no setting learning_rate; it has lr, .*weight_decay"):
            optimizer.learning_rate = 0.1
        optimizer.lr = 0.2

    class Annotated(mb.Adam):
        def __init__(self, note):
            super().__init__()
            self.note = note

    optimizer = Annotated("mine")
    optimizer.remark = "too"
    assert (optimizer.note, optimizer.remark) == ("mine", "too")


@each
def test_nothing_waits_for_the_garbage_collector(name, settings):
    """An optimiser refers to vectors of the model's size; they go with the last reference to it."""
    optimizer = make(name, settings)
    optimizer.step(np.zeros(3), np.ones(3))
    gc.disable()
    try:
        alive = weakref.ref(optimizer)
        del optimizer
        assert alive() is None
    finally:
        gc.enable()
