"""What is no sound function, gradient or point gets a clear error or verdict, and never passes."""

from typing import Any

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.gradcheck import Verdict

X = np.array([0.5, -1.0, 2.0])


def fun(x: Any) -> Any:
    return (x**2).sum()


def grad(x: Any) -> Any:
    return 2 * x


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: x**2, r"one number, got shape \(3,\)"),
        (lambda x: (x**2).sum(keepdims=True), r"one number, got shape \(1,\)"),
        (lambda x: None, r"None; does it lack a return"),
        (lambda x: 3, r"the integer 3"),
        (lambda x: True, r"must return a float|integer"),
        (lambda x: np.int64(3), r"integer"),
        (lambda x: "3", r"must return a float"),
        (lambda x: (1.0, x), r"leave out grad"),
        (lambda x: [1.0, 2.0], r"one number"),
    ],
)
def test_a_function_that_returns_no_number(function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        mb.check_gradient(function, grad, X)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite(value: float) -> None:
    report = mb.check_gradient(lambda x: value, grad, X)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert f"fun returned {value}" in report.reason
    assert "x = [" in report.reason  # the point


@pytest.mark.parametrize(
    ("gradient", "text"),
    [
        (lambda x: np.ones(4), r"shape \(4,\), expected \(3,\)"),
        (lambda x: np.ones((3, 1)), r"right number of entries, so reshape"),
        (lambda x: 1.0, r"shape \(\)"),
        (lambda x: None, r"None; does grad lack a return"),
        (lambda x: "no", r"is text"),
        (lambda x: np.array([None] * 3), r"dtype object"),
        (lambda x: 2 * x + 0j, r"complex128"),
        (lambda x: (2 * x).astype(np.float32), r"float32"),
        (lambda x: np.array([1, -2, 4]), r"int64"),
        (lambda x: {"x": 2 * x}, r"dict|array|shape|dtype"),
        (lambda x: np.array([1.0, np.nan, 4.0]), r"not finite"),
        (lambda x: np.array([1.0, -2.0, np.inf]), r"not finite"),
    ],
)
def test_a_gradient_that_is_none(gradient: Any, text: str) -> None:
    report = mb.check_gradient(fun, gradient, X, rng=0)
    assert report.verdict is Verdict.FAIL
    assert pytest.importorskip("re").search(text, str(report)), str(report)


def test_nan_in_one_entry_is_named() -> None:
    report = mb.check_gradient(fun, lambda x: np.array([1.0, np.nan, 4.0]), X)
    assert report.findings[0].where == "x[1]"


def test_a_dict_gradient_with_other_keys() -> None:
    report = mb.check_gradient(lambda p: fun(p["w"]), lambda p: {"v": grad(p["w"])}, {"w": X})
    assert report.verdict is Verdict.FAIL
    assert "x0's keys ['w'], got keys ['v']" in report.cause


@pytest.mark.parametrize(
    ("x0", "error", "text"),
    [
        (np.array([1, 2, 3]), TypeError, r"int64.*astype\(float\)"),
        ([1, 2, 3], TypeError, r"int64"),
        (np.array([True]), TypeError, r"bool"),
        (np.array([]), ValueError, r"empty"),
        ({}, ValueError, r"empty"),
        ([], ValueError, r"empty"),
        (np.array([1.0 + 2j]), TypeError, r"complex"),
        (np.array([1.0, np.nan]), ValueError, r"finite.*x\[1\]"),
        (np.array(["a"]), TypeError, r"dtype <U1"),
        ("abc", TypeError, r"array of floats"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), TypeError, r"masked"),
        (None, TypeError, r"x0 is missing"),
    ],
)
def test_an_x0_by_which_there_is_no_derivative(x0: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        mb.check_gradient(fun, grad, x0)


def test_a_scalar_x0_is_one_parameter() -> None:
    assert mb.check_gradient(lambda x: x**3, lambda x: 3 * x**2, np.array(2.0), rng=0).verdict is Verdict.PASS
    assert mb.check_gradient(lambda x: x**3, lambda x: 3 * x, 2.0, rng=0).verdict is Verdict.FAIL
    wrong_shape = mb.check_gradient(lambda x: x**3, lambda x: np.array([12.0]), np.array(2.0), rng=0)
    assert wrong_shape.verdict is Verdict.FAIL


def test_an_enormous_x0() -> None:
    assert mb.check_gradient(fun, grad, np.full(3, 1e200)).verdict is Verdict.INCONCLUSIVE  # its square overflows
    assert mb.check_gradient(fun, lambda x: 3 * x, np.full(3, 1e100)).verdict is Verdict.FAIL
    assert mb.check_gradient(fun, lambda x: 3 * x, np.ones(1_000_000)).verdict is Verdict.FAIL


def test_an_exception_is_shown_with_the_point() -> None:
    def fails(x: Any) -> Any:
        raise ZeroDivisionError("as planned")

    for report in (mb.check_gradient(fails, grad, X), mb.check_gradient(fun, fails, X)):
        assert report.verdict is Verdict.INCONCLUSIVE
        assert "raised ZeroDivisionError: as planned" in report.reason
        assert "x = [ 0.5 -1.   2. ]" in report.reason


def test_an_exception_away_from_x0_only() -> None:
    def picky(x: Any) -> Any:
        if (np.abs(x - X) > 1e-3).any():
            raise ValueError("outside")
        return fun(x)

    assert mb.check_gradient(picky, grad, X, rng=0).verdict is Verdict.PASS
    assert mb.check_gradient(picky, lambda x: 3 * x, X, rng=0).verdict is Verdict.FAIL


def test_a_function_that_ignores_x0() -> None:
    report = mb.check_gradient(lambda x: 1.5, lambda x: 0 * x, X)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "does not change with x0" in report.reason
    assert mb.check_gradient(lambda x: 1.5, grad, X).verdict is Verdict.FAIL


def test_a_stationary_point_shows_nothing() -> None:
    report = mb.check_gradient(fun, grad, np.zeros(3))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "choose another x0" in report.reason


def test_a_random_function() -> None:
    rng = np.random.default_rng(0)
    report = mb.check_gradient(lambda x: fun(x) + rng.random(), grad, X)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "not repeatable" in report.reason


def test_a_point_outside_of_the_domain() -> None:
    report = mb.check_gradient(lambda x: np.log(x).sum(), lambda x: 1 / x, X)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "nan" in report.reason


def test_a_point_close_to_the_edge_of_the_domain() -> None:
    x = np.array([1e-6, 1e-3, 2.0])
    for method in ("auto", "differences"):
        assert (
            mb.check_gradient(lambda x: np.log(x).sum(), lambda x: 1 / x, x, rng=0, method=method).verdict
            is Verdict.PASS
        )
        assert (
            mb.check_gradient(lambda x: np.log(x).sum(), lambda x: 2 / x, x, rng=0, method=method).verdict
            is Verdict.FAIL
        )


@pytest.mark.parametrize(("function", "gradient"), [(3.0, grad), ("fun", grad), (fun, "grad")])
def test_what_cannot_be_called(function: Any, gradient: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        mb.check_gradient(function, gradient, X)


def test_a_function_alone_that_returns_no_pair() -> None:
    with pytest.raises(TypeError, match=r"must return \(value, gradient\)"):
        mb.check_gradient(fun, None, X)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, np.nan, np.inf])
