"""CrossEntropy: against torch and mpmath, as blocks and as a whole, and what it takes for targets."""

from __future__ import annotations

import warnings

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import matbackprop as mb
from matbackprop.parallel import FEWEST_ROWS
from matbackprop.softmax import FEW

INF = float("inf")
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
kinds = pytest.mark.parametrize("kind", ["classes", "probabilities"])


def losses(classes):
    """Return a loss of every setting for so many classes."""
    weights = (None, np.linspace(0.5, 3, classes))
    return [
        mb.CrossEntropy(reduction, label_smoothing=smoothing, class_weight=weight)
        for reduction in ("mean", "sum")
        for smoothing in (0.0, 0.1, 1.0)
        for weight in weights
    ]


def draw(rng, kind, lead, classes, dtype=np.float64):
    z = rng.normal(0, 2, (*lead, classes)).astype(dtype)
    if kind == "classes":
        return z, rng.integers(0, classes, lead)
    return z, rng.dirichlet(np.ones(classes), lead).astype(dtype)


def torch_loss(torch, loss, z, y, reduction=None):
    """Return torch's value, a tensor; it wants the classes on the second axis where there are more than two."""
    weight = None if loss.class_weight is None else torch.tensor(loss.class_weight, dtype=z.dtype)
    make = torch.nn.CrossEntropyLoss(
        weight, label_smoothing=loss.label_smoothing, reduction=reduction or loss.reduction
    )
    y = torch.tensor(y)
    return make(z.movedim(-1, 1), y.movedim(-1, 1) if y.ndim == z.ndim else y) if z.ndim > 2 else make(z, y)


def divisor(loss, y, rows):
    """Return what a mean divides by, by torch's documentation, and 1 for a sum."""
    if loss.reduction == "sum":
        return 1
    return rows if y.dtype.kind == "f" or loss.class_weight is None else loss.class_weight[y].sum()


def agree(ours, theirs, loss, y, rows, steps=20):
    """Assert equality within so many rounding steps of the largest of the terms: of w p and w t, before they cancel.

    torch takes p - 1 where that cancels, we do not; what we have is held to mpmath below.
    """
    theirs = np.asarray(theirs.detach())
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    weight = 1 if loss.class_weight is None else loss.class_weight.max()
    terms = weight / divisor(loss, y, rows) if rows else 0
    bound = steps * np.finfo(theirs.dtype).eps * max(np.abs(theirs).max(initial=0), terms)
    assert_allclose(ours, theirs, rtol=0, atol=np.nan_to_num(bound))


@dtypes
@kinds
@pytest.mark.parametrize("lead", [(), (0,), (1,), (7,), (3, 2)], ids=str)
@pytest.mark.parametrize("classes", [2, 3, FEW + 8])
def test_as_torch(torch, rng, kind, lead, classes, dtype):
    for loss in losses(classes):
        z, y = draw(rng, kind, lead, classes, dtype)
        z_torch = torch.tensor(z, requires_grad=True)
        theirs = torch_loss(torch, loss, z_torch, y)
        theirs.backward()
        value = loss(z, y)
        assert type(value) is float
        rows = int(np.prod(lead))
        agree(np.asarray(value, dtype), theirs, loss, y, rows)
        agree(loss.backward(), z_torch.grad, loss, y, rows)


@dtypes
@kinds
def test_sample_weight(torch, rng, kind, dtype):
    """It multiplies each row's loss; the mean divides as it does without: by N, or by the classes' weights."""
    for loss in losses(4):
        z, y = draw(rng, kind, (6,), 4, dtype)
        weight = rng.uniform(0, 2, 6).astype(dtype)
        z_torch = torch.tensor(z, requires_grad=True)
        each = torch_loss(torch, loss, z_torch, y, "none")
        theirs = (torch.tensor(weight) * each).sum() / divisor(loss, y, 6)
        theirs.backward()
        for given in (weight, weight[:, None], weight.tolist()):
            agree(np.asarray(loss(z, y, given), dtype), theirs, loss, y, 6)
            agree(loss.backward(), z_torch.grad, loss, y, 6)
        assert loss(z, y, 0.5) == pytest.approx(loss(z, y) / 2, rel=1e-6)


def test_weights_of_sequences(rng):
    """Against (N, T, C): one a step (N, T), one a place in the sequence (T,), one a sequence (N, 1) or (N, 1, 1)."""
    z, y = draw(rng, "classes", (3, 2), 4)
    loss, weight = mb.CrossEntropy("sum"), rng.random((3, 1))
    expected = loss(z, y, np.broadcast_to(weight, (3, 2)))
    assert loss(z, y, weight) == loss(z, y, weight[..., None]) == expected
    assert loss(z, y, weight[:2, 0]) == loss(z, y, np.broadcast_to(weight[:2, 0], (3, 2))[..., None])


