"""The report: text, HTML, data, pictures; the command; the pytest fixture; what an import costs."""

import argparse
import importlib.util
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matbackprop as mb
from matbackprop.gradcheck import GradientCheckError, Verdict
from matbackprop.gradcheck.command import add_arguments, run

pytest_plugins = ["pytester"]
X = np.array([[0.3, -1.0], [2.0, 0.5]])


def passing() -> mb.GradientReport:
    return mb.check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x, X, rng=0, name="square")


def failing() -> mb.GradientReport:
    return mb.check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x.T, X, rng=0, name="square")


def test_text() -> None:
    text = str(passing())
    assert text.startswith("PASS  square  (x[2, 2]; P = 4)\n  resolution: a relative error above ")
    text = str(failing())
    assert "cause: the gradient of x looks transposed" in text
    assert "x[0, 1]  -2        4    -2" in text


def test_html_is_escaped() -> None:
    report = mb.check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x, X, rng=0, name="<b>")
    assert "&lt;b&gt;" in report._repr_html_()
    assert "<b>(" not in report._repr_html_()
    assert "PASS" in report._repr_html_()


def test_data_goes_through_json() -> None:
    for report in (
        passing(),
        failing(),
        mb.check_gradient(lambda x: np.nan, lambda x: x, X),
        mb.check_layer(mb.Tanh(), X),
    ):
        data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert data["verdict"] == str(report.verdict)
    (first, second) = failing().to_dict()["findings"]
    assert first == {
        "parameter": "x",
        "index": [0, 1],
        "expected": -2.0,
        "got": 4.0,
        "ratio": -2.0,
        "cause": "looks transposed, in 2 of the 4 entries looked at",
    }
    assert second["index"] == [1, 0]


def test_raising() -> None:
    assert passing().raise_for_verdict()
    with pytest.raises(GradientCheckError, match="looks transposed"):
        failing().raise_for_verdict()
    unclear = mb.check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x, np.zeros(2))
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        unclear.raise_for_verdict()
    assert unclear.raise_for_verdict("INCONCLUSIVE") is unclear


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_pictures() -> None:
    for report in (passing(), failing(), mb.check_layer(mb.Tanh(), X, rng=0)):
        assert len(report.plot().axes) == 2


def test_the_data_of_the_pictures() -> None:
    report = failing()
    assert report.probe is not None
    data = report.probe()
    assert data["wrong"].sum() == 2
    right = passing()
    assert right.probe is not None
    data = right.probe()
    large = data["steps"] > 1e-3
    slope = np.polyfit(np.log(data["steps"][large]), np.log(data["remainder"][large]), 1)[0]
    assert slope == pytest.approx(2, abs=0.01)  # Taylor


# The command.

FILE = """
import numpy as np
import matbackprop as mb
def fun(w): return (w ** 2).mean()
def grad(w): return 2 * w / w.size
def wrong(w): return 2 * w
w = np.array([1.0, -2.0, 3.0])
good = (fun, grad, w)
bad = (fun, wrong, w)
unclear = (fun, grad, 0 * w)
def made(): return fun, grad, w
def model(): return mb.Sequential(mb.Linear(2, 1), rng=0), mb.MSE(), [[1.0, 2.0]], [[0.5]]
layer = (mb.Tanh(), [[0.5, -1.0]])
class Space: inner = good
nothing = 3
"""


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    path = tmp_path / "gradients_of_mine.py"
    path.write_text(FILE)

    def call(name: str | None, *options: str) -> tuple[int, str, str]:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        status = run(parser.parse_args([f"{path}:{name}" if name else "", *options][0 if name else 1 :]))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("good", 0, "PASS"),
        ("made", 0, "PASS"),
        ("model", 0, "PASS"),
        ("layer", 0, "PASS"),
        ("Space.inner", 0, "PASS"),
        ("bad", 1, "3 times too large, and 3 is the length of x"),
        ("unclear", 2, "INCONCLUSIVE"),
    ],
)
def test_status_and_output(check: Any, name: str, status: int, text: str) -> None:
    code, out, _ = check(name)
    assert (code, text in out) == (status, True), out
    code, out, _ = check(name, "--json")
    assert (code, json.loads(out)["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE")) == (status, True)


@pytest.mark.parametrize(("name", "text"), [("absent", "has no absent"), ("nothing", "expected (fun, grad, x0)")])
def test_unusable_targets(check: Any, name: str, text: str) -> None:
    code, _, err = check(name)
    assert (code, text in err) == (2, True), err
    code, out, _ = check(name, "--json")
    assert text in json.loads(out)["error"]


