"""fit: does it make the updates that it says, and leave behind what it says?"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

import matbackprop as mb

RNG = np.random.default_rng(7)
X = RNG.uniform(-1, 1, (50, 3))
Y = np.sin(X @ [[1.0, 0.5], [-2.0, 1.0], [0.5, 3.0]])
QUIET = {"progress": False, "rng": 0}


def network(dtype: type = np.float64, seed: int = 1) -> mb.Sequential:
    return mb.Sequential(mb.Linear(3, 5), mb.Tanh(), mb.Linear(5, 2), rng=seed, dtype=dtype)


def by_hand(model: mb.Sequential, optimizer: mb.Optimizer, epochs: int, size: int, weight=None) -> list[float]:
    """The loop as anybody would write it, the rows in the order that fit documents: a permutation an epoch."""
    rng, losses = np.random.default_rng(0), []
    for _ in range(epochs):
        order, total = rng.permutation(len(X)), 0.0
        for start in range(0, len(X), size):
            rows = order[start : start + size]
            chosen = None if weight is None else weight[rows]
            total += model.backprop(X[rows], Y[rows], mb.MSE(), sample_weight=chosen) * len(rows)
            optimizer.step(model.parameters, model.gradients)
        losses.append(total / len(X))
    return losses


@pytest.mark.parametrize("size", [1, 7, 16, 50])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_updates_are_those_of_a_loop_written_by_hand(size, dtype):
    model, plain = network(dtype), network(dtype)
    history = mb.fit(model, X, Y, mb.MSE(), mb.Adam(0.01), epochs=3, batch_size=size, **QUIET)
    losses = by_hand(plain, mb.Adam(0.01), 3, size)
    assert np.array_equal(model.parameters, plain.parameters)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-14)


def test_the_updates_are_torchs(torch):
    """The same network, rows and order in torch's own loop."""
    model = network()
    twin = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    rng = np.random.default_rng(0)
    for _ in range(5):
        order = rng.permutation(len(X))
        for start in range(0, len(X), 16):
            rows = order[start : start + 16]
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(twin(torch.from_numpy(X[rows])), torch.from_numpy(Y[rows])).backward()
            optimizer.step()
    mb.fit(model, X, Y, mb.MSE(), mb.SGD(0.05, momentum=0.9), epochs=5, batch_size=16, **QUIET)
    for name, array in twin.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], array.numpy(), rtol=1e-12, atol=1e-14)


def test_weights_go_with_their_rows():
    model, plain = network(), network()
    weight = np.random.default_rng(3).uniform(0, 2, (50, 1))
    mb.fit(model, X, Y, mb.MSE(), mb.SGD(0.1), epochs=2, batch_size=16, sample_weight=weight, **QUIET)
    by_hand(plain, mb.SGD(0.1), 2, 16, weight)
    assert np.array_equal(model.parameters, plain.parameters)


def test_a_weight_of_zero_leaves_a_row_out():
    """Full batches, and the sum: the gradient is that of the rows that weigh something."""
    model, plain = network(), network()
    weight = np.ones((50, 1))
    weight[30:] = 0
    mb.fit(model, X, Y, mb.MSE("sum"), mb.SGD(0.01), epochs=3, batch_size=50, sample_weight=weight, **QUIET)
    mb.fit(plain, X[:30], Y[:30], mb.MSE("sum"), mb.SGD(0.01), epochs=3, batch_size=30, **QUIET)
    np.testing.assert_allclose(model.parameters, plain.parameters, rtol=1e-12)


