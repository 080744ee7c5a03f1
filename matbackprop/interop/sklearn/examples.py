"""Examples: the data of a fit once they are checked, and what is held out of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from matbackprop.validation import Array, as_array, check_finite

__all__ = ["Examples", "as_weight", "hold_out"]


class Examples(NamedTuple):
    """Checked data, as `matbackprop.fit` takes them."""

    x: Array
    y: Array
    outputs: int
    weight: Array | None  # (N, 1)
    each: float  # how many rows a row counts for, on average


def as_weight(sample_weight: Any, count: int) -> Array | None:
    """Return the weights of so many examples, checked, or None.

    Raises
    ------
    TypeError, ValueError
        If they are not one finite number an example, 0 or more.
    """
    if sample_weight is None:
        return None
    weight = as_array(sample_weight, "sample_weight", np.dtype(np.float64))
    if weight.shape != (count,):
        raise ValueError(f"sample_weight: expected shape ({count},), one an example, got {weight.shape}")
    check_finite("sample_weight", weight)
    if (weight < 0).any():
        raise ValueError("sample_weight: expected weights that are not negative")
    return weight


def hold_out(
    examples: Examples, fraction: float, strata: Array | None, rng: np.random.Generator
) -> list[tuple[Array, Array, Array | None]]:
    """Return (x, y, weight) to train on, and those of a random fraction of the rows, with all strata in their shares.

    Raises
    ------
    ValueError
        If there are too few rows, or too few of a stratum.
    """
    count = len(examples.x)
    try:
        train, kept = train_test_split(
            np.arange(count), test_size=fraction, stratify=strata, random_state=int(rng.integers(1 << 31))
        )
        if len(kept) < 2:
            raise ValueError("that is a single one")
    except ValueError as error:
        classes = "" if strata is None else ", with some of each class there and in the rest"
        raise ValueError(
            f"validation_fraction: {fraction} of {count} rows cannot be held out{classes}: {error}"
        ) from None
    x, y, _, weight, _ = examples
    return [(x[rows], y[rows], None if weight is None else weight[rows]) for rows in (train, kept)]