def test_without_a_name_a_file_says_what_it_has(check: Any, tmp_path: Path) -> None:
    listed = "gradients_of_mine.py:{0}".format
    code, _, err = check("absent")
    assert code == 2
    assert all(listed(name) in err for name in ("good", "bad", "unclear", "layer"))
    assert not any(listed(name) in err for name in ("fun", "made", "nothing"))
    empty = tmp_path / "empty.py"
    empty.write_text("def fun(w): return w.sum()\n")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([str(empty)])) == 2


@pytest.mark.parametrize("target", ["nofile.py:x", "nofile.py", "no.such.module:x", "nocolon", ":x"])
def test_targets_that_are_not_there(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([target])) == 2
    assert capsys.readouterr().err.startswith("check: ")


def test_without_a_target_the_library_checks_itself(check: Any) -> None:
    code, out, _ = check(None)
    assert code == 0
    assert out.count("\n\n") == 10  # four layers and seven networks
    assert "FAIL" not in out


# The fixture.


def test_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import numpy as np
        import matbackprop as mb
        X = np.array([1.0, 2.0])
        def test_right(gradcheck): assert gradcheck(lambda x: (x**2).sum(), lambda x: 2 * x, X)
        def test_wrong(gradcheck): gradcheck(lambda x: (x**2).sum(), lambda x: 3 * x, X)
        def test_unclear(gradcheck): gradcheck(lambda x: (x**2).sum(), lambda x: 2 * x, 0 * X)
        def test_allowed(gradcheck): gradcheck(lambda x: (x**2).sum(), lambda x: 2 * x, 0 * X, allow=("INCONCLUSIVE",))
        def test_layer(gradcheck): gradcheck.layer(mb.Tanh(), [[1.0, 2.0]])
        def test_model(gradcheck):
            gradcheck.model(mb.Sequential(mb.Linear(2, 1), rng=0), mb.MSE(), [[1.0, 2.0]], [[0.5]])
        """
    )
    installed = entry_points(group="pytest11", name="matbackprop")  # not in a checkout that is only on the path
    result = pytester.runpytest(*([] if installed else ["-p", "pytest_matbackprop"]))
    result.assert_outcomes(passed=4, failed=2)
    failures = result.stdout.str().split("short test summary")[0]  # the summary repeats all of it where CI is set
    assert failures.count("whole gradient is 1.5 times too large\n") == 1
    result.stdout.fnmatch_lines(["*whole gradient is 1.5 times too large*", "INCONCLUSIVE*", "*choose another x0*"])


def modules_after(code: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_importing_the_library_does_not_import_the_checker() -> None:
    assert not any("gradcheck" in name for name in modules_after("import matbackprop"))


def test_the_checker_imports_nothing_heavy() -> None:
    found = modules_after("import matbackprop; matbackprop.check_gradient")
    assert not found & {"torch", "scipy", "matplotlib", "pytest", "jax", "autograd"}


def test_the_plugin_costs_nothing_until_used() -> None:
    assert "matbackprop" not in modules_after("import pytest_matbackprop")
    assert "numpy" not in modules_after("import pytest_matbackprop")


def test_many_names_are_cut_between_two() -> None:
    x0 = {f"layer{i}.weight": np.ones((3, 4)) for i in range(6)}
    report = mb.check_gradient(
        lambda p: sum((v**2).sum() for v in p.values()), lambda p: {k: 2 * v for k, v in p.items()}, x0, rng=0
    )
    assert report.parameters == "layer0.weight[3, 4], layer1.weight[3, 4] and 4 more"
    assert report.name == "gradient"  # a lambda has no name of its own
    long = mb.check_gradient(
        lambda p: (p["a" * 80] ** 2).sum(), lambda p: {"a" * 80: 2 * p["a" * 80]}, {"a" * 80: np.ones(2)}
    )
    assert long.parameters == "a" * 80 + "[2]"


def test_a_pass_at_zero_alone_is_said_to_show_little() -> None:
    def fun(x: Any) -> Any:
        return x[0] * x[1] + x.sum()

    def wrong(x: Any) -> Any:
        return np.array([x[1] + 1, 2 * x[0] + 1])

    report = mb.check_gradient(fun, wrong, np.zeros(2), rng=0)
    assert report.verdict is not Verdict.PASS or any("zero throughout" in note for note in report.notes)
    assert mb.check_gradient(fun, wrong, np.ones(2), rng=0).verdict is Verdict.FAIL