def test_every_row_is_drawn_once_an_epoch():
    seen = []

    class Spy(mb.Layer):
        def forward(self, x, out=None):
            seen.extend(x[:, 0].tolist())
            return x.copy()

        def backward(self, delta, out=None):
            return delta.copy()

    model = mb.Sequential(Spy(), mb.Linear(1, 1), rng=0)
    numbers = np.arange(10.0)[:, None]
    mb.fit(model, numbers, numbers, mb.MSE(), mb.SGD(0.0), epochs=2, batch_size=4, **QUIET)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:] != list(range(10))
    seen.clear()
    mb.fit(model, numbers, numbers, mb.MSE(), mb.SGD(0.0), epochs=1, batch_size=4, shuffle=False, **QUIET)
    assert seen == list(range(10))


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        mb.fit(model, X, Y, mb.MSE(), mb.Adam(), epochs=2, batch_size=8, progress=False, rng=seed)
    assert np.array_equal(models[0].parameters, models[1].parameters)
    assert not np.array_equal(models[0].parameters, models[2].parameters)


def test_data_of_other_types_are_converted_batch_by_batch(tmp_path):
    whole = RNG.integers(0, 256, (50, 3)).astype(np.uint8)
    stored = np.memmap(tmp_path / "x", np.uint8, "w+", shape=whole.shape)
    stored[...] = whole
    models = [network() for _ in range(4)]
    for model, x in zip(models, (whole.astype(float), whole, stored, whole.tolist()), strict=True):
        mb.fit(model, x, Y, mb.MSE(), mb.SGD(1e-6), epochs=2, batch_size=16, **QUIET)
    assert all(np.array_equal(model.parameters, models[0].parameters) for model in models)


def test_classes_may_be_integers_of_any_kind(torch):
    pandas = pytest.importorskip("pandas")
    classes = RNG.integers(0, 2, 50)
    models = []
    for y in (classes, classes.tolist(), classes.astype(np.uint8), pandas.Series(classes), torch.from_numpy(classes)):
        models.append(mb.Sequential(mb.Linear(3, 2), rng=0))
        mb.fit(models[-1], X, y, mb.CrossEntropy(), mb.SGD(0.1), epochs=2, **QUIET)
    assert all(np.array_equal(model.parameters, models[0].parameters) for model in models)


def test_an_iterable_of_batches_does_as_the_arrays():
    model, plain = network(), network()
    batches = [(X[i : i + 16].tolist(), Y[i : i + 16]) for i in range(0, 50, 16)]
    mb.fit(model, batches, None, mb.MSE(), mb.Adam(), epochs=2, **QUIET)
    mb.fit(plain, X, Y, mb.MSE(), mb.Adam(), epochs=2, batch_size=16, shuffle=False, **QUIET)
    assert np.array_equal(model.parameters, plain.parameters)
    again = network()
    mb.fit(again, lambda: iter(batches), None, mb.MSE(), mb.Adam(), epochs=2, **QUIET)
    assert np.array_equal(model.parameters, again.parameters)


def test_an_iterator_lasts_one_epoch():
    batches = [(X, Y)]
    history = mb.fit(network(), iter(batches), None, mb.MSE(), mb.Adam(), epochs=1, **QUIET)
    assert history.epochs == 1
    with pytest.raises(ValueError, match="an iterator, which ends after one epoch; pass a list"):
        mb.fit(network(), iter(batches), None, mb.MSE(), mb.Adam(), epochs=2, **QUIET)


def test_validation_on_a_fraction_is_on_rows_that_are_not_trained_on():
    """Rows of two kinds: whichever were kept have no influence, so a model of the rest alone comes to the same."""
    rng = np.random.default_rng(0)
    order = rng.permutation(50)  # as `split` draws it
    kept, rest = np.sort(order[:10]), np.sort(order[10:])
    spoilt = Y.copy()
    spoilt[kept] += 1e6
    model, plain = network(), network()
    history = mb.fit(model, X, spoilt, mb.MSE(), mb.SGD(0.1), epochs=2, batch_size=8, validation=0.2, **QUIET)
    mb.fit(plain, X[rest], Y[rest], mb.MSE(), mb.SGD(0.1), epochs=2, batch_size=8, progress=False, rng=rng)
    np.testing.assert_allclose(model.parameters, plain.parameters, rtol=1e-13)
    expected = mb.MSE()(model.predict(X[kept]), spoilt[kept])
    assert history["validation_loss"][-1] == pytest.approx(expected, rel=1e-13)


