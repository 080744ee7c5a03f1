"""Other people's gradient checkers, at their defaults, behind one signature: ``peer(fun, grad, x0) -> caught``.

Each gets the same NumPy function and gradient, wrapped as that tool wants it. A peer that is not installed is left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Peer = Callable[[Callable[..., Any], Callable[..., Any], Any], bool]


def torch_function(fun: Callable[..., Any], grad: Callable[..., Any]) -> Any:
    """Return a torch function with fun's values and grad's gradient."""
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return torch.tensor(float(fun(x.detach().numpy())), dtype=torch.float64)

        @staticmethod
        def backward(ctx: Any, delta: Any) -> Any:
            (x,) = ctx.saved_tensors
            return delta * torch.as_tensor(np.asarray(grad(x.detach().numpy())))

    return Function.apply


def torch_gradcheck(fast: bool) -> Peer:
    def caught(fun: Callable[..., Any], grad: Callable[..., Any], x0: Any) -> bool:
        import torch

        x = torch.tensor(x0, dtype=torch.float64, requires_grad=True)
        return not torch.autograd.gradcheck(torch_function(fun, grad), (x,), fast_mode=fast, raise_exception=False)

    return caught


def scipy_check_grad(fun: Callable[..., Any], grad: Callable[..., Any], x0: Any) -> bool:
    """`check_grad` returns a number and leaves the judgement to its reader: here, more than 1e-6 of max(1, ‖g‖)."""
    from scipy.optimize import check_grad

    error = check_grad(lambda x: float(fun(x)), grad, x0.copy())
    return not error <= 1e-6 * max(1.0, float(np.linalg.norm(grad(x0.copy()))))


def autograd_check_grads(fun: Callable[..., Any], grad: Callable[..., Any], x0: Any) -> bool:
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    wrapped = primitive(lambda x: float(fun(x)))
    defvjp(wrapped, lambda ans, x: lambda g: g * np.asarray(grad(x)))
    check_grads(wrapped, modes=["rev"], order=1)(x0.copy())
    return False


def jax_check_grads(fun: Callable[..., Any], grad: Callable[..., Any], x0: Any) -> bool:
    import jax
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)
    out, shape = jax.ShapeDtypeStruct((), np.float64), jax.ShapeDtypeStruct(x0.shape, np.float64)

    @jax.custom_vjp
    def wrapped(x: Any) -> Any:
        return jax.pure_callback(lambda v: np.float64(fun(np.array(v))), out, x)

    def backward(x: Any, delta: Any) -> Any:
        return (delta * jax.pure_callback(lambda v: np.asarray(grad(np.array(v)), np.float64), shape, x),)

    wrapped.defvjp(lambda x: (wrapped(x), x), backward)
    check_grads(wrapped, (x0,), order=1, modes=["rev"])
    return False


ALL: dict[str, tuple[str, Peer]] = {
    "torch fast": ("torch", torch_gradcheck(fast=True)),
    "torch slow": ("torch", torch_gradcheck(fast=False)),
    "scipy": ("scipy", scipy_check_grad),
    "autograd": ("autograd", autograd_check_grads),
    "jax": ("jax", jax_check_grads),
}


def installed() -> dict[str, Peer]:
    """Return the peers that can be imported here; each says whether it caught the gradient, by verdict or exception."""
    return {name: quiet(peer) for name, (module, peer) in ALL.items() if importlib.util.find_spec(module)}


def quiet(peer: Peer) -> Peer:
    def caught(fun: Callable[..., Any], grad: Callable[..., Any], x0: Any) -> bool:
        with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                return peer(fun, grad, x0)
            except Exception:  # noqa: BLE001 - an exception of any kind is how most of them say no
                return True

    return caught
