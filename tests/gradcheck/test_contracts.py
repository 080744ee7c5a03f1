"""What a gradient function must keep to: memory of its own, what it returns, and what is left as it was."""

from typing import Any

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.gradcheck import GradientCheckError, Verdict
from matbackprop.gradcheck.pytest_plugin import GradCheck

X = np.array([0.5, -1.0, 2.0])
C = np.array([1.0, 2.0, 3.0])


def test_a_buffer_that_a_linear_function_reuses() -> None:
    buffer = np.empty(3)

    def grad(x: Any) -> Any:
        buffer[:] = C
        return buffer

    report = mb.check_gradient(lambda x: C @ x, grad, X, rng=0)
    assert report.verdict is Verdict.FAIL
    assert "same memory" in report.cause
    assert mb.check_gradient(lambda x: C @ x, lambda x: C.copy(), X, rng=0).verdict is Verdict.PASS


def test_a_constant_that_cannot_be_written_to_is_none() -> None:
    constant = C.copy()
    constant.flags.writeable = False
    assert mb.check_gradient(lambda x: C @ x, lambda x: constant, X, rng=0).verdict is Verdict.PASS


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:], lambda x: x.reshape(1, -1)[0]])
def test_a_gradient_that_is_its_own_input(view: Any) -> None:
    report = mb.check_gradient(lambda x: (x @ x) / 2, view, X, rng=0)
    assert report.verdict is Verdict.FAIL
    assert "is the input itself" in report.cause
    named = mb.check_gradient(lambda p: (p["w"] @ p["w"]) / 2, lambda p: {"w": view(p["w"])}, {"w": X}, rng=0)
    assert "the gradient of w is the input itself" in named.cause


def test_a_hessian_product_may_return_the_vector_that_it_is_given() -> None:
    from matbackprop.gradcheck import check_hessian_product

    assert check_hessian_product(lambda x: x.copy(), lambda x, p: p, X, rng=0).verdict is Verdict.PASS


def test_gradients_of_other_kinds_of_array() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for gradient, text in (
        (lambda x: sparse.csr_array(2 * x[None]), r"sparse csr_array; return g\.toarray"),
        (lambda x: np.ma.masked_array(2 * x, [False, False, True]), "masked array"),
        (lambda x: "2 x", "is text"),
    ):
        report = mb.check_gradient(lambda x: x @ x, gradient, X, rng=0)
        assert report.verdict is Verdict.FAIL
        with pytest.raises(GradientCheckError, match=text):
            report.raise_for_verdict()


def test_a_complex_value_at_a_real_point() -> None:
    with pytest.raises(TypeError, match=r"complex number .* at a real x"):
        mb.check_gradient(lambda x: (1j * x).sum(), lambda x: x.copy(), X)


def test_verdicts_to_allow_must_be_verdicts() -> None:
    gradcheck = GradCheck()
    report = mb.check_gradient(lambda x: x @ x, lambda x: 2 * x, np.zeros(3), rng=0)
    assert report.raise_for_verdict("INCONCLUSIVE") is report
    with pytest.raises(ValueError, match=r"'PRECISION LOSS'.*got 'PRECISION_LOSS'"):
        report.raise_for_verdict("PRECISION_LOSS")
    with pytest.raises(ValueError, match="got 'INCONCLUSIV'"):
        gradcheck(lambda x: x @ x, lambda x: 2 * x, np.zeros(3), allow=("INCONCLUSIV",))
    assert gradcheck(lambda x: x @ x, lambda x: 2 * x, np.zeros(3), allow="INCONCLUSIVE") is not None


@pytest.mark.parametrize("tolerance", [1e-3, 0.1])
@pytest.mark.parametrize("size", [30, 3000])
def test_a_tolerance_is_the_relative_error_of_an_entry(tolerance: float, size: int) -> None:
    rng = np.random.default_rng(3)
    x, errors = rng.uniform(0.5, 2, size), rng.uniform(-1, 1, size)

    def check(factor: Any) -> Any:
        return mb.check_gradient(lambda x: (x**3).sum(), lambda x: 3 * x**2 * factor, x, rng=0, tolerance=tolerance)

    within = check(1 + 0.9 * tolerance * errors)
    assert within.verdict is Verdict.PASS, str(within)  # although they add up to more
    assert check(1 + 0.9 * tolerance).verdict is Verdict.PASS
    assert check(1 + 3 * tolerance).verdict is Verdict.FAIL
    one = np.ones(size)
    one[size // 2] += 3 * tolerance
    assert [f.index for f in check(one).findings] == [(size // 2,)]


def test_a_tolerance_below_rounding_is_noted() -> None:
    report = mb.check_gradient(lambda x: (x**3).sum(), lambda x: 3 * x**2, np.array([1.0, 2.0]), rng=0, tolerance=1e-17)
    assert "below what rounding allows" in " ".join([*report.notes, report.reason])
    assert not report or report.entry_resolution > 1e-15


def test_a_solver_is_named() -> None:
    from scipy.integrate import solve_ivp

    def fun(p: Any) -> Any:
        return solve_ivp(lambda t, y: -p[0] * y + p[1], (0, 2), [1.0], rtol=1e-3, atol=1e-6).y[0, -1]

    def grad(p: Any) -> Any:  # of y = (1 - b/a) exp(-2a) + b/a
        (a, b), e = p, np.exp(-2 * p[0])
        return np.array([b / a**2 * (e - 1) - 2 * (1 - b / a) * e, (1 - e) / a])

    report = mb.check_gradient(fun, grad, np.array([1.0, 0.7]), rng=0)
    assert report.verdict is not Verdict.PASS
    assert "solver" in report.cause


def test_wrong_arrays_among_many_are_found_in_few_calls() -> None:
    rng = np.random.default_rng(4)
    x = {f"w{i}": rng.standard_normal(3) for i in range(300)}

    def grad(p: Any) -> Any:
        return {name: np.cos(v) * (1.5 if name in ("w7", "w250") else 1.0) for name, v in p.items()}

    report = mb.check_gradient(lambda p: sum(np.sin(v).sum() for v in p.values()), grad, x, rng=0)
    assert {f.parameter for f in report.findings} == {"w7", "w250"}
    assert "the other 298 arrays are right" in report.cause
    assert report.fun_calls < 250
