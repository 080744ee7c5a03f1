"""Dropout: what it draws, that its backward pass uses the same, and that the same seed gives the same bits."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import matbackprop as mb
from matbackprop.gradcheck import Verdict
from matbackprop.parallel import FEWEST_ROWS

ROWS = 4 * FEWEST_ROWS + 3


def network(p=0.5, dtype=np.float64, rng=0, **settings) -> mb.Sequential:
    layers = mb.Linear(5, 64), mb.Tanh(), mb.Dropout(p, **settings), mb.Linear(64, 2)
    return mb.Sequential(*layers, dtype=dtype, rng=rng)


def state(layer):
    return layer.rng.bit_generator.state


def restore(layer, saved):
    layer.rng.bit_generator.state = saved


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.complex64, np.complex128])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_it_drops_so_many_and_scales_the_others(p, dtype):
    x = np.full((400, 100), 3.0, dtype)
    layer = mb.Dropout(p, rng=0)
    y = layer.forward(x)
    assert y.dtype == dtype
    kept = y != 0
    # The number of dropped ones is binomial: five standard deviations of a share of 40000.
    assert abs((~kept).mean() - p) <= 5 * (p * (1 - p) / x.size) ** 0.5
    assert_allclose(y[kept], 3 / (1 - dtype(p)), rtol=4 * np.finfo(dtype).eps)
    assert_array_equal(layer.backward(x), y)


def test_rows_and_columns_are_dropped_independently():
    kept = mb.Dropout(rng=0).forward(np.ones((200, 100))) / 2
    for axis in (0, 1):
        shares = kept.mean(axis=axis)
        assert_allclose(shares.std(), 0.5 / kept.shape[axis] ** 0.5, rtol=0.25)
    assert len(np.unique(kept, axis=0)) == 200


@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 3), (2, 4, 3), (2, 0, 3)], ids=str)
def test_shapes(shape):
    layer = mb.Dropout(rng=0)
    out = np.empty(shape)
    assert layer.forward(np.ones(shape), out=out) is out
    assert_array_equal(layer.backward(np.ones(shape)), out)
    x = np.ones(shape)
    assert layer.forward(x, out=x) is x  # in place
    assert_array_equal(layer.backward(np.ones(shape)), x)


def test_an_element_that_is_0_keeps_its_gradient():
    """The mask is kept, not read off the output, where a kept 0 looks as if it were dropped."""
    layer = mb.Dropout(rng=0)
    layer.forward(np.zeros((10, 10)))
    assert 0 < np.count_nonzero(layer.backward(np.ones((10, 10)))) < 100


def test_predict_drops_nothing_and_draws_nothing(rng):
    model, x = network(), rng.normal(size=(ROWS, 5))
    before = state(model[2])
    plain = mb.Sequential(model[0].copy(), mb.Tanh(), model[3].copy())
    for workers in (1, 2):
        assert_allclose(model.predict(x, workers=workers), plain.predict(x), rtol=0, atol=1e-14)
    assert state(model[2]) == before
    first = mb.Sequential(mb.Dropout(), mb.Linear(5, 1), rng=0)
    assert_array_equal(first.predict(x), first[1].copy().forward(x))
    assert_array_equal(mb.Sequential(mb.Dropout()).predict(x), x)


def test_every_pass_that_trains_drops(rng):
    model, x, y = network(), rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    exact = mb.MSE()(model.predict(x), y)
    values = [mb.MSE()(model(x), y), mb.MSE()(model.forward(x), y), model.backprop(x, y, mb.MSE())]
    values += [model.value_and_grad(x, y, mb.MSE())[0], model.backprop(x, y, mb.MSE())]
    assert len({exact, *values}) == 6


@pytest.mark.parametrize("workers", [None, 1, 2, 3])
@pytest.mark.parametrize("rows", [1, 64, ROWS])
@pytest.mark.parametrize("first", [False, True])
def test_the_gradient_is_that_of_the_same_masks(rng, first, rows, workers):
    """Along a random direction, by central differences with the generator set back before each call."""
    model = network(0.3)
    if first:
        model = mb.Sequential(mb.Dropout(0.3), mb.Linear(5, 8), mb.Tanh(), mb.Dropout(0.3), mb.Linear(8, 2), rng=0)
    drops = [layer for layer in model if isinstance(layer, mb.Dropout)]
    x, y, saved = rng.normal(size=(rows, 5)), rng.normal(size=(rows, 2)), [state(layer) for layer in drops]
    start, direction, h = model.parameters.copy(), rng.normal(size=model.parameters.shape), 1e-5

    def value(parameters):
        model.parameters = parameters
        for layer, each in zip(drops, saved, strict=True):
            restore(layer, each)
        return model.backprop(x, y, mb.MSE(), workers=workers)

    slope = (value(start + h * direction) - value(start - h * direction)) / (2 * h)
    value(start)
    assert model.gradients @ direction == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("workers", [None, 1, 2, 3])
def test_same_seed_same_bits(rng, workers):
    x, y = rng.normal(size=(ROWS, 5)), rng.normal(size=(ROWS, 2))

    def run():
        model = network()
        return [model.value_and_grad(x[:rows], y[:rows], mb.MSE(), workers=workers) for rows in (ROWS, 64, ROWS, ROWS)]

    first, again = run(), run()
    for one, two in zip(first, again, strict=True):
        assert one[0] == two[0]
        assert_array_equal(one[1], two[1])
    assert len({value for value, _ in first}) == 4


def test_blocks_and_workers_have_masks_of_their_own():
    """One input row again and again: with one mask for all blocks, few outputs would differ."""
    model = mb.Sequential(mb.Linear(1, 64, bias=False), mb.Dropout(), mb.Linear(64, 1), rng=0)
    seen = []

    class Spy(mb.MSE):
        def check_values(self, y_pred, y):
            pass

        def steps(self, y_pred, y, losses, delta, empty):
            yield from super().steps(y_pred, y, losses, delta, empty)
            yield lambda: seen.append(y_pred.copy())

    model.backprop(np.ones((ROWS, 1)), np.zeros((ROWS, 1)), Spy(), workers=2)
    assert len(seen) >= 2
    assert len(np.unique(np.concatenate(seen))) > 0.99 * ROWS


def test_the_same_masks_in_every_dtype(rng):
    x = rng.normal(size=(20, 5))
    masks = [mb.Dropout(0.3, rng=1).forward(x.astype(dtype)) == 0 for dtype in ("f4", "f8", "c16")]
    assert_array_equal(masks[0], masks[1])
    assert_array_equal(masks[0], masks[2])


# The generator.


def test_a_checkpoint_of_the_generator(rng):
    model, x, y = network(), rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    model.backprop(x, y, mb.MSE())
    saved = state(model[2])
    expected = [model.backprop(x, y, mb.MSE()) for _ in range(3)]
    resumed = network(rng=1)
    resumed.load_state_dict(model.state_dict())
    restore(resumed[2], saved)
    assert [resumed.backprop(x, y, mb.MSE()) for _ in range(3)] == expected


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("whole", [False, True])
def test_copies_go_on_with_the_same_masks_by_themselves(rng, twin, whole):
    original, x = network() if whole else mb.Dropout(rng=0), rng.normal(size=(8, 5))
    original(x)
    other = twin(original)
    for _ in range(2):
        assert_array_equal(original(x), other(x))
    other(x)
    assert not np.array_equal(original(x), other(x))


def test_a_copy_of_a_fresh_layer_is_equal():
    layer = mb.Dropout()
    assert_array_equal(layer.copy().forward(np.ones(100)), layer.forward(np.ones(100)))


def test_the_generator_comes_from_the_model(rng):
    x = np.ones((2, 64))
    with_it, again, without = network(), network(), mb.Sequential(mb.Linear(5, 64), mb.Tanh(), mb.Linear(64, 2), rng=0)
    assert_array_equal(with_it.parameters, without.parameters)
    assert_array_equal(with_it[2].copy()(x), again[2].copy()(x))
    assert not np.array_equal(with_it[2].copy()(x), network(rng=1)[2].copy()(x))
    two = mb.Sequential(mb.Dropout(), mb.Dropout(), rng=0)
    assert not np.array_equal(two[0].copy()(x), two[1].copy()(x))
    assert_array_equal(network(rng=np.random.default_rng(0))[2].copy()(x), with_it[2].copy()(x))


def test_a_generator_that_is_given_stays():
    generator = np.random.default_rng(3)
    layer = mb.Dropout(rng=generator)
    mb.Sequential(layer, mb.Linear(2, 1), rng=0)
    assert layer.rng is generator
    layer.rng = 4
    assert_array_equal(layer.copy()(np.ones(9)), mb.Dropout(rng=4)(np.ones(9)))


def test_a_new_generator_is_used_by_the_plans(rng):
    model, x, y = network(), rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    model.backprop(x, y, mb.MSE())
    model[2].rng = 7
    value = model.backprop(x, y, mb.MSE())
    model[2].rng = 7
    assert model.backprop(x, y, mb.MSE()) == value


def test_repr():
    assert repr(mb.Dropout(0.25)) == "Dropout(0.25)"
    assert eval(repr(mb.Dropout()), vars(mb)).p == 0.5


# The checker.


class Fixed(mb.Dropout):
    """Dropout that draws the same masks in each pass: what can be checked."""

    def _draw(self, noise):
        self.rng = 5
        super()._draw(noise)


class Unscaled(Fixed):
    """A mutant: backward forgets 1 / (1 - p)."""

    def backward_steps(self, x, y, delta, out, empty):
        yield from super().backward_steps(x, y, delta, out, empty)
        yield lambda: np.multiply(out, 0.5, out)


def test_the_checker_says_that_it_is_random(rng):
    x, y = rng.normal(size=(6, 5)), rng.normal(size=(6, 2))
    for report in (mb.check_layer(mb.Dropout(), x, rng=0), mb.check_model(network(), mb.MSE(), x, y, rng=0)):
        assert report.verdict is Verdict.INCONCLUSIVE
        assert "not repeatable" in report.reason
        assert "dropout" in report.reason


def test_with_fixed_masks_it_passes_the_checker(rng):
    x, y = rng.normal(size=(6, 5)), rng.integers(0, 2, 6)
    assert mb.check_layer(Fixed(), x, rng=0).verdict is Verdict.PASS
    model = mb.Sequential(mb.Linear(5, 6), mb.Tanh(), Fixed(0.3), mb.Linear(6, 2), rng=0)
    assert mb.check_model(model, mb.CrossEntropy(), x, y, rng=0).verdict is Verdict.PASS
    assert mb.check_layer(Unscaled(), x, rng=0).verdict is Verdict.FAIL
