"""Backpropagation as plain, fast, checked matrix algebra on NumPy.

>>> import matbackprop as mb
>>> model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
>>> value, gradient = model.value_and_grad([[0.0, 1.0]], [[1.0]], mb.MSE())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from matbackprop import initializers
from matbackprop.cross_entropy import CrossEntropy
from matbackprop.dropout import Dropout
from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.loss import Loss
from matbackprop.losses import BCE, MSE, BCEWithLogits, Huber
from matbackprop.parameter import Gradient, Parameter
from matbackprop.sequential import Sequential

if TYPE_CHECKING:
    from matbackprop.clipping import clip_norm
    from matbackprop.files import load, save
    from matbackprop.gradcheck import GradientReport, check_gradient, check_layer, check_model, numerical_gradient
    from matbackprop.interop.scipy import objective
    from matbackprop.optimizer import Optimizer
    from matbackprop.optimizers import SGD, Adam, AdamW, RMSprop
    from matbackprop.penalties import L1, L2
    from matbackprop.schedule import Schedule
    from matbackprop.schedules import CosineAnnealingLR, ReduceLROnPlateau, StepLR, WarmUp, as_schedule
    from matbackprop.training import Checkpoint, Diverged, EarlyStopping, Epoch, History, accuracy, fit
    from matbackprop.worked import WorkedExample, explain

__version__ = "0.1.0"

__all__ = [
    "BCE",
    "L1",
    "L2",
    "MSE",
    "SGD",
    "Adam",
    "AdamW",
    "BCEWithLogits",
    "Checkpoint",
    "CosineAnnealingLR",
    "CrossEntropy",
    "Diverged",
    "Dropout",
    "EarlyStopping",
    "Epoch",
    "Gradient",
    "GradientReport",
    "History",
    "Huber",
    "Layer",
    "Linear",
    "Loss",
    "Optimizer",
    "Parameter",
    "RMSprop",
    "ReLU",
    "ReduceLROnPlateau",
    "Schedule",
    "Sequential",
    "Sigmoid",
    "StepLR",
    "Tanh",
    "WarmUp",
    "WorkedExample",
    "accuracy",
    "as_schedule",
    "check_gradient",
    "check_layer",
    "check_model",
    "clip_norm",
    "explain",
    "fit",
    "initializers",
    "load",
    "numerical_gradient",
    "objective",
    "save",
]

#: Names whose modules are imported when they are first asked for, so that importing the package stays cheap.
_ON_DEMAND = {
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "Checkpoint": "training",
    "CosineAnnealingLR": "schedules",
    "Diverged": "training",
    "EarlyStopping": "training",
    "Epoch": "training",
    "GradientReport": "gradcheck",
    "History": "training",
    "L1": "penalties",
    "L2": "penalties",
    "Optimizer": "optimizer",
    "RMSprop": "optimizers",
    "ReduceLROnPlateau": "schedules",
    "SGD": "optimizers",
    "Schedule": "schedule",
    "StepLR": "schedules",
    "WarmUp": "schedules",
    "WorkedExample": "worked",
    "accuracy": "training",
    "as_schedule": "schedules",
    "check_gradient": "gradcheck",
    "check_layer": "gradcheck",
    "check_model": "gradcheck",
    "clip_norm": "clipping",
    "explain": "worked",
    "fit": "training",
    "load": "files",
    "numerical_gradient": "gradcheck",
    "objective": "interop.scipy",
    "save": "files",
}


def __getattr__(name: str) -> Any:
    """Import a name on demand."""
    if name in _ON_DEMAND:
        value = globals()[name] = getattr(import_module(f"matbackprop.{_ON_DEMAND[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
