"""No false alarm where rounding hides or difference steps deceive, and errors are seen there all the same."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.gradcheck import Verdict

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any], Any]


def centred(rng: np.random.Generator, rows: int, offset: float) -> Any:
    a = rng.standard_normal((rows, 6))
    return a - a.mean(0) + offset


def linear(rng: np.random.Generator) -> Pair:
    a = centred(rng, 300, 1e-7)
    return lambda w: (a @ w).mean(), lambda w: a.mean(0), rng.standard_normal(6)


def linear_by_sums_in_a_row(rng: np.random.Generator) -> Pair:
    a = centred(rng, 10_000, 1e-7)
    return lambda w: (a @ w).mean(), lambda w: np.add.accumulate(a)[-1] / 10_000, rng.standard_normal(6)


def one_weight(rng: np.random.Generator) -> Pair:
    a = centred(rng, 200, 1e-8)[:, 0]
    return lambda w: (a * w).mean(), lambda w: np.asarray(sum(a) / 200), np.array(0.7)


def half_linear(rng: np.random.Generator) -> Pair:
    a = centred(rng, 3000, 1e-6)
    return (
        lambda w: (a @ w[:6]).mean() + 1e-6 * np.sin(w[6:]).sum(),
        lambda w: np.concatenate([a.mean(0), 1e-6 * np.cos(w[6:])]),
        rng.standard_normal(20),
    )


def at_zero(rng: np.random.Generator) -> Pair:
    a, y = centred(rng, 300, 1e-7), 1 + 0.1 * rng.standard_normal(300)
    return lambda w: 0.5 * ((a @ w - y) ** 2).mean(), lambda w: a.T @ (a @ w - y) / 300, np.zeros(6)


@pytest.mark.parametrize("make", [linear, linear_by_sums_in_a_row, one_weight, half_linear, at_zero])
@pytest.mark.parametrize("seed", range(8))
def test_the_small_rest_of_large_terms_passes_where_nothing_moves(make: Callable[..., Pair], seed: int) -> None:
    fun, grad, x = make(np.random.default_rng([21, seed]))
    report = mb.check_gradient(fun, grad, x, rng=seed)
    assert report.verdict is Verdict.PASS, str(report)
    wrong = mb.check_gradient(fun, lambda w: (1 + 10 * report.factor_resolution) * grad(w), x, rng=seed)
    assert wrong.verdict is Verdict.FAIL, str(report)


@pytest.mark.parametrize("distance", [1e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("number", [float, np.float64])
def test_a_kink_beside_x0_deceives_no_difference(distance: float, smooth: float, number: Any) -> None:
    def fun(z: Any) -> Any:
        return number(np.abs(z - 1).sum() + smooth * np.sin(z).sum())

    def grad(z: Any) -> Any:
        return np.sign(z - 1) + smooth * np.cos(z)

    for seed in range(5):
        signs = np.random.default_rng([22, seed]).choice((-1.0, 1.0), 5)
        x = 1 + distance * signs * np.linspace(0.5, 1.5, 5)
        report = mb.check_gradient(fun, grad, x, rng=seed, method="differences")
        assert report.verdict is Verdict.PASS, str(report)
        assert report.entry_resolution < 1e-3
        wrong = mb.check_gradient(fun, lambda z: 1.01 * grad(z), x, rng=seed, method="differences")
        assert wrong.verdict is Verdict.FAIL, str(wrong)
        numeric, error = mb.numerical_gradient(fun, x, method="differences", rng=seed)
        assert (np.abs(numeric - grad(x)) <= error).all()
        assert error.max() < 1e-3


@pytest.mark.parametrize("frequency", [1e3, 1e5, 1e7])
def test_an_oscillation_faster_than_the_steps_deceives_no_difference(frequency: float) -> None:
    def fun(z: Any) -> Any:
        return float(np.sin(frequency * z).sum())

    def grad(z: Any) -> Any:
        return frequency * np.cos(frequency * z)

    for seed in range(5):
        x = np.random.default_rng([23, seed]).standard_normal(3)
        report = mb.check_gradient(fun, grad, x, rng=seed)
        assert report.verdict is Verdict.PASS, str(report)
        assert mb.check_gradient(fun, lambda z: 1.01 * grad(z), x, rng=seed).verdict is Verdict.FAIL
        numeric, error = mb.numerical_gradient(fun, x, rng=seed)
        assert (np.abs(numeric - grad(x)) <= error + 1e-15 * frequency * np.abs(x * frequency)).all()


@pytest.mark.parametrize("scale", [1e-125, 1e-110, 1e300, 1e305])
def test_digits_and_silence_at_the_ends_of_the_exponents(scale: float) -> None:
    x = np.linspace(-1, 2, 30)
    for method in ("auto", "differences"):
        report = mb.check_gradient(
            lambda x: scale * np.sum(np.sin(x) ** 2), lambda x: scale * np.sin(2 * x), x, rng=0, method=method
        )
        assert report.verdict is Verdict.PASS, str(report)
        assert report.entry_resolution < 1e-10


def test_a_minimum_shows_nothing_whichever_way_its_rounding_falls() -> None:
    from scipy.optimize import rosen, rosen_der

    for fun, grad, x in (
        (rosen, rosen_der, np.ones(4)),
        (lambda z: (z**2).sum(), lambda z: 2 * z, np.zeros(3)),
        (lambda z: ((z - 1) ** 2).sum(), lambda z: 2 * (z - 1), np.ones(3)),
    ):
        report = mb.check_gradient(fun, grad, x, rng=0)
        assert (report.verdict, report.reason_code) == (Verdict.INCONCLUSIVE, "stationary")


def test_the_slopes_that_a_kink_note_gives_are_those_at_the_kink() -> None:
    report = mb.check_gradient(
        lambda x: np.maximum(x, 0 * x).sum() + np.exp(5 * x).sum(),
        lambda x: (x > 0) + 5 * np.exp(5 * x),
        np.array([0.0]),
        rng=0,
    )
    notes = [note for note in report.notes if "kink" in note]
    assert notes
    for note in notes:
        small, large = sorted(abs(float(slope)) for slope in re.findall(r"(-?[\d.e+]+)(?: is)? on the", note))
        assert large / small == pytest.approx(6 / 5, rel=1e-4)  # 5 exp(0) on one side, 1 more on the other


@pytest.mark.parametrize("digits", [4, 6, 9])
def test_a_function_in_stairs_is_held_to_its_digits(digits: int) -> None:
    def fun(z: Any) -> Any:
        return float(np.round(np.sin(z).sum(), digits))

    for seed in range(8):
        x = np.random.default_rng([24, seed]).standard_normal(4)
        assert mb.check_gradient(fun, np.cos, x, rng=seed).verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
        assert mb.check_gradient(fun, lambda z: 2 * np.cos(z), x, rng=seed).verdict is not Verdict.PASS
