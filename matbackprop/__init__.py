"""Backpropagation as plain, fast, checked matrix algebra on NumPy.

>>> import matbackprop as mb
>>> model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
>>> value, gradient = model.value_and_grad([[0.0, 1.0]], [[1.0]], mb.MSE())
"""

from matbackprop import initializers
from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.loss import Loss
from matbackprop.losses import BCE, MSE, BCEWithLogits
from matbackprop.parameter import Gradient, Parameter
from matbackprop.sequential import Sequential

__version__ = "0.1.0"

__all__ = [
    "BCE",
    "MSE",
    "BCEWithLogits",
    "Gradient",
    "Layer",
    "Linear",
    "Loss",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "initializers",
]