def test_a_tolerance_that_is_none(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        mb.check_gradient(fun, grad, X, tolerance=tolerance)


def test_an_unknown_method() -> None:
    with pytest.raises(ValueError, match="method"):
        mb.check_gradient(fun, grad, X, method="magic")


def test_x0_is_not_touched() -> None:
    x = X.copy()
    mb.check_gradient(fun, lambda x: 3 * x, x, rng=0)
    assert np.array_equal(x, X)


def test_a_gradient_that_lives_on_what_fun_kept() -> None:
    class Net:
        """The commonest layout of a gradient written by hand: backward reads what forward left."""

        def fun(self, x):
            self.h = np.tanh(x)
            return (self.h**2).sum()

        def grad(self, x):
            return 2 * self.h * (1 - self.h**2)

    net = Net()
    report = mb.check_gradient(net.fun, net.grad, np.array([0.3, -0.7, 1.1]), rng=0)
    assert report.verdict == "FAIL"
    assert "stale cache" in report.cause


class Log(mb.Layer):
    """A right layer whose domain ends at zero."""

    def forward(self, x, out=None):
        self.x = x
        return np.log(x)

    def backward(self, delta, out=None):
        return delta / self.x


def test_a_layer_whose_domain_ends_at_zero() -> None:
    with np.errstate(all="ignore"):
        assert mb.check_layer(Log(), [[1.0, 2.0], [0.5, 3.0]], rng=0).verdict == "PASS"


class Moody(mb.Layer):
    """A layer whose backward fails for the batch that the user gave."""

    def forward(self, x, out=None):
        self.rows = len(x)
        return 2 * x

    def backward(self, delta, out=None):
        if self.rows == 4:
            raise ZeroDivisionError("float division by zero")
        return 2 * delta


def test_an_exception_in_backward_is_no_pass() -> None:
    assert mb.check_layer(Moody(), np.ones((4, 2)), rng=0).verdict != "PASS"


def test_a_target_that_ends_the_process_is_no_pass(tmp_path) -> None:
    from matbackprop.cli import main

    (tmp_path / "ends.py").write_text("raise SystemExit(0)")
    assert main(["check", f"{tmp_path / 'ends.py'}:target"]) == 2


def test_big_endian_parameters() -> None:
    x = np.array([1.5, 2, 3], ">f8")
    assert mb.check_gradient(lambda z: (z**2).sum(), lambda z: 2 * z, x, rng=0).verdict == "PASS"


def test_a_target_that_takes_arguments(tmp_path, capsys):
    from matbackprop.cli import main

    (tmp_path / "given.py").write_text("def grad(w):\n    return 2 * w\n", encoding="utf-8")
    assert main(["check", f"{tmp_path / 'given.py'}:grad"]) == 2
    assert "takes arguments; name a tuple such as case = (fun, grad, x0)" in capsys.readouterr().err