def exact(z, u):
    """Return ℓ and its gradient by mpmath."""
    z, u = ([mp.mpf(float(x)) for x in each] for each in (z, u))
    log_sum = mp.log(sum(mp.exp(x - max(z)) for x in z)) + max(z)
    return sum(b * (log_sum - a) for a, b in zip(z, u, strict=True)), [
        sum(u) * mp.exp(a - log_sum) - b for a, b in zip(z, u, strict=True)
    ]


@dtypes
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 60.0])
@pytest.mark.parametrize("classes", [2, 3, 40])
def test_each_entry_keeps_its_digits(rng, classes, scale, dtype):
    """Every entry by itself, however small: e^(z - m) is conditioned by |z - m|, and nothing else loses anything."""
    loss, info = mb.CrossEntropy(), np.finfo(dtype)
    for target in range(20):
        z, y = (scale * rng.normal(size=classes)).astype(dtype), target % classes
        one_hot = np.eye(classes, dtype=dtype)[y]
        with mp.workdps(50 + int(np.ptp(z))):  # 1 + e^-|z - m| takes so many more
            value, gradient = exact(z, one_hot)
            bound = (4 * classes**0.5 + float(np.ptp(z))) * info.eps
            for t in (y, one_hot):
                assert abs(loss(z, t) - value) <= bound * value + info.tiny
                for ours, right in zip(loss.backward(), gradient, strict=True):
                    assert abs(float(ours) - right) <= bound * abs(right) + info.tiny


@dtypes
def test_a_row_that_is_classified_well_has_a_gradient(dtype):
    """Torch's is exactly 0 at the target: 1 + e^-50 has rounded to 1."""
    loss, tail = mb.CrossEntropy(), np.exp(-50.0)
    assert loss(np.array([50, 0], dtype), 0) == pytest.approx(tail, rel=1e-5)
    assert_allclose(loss.backward(), [-tail, tail], rtol=1e-5)


#: Logits, targets, the loss and its gradient: the limits, by which 0 log 0 is 0.
EXTREMES = [
    ([1e300, 0, 0], 0, 0.0, [0, 0, 0]),
    ([1e300, 0, 0], 1, 1e300, [1, -1, 0]),
    ([1e308, -1e308, 0], 2, 1e308, [1, 0, -1]),
    ([-1e300, -1e300, -1e300], 0, np.log(3), [-2 / 3, 1 / 3, 1 / 3]),
    ([-INF, 0, 0], 1, np.log(2), [0, -0.5, 0.5]),
    ([-INF, 0, 0], [0, 0.5, 0.5], np.log(2), [0, 0, 0]),
    ([-INF, 0, 0], 0, INF, [-1, 0.5, 0.5]),
    ([-INF, 0, 0], [0.5, 0.5, 0], INF, [-0.5, 0, 0.5]),
    ([INF, 0, -1], 0, 0.0, [0, 0, 0]),
    ([INF, 0, -1], [1, 0, 0], 0.0, [0, 0, 0]),
    ([INF, 0, -1], 1, INF, [1, -1, 0]),
    ([INF, 0, -INF], [0, 1, 0], INF, [1, -1, 0]),
    ([INF, INF, 0], 1, np.log(2), [0.5, -0.5, 0]),
]


@pytest.mark.parametrize(("z", "y", "value", "gradient"), EXTREMES, ids=str)
def test_extremes(z, y, value, gradient):
    """Alone and among ordinary rows, and no floating-point event on the way."""
    with np.errstate(all="raise", under="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = mb.CrossEntropy("sum")
        assert loss(z, y) == pytest.approx(value, rel=1e-15)
        assert_allclose(loss.backward(), gradient, rtol=1e-15, atol=0)
        rest = loss([[1.0, 2.0, 3.0]], [0])
        row = loss.backward()
        y = [y, 0] if np.ndim(y) == 0 else [y, [1.0, 0, 0]]
        assert loss([z, [1.0, 2.0, 3.0]], y) == pytest.approx(value + rest, rel=1e-15)
        assert_allclose(loss.backward(), [gradient, row[0]], rtol=1e-15, atol=1e-16)


@kinds
@pytest.mark.parametrize("bad", [[np.nan, 0, 1], [np.nan, INF, 1], [-INF, -INF, -INF]], ids=str)
def test_what_has_no_softmax_gives_nan(kind, bad):
    loss = mb.CrossEntropy("sum")
    with np.errstate(invalid="ignore"):
        assert np.isnan(loss([bad, [1.0, 2.0, 3.0]], [0, 1] if kind == "classes" else [[1.0, 0, 0], [0, 1.0, 0]]))
    assert np.isnan(loss.backward()[0]).all()
    assert np.isfinite(loss.backward()[1]).all()


# Targets.


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "u4", "i8", "u8", ">i4", "intp"])
def test_any_integer_type(rng, dtype):
    z, y = draw(rng, "classes", (5,), 3)
    model, loss = mb.Sequential(mb.Linear(3, 3), rng=0), mb.CrossEntropy(class_weight=[1.0, 2.0, 3.0])
    expected = loss(z, y), *model.value_and_grad(z, y, loss)
    for targets in (y.astype(dtype), y.tolist(), tuple(y.tolist())):
        for _ in range(2):
            value, gradient = model.value_and_grad(z, targets, loss)
            assert (loss(z, targets), value) == expected[:2]
            assert_array_equal(gradient, expected[2])