def test_validation_data_weights_and_metrics():
    weight = RNG.uniform(0, 2, (50, 1))
    model = network()
    history = mb.fit(
        model, X[:20], Y[:20], mb.MSE(), mb.Adam(), epochs=3, validation=(X, Y, weight),
        metrics={"worst": lambda p, y: np.abs(p - y).max()}, **QUIET,
    )  # fmt: skip
    assert list(history) == ["loss", "validation_loss", "worst", "lr", "seconds"]
    assert history["validation_loss"][-1] == mb.MSE()(model.predict(X), Y, weight)
    assert history["worst"][-1] == np.abs(model.predict(X) - Y).max()


def test_accuracy():
    logits = [[1.0, 2.0, 0.0], [3.0, 1.0, 0.0]]
    assert mb.accuracy(logits, [1, 2]) == 0.5
    assert mb.accuracy(logits, [[0, 1, 0], [1, 0, 0]]) == 1.0
    assert np.isnan(mb.accuracy(np.empty((0, 2)), np.empty(0, int)))
    with pytest.raises(ValueError, match="at least two classes"):
        mb.accuracy([[0.3]], [1])
    with pytest.raises(ValueError, match=r"expected targets of shape \(2,\)"):
        mb.accuracy(logits, [1])


def test_accuracy_of_what_is_not_a_number():
    """A row of predictions with NaN has no largest: it is a miss, whatever the class."""
    logits = np.array([[np.nan, 1.0], [1.0, np.nan], [np.inf, 1.0], [np.nan, np.nan]])
    assert [mb.accuracy(logits, [c] * 4) for c in (0, 1)] == [0.25, 0.0]
    assert mb.accuracy([[1, 2], [2, 1]], [1.0, 0.0]) == 1.0
    assert mb.accuracy([[1, 2], [2, 1]], [True, False]) == 1.0


@pytest.mark.parametrize(
    ("y_true", "error", "words"),
    [
        ([0, 5], ValueError, r"expected classes 0...1, got 5 at row 1"),
        ([-1, 0], ValueError, r"got -1 at row 0"),
        ([0.0, 0.5], ValueError, r"got 0.5 at row 1"),
        ([0.0, np.nan], ValueError, r"got nan at row 1"),
        ([[0.0, 1.0], [np.nan, 1.0]], ValueError, r"accuracy: y_true: expected finite numbers, got nan"),
        (["cat", "dog"], TypeError, "accuracy: y_true: expected an array of numbers"),
        (None, TypeError, "accuracy: y_true: expected an array of numbers, got None"),
    ],
)
def test_accuracy_of_bad_targets(y_true, error, words):
    with pytest.raises(error, match=words):
        mb.accuracy([[1.0, 2.0], [2.0, 1.0]], y_true)


def test_early_stopping_goes_back_to_the_best():
    states = []
    values = iter([5.0, 3.0, 4.0, 3.5, 3.2, 1.0])
    model = network()
    history = mb.fit(
        model, X, Y, mb.MSE(), mb.Adam(), epochs=10, validation=(X, Y), metrics={"m": lambda p, y: next(values)},
        early_stopping=mb.EarlyStopping(3, monitor="m"), callbacks=[lambda e: states.append(e.model.parameters.copy())],
        **QUIET,
    )  # fmt: skip
    assert history.epochs == 5
    assert history.best_epoch == 1
    assert not history.completed
    ending = "; the model has the parameters of its best epoch, 2"
    assert history.stopped == "early stopping: m was best in epoch 2, 3 epochs before" + ending
    assert np.array_equal(model.parameters, states[1])
    assert not np.array_equal(states[1], states[4])


