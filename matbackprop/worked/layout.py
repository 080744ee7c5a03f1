"""Where everything in the picture of a network goes: the columns, as far apart as their texts and labels need."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import cos, sin
from typing import TYPE_CHECKING, NamedTuple

from matbackprop.worked.columns import Column, Unit
from matbackprop.worked.digits import number
from matbackprop.worked.labels import Box, Point, along, clear, segment, width_of
from matbackprop.worked.latex import math
from matbackprop.worked.notation import Symbol

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["BELOW", "DOWN", "INCH", "INPUT", "POINTS", "RADIUS", "Layout", "Line", "Text"]

#: Between two columns no more weights than these are labelled.
LABELLED = 9
#: At least from column to column, from unit to unit with nothing below it, what a line below it adds, and the radius of
#: a unit, in the picture's own units.
ACROSS, DOWN, BELOW, RADIUS = 4.2, 1.55, 0.34, 0.42
#: An input's radius is so much of a unit's.
INPUT = 0.55
#: A unit of the picture in inches, in a figure of its own; with letters of that many points a line is so high.
INCH, POINTS, LINE = 0.5, 8.0, 0.3
#: Columns are so much of their height apart, or edges would run through the texts under their units.
STEEP = 0.5
#: Between the texts of two columns stays room for a weight's label, and what else may be needed is tried in that order.
ROOM, WIDER = 1.5, (1.0, 1.25, 1.5, 1.8)


class Line(NamedTuple):
    """An edge: the units at its ends, None for the loss, its label, whether it is on a path, and from rim to rim."""

    start: Unit
    end: Unit | None
    text: str
    on: bool
    box: Box


class Text(NamedTuple):
    """A line of text at a unit, and where its middle is."""

    x: float
    y: float
    text: str
    slope: bool = False  # whether it is a derivative

    @property
    def box(self) -> Box:
        """What it covers."""
        return Box(self.x, self.y, width(self.text), LINE)


def width(text: str, size: float = POINTS) -> float:
    """Return the width of a text in the picture's units, a little more than what matplotlib sets."""
    return (1.06 * width_of(text, size) + 3) / 72 / INCH


