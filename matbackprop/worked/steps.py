"""A step of a worked example: one quantity, its formula and its value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from matbackprop.validation import Array
from matbackprop.worked.notation import Formula, Row, Symbol

__all__ = ["PHASES", "SMALL", "Step", "as_matrix", "flat", "freeze", "grouped", "is_small"]

#: In their order.
PHASES = ("given", "forward", "loss", "backward", "update")

#: A matrix of at most so many rows and columns is written out; of a larger one shape, range and a heat map are shown.
SMALL = 4


def freeze(value: Any) -> Array:
    """Return a copy of the value that nobody can write to."""
    array = np.array(value)
    array.flags.writeable = False
    return array


def is_small(value: Array) -> bool:
    """Return whether the value is written out in full."""
    return value.ndim <= 2 and value.size > 0 and max(value.shape, default=1) <= SMALL


def as_matrix(value: Array) -> Array:
    """Return the value as the algebra has it: a vector is a column, and more than two dimensions are rows."""
    if value.ndim in (0, 2):
        return value
    return value.reshape(-1, 1) if value.ndim == 1 else value.reshape(len(value), -1)


def flat(value: Array) -> Array:
    """Return the value as a heat map has it: a vector as a row."""
    return value.reshape(1, -1) if value.ndim == 1 else as_matrix(value)


@dataclass(frozen=True, eq=False)
class Step:
    """One quantity of a worked example.

    NumPy takes it as its value: ``np.linalg.norm(step)``.

    Attributes
    ----------
    name : str
        "Z1", "∂L/∂W1", ...
    phase : {"given", "forward", "loss", "backward", "update"}
    value : numpy.ndarray
        Read-only. A row is an example, as in the model.
    layer : str
        The layer or loss that computed it, "layer 0, Linear(2, 3)"; empty where none did.
    note : str
        What is to be said of it.
    left : tuple of Symbol or Formula
        What it is equal to, by name.
    right : Formula or None
        What it is computed from.
    """

    name: str
    phase: str
    value: Array
    layer: str = ""
    note: str = ""
    left: tuple[Symbol | Formula, ...] = ()
    right: Formula | None = None

    @property
    def formula(self) -> str:
        """The formula in Unicode."""
        return " = ".join(map(str, self.sides))

    @property
    def latex(self) -> str:
        """The formula in LaTeX, for math mode; needs amsmath."""
        from matbackprop.worked.latex import math

        return " = ".join(map(math, self.sides))

    @property
    def sides(self) -> tuple[Symbol | Formula, ...]:
        """The symbols and formulas between the equals signs."""
        return self.left if self.right is None else (*self.left, self.right)

    @property
    def boards(self) -> list[Row]:
        """The formulas with numbers in place of their quantities, where those are small enough to be written out."""
        if not is_small(self.value):
            return []
        formulas = (side for side in self.sides if isinstance(side, Formula))
        return [side.numbers for side in formulas if side.numbers is not None]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(self.value.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.value, dtype) if copy or dtype not in (None, self.value.dtype) else self.value

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        return f"{self.formula}, shape {self.shape}:\n{self.value}"


def grouped(steps: Iterable[Step]) -> Iterator[tuple[str, list[tuple[str, list[Step]]]]]:
    """Yield each phase with its layers, and each of these with its steps; where none computed them, its name is empty.

    Examples
    --------
    >>> from matbackprop.worked.steps import Step, grouped
    >>> steps = Step("A0", "given", np.ones(2)), Step("Z1", "forward", np.ones(2), "layer 0, Linear(2, 3)")
    >>> [(phase, [layer for layer, _ in layers]) for phase, layers in grouped(steps)]
    [('given', ['']), ('forward', ['layer 0, Linear(2, 3)'])]
    """
    for phase, part in groupby(steps, lambda step: step.phase):
        yield phase, [(layer, list(one)) for layer, one in groupby(part, lambda step: step.layer)]
