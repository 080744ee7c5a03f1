"""torch functions and modules, as functions of a dict of NumPy arrays. torch is imported when one is handed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from matbackprop.validation import describe

__all__ = ["adapt"]

#: The types that both libraries have.
FLOATS = ("float16", "float32", "float64", "complex64", "complex128")


def adapt(fun: Any, grad: Any, x0: Any, rng: np.random.Generator) -> tuple[Callable[..., Any], Callable[..., Any], Any]:
    """Return ``fun, grad, x0`` in NumPy, for a torch function or module.

    Parameters
    ----------
    fun : callable or torch.nn.Module
        Of one tensor, or of a list, tuple or dict of tensors as `x0` is. An output that is no scalar is summed under
        random weights. A module is checked by its parameters and by its input.
    grad : callable or None
        By default what torch's autograd returns, through whatever custom backward there is.
    x0 : tensor, or dict, list or tuple of tensors
        For a module, its input; None for one that takes none.
    rng : numpy.random.Generator
        For the random weights.
    """
    import torch

    if isinstance(fun, torch.nn.Module):
        call, point = _module(torch, fun, x0)
    else:
        call, point = fun, x0
    if point is None:
        raise TypeError("check_gradient: x0 is missing; pass a tensor, or a dict or list of tensors")
    _map(point, _check_dtype)
    with torch.no_grad():
        output = call(_map(point, lambda t: t.detach().clone()))
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"check_gradient: the torch function must return a tensor, got {describe(output)}")
    weight = None
    if output.ndim:
        weight = torch.as_tensor(
            rng.choice((-1.0, 1.0), tuple(output.shape)) * rng.uniform(0.5, 1.5, tuple(output.shape))
        )

    def scalar(tensors: Any) -> Any:
        result = call(tensors)
        return result if weight is None else (result * weight.to(result.dtype)).sum()

    def to_tensors(x: Any, requires_grad: bool = False) -> Any:
        def one(array: Any) -> Any:
            if array.dtype.name not in FLOATS:
                raise TypeError(f"torch has no {array.dtype.name}")
            return torch.from_numpy(np.array(array)).requires_grad_(requires_grad)

        return _map(x, one)

    def value(x: Any) -> Any:
        with torch.no_grad():
            return scalar(to_tensors(x)).resolve_conj().numpy()[()]

    def gradient(x: Any) -> Any:
        tensors = to_tensors(x, requires_grad=True)
        leaves: list[Any] = []
        _map(tensors, leaves.append)
        with torch.enable_grad():
            found: Any = torch.autograd.grad(scalar(tensors), leaves, allow_unused=True)
        parts = iter(torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves, found, strict=True))
        return _map(tensors, lambda _: next(parts).detach().cpu().numpy())

    def given(x: Any) -> Any:
        # What is no tensor (an array, None) the checker judges.
        return _map(grad(to_tensors(x)), lambda t: t.detach().cpu().numpy() if isinstance(t, torch.Tensor) else t)

    return value, gradient if grad is None else given, _map(point, lambda t: t.detach().cpu().numpy().copy())


def _check_dtype(tensor: Any) -> None:
    """Raise a TypeError for a type that NumPy has not."""
    name = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
    if "float" in name and name not in FLOATS:
        raise TypeError(
            f"check_gradient: x0 has dtype {name}, which NumPy has not; check in float64, by module.double() and "
            "x0.double()"
        )


def _module(torch: Any, module: Any, x0: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return a module as a function of its parameters and, under "input", of what it is given."""
    point = {name: parameter.detach() for name, parameter in module.named_parameters()}
    moving = isinstance(x0, torch.Tensor) and x0.dtype.is_floating_point
    if moving:
        point["input"] = x0

    def call(values: dict[str, Any]) -> Any:
        parameters = {name: value for name, value in values.items() if not (moving and name == "input")}
        given = values["input"] if moving else x0
        # Running statistics are updated in copies.
        parameters |= {name: buffer.clone() for name, buffer in module.named_buffers()}
        arguments = () if given is None else given if isinstance(given, tuple) else (given,)
        return torch.func.functional_call(module, parameters, arguments)

    return call, point


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to every tensor or array of a dict, list or tuple."""
    if isinstance(value, dict):
        return {key: _map(part, function) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_map(part, function) for part in value)
    return function(value)
