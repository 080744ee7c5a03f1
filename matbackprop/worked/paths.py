"""The scalar view: ∂L/∂ one weight as a sum, over paths and examples, of products along each path."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.flat import named_gradients
from matbackprop.validation import Array, describe
from matbackprop.worked.digits import number

if TYPE_CHECKING:
    from matbackprop.worked.example import Stage, WorkedExample

__all__ = ["LIMIT", "Factor", "Path", "Paths", "find", "trace"]

#: So many paths are listed at most.
LIMIT = 10_000


@dataclass(frozen=True)
class Factor:
    """One factor of a product: an entry of a step of the example, or a derivative that is no step of its own.

    Attributes
    ----------
    name : str
    index : tuple of int
    value : float
    """

    name: str
    index: tuple[int, ...]
    value: Any

    def __str__(self) -> str:
        return f"{self.name}[{','.join(map(str, self.index))}]" if self.index else self.name


@dataclass(frozen=True)
class Path:
    """One way from the weight to the loss.

    Attributes
    ----------
    factors : tuple of Factor
        From the loss down to the weight, as the chain rule is written.
    row : int
        The example.
    units : tuple of (str, int)
        Step and unit that it leads through, from the weight on.
    """

    factors: tuple[Factor, ...]
    row: int
    units: tuple[tuple[str, int], ...]

    @property
    def product(self) -> Any:
        """The product of the factors."""
        return prod(factor.value for factor in self.factors)

    @property
    def symbols(self) -> str:
        """The product in symbols."""
        return " · ".join(map(str, self.factors))

    @property
    def numbers(self) -> str:
        """The product in numbers."""
        texts = (number(factor.value) for factor in self.factors)
        return " · ".join(f"({text})" if text.startswith("-") else text for text in texts)

    def __str__(self) -> str:
        return f"{self.symbols} = {self.numbers} = {number(self.product)}"


class Paths(Sequence[Path]):
    """All paths of one weight; it prints them with their sum.

    Attributes
    ----------
    weight : str
        "W1[0,1]".
    gradient : str
        "∂L/∂W1[0,1]".
    entry : float
        That entry of the matrix that the model computed.
    total : float
        The sum of the products.
    """

    def __init__(self, weight: str, gradient: str, entry: Any, paths: Sequence[Path]) -> None:
        self.weight, self.gradient, self.entry = weight, gradient, entry
        self._paths = tuple(paths)
        with np.errstate(all="ignore"):
            products = [path.product for path in self._paths]
            exact = all(isinstance(value, float) and isfinite(value) for value in products)
            self.total = fsum(products) if exact else sum(products)

    def __getitem__(self, index: Any) -> Any:
        return self._paths[index]

    def __len__(self) -> int:
        return len(self._paths)

    def __str__(self) -> str:
        rows = len({path.row for path in self._paths})
        count = f"{len(self)} path{'' if len(self) == 1 else 's'}"
        lines = [f"{self.gradient}: {count}" + (f" over {rows} examples" if rows > 1 else "")]
        for path in self._paths:
            lines += [f"  {path.symbols}", f"    = {path.numbers} = {number(path.product)}"]
        lines.append(f"  sum = {number(self.total)}; in the matrix: {number(self.entry)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Paths: {self.gradient}, {len(self)} of them, sum {number(self.total)}>"


def find(example: WorkedExample, name: object, index: Sequence[object]) -> tuple[int, str, str, tuple[int, ...]]:
    """Return the stage, the parameter on its layer, the step's name and the entry that these arguments mean.

    Raises
    ------
    TypeError, KeyError, IndexError
        If there is no such parameter or entry.
    """
    known = {step: (place, key) for place, stage in enumerate(example.stages) for key, step in stage.parameters.items()}
    if not isinstance(name, str):
        raise TypeError(f"expected a parameter's name, one of {', '.join(known)}, got {describe(name)}")
    if name not in known:
        raise KeyError(f"no parameter {name!r}; there are {', '.join(known) or 'none'}")
    place, key = known[name]
    shape = example[name].shape
    entry = []
    for part in index:
        try:
            if isinstance(part, bool):
                raise TypeError
            entry.append(operator.index(part))  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"{name}: expected integers as index, got {describe(part)}") from None
    if len(entry) != len(shape):
        raise IndexError(f"{name} has shape {shape}: expected {len(shape)} indices, got {tuple(entry)}")
    if any(not -size <= part < size for part, size in zip(entry, shape, strict=True)):
        raise IndexError(f"{name} has shape {shape}: no entry {tuple(entry)}")
    return place, key, name, tuple(part % size for part, size in zip(entry, shape, strict=True))


def outputs_of(example: WorkedExample, stage: Stage, key: str, index: tuple[int, ...]) -> list[int]:
    """Return the units of a layer's output that an entry of its parameter goes into.

    An entry of W, (out, in), goes into one, and so does one of a vector with an entry a unit, unless the other units
    show a derivative; any other may go into all.
    """
    rows, width = example[stage.output].shape
    if key == stage.layer.mixes:
        return [index[0]]
    if example[stage.parameters[key]].shape == (width,):
        others = np.sqrt(np.arange(1, rows * width + 1)).reshape(rows, width)  # of which no two cancel
        others[:, index[0]] = 0
        if _derivative(example, stage, key, index, others) == 0:
            return [index[0]]
    return list(range(width))


def _derivative(example: WorkedExample, stage: Stage, key: str, index: tuple[int, ...], delta: Array) -> Any:
    """Return what the layer's backward makes of this Δ, at the entry of its parameter."""
    stage.layer.forward(example[stage.input].value)
    stage.layer.backward(delta.astype(example[stage.output].value.dtype))
    return named_gradients(stage.layer)[key][index].item()