def test_the_number_of_axes_tells_classes_from_probabilities(rng):
    """Three rows of three classes: (3,) are classes, (3, 3) probabilities, of whatever type."""
    z, loss = rng.normal(size=(3, 3)), mb.CrossEntropy()
    value = loss(z, [2, 0, 1])
    gradient = loss.backward()
    for one_hot in (np.eye(3)[[2, 0, 1]], np.eye(3, dtype=int)[[2, 0, 1]], np.eye(3, dtype=bool)[[2, 0, 1]]):
        assert loss(z, one_hot) == pytest.approx(value, rel=1e-15)
        assert_allclose(loss.backward(), gradient, rtol=1e-13)


def test_rounded_probabilities_are_taken_as_they_are():
    """Value and gradient agree with each other where a row sums to 0.99."""
    loss, z = mb.CrossEntropy(), np.array([[1.0, 2.0, -1.0]])
    y = np.array([[0.33, 0.33, 0.33]])
    value, gradient = exact(z[0], y[0])
    assert loss(z, y) == pytest.approx(float(value), rel=1e-15)
    assert_allclose(loss.backward()[0], [float(each) for each in gradient], rtol=1e-13)


def test_layouts(rng):
    """Strided, transposed and reversed arrays hold the same numbers, and none is written to."""
    z, y = draw(rng, "classes", (8,), 5)
    t, loss = np.eye(5)[y], mb.CrossEntropy(label_smoothing=0.1)
    for z_as, y_as, t_as in (
        (np.asfortranarray(z), y[::-1][::-1], np.asfortranarray(t)),
        (np.repeat(z, 2, axis=1)[:, ::2], np.repeat(y, 2)[::2], np.repeat(t, 2, axis=0)[::2]),
    ):
        z_as.flags.writeable = y_as.flags.writeable = t_as.flags.writeable = False
        for targets, same in ((y, y_as), (t, t_as)):
            assert loss(z_as, same) == loss(z, targets)
            given = loss.backward()
            loss(z, targets)
            assert_array_equal(given, loss.backward())


# In a model.


def network(dtype=np.float64):
    return mb.Sequential(mb.Linear(5, 64), mb.Tanh(), mb.Linear(64, 4), dtype=dtype, rng=0)


@kinds
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", losses(4), ids=repr)
def test_a_plan_is_the_plain_layers(rng, loss, kind, weighted):
    """The same as forward, loss and backward by hand; with the batch sizes of an epoch, through stale buffers."""
    model = network()
    for rows in (64, 7, 64, 1, 0, 64):
        x, y = rng.normal(size=(rows, 5)), draw(rng, kind, (rows,), 4)[1]
        weight = rng.random(rows) if weighted else None
        expected = loss(model.forward(x), y, weight)
        model.backward(loss.backward())
        gradient = model.gradients.copy()
        model._engine.plans.workspace.poison()
        model.gradients = np.full_like(gradient, np.nan)
        for _ in range(2):
            assert_allclose(model.backprop(x, y, loss, sample_weight=weight), expected, rtol=1e-14)
            assert_allclose(model.gradients, gradient, rtol=1e-12, atol=1e-15)


@kinds
@pytest.mark.parametrize("lead", [(), (3, 2), (0, 2)], ids=str)
def test_leading_dimensions(rng, kind, lead):
    model, loss = network(), mb.CrossEntropy(class_weight=[1.0, 2.0, 3.0, 4.0])
    x, (_, y) = rng.normal(size=(*lead, 5)), draw(rng, kind, lead, 4)
    weight = rng.random(lead)
    rows = x.reshape(-1, 5), y.reshape(-1, *y.shape[len(lead) :])
    assert_array_equal(
        np.hstack(model.value_and_grad(x, y, loss, sample_weight=weight)),
        np.hstack(model.value_and_grad(*rows, loss, sample_weight=weight.reshape(-1))),
    )


