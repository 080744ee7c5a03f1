"""`numerical_gradient`: the numbers, and the bounds on their errors. Hessian-vector products."""

from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der, rosen_hess_prod

import matbackprop as mb
from matbackprop.gradcheck import Verdict, check_hessian_product

CASES: dict[str, tuple[Any, Any]] = {
    "sin(exp x)": (lambda x: np.sin(np.exp(x)).sum(), lambda x: mpmath.cos(mpmath.exp(x)) * mpmath.exp(x)),
    "1/(1 + x^2)": (lambda x: (1 / (1 + x * x)).sum(), lambda x: -2 * x / (1 + x * x) ** 2),
    "|x|^3": (lambda x: (np.abs(x) ** 3).sum(), lambda x: 3 * x * abs(x)),
    "float(|x| sin x)": (
        lambda x: float((np.abs(x) * np.sin(x)).sum()),
        lambda x: mpmath.sign(x) * mpmath.sin(x) + abs(x) * mpmath.cos(x),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(10))
def test_the_error_is_within_its_bound(name: str, seed: int) -> None:
    fun, exact = CASES[name]
    x = np.random.default_rng([8, seed]).standard_normal(6)
    numeric, bound = mb.numerical_gradient(fun, x, rng=seed)
    with mpmath.workdps(40):
        truth = np.array([float(exact(mpmath.mpf(float(v)))) for v in x])
    assert (np.abs(numeric - truth) <= bound + 2e-16 * np.abs(truth)).all()
    assert (bound < 1e-9).all()


def test_it_has_the_form_of_x0() -> None:
    gradient, error = mb.numerical_gradient(lambda p: p["a"].sum() * p["b"], {"a": np.ones((2, 2)), "b": np.array(3.0)})
    assert np.array_equal(gradient["a"], np.full((2, 2), 3.0))
    assert gradient["b"] == 4.0
    assert error["a"].shape == (2, 2)


def test_float32_in_float64_out() -> None:
    gradient, _ = mb.numerical_gradient(lambda x: (x**2).sum(), np.array([1.0, 3.0], np.float32))
    assert gradient.dtype == np.float64
    assert gradient.tolist() == [2.0, 6.0]


X0 = np.array([0.5, -1.0, 2.0, 0.3])


def test_a_right_hessian_product_passes() -> None:
    assert check_hessian_product(rosen_der, rosen_hess_prod, X0, rng=0).verdict is Verdict.PASS
    report = mb.check_gradient(rosen, rosen_der, X0, hessp=rosen_hess_prod, rng=0)
    assert report.verdict is Verdict.PASS
    assert [part.name for part in report.parts] == ["rosen_der", "Hessian-vector product"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, p: 2 * rosen_hess_prod(x, p),
        lambda x, p: rosen_hess_prod(x, np.abs(p)),  # not linear in p
        lambda x, p: rosen_hess_prod(x + 1e-7, p),
        lambda x, p: p,
        lambda x, p: np.tril(np.ones((4, 4))) @ p,  # not symmetric
    ],
)
def test_a_wrong_hessian_product_fails(wrong: Any) -> None:
    assert check_hessian_product(rosen_der, wrong, X0, rng=0).verdict is Verdict.FAIL
    assert mb.check_gradient(rosen, rosen_der, X0, hessp=wrong, rng=0).verdict is Verdict.FAIL


def test_per_entry_is_no_stricter_than_what_the_report_says() -> None:
    x = np.linspace(-12.5, -11.5, 50)
    fun, grad = lambda z: np.log1p(np.exp(z)).sum(), lambda z: 1 - 1 / (1 + np.exp(z))  # right, with digits lost
    verdicts = [mb.check_gradient(fun, grad, x, rng=seed).verdict for seed in range(6)]
    assert verdicts.count(Verdict.PASS) >= 3  # the others say that digits were lost
    assert [mb.check_gradient(fun, grad, x, rng=seed, per_entry=True).verdict for seed in range(6)] == verdicts


def test_per_entry_respects_tolerance_and_method() -> None:
    x, calls = np.array([1.0, 2.0, 3.0]), []

    def fun(z):
        calls.append(np.iscomplexobj(z))
        return (z**3).sum()

    def grad(z):
        return 3 * z**2 * np.array([1.0, 1 + 5e-4, 1.0])

    assert mb.check_gradient(fun, grad, x, rng=0, tolerance=1e-2, per_entry=True).verdict == "PASS"
    calls.clear()
    assert mb.check_gradient(fun, lambda z: 3 * z**2, x, rng=0, method="differences", per_entry=True).verdict == "PASS"
    assert not any(calls)
