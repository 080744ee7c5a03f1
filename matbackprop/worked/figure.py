"""The network as a picture, with matplotlib: units, weights, and the paths of one weight to the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.layer import Layer
from matbackprop.validation import as_flag, describe
from matbackprop.worked.columns import lay_out, reach
from matbackprop.worked.labels import Box, along
from matbackprop.worked.layout import BELOW, DOWN, INCH, INPUT, POINTS, RADIUS, Layout, Line, Text

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["draw"]

DARK, LIGHT, PLAIN, SLOPE = "#111111", "#d3d3d3", "#666666", "#b03a2e"

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
    layout = Layout(example, columns, values=values, deltas=deltas, row=row)
    layout.lay(edge, units, lit=highlight is not None)
    if ax is None:
        wide, high = (INCH * (end - start) + 0.1 for start, end in (layout.wide, layout.high))
        ax = Figure(figsize=(wide, high), layout="constrained").add_subplot()
    _Picture(layout, ax, ARROWS[direction]).draw()
    return ax


def _row(example: WorkedExample, row: object, *, needed: bool) -> int:
    rows = len(example["A0"].value)
    if isinstance(row, bool) or not isinstance(row, (int, np.integer)):
        raise TypeError(f"plot: row: expected an integer, got {describe(row)}")
    if not -rows <= row < rows and (needed or row):  # of no rows the network can be drawn
        raise IndexError(f"plot: row: the batch has {rows} example{'s' * (rows != 1)}, got {row}")
    return int(row)


class _Picture:
    """What draws a layout in axes."""

    def __init__(self, layout: Layout, ax: Any, arrow: str) -> None:
        self.layout, self.ax, self.arrow = layout, ax, arrow
        size = ax.get_position(original=True).transformed(ax.figure.transSubfigure).size / ax.figure.dpi
        needed = [INCH * (end - start) for start, end in (layout.wide, layout.high)]
        self.shrunk = min(1.0, *(size / needed))  # letters, in axes with less room than a figure of its own has

    def draw(self) -> None:
        """Draw everything, what is dark last."""
        layout = self.layout
        self.ax.set(xscale="linear", yscale="linear", xlim=layout.wide, ylim=layout.high, aspect="equal")
        self.ax.set_axis_off()
        for edge in sorted(layout.lines, key=lambda edge: edge.on):
            self.line(edge)
        for box, text in layout.labels:
            self.label(box, text)
        for place, column in enumerate(layout.columns):
            for unit in column.shown:
                colour = DARK if not layout.lit or (place, unit) in layout.on else LIGHT
                self.unit(place, unit, colour)
                for line in layout.texts(place, unit):
                    self.write(line, SLOPE if line.slope and colour == DARK else colour)
            for gap in layout.gaps(place):
                self.write(gap, PLAIN)
            self.text(place * layout.across, layout.top + 1.07, column.caption, size=9, color=PLAIN, va="bottom")
        self.loss(layout.loss_place)

    def text(self, x: float, y: float, text: str, *, size: float = POINTS, va: str = "center", **options: Any) -> None:
        self.ax.text(x, y, text, ha="center", va=va, fontsize=size * self.shrunk, **options)

    def loss(self, box: Box) -> None:
        """Draw the loss in its frame, which the arrows lead to."""
        from matplotlib.patches import FancyBboxPatch

        corner = box.x - box.wide / 2, box.y - box.high / 2
        style = "round,pad=0,rounding_size=0.12"
        self.ax.add_patch(
            FancyBboxPatch(corner, box.wide, box.high, boxstyle=style, facecolor="white", edgecolor=DARK, zorder=3)
        )
        self.text(box.x, box.y, self.layout.result, size=10, color=DARK, zorder=6)

    def line(self, line: Line) -> None:
        """Draw one edge."""
        from matplotlib.patches import FancyArrowPatch

        colour = (DARK if line.on else LIGHT) if self.layout.lit else PLAIN
        ends = [(end.x, end.y) for end in (along(line.box, 0, 0, 0), along(line.box, 1, 0, 0))]
        self.ax.add_patch(
            FancyArrowPatch(
                *ends, arrowstyle=self.arrow if line.on else "-", color=colour, shrinkA=0, shrinkB=0,
                lw=1.6 if line.on else 0.9, mutation_scale=11 * self.shrunk, zorder=2 if line.on else 1,
            )
        )  # fmt: skip

    def label(self, box: Box, text: str) -> None:
        """Write a weight on its edge."""
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
        self.text(box.x, box.y, text, rotation=box.degrees, rotation_mode="anchor", zorder=5, bbox=ground)

    def unit(self, place: int, unit: int, colour: str) -> None:
        """Draw one unit: an empty circle for an input, Σ and the function's curve for a neuron."""
        from matplotlib.patches import Circle

        x, y = self.layout.at(place, unit)
        column = self.layout.columns[place]
        radius = RADIUS * (1 if place else INPUT)
        self.ax.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=colour, lw=1.3, zorder=3))
        if column.sums:
            left = RADIUS * 0.46 if column.function is not None else 0
            self.text(x - left, y, r"$\Sigma$", size=10, color=colour, zorder=4)
        if column.function is not None:
            middle = x + (RADIUS * 0.46 if column.sums else 0)
            if column.sums:
                self.ax.plot([x, x], [y - RADIUS, y + RADIUS], color=colour, lw=0.9, zorder=4)
            curve = _curve(column.function)
            if curve is None:
                self.text(middle, y, "$f$", size=10, color=colour, zorder=4)
            else:
                t = np.linspace(-0.13, 0.13, len(curve))
                self.ax.plot(middle + t, y + 0.2 * curve, color=colour, lw=1.2, zorder=4)

    def write(self, text: Text, colour: str) -> None:
        """Write a line of text over whatever edges are behind it."""
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
        self.text(text.x, text.y, text.text, color=colour, zorder=6, bbox=box)


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