class Layout:
    """The places of everything, in units of the picture, of which its own figure has two to an inch.

    Parameters
    ----------
    example : WorkedExample
    columns : list of Column
    values, deltas : bool
        Which numbers there are.
    row : int
        Of which example.
    """

    def __init__(self, example: WorkedExample, columns: list[Column], *, values: bool, deltas: bool, row: int) -> None:
        self.example, self.columns = example, columns
        self.values, self.deltas, self.row = values, deltas, row
        self.top = max(max(column.heights.values()) for column in columns)
        self.across = 0.0
        self.widths = [
            max(t.box.wide for unit in c.shown for t in self.texts(at, unit)) for at, c in enumerate(columns)
        ]
        self.result = f"$L$ = {number(example['L'].value[()])}" if values else "$L$"

    def at(self, column: int, unit: int) -> Point:
        """Return the centre of a unit."""
        return column * self.across, self.columns[column].heights[unit]

    @property
    def loss_place(self) -> Box:
        """Where the loss is."""
        wide = width_of(self.result, 10) / 72 / INCH + 0.25
        after = max(0.55 * self.across, (self.widths[-1] + wide) / 2 + ROOM / 2)
        return Box((len(self.columns) - 1) * self.across + after, 0.0, wide, 0.55)

    @property
    def wide(self) -> Point:
        """Where it starts and ends."""
        left = max(self.widths[0], width(self.columns[0].caption, 9)) / 2
        return -max(left, 1) - 0.2, self.loss_place.x + self.loss_place.wide / 2 + 0.2

    @property
    def high(self) -> Point:
        """How low and high it goes."""
        return -self.top - 1.3, self.top + 1.8

    def lay(self, edge: tuple[Unit, ...], units: set[Unit], *, lit: bool) -> None:
        """Find a place for everything, with the columns as far apart as the labels need."""
        captions = [width(column.caption, 9) for column in self.columns]
        texts = max((a + b) / 2 for a, b in pairwise(self.widths)) + ROOM
        least = max(ACROSS, texts, STEEP * 2 * self.top, *((a + b) / 2 + 0.3 for a, b in pairwise(captions)))
        source = {edge[0]} if len(edge) > 1 and edge[0][0] < edge[1][0] else set()
        self.lit, self.on = lit, units | source
        for wider in WIDER:
            self.across = least * wider
            self.lines = list(self.edges(edge, units))
            self.labels, free = self.lay_labels()
            if free:
                return

    def lay_labels(self) -> tuple[list[tuple[Box, str]], bool]:
        """Return the weights' labels that have room, and whether they are all and free."""
        labels, all_free = [], True
        for at in range(1, len(self.columns)):
            lines = [line for line in self.lines if line.start[0] == at - 1]
            sizes = {i: width(line.text) for i, line in enumerate(lines) if line.text and (line.on or not self.lit)}
            if len(sizes) > LABELLED:
                continue
            taken = list(self.taken(at - 1)) + list(self.taken(at))
            shown = {i: line.box for i, line in enumerate(lines) if line.on or not self.lit}
            found, free = clear({i: (wide, LINE) for i, wide in sizes.items()}, shown, taken)
            labels += [(box, lines[i].text) for i, box in found.items()]
            all_free &= free
        return labels, all_free

    def taken(self, place: int) -> Iterator[Box]:
        """Yield the boxes of a column's units and texts."""
        for unit in self.columns[place].shown:
            yield Box(*self.at(place, unit), 2.2 * RADIUS, 2.2 * RADIUS)
            yield from (text.box for text in self.texts(place, unit))
        yield from (text.box for text in self.gaps(place))

    def edges(self, edge: tuple[Unit, ...], units: set[Unit]) -> Iterator[Line]:
        """Yield every line; the last lead to the loss."""
        for place, column in enumerate(self.columns[1:], 1):
            before = self.columns[place - 1]
            for unit in column.shown:
                for source in before.shown if column.dense else [unit] if unit in before.shown else []:
                    start, end = (place - 1, source), (place, unit)
                    on = (end in units and start in units) or (start, end) == edge
                    yield Line(start, end, self.weight(column, unit, source), on, self.rims(start, self.at(*end)))
        last = len(self.columns) - 1
        for unit in self.columns[last].shown:
            box = self.to_loss((last, unit))
            yield Line((last, unit), None, "", (last, unit) in units, box)

    def rims(self, start: Unit, end: Point, end_radius: float = RADIUS) -> Box:
        """Return the line from the rim of one unit to that of what is at the other end."""
        whole = segment(self.at(*start), end)
        near = RADIUS * (1 if start[0] else INPUT) / whole.wide
        far = 1 - end_radius / whole.wide
        return along(whole, (near + far) / 2, whole.wide * (far - near), 0.0)

    def to_loss(self, start: Unit) -> Box:
        """Return the line from the rim of a unit to the frame of the loss."""
        frame = self.loss_place
        whole = segment(self.at(*start), (frame.x, frame.y))
        sides = ((frame.wide, abs(cos(whole.angle))), (frame.high, abs(sin(whole.angle))))
        return self.rims(start, (frame.x, frame.y), min(side / 2 / part for side, part in sides if part > 1e-9))

    def weight(self, column: Column, unit: int, source: int) -> str:
        """Return the label of an edge; thin spaces keep a minus apart from the line that it stands on."""
        if not column.weight:
            return ""
        if self.values:
            return f"\N{THIN SPACE}{number(self.example[column.weight].value[unit, source])}\N{THIN SPACE}"
        return self.name(column.weight, unit, source)

    def name(self, step: str, *index: int) -> str:
        """Return an entry's name in matplotlib's mathematics."""
        symbol = self.example[step].left[0]
        if isinstance(symbol, Symbol) and symbol.over is not None:
            return rf"$\partial L/\partial {math(Symbol(symbol.letter, symbol.index))}[{','.join(map(str, index))}]$"
        return f"${math(symbol)}[{','.join(map(str, index))}]$"

    def texts(self, place: int, unit: int) -> Iterator[Text]:
        """Yield the lines of text at a unit: its name above; below, its biases, and ∂L/∂ what it sums up."""
        x, y = self.at(place, unit)
        column = self.columns[place]
        radius = RADIUS * (1 if place else INPUT)
        name = self.name(column.name, unit)
        if self.values:
            name += f" = {number(self.example[column.name].value[self.row, unit])}"
        yield Text(x, y + radius + 0.08 + LINE / 2, name)
        below = []
        for bias in column.biases:
            value = self.example[bias].value[unit]
            below.append(f"{self.name(bias, unit)} = {number(value)}" if self.values else self.name(bias, unit))
        low = y - radius - 0.08 - LINE / 2
        if below:
            yield Text(x, low, ", ".join(below))
        if self.deltas:
            text = f"{self.name(column.slope, unit)} = {number(self.example[column.slope].value[self.row, unit])}"
            yield Text(x, low - BELOW * bool(below), text, slope=True)

    def gaps(self, place: int) -> Iterator[Text]:
        """Yield what stands for the units that are not drawn."""
        for unit, after in pairwise(self.columns[place].shown):
            if after > unit + 1:
                low = min(text.y for text in self.texts(place, unit)) - LINE / 2
                high = max(text.y for text in self.texts(place, after)) + LINE / 2
                yield Text(self.at(place, unit)[0], (low + high) / 2, f"⋮ {after - unit - 1} more")
