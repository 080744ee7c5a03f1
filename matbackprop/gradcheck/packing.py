"""x0 as one flat vector, whatever it came as: an array, a scalar, or dicts and lists of named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from matbackprop.validation import Array, describe

__all__ = ["Block", "Packing"]


class Block(NamedTuple):
    """One array of x0: its name, its shape and type, and where it lies in the flat vector."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    span: slice

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)


class Packing:
    """How x0 maps to one flat vector and back.

    Parameters
    ----------
    x0 : array_like, or dict, list or tuple of such, nested at will
        Real floating-point numbers. A list of plain numbers is one array.

    Raises
    ------
    TypeError
        For integers, complex numbers, text and other objects: a derivative by them makes no sense or would be cut.
    ValueError
        If there is no entry at all, or one is not finite.

    Examples
    --------
    >>> from matbackprop.gradcheck.packing import Packing
    >>> packing = Packing({"W": np.ones((2, 3)), "b": np.zeros(2)})
    >>> packing.size, packing.locate(7)
    (8, ('b', (1,)))
    >>> packing.unpack(np.arange(8.0))["b"]
    array([6., 7.])
    """

    def __init__(self, x0: object) -> None:
        self.blocks: list[Block] = []
        parts: list[Array] = []
        self._template = self._walk(x0, "", parts)
        self.size = sum(block.size for block in self.blocks)
        if not self.size:
            raise ValueError("x0: expected at least one number, got an empty array; there is nothing to check")
        self.dtype = np.result_type(*(block.dtype for block in self.blocks))
        self.x0 = np.concatenate([part.reshape(-1) for part in parts]).astype(self.dtype)
        if not np.isfinite(self.x0).all():
            name, index = self.locate(int(np.argmin(np.isfinite(self.x0))))
            raise ValueError(
                f"x0: expected finite numbers, got {self.x0[~np.isfinite(self.x0)][0]} at {name}{list(index)}"
            )
        #: The coarsest rounding unit among the blocks.
        self.eps = max(float(np.finfo(block.dtype).eps) for block in self.blocks)

    def _walk(self, value: object, name: str, parts: list[Array]) -> Any:
        if isinstance(value, Mapping):
            return {key: self._walk(part, f"{name}.{key}" if name else f"{key}", parts) for key, part in value.items()}
        if isinstance(value, (list, tuple)) and not all(isinstance(part, (int, float, np.number)) for part in value):
            made = [self._walk(part, f"{name}[{i}]", parts) for i, part in enumerate(value)]
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                return type(value)(*made)
            return tuple(made) if isinstance(value, tuple) else made
        array = _as_floats(value, f"x0{name if name.startswith('[') else '.' + name}" if name else "x0")
        start = self.blocks[-1].span.stop if self.blocks else 0
        self.blocks.append(Block(name or "x", array.shape, array.dtype, slice(start, start + array.size)))
        parts.append(array)
        return self.blocks[-1]

    def unpack(self, flat: Array) -> Any:
        """Return the flat vector in the form of x0: views into it where the type allows."""
        return self._fill(self._template, flat)

    def _fill(self, part: Any, flat: Array) -> Any:
        if isinstance(part, Block):
            array = flat[part.span].reshape(part.shape)
            # A vector in x0's own type goes back block by block; in a wider or complex one it stays as it is.
            return array.astype(part.dtype, copy=False) if flat.dtype == self.dtype else array
        if isinstance(part, dict):
            return {key: self._fill(value, flat) for key, value in part.items()}
        made = [self._fill(value, flat) for value in part]
        if hasattr(part, "_fields"):
            return type(part)(*made)
        return type(part)(made)

    def arrays(self, value: object) -> list[tuple[Block, Any]]:
        """Return the arrays of a gradient beside the blocks that they belong to.

        Raises
        ------
        ValueError
            If it has not the form of x0.
        """
        found: list[tuple[Block, Any]] = []
        self._match(self._template, value, "gradient", found)
        return found

    def _match(self, part: Any, value: Any, name: str, found: list[tuple[Block, Any]]) -> None:
        if isinstance(part, Block):
            found.append((part, value))
        elif isinstance(part, dict):
            if not isinstance(value, Mapping) or set(value) != set(part):
                came = f"keys {list(value)}" if isinstance(value, Mapping) else describe(value)
                raise ValueError(f"{name}: expected a dict with x0's keys {list(part)}, got {came}")
            for key in part:
                self._match(part[key], value[key], f"{name}[{key!r}]", found)
        else:
            if not isinstance(value, (list, tuple)) or len(value) != len(part):
                came = f"{len(value)} parts" if isinstance(value, (list, tuple)) else describe(value)
                raise ValueError(f"{name}: expected a {type(part).__name__} of {len(part)} arrays as x0 is, got {came}")
            for index, (own, other) in enumerate(zip(part, value, strict=True)):
                self._match(own, other, f"{name}[{index}]", found)

    def locate(self, index: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of the array and the index in it of entry `index` of the flat vector."""
        block = self.block_of(index)
        return block.name, tuple(
            map(int, np.unravel_index(index - block.span.start, block.shape))
        ) if block.shape else ()

    def block_of(self, index: int) -> Block:
        """Return the block that entry `index` of the flat vector lies in."""
        return next(block for block in self.blocks if index < block.span.stop)

    def jitter(self, rng: np.random.Generator, ulps: float) -> Array:
        """Return x0 with every entry moved by up to `ulps` rounding units. Zeros stay, and with them exact kinks."""
        moved = np.empty(self.size, self.dtype)
        for block in self.blocks:
            part = self.x0[block.span].astype(block.dtype)
            steps = rng.uniform(-ulps, ulps, part.shape) * float(np.finfo(block.dtype).eps)
            moved[block.span] = (part * (1 + steps)).astype(block.dtype)
        return moved

    def __repr__(self) -> str:
        return ", ".join(f"{block.name}{list(block.shape)}" for block in self.blocks)


def _as_floats(value: object, name: str) -> Array:
    """Return one array of x0, or say why a gradient by it cannot be checked."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got a masked array, whose mask would be lost; use x.filled(...)")
    if value is None or isinstance(value, (str, bytes)):
        raise TypeError(f"{name}: expected an array of floats, got {describe(value)}")
    try:
        array = np.array(value)
    except Exception as error:
        raise TypeError(f"{name}: expected an array of floats, got {describe(value)} ({error})") from error
    kind = array.dtype.kind
    if kind in "biu" and array.size:
        raise TypeError(
            f"{name}: got {array.dtype}, by which there is no derivative (steps would be cut to whole numbers); "
            "use x0.astype(float)"
        )
    if kind == "c":
        raise TypeError(f"{name}: got complex numbers; check the gradient by the real and the imaginary part")
    if kind not in "fbiu":
        raise TypeError(
            f"{name}: expected an array of floats, got {describe(value)}, whose elements have dtype {array.dtype}"
        )
    return array if kind == "f" else array.astype(np.float64)
