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


@pytest.mark.parametrize(
    ("x", "frequency", "amplitude", "smooth"),
    [
        (0.6222921, 231217.6, 1.0, 0.0),
        (1.1274029, 1653.631, 0.000234, 1.0),
    ],
)
def test_nor_one_in_float32_whose_points_are_too_coarse_for_it(
    x: float, frequency: float, amplitude: float, smooth: float
) -> None:
    def fun(z: Any) -> Any:
        return np.float32((amplitude * np.sin(frequency * z) + smooth * z * z).sum())

    def grad(z: Any) -> Any:
        return amplitude * frequency * np.cos(frequency * z) + 2 * smooth * z

    for seed in range(8):
        report = mb.check_gradient(fun, grad, np.array([x], np.float32), rng=seed)
        assert report.verdict is not Verdict.FAIL, str(report)


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


def gaussian_process(seed: int) -> Pair:
    """-log p(y) of a nearly noiseless process: the part that drops imaginary parts drowns in the other's noise."""
    rng = np.random.default_rng([23, seed])
    s = rng.uniform(0, 5, 25)
    d, y, one = (s[:, None] - s) ** 2, np.sin(s) + 0.1 * rng.standard_normal(25), np.eye(25)

    def signal(p: Any) -> Any:
        return np.exp(2 * p[1] - 0.5 * d * np.exp(-2 * p[0]))

    def fun(p: Any) -> Any:
        k = signal(p) + np.exp(2 * p[2]) * one
        return 0.5 * y @ np.linalg.solve(k, y) + 0.5 * np.linalg.slogdet(k)[1]

    def grad(p: Any) -> Any:
        e, noise = signal(p), np.exp(2 * p[2])
        inverse = np.linalg.inv(e + noise * one)
        a = inverse @ y
        m = inverse - np.outer(a, a)
        return 0.5 * np.array([(m * e * d).sum() * np.exp(-2 * p[0]), 2 * (m * e).sum(), 2 * noise * np.trace(m)])

    return fun, grad, np.array([1.0, 0.0, -9.0]) + 0.3 * rng.standard_normal(3)


@pytest.mark.parametrize("seed", range(8))
def test_a_complex_step_that_is_wrong_below_the_noise_of_a_difference_alarms_nobody(seed: int) -> None:
    fun, grad, x = gaussian_process(seed)
    assert mb.check_gradient(fun, grad, x, rng=seed).verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert mb.check_gradient(fun, lambda p: 1.1 * grad(p), x, rng=seed).verdict is Verdict.FAIL


def test_an_error_beside_a_pole_is_no_lost_digit() -> None:
    i, j = np.triu_indices(5, 1)

    def fun(q: Any) -> Any:
        d = q[j] - q[i]
        return (d**-12 - d**-6).sum()

    def grad(q: Any) -> Any:
        d, out = q[j] - q[i], np.zeros(5)
        slope = -12 * d**-13 + 6 * d**-7
        np.add.at(out, j, slope)
        np.add.at(out, i, -slope)
        return out

    x = np.array([0.0, 1.1, 2.3, 3.3, 4.5])
    assert mb.check_gradient(fun, grad, x, rng=0)
    for wrong in (lambda q: grad(q) * (1 + 1e-6), lambda q: grad(q) + 1e-3 * np.eye(5)[2], lambda q: grad(q) * (q < 3)):
        assert mb.check_gradient(fun, wrong, x, rng=0).verdict is Verdict.FAIL


@pytest.mark.parametrize("size", [0.0, 1e-9])
@pytest.mark.parametrize("seed", range(8))
def test_digits_lost_to_a_condition_number_that_x0_is_too_small_to_move(size: float, seed: int) -> None:
    rng = np.random.default_rng([24, seed])
    q, b = np.linalg.qr(rng.standard_normal((6, 6)))[0], rng.standard_normal(6)
    a = q * np.logspace(0, -8, 6) @ q.T

    def grad(x: Any) -> Any:
        return -np.linalg.solve(a + np.diag(x), b) * np.linalg.solve((a + np.diag(x)).T, b)

    def fun(x: Any) -> Any:
        return b @ np.linalg.solve(a + np.diag(x), b)

    x = size * rng.standard_normal(6)
    assert mb.check_gradient(fun, grad, x, rng=seed).verdict is not Verdict.FAIL
    assert mb.check_gradient(fun, lambda x: 1.001 * grad(x), x, rng=seed).verdict is Verdict.FAIL