@dtypes
@kinds
@pytest.mark.parametrize("workers", [None, 1, 2, 3])
@pytest.mark.parametrize("loss", losses(4), ids=repr)
def test_blocks_are_the_whole(rng, loss, kind, workers, dtype):
    """The mean divides by the weights of all classes in the batch: its second half has other classes than the first."""
    rows = 4 * FEWEST_ROWS + 3
    x, (_, y) = rng.normal(size=(rows, 5)).astype(dtype), draw(rng, kind, (rows,), 4, dtype)
    y, weight = (np.sort(y) if kind == "classes" else y), rng.random(rows)
    model, rtol = network(dtype), 1e-12 if dtype is np.float64 else 1e-5
    expected = loss(model.forward(x), y, weight)
    model.backward(loss.backward())
    gradient = model.gradients.copy()
    value, ours = model.value_and_grad(x, y, loss, sample_weight=weight, workers=workers)
    assert_allclose(value, expected, rtol=rtol)
    assert_allclose(ours, gradient, rtol=0, atol=rtol * np.abs(gradient).max())
    again = network(dtype).value_and_grad(x, y, loss, sample_weight=weight, workers=workers)
    assert again[0] == value
    assert_array_equal(again[1], ours)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_name_the_place_in_the_batch(rng, workers):
    """Not in the block."""
    rows = 4 * FEWEST_ROWS
    model, x, y = network(), rng.normal(size=(rows, 5)), rng.integers(0, 4, rows)
    y[rows - 2] = 4
    with pytest.raises(ValueError, match=rf"got 4 at \({rows - 2},\)"):
        model.backprop(x, y, mb.CrossEntropy(), workers=workers)
    y[rows - 2] = 3
    t = np.eye(4)[y]
    t[rows - 2] *= 2
    with pytest.raises(ValueError, match=rf"sum to 1, got 2.0 in row {rows - 2}"):
        model.backprop(x, t, mb.CrossEntropy(), workers=workers)


def test_targets_of_either_kind_in_turn(rng):
    """Each has a plan of its own."""
    model, loss, x = network(), mb.CrossEntropy(), rng.normal(size=(6, 5))
    y = rng.integers(0, 4, 6)
    for _ in range(3):
        assert model.backprop(x, y, loss) == pytest.approx(model.backprop(x, np.eye(4)[y], loss), rel=1e-14)


def test_a_loss_of_rows_of_ones_own(rng):
    class Distance(mb.Loss):
        """The distance of each row, a loss that is not one of elements."""

        rowwise = per_row = True

        def elementwise(self, y_pred, y_true):
            error = y_pred - y_true
            distance = np.linalg.norm(error, axis=-1, keepdims=True)
            return distance, error / distance

    model, loss = network(), Distance()
    x, y, weight = rng.normal(size=(2100, 5)), rng.normal(size=(2100, 4)), rng.random(2100)
    distances = np.linalg.norm(model.predict(x) - y, axis=1)
    assert loss(model.predict(x), y) == pytest.approx(distances.mean(), rel=1e-12)
    value, gradient = model.value_and_grad(x, y, loss, sample_weight=weight, workers=2)
    assert value == pytest.approx((weight * distances).mean(), rel=1e-12)
    assert_allclose(gradient, model.value_and_grad(x, y, loss, sample_weight=weight[:, None], workers=1)[1], atol=1e-15)
    assert mb.check_model(model, loss, x[:5], y[:5], rng=0)
    with pytest.raises(ValueError, match=r"of shapes \(5, 1\), \(5, 4\)"):
        type("Flat", (Distance,), {"elementwise": lambda self, p, y: (p[:, 0], p)})()(y[:5], y[:5])


@kinds
def test_off_the_real_axis(rng, kind):
    """The same formulas there: what is real stays what it is, and the gradient is the derivative of the value."""
    for loss in losses(3):
        z, y = draw(rng, kind, (4,), 3)
        value, gradient = loss(z, y), loss.backward()
        assert loss(z.astype(complex), y) == pytest.approx(value, rel=1e-14)
        assert_allclose(loss.backward(), gradient, rtol=1e-12, atol=1e-15)
        z, step, h = z + 0.3j * rng.normal(size=z.shape), rng.normal(size=z.shape), 1e-5
        slope = (loss(z + h * step, y) - loss(z - h * step, y)) / (2 * h)
        loss(z, y)
        assert (loss.backward() * step).sum() == pytest.approx(slope, rel=1e-7, abs=1e-8)
