"""Where labels go in a picture: boxes, turned or not, that keep clear of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import atan2, cos, degrees, hypot, sin

__all__ = ["Box", "Point", "along", "clear", "segment", "width_of"]

Point = tuple[float, float]

#: A label is tried at so many places along its edge, and leaves so much of it free at both ends, where arrows are.
PLACES, END = 61, 0.2
#: Where on its edge a label is best, and how much larger a box is that has room around it.
BEST, CLEAR = 0.36, 0.35


@dataclass(frozen=True)
class Box:
    """A rectangle turned about its centre."""

    x: float
    y: float
    wide: float
    high: float
    angle: float = 0.0  # in radians

    @property
    def degrees(self) -> float:
        """The angle as matplotlib has it."""
        return degrees(self.angle)

    def touches(self, other: Box) -> bool:
        """Return whether the two have a point in common: whether no side of either has the other beyond it.

        Examples
        --------
        >>> from math import pi
        >>> from matbackprop.worked.labels import Box
        >>> flat, post = Box(0, 0, 4, 1), Box(2, 2, 4, 1, pi / 2)
        >>> flat.touches(post), flat.touches(Box(2, 2, 4, 1, pi / 4)), flat.touches(Box(2, 2, 4, 1))
        (True, True, False)
        """
        x, y = other.x - self.x, other.y - self.y
        if hypot(x, y) > (hypot(self.wide, self.high) + hypot(other.wide, other.high)) / 2:
            return False
        for angle in (self.angle, other.angle):
            for a, b in ((cos(angle), sin(angle)), (-sin(angle), cos(angle))):
                if abs(x * a + y * b) > self._reach(a, b) + other._reach(a, b):
                    return False
        return True

    def _reach(self, a: float, b: float) -> float:
        """Return how far it reaches from its centre in the direction (a, b)."""
        c, s = cos(self.angle), sin(self.angle)
        return (self.wide * abs(a * c + b * s) + self.high * abs(b * c - a * s)) / 2


def segment(start: Point, end: Point) -> Box:
    """Return a line from one point to another as a box without height."""
    (x, y), (u, v) = start, end
    return Box((x + u) / 2, (y + v) / 2, hypot(u - x, v - y), 0.0, atan2(v - y, u - x))


def along(line: Box, t: float, wide: float, high: float) -> Box:
    """Return a box on a line, turned as it is, at the part t of it."""
    far = (t - 0.5) * line.wide
    return Box(line.x + far * cos(line.angle), line.y + far * sin(line.angle), wide, high, line.angle)


def clear(
    labels: Mapping[int, tuple[float, float]], lines: Mapping[int, Box], taken: Sequence[Box]
) -> tuple[dict[int, Box], bool]:
    """Lay labels on their lines, clear of one another and of what is taken, and of other lines where that can be.

    Parameters
    ----------
    labels : mapping of int to (float, float)
        Width and height of the label of a line, by the line's number.
    lines : mapping of int to Box
    taken : sequence of Box

    Returns
    -------
    places : dict of int to Box
        A label that has no room is not in it.
    free : bool
        Whether all have room, and touch no line but their own.
    """
    options: dict[int, list[tuple[float, Box]]] = {}
    for number, size in labels.items():
        first = (size[0] / 2 + END) / lines[number].wide
        steps = (first + (1 - 2 * first) * step / (PLACES - 1) for step in range(PLACES if first < 0.5 else 0))
        others = [line for at, line in lines.items() if at != number]
        boxes = [(t, along(lines[number], t, *size)) for t in steps]
        options[number] = [(_cost(t, box, others), box) for t, box in boxes if not any(map(box.touches, taken))]
    places: dict[int, Box] = {}
    free = True
    while options:  # the one with the fewest free places goes first
        number = min(options, key=lambda one: sum(cost < 1 for cost, _ in options[one]))
        left = options.pop(number)
        if not left:
            free = False
            continue
        cost, box = min(left, key=lambda option: option[0])
        free &= cost < 1
        places[number] = box
        for other, rest in options.items():
            options[other] = [option for option in rest if not box.touches(option[1])]
    return places, free


def _cost(t: float, box: Box, lines: Sequence[Box]) -> float:
    """Return what speaks against a place: 1 for every line that it touches, and less for a near one or a far place."""
    loose = Box(box.x, box.y, box.wide + CLEAR, box.high + CLEAR, box.angle)
    near = [line for line in lines if loose.touches(line)]
    return sum(map(box.touches, near)) + 0.5 * bool(near) + 0.4 * abs(t - BEST)


@cache
def width_of(text: str, size: float) -> float:
    """Return the width of a text, its longest line's, in points."""
    from matplotlib.textpath import TextPath

    return max((float(TextPath((0, 0), line, size=size).get_extents().x1) for line in text.split("\n")), default=0.0)