def trace(example: WorkedExample, name: str, index: tuple[int, ...]) -> Paths:
    """Return the paths of one weight."""
    place, key, name, entry = find(example, name, index)
    stage, rest = example.stages[place], example.stages[place + 1 :]
    for layer in (part.layer for part in (stage, *rest)):
        if not layer.elementwise and layer.mixes is None:
            raise ValueError(
                f"paths: {layer.label} says neither that it is elementwise nor by which parameter it mixes its inputs, "
                "so that nobody knows its paths; set elementwise = True on its class if each output depends on its "
                "own input alone, or mixes = the name of its (out, in) weight"
            )
    starts = outputs_of(example, stage, key, entry)
    rows = len(example["A0"].value)
    widths = [example[part.output].shape[1] for part in rest if part.layer.mixes is not None]
    count = rows * len(starts) * prod(widths)
    if count > LIMIT:
        raise ValueError(
            f"paths: {name}[{','.join(map(str, entry))}] has {count:,} paths to the loss, and at most {LIMIT:,} are "
            f'listed; ex["∂L/∂{name}"] is their sum, or explain fewer rows'
        )
    paths = [
        Path(tuple(factors), row, tuple(units))
        for row in range(rows)
        for unit in starts
        for factors, units in _walk(
            example, rest, stage.output, row, unit, [_first(example, stage, key, entry, row, unit)]
        )
    ]
    gradient = f"∂L/∂{name}"
    text = f"[{','.join(map(str, entry))}]" if entry else ""
    return Paths(name + text, gradient + text, example[gradient].value[entry].item(), paths)


def _first(example: WorkedExample, stage: Stage, key: str, index: tuple[int, ...], row: int, unit: int) -> Factor:
    """Return ∂output/∂weight: for W the input; for other parameters what backward makes of a Δ of a single 1."""
    if key == stage.layer.mixes:
        return _entry(example, stage.input, (row, index[1]))
    delta = np.zeros_like(example[stage.output].value)
    delta[row, unit] = 1
    text = f"∂{stage.output}[{row},{unit}]/∂{stage.parameters[key]}"
    return Factor(text, index, _derivative(example, stage, key, index, delta))


def _entry(example: WorkedExample, name: str, index: tuple[int, ...]) -> Factor:
    return Factor(name, index, example[name].value[index].item())


def _walk(
    example: WorkedExample, rest: Sequence[Stage], name: str, row: int, unit: int, factors: list[Factor]
) -> Iterator[tuple[list[Factor], list[tuple[str, int]]]]:
    """Yield the factors of each path from this unit to the loss, from the loss down, and its units."""
    here = (name, unit)
    quantity, slope = example.start
    if name == quantity:
        yield [_entry(example, slope, (row, unit)), *factors], [here]
        return
    stage, *above = rest
    matrix = stage.layer.mixes
    units = [unit] if matrix is None else range(example[stage.output].shape[1])
    for after in units:
        factor = (
            _entry(example, stage.derivative, (row, unit))
            if matrix is None
            else _entry(example, stage.parameters[matrix], (after, unit))
        )
        for chain, way in _walk(example, above, stage.output, row, after, [factor, *factors]):
            yield chain, [here, *way]
