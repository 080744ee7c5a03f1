"""The network as columns of units, and which of them the paths of one weight lead through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matbackprop.layer import Layer
from matbackprop.validation import describe
from matbackprop.worked.paths import find, outputs_of

if TYPE_CHECKING:
    from matbackprop.worked.example import Stage, WorkedExample

__all__ = ["Column", "Unit", "lay_out", "reach"]

#: Of a column that is wider, the first and last few units are drawn.
WIDEST, FIRST, LAST = 8, 4, 3
#: What a gap in a column adds to the distance between two units.
GAP = 0.5

Unit = tuple[int, int]  # column, unit


@dataclass
class Column:
    """Units side by side: the inputs, or what one layer and its activation give."""

    name: str  # of the step that holds their outputs
    slope: str  # of the one that holds ∂L/∂ what they sum up
    width: int
    stages: list[int] = field(default_factory=list)
    weight: str = ""  # the step that holds the weights on the edges to it
    dense: bool = True  # whether every unit before it leads to every unit
    biases: list[str] = field(default_factory=list)
    sums: bool = False
    function: Layer | None = None
    caption: str = ""
    heights: dict[int, float] = field(default_factory=dict)  # of the units that are drawn

    @property
    def shown(self) -> list[int]:
        """The units that are drawn, from the top."""
        return list(self.heights)

    def place(self, needed: set[int], down: float) -> None:
        """Choose the units that are drawn, those `needed` among them, and where."""
        units = sorted({*range(FIRST), *range(self.width - LAST, self.width), *needed})
        units = list(range(self.width)) if self.width <= WIDEST else units
        heights, y = [], 0.0
        for before, unit in zip((-1, *units), units, strict=False):
            y -= down + (GAP if unit > before + 1 else 0)
            heights.append(y)
        middle = (heights[0] + heights[-1]) / 2
        self.heights = {unit: height - middle for unit, height in zip(units, heights, strict=True)}


def lay_out(example: WorkedExample) -> list[Column]:
    """Return the columns of the picture, from the inputs on."""
    columns = [Column("A0", "∂L/∂X", example["A0"].shape[1], caption="X")]
    for place, stage in enumerate(example.stages):
        column, width = columns[-1], example[stage.output].shape[1]
        if stage.layer.elementwise and len(columns) > 1 and column.function is None:
            column.function, column.name = stage.layer, stage.output
            column.caption += f"\n{type(stage.layer).__name__}"
        else:
            column = _column(example, stage, width)
            columns.append(column)
        column.stages.append(place)
    return columns


def _column(example: WorkedExample, stage: Stage, width: int) -> Column:
    weight = stage.parameters.get(stage.layer.mixes or "", "")
    biases = [name for name in stage.parameters.values() if name != weight and example[name].shape == (width,)]
    return Column(
        stage.output,
        example[f"∂L/∂{stage.output}"].name,
        width,
        weight=weight,
        dense=not stage.layer.elementwise,
        biases=biases,
        sums=bool(weight),
        function=None if weight else stage.layer,
        caption=type(stage.layer).__name__,
    )


def reach(example: WorkedExample, columns: list[Column], highlight: Any) -> tuple[tuple[Unit, ...], set[Unit]]:
    """Return the two ends of the chosen weight's edge, or the unit it belongs to, and all units on its paths."""
    if highlight is None:
        return (), set()
    if not isinstance(highlight, (tuple, list)) or not highlight:
        raise TypeError(
            f'plot: highlight: expected a name and an index such as ("W1", 0, 1), got {describe(highlight)}'
        )
    place, key, _, entry = find(example, highlight[0], highlight[1:])
    stage = example.stages[place]
    at = next(index for index, column in enumerate(columns) if place in column.stages)
    starts = outputs_of(example, stage, key, entry)
    edge = tuple((at, unit) for unit in starts)
    if key == stage.layer.mixes:
        edge = ((at - 1, entry[1]), *edge)
    units = {(at, unit) for unit in starts}
    reached = set(starts)
    for later in range(at + 1, len(columns)):
        column = columns[later]
        reached = set(range(column.width)) if column.dense else reached
        units |= {(later, unit) for unit in reached}
    return edge, units