@pytest.mark.parametrize(
    ("rule", "values", "epochs", "best"),
    [
        (mb.EarlyStopping(2, monitor="m", mode="max"), [1, 2, 1, 1.5, 9], 4, 1),
        (mb.EarlyStopping(2, monitor="m", min_delta=0.5), [3, 2.9, 2.6, 1, 1], 3, 0),
        (mb.EarlyStopping(2, monitor="m"), [np.nan, np.nan, 1, np.nan, np.nan, 0], 5, 2),
        (mb.EarlyStopping(2, monitor="m", restore_best=False), [1, 2, 3, 0], 3, None),
        (mb.EarlyStopping(9, monitor="m"), [1, 2, 3, 0], 4, 3),
    ],
)
def test_rules_of_early_stopping(rule, values, epochs, best):
    told = iter(values)
    history = mb.fit(
        network(), X, Y, mb.MSE(), mb.SGD(0.1), epochs=len(values), validation=(X, Y),
        metrics={"m": lambda p, y: next(told)}, early_stopping=rule, **QUIET,
    )  # fmt: skip
    assert (history.epochs, history.best_epoch) == (epochs, best)
    assert ("the model has" in history.stopped) == (best is not None)


@pytest.mark.parametrize("kind", [bool, np.bool_])
def test_a_callback_sees_the_epoch_and_can_stop(kind):
    seen = []

    def watch(epoch: mb.Epoch) -> bool:
        seen.append((epoch.number, epoch.entries["loss"], epoch.history.epochs))
        return kind(epoch.number == 2)

    history = mb.fit(network(), X, Y, mb.MSE(), mb.Adam(), epochs=9, callbacks=[watch], **QUIET)
    assert seen == [(i, history["loss"][i], i + 1) for i in range(3)]
    assert history.stopped == "a callback, watch, asked to stop"


def test_schedule_clipping_and_penalty_do_as_by_hand():
    model, plain = network(), network()
    optimizer, schedule = mb.SGD(0.5), mb.StepLR(2, 0.5)
    history = mb.fit(
        model, X, Y, mb.MSE(), optimizer, epochs=4, batch_size=50, shuffle=False, schedule=schedule, clip_norm=0.1,
        penalty=mb.L2(0.01), **QUIET,
    )  # fmt: skip
    assert history["lr"].tolist() == [0.5, 0.5, 0.25, 0.25]
    assert optimizer.lr == 0.5
    weights = [plain[0].weight, plain[2].weight]
    for rate in (0.5, 0.5, 0.25, 0.25):
        value = plain.backprop(X, Y, mb.MSE()) + 0.005 * sum((w**2).sum() for w in weights)
        for layer in (plain[0], plain[2]):
            layer.weight_grad = layer.weight_grad + 0.01 * layer.weight
        norm = np.linalg.norm(plain.gradients)
        plain.parameters -= rate * plain.gradients * min(1, 0.1 / norm)
    np.testing.assert_allclose(model.parameters, plain.parameters, rtol=1e-5)  # torch's clipping adds 1e-6 to the norm
    assert history["loss"][-1] == pytest.approx(value, rel=1e-5)


def test_an_optimiser_goes_on_where_the_last_run_ended():
    once, twice = network(), network()
    optimizer, rng = mb.Adam(), np.random.default_rng(0)
    mb.fit(once, X, Y, mb.MSE(), mb.Adam(), epochs=4, **QUIET)
    for _ in range(2):
        mb.fit(twice, X, Y, mb.MSE(), optimizer, epochs=2, progress=False, rng=rng)
    assert np.array_equal(once.parameters, twice.parameters)


def test_history():
    history = mb.fit(network(), X, Y, mb.MSE(), mb.Adam(), epochs=3, **QUIET)
    assert history["loss"].shape == (3,)
    told = history.to_dict()
    assert told["epochs"] == 3
    assert told["columns"]["loss"] == history["loss"].tolist()
    assert "3 epochs" in repr(history)
    with pytest.raises(KeyError, match="expected one of \\['loss', 'lr', 'seconds'\\], got 'los'"):
        history["los"]


def test_history_plots_where_it_is_told():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    history = mb.fit(network(), X, Y, mb.MSE(), mb.Adam(), epochs=3, validation=0.2, early_stopping=2, **QUIET)
    ax = Figure().add_subplot()
    assert history.plot(ax=ax) is ax
    assert [line.get_label() for line in ax.lines] == ["loss", "validation loss", "best epoch"]
    assert mb.History().plot() is not None