@pytest.mark.parametrize("decades", [8, 150])
def test_entries_of_all_sizes(decades: int) -> None:
    rng = np.random.default_rng([25, decades])
    c = 10.0 ** rng.uniform(-decades, decades, 12)
    x = c * rng.standard_normal(12)
    fun, grad = lambda x: np.sin(x / c).sum(), lambda x: np.cos(x / c) / c
    for seed in range(8):
        assert mb.check_gradient(fun, grad, x, rng=seed).verdict is Verdict.PASS
        assert mb.check_gradient(fun, lambda x: grad(x) * 1.001, x, rng=seed).verdict is Verdict.FAIL


@pytest.mark.parametrize("seed", range(8))
def test_a_positive_x0_is_moved_to_positive_points(seed: int) -> None:
    x = np.random.default_rng(seed).uniform(0.1, 20, 10)
    fun, grad = lambda x: (abs(x) ** 1.5).sum(), lambda x: 1.5 * np.sqrt(abs(x))  # of another sign below zero
    assert mb.check_gradient(fun, grad, x, rng=seed)
    assert mb.check_gradient(fun, lambda x: -grad(-x), -x, rng=seed)


@pytest.mark.parametrize("fun", [lambda x: np.abs(x).sum(), lambda x: np.where(x.real > 0, x, -x).sum()])
@pytest.mark.parametrize("seed", range(4))
def test_neither_side_of_a_kink_counts_as_noise(fun: Any, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(10)
    x[:3] = 0
    for wrong in (lambda x: -np.sign(x), lambda x: 2 * np.sign(x)):
        assert mb.check_gradient(fun, wrong, x, rng=seed).verdict is Verdict.FAIL


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_complex_step_that_underflows_in_single_precision_is_not_believed(single: bool, seed: int) -> None:
    def fun(x: Any) -> Any:
        x = x.astype(np.complex64 if np.iscomplexobj(x) else np.float32)
        value = (np.tanh(x) ** 2).sum()
        return value if single else value.astype(np.result_type(value, np.float64))

    def grad(x: Any) -> Any:
        return (2 * np.tanh(x) / np.cosh(x) ** 2).astype(np.float32)

    x = np.random.default_rng([26, seed]).standard_normal(8).astype(np.float32)
    assert mb.check_gradient(fun, grad, x, rng=seed).verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert mb.check_gradient(fun, lambda x: -grad(x), x, rng=seed).verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("seed", range(4))
def test_zeros_at_a_kink_are_not_taken_for_noise(seed: int) -> None:
    x = np.random.default_rng([27, seed]).standard_normal(10)
    x[:3] = 0
    report = mb.check_gradient(lambda x: np.abs(x).sum(), np.sign, x, rng=seed)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.entry_resolution < 1e-8
    assert any("kink" in note for note in report.notes)
    wrong = mb.check_gradient(lambda x: np.abs(x).sum(), lambda x: np.sign(x) * (1 + 1e-6 * (x < 0)), x, rng=seed)
    assert wrong.verdict is Verdict.FAIL, str(wrong)


@pytest.mark.parametrize("seed", range(8))
def test_a_pass_is_never_so_coarse_that_it_has_shown_nothing(seed: int) -> None:
    x = np.random.default_rng([28, seed]).standard_normal(100)
    for digits in (5, 6):

        def fun(x: Any, digits: int = digits) -> Any:
            return float(np.round(np.sin(x).sum(), digits))

        report = mb.check_gradient(fun, np.cos, x, rng=seed)
        if report:
            assert report.entry_resolution <= 1 / 16, str(report)
        else:
            assert report.reason_code == "no digits", str(report)
            assert mb.check_gradient(fun, np.cos, x, rng=seed, tolerance=0.5)  # which asks for no more


def test_digits_lost_beside_a_minimum_are_not_laid_to_saturation_alone() -> None:
    from scipy.optimize import rosen, rosen_der

    report = mb.check_gradient(rosen, rosen_der, 1 + 1e-9 * np.arange(1, 5), rng=0)
    assert report.verdict is Verdict.PRECISION_LOSS
    assert "minimum" in report.cause
