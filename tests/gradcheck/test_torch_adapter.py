"""`check_gradient` on torch functions and modules."""

from typing import Any

import pytest

import matbackprop as mb
from matbackprop.gradcheck import Verdict

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def module(activation: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), activation, torch.nn.Linear(4, 2)).double()


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.ReLU(), torch.nn.GELU(), torch.nn.Softmax(dim=1)])
def test_modules_pass_by_their_parameters_and_input(activation: Any) -> None:
    report = mb.check_gradient(module(activation), torch.randn(5, 3, dtype=torch.float64), rng=0)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.entry_resolution < 1e-6
    assert report.size == 3 * 4 + 4 + 4 * 2 + 2 + 5 * 3


def test_float32_modules_are_no_false_alarm() -> None:
    for seed in range(5):
        report = mb.check_gradient(module(torch.nn.ReLU()).float(), torch.randn(5, 3), rng=seed)
        assert report.verdict is Verdict.PASS, str(report)


class Cube(torch.autograd.Function):
    factor = 3.0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.abs() ** 3

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        (x,) = ctx.saved_tensors
        return delta * Cube.factor * x * x.abs()


@pytest.mark.parametrize(("factor", "verdict"), [(3.0, Verdict.PASS), (3.0 + 1e-7, Verdict.FAIL), (6.0, Verdict.FAIL)])
def test_a_custom_backward(factor: float, verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cube, "factor", factor)
    x = torch.randn(4, 3, dtype=torch.float64)
    report = mb.check_gradient(lambda x: Cube.apply(x).sum(), x, rng=0)
    assert report.verdict is verdict, str(report)


def test_a_dict_of_tensors_and_a_gradient_of_ones_own() -> None:
    x0 = {"w": torch.randn(3, dtype=torch.float64), "b": torch.randn((), dtype=torch.float64)}

    def fun(p: Any) -> Any:
        return (torch.tanh(p["w"]) * p["b"]).sum()

    def grad(p: Any) -> Any:
        t = torch.tanh(p["w"])
        return {"w": p["b"] * (1 - t * t), "b": t.sum()}

    assert mb.check_gradient(fun, grad, x0, rng=0).verdict is Verdict.PASS
    report = mb.check_gradient(fun, lambda p: {**grad(p), "b": -grad(p)["b"]}, x0, rng=0)
    assert report.verdict is Verdict.FAIL
    assert "b is the negative" in report.cause


def test_the_module_and_its_input_are_not_touched() -> None:
    network, x = module(torch.nn.Tanh()), torch.randn(5, 3, dtype=torch.float64)
    before = [p.detach().clone() for p in network.parameters()] + [x.clone()]
    mb.check_gradient(network, x, rng=0)
    assert all(torch.equal(a, b) for a, b in zip([*network.parameters(), x], before, strict=True))


def test_gradients_and_running_statistics_are_left_as_found() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    network(x).pow(2).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [p.grad.clone() for p in network.parameters()]
    assert mb.check_gradient(network, x, rng=0).verdict is Verdict.PASS
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(p.grad, kept) for p, kept in zip(network.parameters(), gradients, strict=True))


def test_a_hand_written_gradient_may_return_arrays_and_must_return_something(torch: Any) -> None:
    x = torch.linspace(1, 2, 3, dtype=torch.float64)
    assert mb.check_gradient(lambda x: (x**2).sum(), lambda x: (2 * x).numpy(), x, rng=0)
    report = mb.check_gradient(lambda x: (x**2).sum(), lambda x: None, x, rng=0)
    assert report.verdict is Verdict.FAIL
    assert "does grad lack a return" in report.cause


def test_a_type_that_numpy_has_not_is_named_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"x0 has dtype bfloat16, which NumPy has not.*x0\.double\(\)"):
        mb.check_gradient(lambda x: (x**2).sum(), torch.ones(3, dtype=torch.bfloat16), rng=0)
    with pytest.raises(TypeError, match="bfloat16"):
        mb.check_gradient(torch.nn.Linear(3, 1).bfloat16(), torch.ones(2, 3, dtype=torch.bfloat16), rng=0)
