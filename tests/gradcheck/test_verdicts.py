"""`check_gradient` on right and wrong gradients of plain functions."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

import matbackprop as mb
from matbackprop.gradcheck import Verdict

X = np.random.default_rng(1).standard_normal((7, 5))


def fun(x: Any) -> Any:
    return np.sum(np.sin(x) ** 2)


def grad(x: Any) -> Any:
    return np.sin(2 * x)


def one_off(delta: float) -> Callable[[Any], Any]:
    """The gradient with a relative error in entry [2, 3]."""
    factor = np.ones(X.shape)
    factor[2, 3] += delta
    return lambda x: grad(x) * factor


@pytest.mark.parametrize("seed", range(5))
def test_a_right_gradient_passes_and_says_what_it_would_have_seen(seed: int) -> None:
    report = mb.check_gradient(fun, grad, X, rng=seed)
    assert report.verdict is Verdict.PASS
    assert report
    assert report.entry_resolution < 1e-11
    assert "would have been seen" in report.resolution
    assert report.fun_calls <= 26
    assert report.grad_calls <= 8


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("delta", [1e-10, -1e-6, 1.0, -1.0, -2.0, 1e6])
def test_one_wrong_entry_is_found_and_named(delta: float, seed: int) -> None:
    report = mb.check_gradient(fun, one_off(delta), X, rng=seed)
    assert report.verdict is Verdict.FAIL
    (finding,) = report.findings
    assert (finding.parameter, finding.index) == ("x", (2, 3))
    assert finding.expected == pytest.approx(grad(X)[2, 3], rel=1e-13)  # the derivative, by hand
    assert finding.got == pytest.approx(grad(X)[2, 3] * (1 + delta), rel=1e-13)


@pytest.mark.parametrize("delta", [1e-12, -1e-9, 1e-3, 7.0])
def test_a_common_factor_is_seen_and_called_one(delta: float) -> None:
    report = mb.check_gradient(fun, lambda x: grad(x) * (1 + delta), X, rng=0)
    assert report.verdict is Verdict.FAIL
    assert re.search("whole gradient is|gradient of x is off by a common factor", report.cause)


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e8, 1e100])
@pytest.mark.parametrize(("delta", "verdict"), [(0.0, Verdict.PASS), (1e-10, Verdict.FAIL)])
def test_scaling_the_loss_changes_no_verdict(scale: float, delta: float, verdict: Verdict) -> None:
    wrong = one_off(delta)
    assert mb.check_gradient(lambda x: scale * fun(x), lambda x: scale * wrong(x), X, rng=0).verdict is verdict


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_nor_does_it_by_differences(scale: float) -> None:
    report = mb.check_gradient(lambda x: scale * fun(x), lambda x: scale * grad(x), X, rng=0, method="differences")
    assert report.verdict is Verdict.PASS
    wrong = mb.check_gradient(
        lambda x: scale * fun(x), lambda x: scale * one_off(1e-6)(x), X, rng=0, method="differences"
    )
    assert wrong.verdict is Verdict.FAIL


def test_sixteen_wrong_entries_among_ten_thousand_are_all_named_in_few_calls() -> None:
    rng = np.random.default_rng(2)
    x, wrong = rng.standard_normal(10_000), np.sort(rng.choice(10_000, 16, replace=False))
    factor = np.ones(x.size)
    factor[wrong] = 1.001
    report = mb.check_gradient(fun, lambda x: grad(x) * factor, x, rng=0)
    assert report.verdict is Verdict.FAIL
    assert {f.index[0] for f in report.findings} <= set(wrong.tolist())
    assert len(report.findings) == 8  # the largest; a note says that there are more
    assert "16 wrong entries" in " ".join(report.notes)
    assert report.fun_calls < 1000  # not 10,000: of the order of k log P


def test_cost_of_a_verdict_does_not_grow_with_the_number_of_parameters() -> None:
    small, large = (mb.check_gradient(fun, grad, np.linspace(-1, 2, n), rng=0) for n in (10, 100_000))
    assert small.fun_calls == large.fun_calls
    assert small.grad_calls == large.grad_calls


BLACK_BOXES = {
    "abs": (lambda x: (np.abs(x) ** 3).sum(), lambda x: 3 * x * np.abs(x), 1e-8),
    "norm": (np.linalg.norm, lambda x: x / np.linalg.norm(x), 1e-8),
    "expit": (lambda x: (expit(x) ** 2).sum(), lambda x: 2 * expit(x) ** 2 * expit(-x), 1e-8),
    "sign times x": (lambda x: (np.sign(x) * x**2).sum(), lambda x: 2 * np.abs(x), 1e-8),
    "conj": (lambda x: np.real(np.conj(x) * x).sum(), lambda x: 2 * x, 1e-8),
    "a float buffer": (lambda x: np.asarray(np.sin(x), dtype=float).sum(), np.cos, 1e-6),
    "float()": (lambda x: float(np.abs(np.sin(x)).sum()), lambda x: np.cos(x) * np.sign(np.sin(x)), 1e-6),
}


@pytest.mark.parametrize("name", BLACK_BOXES)
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_where_the_complex_step_cannot_go_differences_do(name: str) -> None:
    function, derivative, delta = BLACK_BOXES[name]
    report = mb.check_gradient(function, derivative, X, rng=0)
    assert report.verdict is Verdict.PASS, str(report)
    assert "differences" in report.method
    assert report.entry_resolution < delta
    factor = np.ones(X.shape)
    factor[3, 1] += 10 * delta
    wrong = mb.check_gradient(function, lambda x: derivative(x) * factor, X, rng=0)
    assert wrong.verdict is Verdict.FAIL
    assert [f.index for f in wrong.findings] == [(3, 1)]


def test_a_complex_step_that_is_wrong_only_a_little_is_not_believed() -> None:
    # Of |x| the complex step sees nothing at all; 1e-9 of it slips through the comparison with one difference.
    def slightly(x: Any) -> Any:
        return fun(x) + 1e-9 * np.abs(x).sum()

    report = mb.check_gradient(slightly, lambda x: grad(x) + 1e-9 * np.sign(x), X, rng=0)
    assert report.verdict is Verdict.PASS, str(report)
    assert any("dropped" in note for note in report.notes)


def test_float32_functions_are_held_to_their_own_precision() -> None:
    x = X.astype(np.float32)
    assert mb.check_gradient(fun, grad, x, rng=0).verdict is Verdict.PASS
    assert mb.check_gradient(fun, lambda x: np.float32(1.001) * grad(x), x, rng=0).verdict is Verdict.FAIL


def test_float32_inside_both_is_handled() -> None:
    def single(x: Any) -> Any:
        return np.float32(fun(np.asarray(x, np.float32)))

    for seed in range(5):
        report = mb.check_gradient(single, grad, X.astype(np.float32), rng=seed)
        assert report.verdict is Verdict.PASS, str(report)
        assert mb.check_gradient(single, lambda x: 2 * grad(x), X.astype(np.float32), rng=seed).verdict is Verdict.FAIL


@pytest.mark.parametrize("x0", [[0.0, 1.0, 2.0], [0.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize(
    ("slope_at_zero", "verdict"),
    [
        *((slope, Verdict.PASS) for slope in (0.0, 1.0, -1.0, 0.3)),
        *((slope, Verdict.FAIL) for slope in (1.01, -1.5, 7.0)),
    ],
)
@pytest.mark.parametrize("absolute", [np.abs, lambda x: np.maximum(x, -x), lambda x: np.where(x.real > 0, x, -x)])
def test_every_slope_between_the_two_of_a_kink_passes_and_no_other(
    x0: list[float], slope_at_zero: float, verdict: Verdict, absolute: Any
) -> None:
    def hinge(x: Any) -> Any:
        return absolute(x).sum() + (x**2).sum()

    def with_convention(x: Any) -> Any:
        return np.where(x == 0, slope_at_zero, np.sign(x)) + 2 * x

    for seed in range(3):
        report = mb.check_gradient(hinge, with_convention, np.array(x0), rng=seed)
        if not any(x0) and not slope_at_zero:
            assert report.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE), str(report)  # zero throughout
            continue
        assert report.verdict is verdict, str(report)
        assert any("kink" in note for note in report.notes)


@pytest.mark.parametrize("convention", [0.0, 0.5, 1.0])
def test_the_conventions_for_relu_get_one_verdict(convention: float) -> None:
    weight = np.random.default_rng(1).standard_normal((20, 3))

    def relu(x: Any) -> Any:
        return (weight @ np.where(x.real > 0, x, 0 * x)).sum()

    x0 = np.array([0.0, 1.0, -1.0])
    report = mb.check_gradient(relu, lambda x: weight.sum(0) * np.heaviside(x, convention), x0, rng=0)
    assert report.verdict is Verdict.PASS, str(report)


def test_a_wrong_gradient_is_wrong_at_a_kink_too() -> None:
    report = mb.check_gradient(lambda x: np.abs(x).sum(), lambda x: 3 * np.sign(x), np.array([0.0, 1.0, 2.0]), rng=0)
    assert report.verdict is Verdict.FAIL


@pytest.mark.parametrize("z", [20.0, 30.0, 36.0, 40.0])
def test_digits_lost_to_saturation_are_no_wrong_formula(z: float) -> None:
    def saturated(w: Any) -> Any:
        a = 1 / (1 + np.exp(-w))
        return (a**2).sum()

    def by_the_output(w: Any) -> Any:
        a = 1 / (1 + np.exp(-w))
        return 2 * a * a * (1 - a)  # 1 - a has few digits left

    x = z * np.array([1.0, 1.1, 1.01])
    assert mb.check_gradient(saturated, by_the_output, x, rng=0).verdict is Verdict.PRECISION_LOSS
    assert mb.check_gradient(saturated, lambda w: 3 * by_the_output(w), x / z, rng=0).verdict is Verdict.FAIL


def test_dicts_lists_and_nests_of_arrays() -> None:
    x0 = {"layers": [(np.ones((2, 3)), np.zeros(2)), (np.full((1, 2), 0.5), np.ones(1))], "scale": np.array(2.0)}

    def network(p: Any) -> Any:
        a = np.array([1.0, -0.5, 2.0])
        for weight, bias in p["layers"]:
            a = np.tanh(weight @ a + bias)
        return p["scale"] * a[0]

    def right(p: Any, spoil: float = 1.0) -> Any:
        a0 = np.array([1.0, -0.5, 2.0])
        (w1, b1), (w2, b2) = p["layers"]
        a1 = np.tanh(w1 @ a0 + b1)
        a2 = np.tanh(w2 @ a1 + b2)
        d2 = p["scale"] * (1 - a2 * a2)
        d1 = (w2.T @ d2) * (1 - a1 * a1)
        return {"layers": [(np.outer(d1, a0), d1), (spoil * np.outer(d2, a1), d2)], "scale": a2[0]}

    assert mb.check_gradient(network, right, x0, rng=0).raise_for_verdict()
    report = mb.check_gradient(network, lambda p: right(p, 2.0), x0, rng=0)
    assert report.findings[0].where == "layers[1][0][0, 0]"
    assert "2 times too large" in report.cause


def test_one_function_for_both_and_a_short_call() -> None:
    def both(x: Any) -> Any:
        return fun(x), grad(x)

    for report in (mb.check_gradient(both, X, rng=0), mb.check_gradient(both, True, X), mb.check_gradient(both, x0=X)):
        assert report.verdict is Verdict.PASS


def test_a_tolerance_may_be_stricter_or_laxer() -> None:
    wrong = one_off(1e-7)
    assert mb.check_gradient(fun, wrong, X, rng=0, tolerance=1e-5).verdict is Verdict.PASS
    assert mb.check_gradient(fun, wrong, X, rng=0, tolerance=1e-9).verdict is Verdict.FAIL
    strict = mb.check_gradient(fun, grad, X, rng=0, tolerance=1e-17)
    assert strict.verdict is Verdict.INCONCLUSIVE
    assert "rounding" in strict.reason


def test_every_entry_by_itself() -> None:
    report = mb.check_gradient(fun, grad, X, rng=0, per_entry=True)
    assert report.verdict is Verdict.PASS
    assert "every one of the 35" in " ".join(report.notes)


def test_the_same_rng_gives_the_same_report() -> None:
    first, second = (mb.check_gradient(fun, one_off(1e-3), X, rng=3).to_dict() for _ in range(2))
    first.pop("seconds"), second.pop("seconds")
    assert first == second


def test_no_global_random_state_is_touched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    mb.check_gradient(fun, grad, X)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