def test_classes_are_trained_on():
    x = RNG.standard_normal((90, 2)) + np.repeat([[0, 0], [4, 0], [0, 4]], 30, axis=0)
    y = np.repeat([0, 1, 2], 30)
    model = mb.Sequential(mb.Linear(2, 3), rng=0)
    history = mb.fit(
        model,
        x,
        y,
        mb.CrossEntropy(),
        mb.Adam(0.1),
        epochs=30,
        validation=0.2,
        metrics={"accuracy": mb.accuracy},
        **QUIET,
    )
    assert history["accuracy"][-1] > 0.8


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_passed_on(workers):
    model, plain = network(), network()
    rows = np.tile(np.arange(50), 40)
    options = {"batch_size": 2000, "shuffle": False, "workers": workers, **QUIET}
    mb.fit(model, X[rows], Y[rows], mb.MSE(), mb.SGD(0.1), epochs=1, **options)
    plain.backprop(X[rows], Y[rows], mb.MSE(), workers=workers)
    mb.SGD(0.1).step(plain.parameters, plain.gradients)
    assert np.array_equal(model.parameters, plain.parameters)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["as it is", "some columns", "by columns", "big-endian"])
def test_steps_do_not_copy_the_data(tmp_path, kind, shuffle):
    """A memory map of 16 MiB, trained on with a peak of a few batches."""
    import tracemalloc

    order, dtype = ("F" if kind == "by columns" else "C"), (">f8" if kind == "big-endian" else "<f8")
    big = np.memmap(tmp_path / "x", dtype, "w+", shape=(1 << 13, 256), order=order)
    big = big[:, 1:] if kind == "some columns" else big
    y = np.zeros((len(big), 1))
    model = mb.Sequential(mb.Linear(big.shape[1], 1), rng=0)
    mb.fit(model, big[:1024], y[:1024], mb.MSE(), mb.SGD(0.1), epochs=1, **QUIET)
    tracemalloc.start()
    mb.fit(model, big, y, mb.MSE(), mb.SGD(0.1), epochs=1, shuffle=shuffle, **QUIET)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_all_options_together_in_every_type():
    for dtype, size in itertools.product((np.float32, np.float64), (1, 50)):
        model = network(dtype)
        mb.fit(
            model, X, Y, mb.Huber(), mb.AdamW(0.01), epochs=2, batch_size=size, validation=(X, Y), early_stopping=1,
            schedule=mb.CosineAnnealingLR(2), clip_norm=1.0, penalty=mb.L1(1e-3), **QUIET,
        )  # fmt: skip
        assert model.dtype == dtype


def test_the_schedule_is_shown_the_loss_whatever_early_stopping_watches():
    rule = mb.EarlyStopping(50, monitor="m", mode="max")
    history = mb.fit(
        network(), X, Y, mb.MSE(), mb.SGD(0.05), epochs=8, validation=(X, Y), metrics={"m": lambda p, y: 1.0},
        early_stopping=rule, schedule=mb.ReduceLROnPlateau(patience=1), **QUIET,
    )  # fmt: skip
    assert (np.diff(history["validation_loss"]) < 0).all()
    assert history["lr"].tolist() == [0.05] * 8


def test_a_metric_cannot_change_the_targets():
    def spoil(y_pred, y_true):
        y_true[...] = 0

    with pytest.raises(ValueError, match="read-only"):
        mb.fit(network(), X, Y, mb.MSE(), mb.SGD(0.0), epochs=1, validation=(X, Y), metrics={"m": spoil}, **QUIET)


def test_histories_are_compared_by_what_they_hold():
    def one(seed):
        return mb.fit(network(), X, Y, mb.MSE(), mb.SGD(0.1), epochs=2, progress=False, rng=seed)

    first, copied = one(0), copy.copy(one(0))
    copied.append({"loss": 1.0, "lr": 0.1, "seconds": 0.0})
    assert first == copy.copy(first)
    assert first != copied
    assert mb.History() == mb.History()
