"""The tails: every function that saturates, against mpmath at 50 digits, and nowhere further from it than torch.

Distances are in ulps: units in the last place of the correctly rounded result, subnormal ones included. The table
`CASES` holds a row a quantity; ``benchmarks/tails.py`` prints it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import mpmath as mp
import numpy as np
import pytest

import matbackprop as mb

POSITIVE = (1e-300, 1e-8, 1.0, 20.0, 40.0, 88.7, 709.0, 745.0, 1e3, np.inf)
DTYPES = (np.float64, np.float32)
TARGETS = (0.0, 1.0, 0.3)
WEIGHTS = (None, 3.0, 0.1)


def points(dtype):
    """0 and ± every point, in `dtype`."""
    with np.errstate(under="ignore"):
        return np.array([*(-z for z in POSITIVE[::-1]), 0.0, *POSITIVE]).astype(dtype)


def probabilities(dtype):
    """The same as correctly rounded probabilities σ(z): down to subnormals, and 0 and 1 themselves."""
    with np.errstate(under="ignore"):
        return np.array([float(sigma(mp.mpf(float(z)))) for z in points(dtype)]).astype(dtype)


# The exact values, as lists of terms to be added. `times` is 0 where its weight is, whatever it multiplies: the limit,
# by which y log ŷ is 0 at y = ŷ = 0.


def times(weight, value):
    return weight * value() if weight else mp.mpf(0)


def sigma(z):
    return 1 / (1 + mp.exp(-z)) if z > -mp.inf else mp.mpf(0)


def softplus(z):
    return z if z == mp.inf else max(z, mp.mpf(0)) + mp.log1p(mp.exp(-abs(z)))


def logits_value(z, y, p):
    return [times(p * y, lambda: softplus(-z)), times(1 - y, lambda: softplus(z))]


def logits_gradient(z, y, p):
    return [(1 - y) * sigma(z), -p * y * sigma(-z)]


def bce_value(q, y, p):
    log, log_rest = (mp.log(q) if q else -mp.inf), (mp.log1p(-q) if q < 1 else -mp.inf)
    return [-times(y, lambda: log), -times(1 - y, lambda: log_rest)]


def bce_gradient(q, y, p):
    return [times(1 - y, lambda: 1 / (1 - q) if q < 1 else mp.inf) - times(y, lambda: 1 / q if q else mp.inf)]


def ulp(exact, dtype):
    """Return the unit in the last place of `exact` rounded to `dtype`."""
    info = np.finfo(dtype)
    exponent = mp.frexp(exact)[1] - 1 if exact and mp.isfinite(exact) else info.minexp
    return mp.mpf(2) ** (max(exponent, info.minexp) - info.nmant)


def ulps(value, exact, dtype):
    """Return |value - exact| in ulps of the correctly rounded result; infinite if just one of them is not finite."""
    info = np.finfo(dtype)
    if abs(exact) >= mp.mpf(2) ** info.maxexp * (1 - mp.mpf(2) ** (-info.nmant - 2)):
        exact = mp.sign(exact) * mp.inf  # what it rounds to
    if not (mp.isfinite(exact) and np.isfinite(value)):
        return 0.0 if value == exact else np.inf
    return float(abs(mp.mpf(float(value)) - exact) / ulp(exact, dtype))


# Ours and torch's. Each returns the value and the derivative, both arrays, at the points x.


def run_layer(make, torch_name):
    def ours(x):
        layer = make()
        return layer.forward(x), layer.backward(np.ones_like(x))

    def theirs(torch, x):
        z = torch.tensor(x, requires_grad=True)
        a = getattr(torch, torch_name)(z)
        a.backward(torch.ones_like(a))
        return a.detach().numpy(), z.grad.numpy()

    return ours, theirs


def one_by_one(function):
    """Apply ``function(x of shape (1, 1)) -> (value, derivative)`` to each point: a loss returns one number."""

    def over(*args):
        *torch, x = args
        return np.array([function(*torch, each.reshape(1, 1)) for each in x], dtype=x.dtype).T

    return over


def run_bce(y, p):
    def ours(x):
        loss = mb.BCE()
        return loss(x, [[y]]), loss.backward().item()

    def theirs(torch, x):
        q = torch.tensor(x, requires_grad=True)
        value = torch.nn.functional.binary_cross_entropy(q, torch.full_like(q, y))
        value.backward()
        return value.item(), q.grad.item()

    return one_by_one(ours), one_by_one(theirs)


def run_fused(y, p):
    def ours(x):  # z is the weight and the input 1, so that ∂L/∂z is the weight's gradient
        model = mb.Sequential(mb.Linear(1, 1, bias=False), mb.Sigmoid(), dtype=x.dtype)
        model.parameters = x[0]
        return model.backprop([[1.0]], [[y]], mb.BCE()), model.gradients.item()

    def theirs(torch, x):
        z = torch.tensor(x, requires_grad=True)
        value = torch.nn.functional.binary_cross_entropy(torch.sigmoid(z), torch.full_like(z, y))
        value.backward()
        return value.item(), z.grad.item()

    return one_by_one(ours), one_by_one(theirs)


def run_logits(y, p):
    def ours(x):
        loss = mb.BCEWithLogits(pos_weight=p)
        return loss(x, [[y]]), loss.backward().item()

    def theirs(torch, x):
        z = torch.tensor(x, requires_grad=True)
        weight = None if p is None else torch.tensor([p], dtype=z.dtype)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, torch.full_like(z, y), pos_weight=weight)
        loss.backward()
        return loss.item(), z.grad.item()

    return one_by_one(ours), one_by_one(theirs)


def run_softmax(probabilities):
    """Two classes with the logits z and 0: softmax is σ(z), and the target's probability of the first is y."""

    def targets(y):
        return np.array([[y, 1 - y]]) if probabilities else np.array([0 if y else 1])

    def make(y, p):
        def ours(x):
            loss = mb.CrossEntropy()
            value = loss(np.pad(x, ((0, 0), (0, 1))), targets(y).astype(x.dtype if probabilities else int))
            return value, loss.backward()[0, 0]

        def theirs(torch, x):
            z = torch.tensor(np.pad(x, ((0, 0), (0, 1))), requires_grad=True)
            y_torch = torch.tensor(targets(y))
            loss = torch.nn.functional.cross_entropy(z, y_torch.to(z.dtype) if probabilities else y_torch)
            loss.backward()
            return loss.item(), z.grad[0, 0].item()

        return one_by_one(ours), one_by_one(theirs)

    return make


