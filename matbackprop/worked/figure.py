"""The network as a picture, with matplotlib: units, weights, and the paths of one weight to the loss."""

from __future__ import annotations

from math import atan2, degrees, hypot
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.layer import Layer
from matbackprop.validation import as_flag, describe
from matbackprop.worked.columns import Column, Unit, lay_out, reach
from matbackprop.worked.digits import number
from matbackprop.worked.latex import math
from matbackprop.worked.notation import Symbol

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["draw"]

DARK, LIGHT, PLAIN, SLOPE = "#111111", "#d3d3d3", "#666666", "#b03a2e"
#: Between two columns no more weights than these are labelled.
LABELLED = 9
#: From column to column, from unit to unit with nothing below it, what a line below it adds, and the radius of a unit.
ACROSS, DOWN, BELOW, RADIUS = 4.2, 1.55, 0.32, 0.42
#: An input's radius is so much of a unit's.
INPUT = 0.55
#: What is labelled with characters is this wide and high, in the same units.
LETTER, LINE = 0.13, 0.3

#: Which ends of an edge have an arrow.
ARROWS = {"forward": "-|>", "backward": "<|-", "both": "<|-|>"}


def draw(
    example: WorkedExample, highlight: Any, *, direction: str, ax: Any, values: bool, deltas: bool, row: int
) -> Any:
    """Draw it; see `WorkedExample.plot`."""
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot: needs matplotlib; pip install 'matbackprop[viz]'") from error
    if direction not in tuple(ARROWS):
        raise ValueError(f"plot: direction is one of {', '.join(map(repr, ARROWS))}, got {describe(direction)}")
    if ax is not None and not (isinstance(ax, Axes) and ax.name == "rectilinear"):
        raise TypeError(f"plot: ax: expected matplotlib axes, neither polar nor 3d, got {describe(ax)}")
    values, deltas = as_flag(values, "plot: values", "omit it"), as_flag(deltas, "plot: deltas", "omit it")
    row = _row(example, row, needed=values or deltas)
    columns = lay_out(example)
    edge, units = reach(example, columns, highlight)
    below = any(column.biases for column in columns) + deltas
    for place, column in enumerate(columns):
        column.place({unit for at, unit in edge if at == place}, DOWN + BELOW * below)
    if ax is None:
        top = max(max(column.heights.values()) for column in columns)
        figure = Figure(figsize=(1.9 * len(columns) + 1.4, 0.95 * top + 1.6), layout="constrained")
        ax = figure.add_subplot()
    picture = _Picture(example, columns, ax, values=values, deltas=deltas, row=row, arrow=ARROWS[direction])
    picture.draw(edge, units, lit=highlight is not None)
    return ax


def _row(example: WorkedExample, row: object, *, needed: bool) -> int:
    rows = len(example["A0"].value)
    if isinstance(row, bool) or not isinstance(row, (int, np.integer)):
        raise TypeError(f"plot: row: expected an integer, got {describe(row)}")
    if not -rows <= row < rows and (needed or row):  # of no rows the network can be drawn
        raise IndexError(f"plot: row: the batch has {rows} example{'s' * (rows != 1)}, got {row}")
    return int(row)


