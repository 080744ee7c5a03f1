"""Backpropagation as plain, fast, checked matrix algebra on NumPy.

>>> import matbackprop as mb
>>> model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
>>> value, gradient = model.value_and_grad([[0.0, 1.0]], [[1.0]], mb.MSE())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from matbackprop import initializers
from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.loss import Loss
from matbackprop.losses import BCE, MSE, BCEWithLogits
from matbackprop.parameter import Gradient, Parameter
from matbackprop.sequential import Sequential

if TYPE_CHECKING:
    from matbackprop.worked import WorkedExample, explain
    from matbackprop.gradcheck import GradientReport, check_gradient, check_layer, check_model, numerical_gradient

__version__ = "0.1.0"

__all__ = [
    "BCE",
    "MSE",
    "BCEWithLogits",
    "Gradient",
    "GradientReport",
    "Layer",
    "Linear",
    "Loss",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "WorkedExample",
    "check_gradient",
    "check_layer",
    "check_model",
    "explain",
    "initializers",
    "numerical_gradient",
]

#: Names whose modules are imported when they are first asked for, so that importing the package stays cheap.
_ON_DEMAND = {
    "GradientReport": "gradcheck",
    "WorkedExample": "worked",
    "check_gradient": "gradcheck",
    "check_layer": "gradcheck",
    "check_model": "gradcheck",
    "explain": "worked",
    "numerical_gradient": "gradcheck",
}


def __getattr__(name: str) -> Any:
    """Import a name on demand."""
    if name in _ON_DEMAND:
        value = globals()[name] = getattr(import_module(f"matbackprop.{_ON_DEMAND[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_DEMAND})
