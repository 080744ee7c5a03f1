"""Calls: NumPy's functions with their arrays, prepared once and made at every step."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

__all__ = ["Call", "run"]

#: One NumPy call with its arrays, ready to be made: ``partial(np.tanh, z, a)``.
Call = partial[Any]


def run(calls: Iterable[Call]) -> None:
    """Make the calls, in order.

    "Invalid value" is not reported: OpenBLAS's vector kernels now and then set that flag in float32 for lanes that they
    throw away, with every operand finite. A NaN that is real shows in the result.
    """
    with np.errstate(invalid="ignore"):
        for call in calls:
            call()
