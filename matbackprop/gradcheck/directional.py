"""Directional derivatives without the gradient: what a reference is, and the best one, the complex step.

Im f(x + ihu) / h with h = 1e-175 has no step size to tune: nothing cancels, and h² underflows, so that a branch on the
real part is taken as at x itself.

References
----------
Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40 (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from matbackprop.gradcheck.problem import EvaluationError, Problem
from matbackprop.validation import Array

__all__ = ["STEP", "ComplexStep", "Derivative", "Reference"]

#: So small that its square underflows to zero even after growing by 1e13 on the way, so large that the product with a
#: derivative of 1e-130 keeps all its digits.
STEP = 1e-175


@dataclass
class Derivative:
    """A directional derivative with a bound on its error, from the method's own estimate."""

    value: float
    error: float
    #: The one-sided slopes, if they differ: x is at a kink in this direction, or within the steps of one.
    kink: tuple[float, float] | None = None


class Reference(Protocol):
    """A way to differentiate `fun` along a direction without its gradient."""

    name: str
    #: The type that it computes in.
    dtype: np.dtype[Any]
    #: Entries of the gradient below this part of the largest are not blown up to weigh as much.
    floor: float

    def derivative(self, x: Array, u: Array) -> Derivative:
        """Return the derivative of fun at `x` along `u`."""
        ...


class ComplexStep:
    """Im f(x + ihu) / h: exact to rounding, for a function that computes in complex numbers and is analytic there."""

    name = "complex step"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.dtype: np.dtype[Any] = np.dtype(np.float64)
        self.floor = 1e-3 if problem.packing.eps < 1e-12 else 1e-2

    def derivative(self, x: Array, u: Array) -> Derivative:
        """Return the derivative along `u`, one evaluation.

        Raises
        ------
        EvaluationError
            If fun fails on complex input, drops the imaginary part, or computes in single precision.
        """
        # A power of two, so that the imaginary parts hold u to the last digit.
        h = 2.0 ** round(np.log2(STEP / float(np.abs(u).max())))
        point = x.astype(np.complex128)
        point.imag = h * u
        value = self.problem.finite_value(point)
        if not np.iscomplexobj(value):
            raise EvaluationError("fun returned a real number for complex input", x)
        if np.asarray(value).dtype.itemsize < point.dtype.itemsize:
            raise EvaluationError(f"fun computes in {np.asarray(value).dtype}, which holds no step so small", x)
        return Derivative(float(value.imag) / h, 0.0)
