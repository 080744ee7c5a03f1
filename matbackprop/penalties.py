"""Penalties on the size of the weights, L1 and L2: terms that are added to a loss.

=========  ================  ==============
penalty    value             gradient
=========  ================  ==============
L2(λ)      λ/2 Σ w²          λ w
L1(λ)      λ Σ |w|           λ sign(w)
=========  ================  ==============
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from matbackprop.flat import named_gradients, named_parameters
from matbackprop.layer import Layer
from matbackprop.settings import Configured, Setting, flag, real
from matbackprop.validation import Array, describe

__all__ = ["L1", "L2", "Penalty"]

#: Parameters at a time, so that scratch memory is small and stays in the cache.
PIECE = 1 << 14


class Penalty(Configured, ABC):
    """λ Σ p(w) over the weights w of a model: the base of both penalties.

    Weights are the parameters of two or more dimensions; biases are left alone unless `biases` is true.
    """

    strength = Setting(real())
    biases = Setting(flag)

    def __init__(self, strength: float, *, biases: bool = False) -> None:
        self.strength, self.biases = strength, biases
        self._of: tuple[Array | None, bool] = None, False
        self._pieces: list[tuple[Array, Array, Array]] = []

    @abstractmethod
    def add(self, w: Array, g: Array, s: Array) -> Any:
        """Add λ p'(w) to `g`, by way of `s`, and return Σ p(w)."""

    def add_to(self, model: Any) -> float:
        """Return the penalty at ``model.parameters``, and add its gradient to ``model.gradients``.

        Call it after `backprop`, which replaces the gradients, and add what it returns to the loss. After the first
        call for a model it allocates no array.

        Parameters
        ----------
        model : Sequential

        Returns
        -------
        float
            A complex number for a complex model, analytic in the parameters, as its losses are.

        Raises
        ------
        TypeError
            If `model` is not a model.
        """
        parameters, gradients = getattr(model, "parameters", None), getattr(model, "gradients", None)
        if not isinstance(model, Layer) or not isinstance(parameters, np.ndarray) or gradients is None:
            raise TypeError(f"{self!r}: expected a model, a Sequential, got {describe(model)}")
        if parameters is not self._of[0] or self.biases is not self._of[1]:
            self._pieces = list(_pieces(model, parameters, self.biases))
            self._of = parameters, self.biases
        total = sum((self.add(w, g, s) for w, g, s in self._pieces), parameters.dtype.type(0)).item()
        return self.strength * total  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_of": (None, False), "_pieces": []}


def _pieces(model: Layer, parameters: Array, biases: bool) -> Iterator[tuple[Array, Array, Array]]:
    """Yield what is penalised, its gradients, and scratch, piece by piece."""
    scratch = np.empty(min(PIECE, parameters.size), parameters.dtype)
    for w, g in zip(named_parameters(model).values(), named_gradients(model).values(), strict=True):
        if w.ndim >= 2 or biases:
            for start in range(0, w.size, PIECE):
                piece = w.reshape(-1)[start : start + PIECE]
                yield piece, g.reshape(-1)[start : start + PIECE], scratch[: piece.size]


class L2(Penalty):
    """λ/2 Σ w², whose gradient is λ w: large weights are pulled harder.

    With the half, λ means what `weight_decay` means to `SGD`, there and in torch (which take the biases along).

    Parameters
    ----------
    strength : float
        λ, finite and not negative. It is not divided by the number of rows.
    biases : bool, keyword-only, default False
        Whether biases are penalised too.

    Raises
    ------
    TypeError, ValueError
        If a setting is not of its kind.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(2, 1))
    >>> model.parameters, model.gradients = [3.0, -4.0, 5.0], [0.0, 0.0, 0.0]
    >>> mb.L2(0.1).add_to(model)
    1.25
    >>> model.gradients
    array([ 0.3, -0.4,  0. ])
    """

    def add(self, w: Array, g: Array, s: Array) -> Any:
        """Make g ← g + λ w, and return ½ Σ w²."""
        np.multiply(w, self.strength, s)
        np.add(g, s, g)
        return np.dot(w, w) / 2


class L1(Penalty):
    """λ Σ |w|, whose gradient is λ sign(w), with 0 at 0: small weights become none.

    Parameters
    ----------
    strength : float
        λ, finite and not negative. It is not divided by the number of rows.
    biases : bool, keyword-only, default False
        Whether biases are penalised too.

    Raises
    ------
    TypeError, ValueError
        If a setting is not of its kind.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(2, 1))
    >>> model.parameters, model.gradients = [3.0, -4.0, 5.0], [0.0, 0.0, 0.0]
    >>> mb.L1(0.5).add_to(model)
    3.5
    >>> model.gradients
    array([ 0.5, -0.5,  0. ])
    """

    def add(self, w: Array, g: Array, s: Array) -> Any:
        """Make g ← g + λ sign(w), and return Σ w sign(w)."""
        np.sign(w.real, s)
        total = np.dot(w, s)
        np.multiply(s, self.strength, s)
        np.add(g, s, g)
        return total
