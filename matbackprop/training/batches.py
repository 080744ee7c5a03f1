"""Batches: rows in a fresh random order, gathered into one buffer; or whatever an iterable gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from math import prod
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from matbackprop import aligned
from matbackprop.training.examples import Examples
from matbackprop.validation import Array, as_size, describe

__all__ = ["Batch", "Batches", "Rows", "Streamed", "as_batches"]


#: Rows that are looked through at a time.
ROWS = 8192


class Batch(NamedTuple):
    """Some rows of the data; valid until the next batch is drawn."""

    x: Array
    y: Array
    sample_weight: Array | float | None = None


class Batches(Protocol):
    """Where `fit` gets its batches from."""

    @property
    def steps(self) -> int | None:
        """How many batches make an epoch, or None if that is not known."""

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch."""

    def first_bad_row(self) -> int | None:
        """Return the first row of x that is not finite, if there is one and it can be told."""

    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must agree on."""


class Rows:
    """Mini-batches of arrays or memory maps: each row once an epoch, in an order of its own, the last batch shorter.

    A batch is gathered into buffers that the next one overwrites, so that nothing but the batch is copied; and nothing
    is allocated, but for a batch of an array whose rows are not one behind the other.

    Parameters
    ----------
    examples : Examples
    rows : numpy.ndarray of int, or None
        Which of them; None for all.
    batch_size : int
    shuffle : bool
    """

    def __init__(self, examples: Examples, rows: Array | None, batch_size: int, shuffle: bool) -> None:
        x, y, weight, types = examples
        self.rows, self.batch_size, self.shuffle = rows, batch_size, shuffle
        self.count = len(x) if rows is None else len(rows)
        self.steps = -(-self.count // batch_size)
        self.x, self.y = _Gathered("x", x, batch_size, types[0]), _Gathered("y", y, batch_size, types[1])
        self.weight = (
            _Gathered("sample_weight", weight, batch_size, types[0]) if isinstance(weight, np.ndarray) else weight
        )

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        order = self.rows
        if self.shuffle:
            order = rng.permutation(self.count if order is None else order)
        for start in range(0, self.count, self.batch_size):
            chosen = slice(start, min(start + self.batch_size, self.count))
            where = chosen if order is None else order[chosen]
            weight = self.weight.rows(where) if isinstance(self.weight, _Gathered) else self.weight
            yield Batch(self.x.rows(where), self.y.rows(where), weight)

    def first_bad_row(self) -> int | None:
        """Return the first row of x that is not finite, if there is one."""
        x = self.x.array
        for start in range(0, len(x), ROWS):
            good = np.isfinite(x[start : start + ROWS].reshape(-1, prod(x.shape[1:]))).all(axis=1)
            if not good.all():
                return start + int(good.argmin())
        return None

    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must agree on; of the data, enough to notice that they are others."""
        data = [part.mark() if isinstance(part, _Gathered) else part for part in (self.x, self.y, self.weight)]
        return {"rows": self.count, "batch_size": self.batch_size, "shuffle": self.shuffle, "data": data}


class _Gathered:
    """Rows of one array, in a buffer of the type that is wanted."""

    def __init__(self, name: str, array: Array, size: int, dtype: np.dtype[Any]) -> None:
        self.name, self.array, self.dtype = name, array, dtype
        self.buffer = aligned.empty((size, *array.shape[1:]), dtype)
        self.raw = self.buffer if array.dtype == dtype else np.empty_like(self.buffer, array.dtype)
        self.whole = array.flags.c_contiguous and array.flags.aligned

    def mark(self) -> str:
        """Return shape, type and a checksum of the first and the last row."""
        ends = crc32(self.array[[0, -1]].tobytes())
        return f"{self.name} of shape {self.array.shape}, {self.array.dtype}, {ends:08x}"

    def rows(self, where: slice | Array) -> Array:
        """Return those rows."""
        if isinstance(where, slice):
            found = self.array[where]
            if found.dtype == self.dtype:
                return found
        else:
            found = self.raw[: len(where)]
            if self.whole:
                np.take(self.array, where, 0, found, "clip")  # "raise" would gather into a copy first
            else:
                found[...] = self.array[where]  # take would make all of the array contiguous first
        if found.dtype != self.dtype:
            target = self.buffer[: len(found)]
            try:
                with np.errstate(over="raise"):
                    np.copyto(target, found, casting="unsafe")
            except FloatingPointError:
                raise ValueError(
                    f"{self.name}: expected numbers that fit {self.dtype}, got some that are too large; scale them"
                ) from None
            return target
        return found


class Streamed:
    """Batches that an iterable gives: (x, y) or (x, y, sample_weight), afresh in each epoch.

    Parameters
    ----------
    source : iterable, or callable that returns one
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.begun = False
        self.steps = len(source) if isinstance(source, Sized) else None

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        batches = self.source() if callable(self.source) else self.source
        if not isinstance(batches, Iterable):
            raise TypeError(f"fit: x: the function is to return an iterable of batches (x, y), got {describe(batches)}")
        if self.begun and isinstance(batches, Iterator) and batches is self.source:
            raise ValueError(
                "fit: x is an iterator, which ends after one epoch; pass a list, an object with __iter__, or a "
                "function that returns a fresh iterator"
            )
        self.begun = True
        for index, batch in enumerate(batches):
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise TypeError(
                    f"fit: batch {index} of the iterable must be (x, y) or (x, y, sample_weight), got {describe(batch)}"
                )
            if np.shape(batch[0])[:1] == (0,):
                raise ValueError(f"fit: batch {index} of the iterable has no rows; leave it out")
            yield Batch(*batch)

    def first_bad_row(self) -> int | None:
        """Return None: an iterable may not give the same again."""
        return None

    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must agree on: nothing, the iterable's affairs are its own."""
        return {}


def as_batches(examples: Examples, rows: Array | None, batch_size: int | None, shuffle: bool) -> Rows:
    """Return the batches of these examples, or of some rows of them.

    Raises
    ------
    TypeError, ValueError
        If `batch_size` is no size, or larger than the data.
    """
    count = len(examples.x) if rows is None else len(rows)
    size = min(32, count) if batch_size is None else as_size(batch_size, "fit: batch_size")
    if size > count:
        raise ValueError(
            f"fit: batch_size is {size}, but there are {count} examples to train on; for one batch an epoch pass "
            f"batch_size={count}"
        )
    return Rows(examples, rows, size, shuffle)