class Case(NamedTuple):
    """Two quantities, f and f', at the same points.

    `bounds` are in grains (see `Errors`): about twice the worst that was measured (NumPy 2.4, x86-64 with AVX-512), for
    another NumPy's exp and tanh. They hold at the points where `holds` is true; elsewhere something has rounded, or
    is clamped.
    """

    name: str
    ours: Callable
    theirs: Callable
    exact: tuple[Callable, Callable]
    holds: tuple[Callable, Callable]
    bounds: tuple[float, float] = (4, 4)
    points: Callable = points


class Errors(NamedTuple):
    """Errors in ulps at the points x. A grain, in the same ulps, is one ulp of the largest term of the result.

    It is 1 but where a difference cancels: ∂L/∂z = (1 - y) σ(z) - p y σ(-z) passes through 0 for a soft target, and its
    last bits are those of the terms.
    """

    x: np.ndarray
    ulps: np.ndarray
    grain: np.ndarray


def always(x):
    return True


def loss_case(name, run, exact, y, p=None, **settings):
    def rounded(function):  # y and p as the dtype has them: 0.3 and 0.1 are no floats
        return lambda x, dtype: function(x, mp.mpf(float(dtype(y))), mp.mpf(float(dtype(1 if p is None else p))))

    label = f"{name} y={y:g}" + ("" if p is None else f" p={p:g}")
    return Case(label, *run(y, p), tuple(map(rounded, exact)), **{"holds": (always, always), **settings})


LOGITS = (logits_value, logits_gradient)
#: BCE of ŷ: log is clamped at -100 (e^-100 = 4e-44) and ŷ (1 - ŷ) at 1e-12.
UNCLAMPED = (lambda q: 1e-43 < q < 1, lambda q: 1e-12 < q < 1)
CASES = [
    Case(  # written from the output: 0 where that is 1, from |z| = 20 in float64, though 1 / cosh² z is 2e-17
        "tanh",
        *run_layer(mb.Tanh, "tanh"),
        exact=(lambda z, _: [mp.tanh(z)], lambda z, _: [mp.sech(z) ** 2]),
        holds=(always, lambda z: abs(z) <= 1),
    ),
    Case(  # written from the output: the digits of 1 - A are lost in the upper tail
        "sigmoid",
        *run_layer(mb.Sigmoid, "sigmoid"),
        exact=(lambda z, _: [sigma(z)], lambda z, _: [sigma(z) * sigma(-z)]),
        holds=(always, lambda z: z <= 1),
    ),
    *(loss_case("BCE", run_bce, (bce_value, bce_gradient), y, holds=UNCLAMPED, points=probabilities) for y in TARGETS),
    *(loss_case("Sigmoid+BCE", run_fused, LOGITS, y) for y in TARGETS),
    *(loss_case("BCEWithLogits", run_logits, LOGITS, y, p) for p in WEIGHTS for y in TARGETS),
    *(loss_case("CrossEntropy", run_softmax(False), LOGITS, y) for y in TARGETS[:2]),
    *(loss_case("CrossEntropy soft", run_softmax(True), LOGITS, y) for y in TARGETS),
]


