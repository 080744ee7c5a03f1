"""How a Linear's weights are drawn before training.

A rule is a function ``rule(shape, rng)`` with ``shape = (out_features, in_features)``; any callable of that form can be
given as ``weight_init``. The named ones keep the size of the activations, and of the error signals, about the same
from layer to layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from matbackprop.validation import Array

__all__ = ["RULES", "Initializer", "glorot", "he", "torch_default"]

Initializer = Callable[[tuple[int, int], "np.random.Generator"], Array]  # quoted: it is loaded when first used


def glorot(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Draw from U(-c, c) with c = sqrt(6 / (in + out)); for tanh, sigmoid and linear outputs.

    Parameters
    ----------
    shape : tuple of int
        (out_features, in_features).
    rng : numpy.random.Generator
        Where the numbers come from.

    Returns
    -------
    numpy.ndarray of float64, of that shape

    References
    ----------
    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, eq. 16.

    Examples
    --------
    >>> from matbackprop.initializers import glorot
    >>> w = glorot((3, 2), np.random.default_rng(0))
    >>> w.shape, bool(np.abs(w).max() <= 1.1)
    ((3, 2), True)
    """
    bound = math.sqrt(6 / (shape[0] + shape[1]))
    return rng.uniform(-bound, bound, shape)


def he(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Draw from N(0, 2 / in); for ReLU, which lets half of the signal through.

    Parameters
    ----------
    shape : tuple of int
        (out_features, in_features).
    rng : numpy.random.Generator
        Where the numbers come from.

    Returns
    -------
    numpy.ndarray of float64, of that shape

    References
    ----------
    K. He et al., "Delving deep into rectifiers", ICCV 2015, eq. 10.

    Examples
    --------
    >>> from matbackprop.initializers import he
    >>> he((3, 2), np.random.default_rng(0)).shape
    (3, 2)
    """
    return rng.normal(0.0, math.sqrt(2 / shape[1]), shape)


def torch_default(shape: tuple[int, ...], rng: np.random.Generator, fan_in: int | None = None) -> Array:
    """Draw from U(-c, c) with c = 1 / sqrt(in), as ``torch.nn.Linear`` does for weights and biases alike.

    Parameters
    ----------
    shape : tuple of int
        (out_features, in_features), or (out_features,) for a bias.
    rng : numpy.random.Generator
        Where the numbers come from.
    fan_in : int, optional
        in_features; by default the last entry of `shape`.

    Returns
    -------
    numpy.ndarray of float64, of that shape

    References
    ----------
    PyTorch's documentation of ``torch.nn.Linear``, "Variables".

    Examples
    --------
    >>> from matbackprop.initializers import torch_default
    >>> w = torch_default((3, 4), np.random.default_rng(0))
    >>> bool(np.abs(w).max() <= 0.5)
    True
    """
    bound = 1 / math.sqrt(fan_in or shape[-1])
    return rng.uniform(-bound, bound, shape)


#: The rules that `weight_init` knows by name.
RULES: dict[str, Initializer] = {"glorot": glorot, "he": he, "torch": torch_default}
