"""Dataset: examples, their targets, and where they come from."""

from __future__ import annotations

from typing import NamedTuple

from matbackprop.validation import Array

__all__ = ["Dataset"]


class Dataset(NamedTuple):
    """Examples with their targets, and where they come from.

    Attributes
    ----------
    x : numpy.ndarray, shape (N, in)
        One example a row.
    y : numpy.ndarray, shape (N, 1) or (N,)
        Their targets, or classes.
    feature_names : tuple of str
        What each column of `x` is.
    name, source, licence : str
        What to call it, whom to cite, and on what terms it may be passed on.
    """

    x: Array
    y: Array
    feature_names: tuple[str, ...]
    name: str
    source: str
    licence: str