class _Picture:
    def __init__(
        self,
        example: WorkedExample,
        columns: list[Column],
        ax: Any,
        *,
        values: bool,
        deltas: bool,
        row: int,
        arrow: str,
    ) -> None:
        self.example, self.columns, self.ax = example, columns, ax
        self.values, self.deltas, self.row, self.arrow = values, deltas, row, arrow
        self.labels: list[tuple[float, float]] = []

    def at(self, column: int, unit: int) -> tuple[float, float]:
        """Return the centre of a unit."""
        return column * ACROSS, self.columns[column].heights[unit]

    @property
    def top(self) -> float:
        """The height of the highest unit."""
        return max(max(column.heights.values()) for column in self.columns)

    def draw(self, edge: tuple[Unit, ...], units: set[Unit], *, lit: bool) -> None:
        """Draw everything, what is dark last."""
        lines = list(self.edges(edge, units))
        for start, end, _, on in sorted(lines, key=lambda line: line[3]):
            self.line(start, end, lit=lit, on=on)
        for place in range(1, len(self.columns)):
            chosen = [line for line in lines if line[2] and line[1][0] == place and (line[3] or not lit)]
            if len(chosen) <= LABELLED:
                for start, end, text, _ in chosen:
                    self.label(start, end, text)
        source = {edge[0]} if len(edge) > 1 and edge[0][0] < edge[1][0] else set()
        for place, column in enumerate(self.columns):
            for unit in column.shown:
                dark = not lit or (place, unit) in units or (place, unit) in source
                self.unit(place, unit, DARK if dark else LIGHT)
            self.gaps(place, column)
        self.loss(DARK)
        right = len(self.columns) * ACROSS - ACROSS / 2 + 1
        self.ax.set(xscale="linear", yscale="linear")
        self.ax.set(xlim=(-1.3, right), ylim=(-self.top - 1.3, self.top + 1.8), aspect="equal")
        self.ax.set_axis_off()

    def edges(self, edge: tuple[Unit, ...], units: set[Unit]) -> Any:
        """Yield the two ends of each line, its label, and whether it is on a path; the last lead to the loss."""
        for place, column in enumerate(self.columns[1:], 1):
            before = self.columns[place - 1]
            for unit in column.shown:
                for source in before.shown if column.dense else [unit] if unit in before.shown else []:
                    on = (place, unit) in units and (place - 1, source) in units
                    on |= ((place - 1, source), (place, unit)) == edge
                    yield (place - 1, source), (place, unit), self.weight(column, unit, source), on
        last = len(self.columns) - 1
        for unit in self.columns[last].shown:
            yield (last, unit), None, "", (last, unit) in units

    def weight(self, column: Column, unit: int, source: int) -> str:
        """Return the label of an edge."""
        if not column.weight:
            return ""
        if self.values:
            return number(self.example[column.weight].value[unit, source])
        return self.name(column.weight, unit, source)

    def name(self, step: str, *index: int) -> str:
        """Return an entry's name in matplotlib's mathematics."""
        symbol = self.example[step].left[0]
        if isinstance(symbol, Symbol) and symbol.over is not None:
            return rf"$\partial L/\partial {math(Symbol(symbol.letter, symbol.index))}[{','.join(map(str, index))}]$"
        return f"${math(symbol)}[{','.join(map(str, index))}]$"

    def loss_place(self) -> tuple[float, float]:
        return (len(self.columns) - 1) * ACROSS + ACROSS * 0.55, 0.0

    def line(self, start: Unit, end: Unit | None, *, lit: bool, on: bool) -> None:
        """Draw one edge, from rim to rim."""
        from matplotlib.patches import FancyArrowPatch

        (x, y), (u, v) = self.at(*start), self.loss_place() if end is None else self.at(*end)
        length = hypot(u - x, v - y)
        near = 1 if start[0] else INPUT
        dx, dy = RADIUS * (u - x) / length, RADIUS * (v - y) / length
        colour = (DARK if on else LIGHT) if lit else PLAIN
        style = self.arrow if on else "-"
        self.ax.add_patch(
            FancyArrowPatch(
                (x + near * dx, y + near * dy), (u - dx, v - dy), arrowstyle=style, color=colour, shrinkA=0, shrinkB=0,
                lw=1.6 if on else 0.9, mutation_scale=11, zorder=2 if on else 1,
            )
        )  # fmt: skip

    def label(self, start: Unit, end: Unit | None, text: str) -> None:
        """Write a weight on its edge, as far as may be from the other labels."""
        assert end is not None
        (x, y), (u, v) = self.at(*start), self.at(*end)
        places = [(x + t * (u - x), y + t * (v - y)) for t in (0.32, 0.26, 0.4, 0.48, 0.56, 0.64, 0.7)]
        wide = LETTER * len(text.strip("$").replace("_", "").replace("{", "").replace("}", ""))

        def room(place: tuple[float, float]) -> float:
            gaps = (hypot((place[0] - a) / (1.2 * wide), (place[1] - b) / (1.6 * LINE)) for a, b in self.labels)
            return min(min(gaps, default=9.0), 1.2)  # beyond that, more room is no better

        best = max(places, key=room)
        self.labels.append(best)
        self.ax.text(
            *best, text, ha="center", va="center", fontsize=8, rotation=degrees(atan2(v - y, u - x)),
            rotation_mode="anchor", zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip

    def unit(self, place: int, unit: int, colour: str) -> None:
        """Draw one unit: an empty circle for an input, Σ and the function's curve for a neuron."""
        from matplotlib.patches import Circle

        x, y = self.at(place, unit)
        column = self.columns[place]
        radius = RADIUS * (1 if place else INPUT)
        self.ax.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=colour, lw=1.3, zorder=3))
        if column.sums:
            left = RADIUS * 0.46 if column.function is not None else 0
            self.ax.text(x - left, y, r"$\Sigma$", ha="center", va="center", color=colour, fontsize=10, zorder=4)
        if column.function is not None:
            middle = x + (RADIUS * 0.46 if column.sums else 0)
            if column.sums:
                self.ax.plot([x, x], [y - RADIUS, y + RADIUS], color=colour, lw=0.9, zorder=4)
            curve = _curve(column.function)
            if curve is None:
                self.ax.text(middle, y, "$f$", ha="center", va="center", color=colour, fontsize=10, zorder=4)
            else:
                t = np.linspace(-0.13, 0.13, len(curve))
                self.ax.plot(middle + t, y + 0.2 * curve, color=colour, lw=1.2, zorder=4)
        name = self.name(column.name, unit)
        if self.values:
            name += f" = {number(self.example[column.name].value[self.row, unit])}"
        self.write(x, y + radius + 0.1, name, colour, va="bottom")
        below = []
        for bias in column.biases:
            value = self.example[bias].value[unit]
            below.append(f"{self.name(bias, unit)} = {number(value)}" if self.values else self.name(bias, unit))
        if below:
            self.write(x, y - radius - 0.1, ", ".join(below), colour, va="top")
        if self.deltas:
            text = f"{self.name(column.slope, unit)} = {number(self.example[column.slope].value[self.row, unit])}"
            low = y - radius - 0.1 - (BELOW if below else 0)
            self.write(x, low, text, SLOPE if colour == DARK else LIGHT, va="top")

    def write(self, x: float, y: float, text: str, colour: str, va: str = "center") -> None:
        """Write a line of text over whatever edges are behind it."""
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85}
        self.ax.text(x, y, text, ha="center", va=va, fontsize=8, color=colour, zorder=6, bbox=box)

    def gaps(self, place: int, column: Column) -> None:
        """Mark the units that are not drawn, and write the column's caption."""
        for unit, after in zip(column.shown, column.shown[1:], strict=False):
            if after > unit + 1:
                (x, y), (_, low) = self.at(place, unit), self.at(place, after)
                self.write(x, (y + low) / 2 - 0.05, f"⋮ {after - unit - 1} more", PLAIN)
        self.ax.text(
            place * ACROSS, self.top + RADIUS + 0.65, column.caption, ha="center", va="bottom", fontsize=9, color=PLAIN
        )

    def loss(self, colour: str) -> None:
        """Draw the loss."""
        x, y = self.loss_place()
        text = f"$L$ = {number(self.example['L'].value[()])}" if self.values else "$L$"
        self.ax.text(
            x, y, text, ha="center", va="center", fontsize=10, color=colour, zorder=6,
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": colour},
        )  # fmt: skip


def _curve(layer: Layer) -> Any:
    """Return the function of an elementwise layer from -3 to 3, scaled to [-1, 1], if it has no parameters."""
    if not layer.elementwise or layer.in_features not in (None, 1) or layer.has_parameters():
        return None
    twin, x = layer.copy(), np.linspace(-3, 3, 61).reshape(-1, 1)
    try:
        with np.errstate(all="ignore"):
            y, again = (np.array(twin.forward(x)).reshape(x.shape)[:, 0] for _ in range(2))
    except Exception:  # noqa: BLE001 - a layer of somebody's that wants something else; the letter f will do
        return None
    size = np.abs(y).max()
    drawn = np.isfinite(size) and size and np.array_equal(y, again)  # what is random has no curve
    return y / size if drawn else None