def measure(case, dtype, torch=None):
    """Return the `Errors` of value and derivative: ours, or torch's."""
    x = case.points(dtype)
    results = case.ours(x) if torch is None else case.theirs(torch, x)
    both = []
    with mp.workdps(50):
        for function, result in zip(case.exact, results, strict=True):
            terms = [function(mp.mpf(float(each)), dtype) for each in x]
            error = [ulps(value, sum(each), dtype) for value, each in zip(result, terms, strict=True)]
            grain = [max(1.0, float(ulp(max(map(abs, each)), dtype) / ulp(sum(each), dtype))) for each in terms]
            both.append(Errors(x, np.array(error), np.array(grain)))
    return both


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@each_case
@each_dtype
def test_within_stated_ulps(case, dtype):
    for errors, bound, holds in zip(measure(case, dtype), case.bounds, case.holds, strict=True):
        bad = [(float(x), error) for x, error, grain in zip(*errors, strict=True) if holds(x) and error > bound * grain]
        assert not bad, bad


#: Grains that we may be further from exact than torch, where ours is within 3. Results lie on a grid: of two sound
#: formulas, one may round the last bit to the other side, and that costs up to one. In float32 what differs is exp:
#: NumPy's vectorised one is up to 1.9 ulps out, torch's 0.53.
SLACK = {np.float64: 1, np.float32: 3}


@each_case
@each_dtype
def test_no_further_from_exact_than_torch(case, dtype, torch):
    """Beyond 3 grains something other than rounding is at work, and it must be in torch too.

    (The 1e-6: where ŷ (1 - ŷ) is clamped, torch takes the float32 nearest to 1e-12, we 1e-12.)
    """
    for (x, ours, grain), (_, theirs, _) in zip(measure(case, dtype), measure(case, dtype, torch), strict=True):
        allowed = np.where(ours <= 3 * grain, theirs + SLACK[dtype] * grain, theirs) * (1 + 1e-6)
        bad = [(float(z), *e) for z, *e in zip(x, ours, theirs, allowed, strict=True) if e[0] > e[2]]
        assert not bad, bad


@each_dtype
@pytest.mark.parametrize(
    ("layer", "torch_name", "exact"),
    [(mb.Tanh, "tanh_backward", lambda a: 1 - a**2), (mb.Sigmoid, "sigmoid_backward", lambda a: a * (1 - a))],
)
def test_derivative_as_a_function_of_the_output(layer, torch_name, exact, dtype, torch):
    """f' is written from the output a: within 3 ulps of what a says it is, and at its worst no further than torch.

    (1 - a)(1 + a) keeps its digits near ±1, where torch's 1 - a² loses all but one or two; near 0 its three roundings
    can cost one ulp more than torch's two. What a itself has lost by rounding is lost to both.
    """
    layer = layer()
    a = layer.forward(np.linspace(-30, 30, 2001).astype(dtype))
    ours = layer.backward(np.ones_like(a))
    theirs = getattr(torch.ops.aten, torch_name)(torch.ones(a.shape, dtype=torch.tensor(a).dtype), torch.tensor(a))
    with mp.workdps(50):
        right = [exact(mp.mpf(float(each))) for each in a]
        worst, torch_worst = (
            max(ulps(*pair, dtype) for pair in zip(got, right, strict=True)) for got in (ours, theirs.numpy())
        )
    assert worst <= min(3, torch_worst + 1)


@each_case
@each_dtype
def test_nan_stays_nan(case, dtype):
    if case.points is probabilities:
        with pytest.raises(ValueError, match=r"in \[0, 1\], got nan"):
            case.ours(np.full(1, np.nan, dtype))
    else:
        assert all(np.isnan(result).all() for result in case.ours(np.full(3, np.nan, dtype)))


@each_case
@each_dtype
def test_saturation_is_no_floating_point_event(case, dtype):
    """Even a caller who makes NumPy raise on overflow, division by zero and NaN can train through saturation."""
    with np.errstate(over="raise", divide="raise", invalid="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        case.ours(case.points(dtype))


def test_the_sigmoid_off_the_real_axis_does_not_overflow() -> None:
    """A complex step through a saturated unit: the derivative of σ at -800 is e^-800, which is 0 in float64."""
    y = mb.Sigmoid().forward(np.array([-800 + 1e-20j, 800 + 1e-20j, -30 + 1e-20j]))
    assert np.isfinite(y).all()
    assert np.allclose(y.real, [0, 1, np.exp(-30)], rtol=1e-12, atol=0)
    assert np.allclose(y.imag[2], 1e-20 * np.exp(-30), rtol=1e-12, atol=0)
