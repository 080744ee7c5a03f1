"""The picture: every unit and weight where it belongs, the paths of one weight dark, and nothing global touched."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

import matbackprop as mb
from explain.test_record import Leak, Scale
from matbackprop.notebooks import NETWORKS, load
from matbackprop.worked import digits
from matbackprop.worked.figure import DARK, LIGHT, PLAIN
from matbackprop.worked.labels import Box, clear, segment

matplotlib = pytest.importorskip("matplotlib")


def explained(name):
    given = load(name)
    return mb.explain(given.model, given.x, given.y, given.loss)


def lines(ax):
    """Return colour and whole ends of every edge."""
    from matplotlib.colors import to_hex
    from matplotlib.patches import FancyArrowPatch

    return [to_hex(patch.get_edgecolor()) for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def texts(ax, colour=None):
    return [text.get_text().strip() for text in ax.texts if colour in (None, text.get_color())]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_notebook_network_is_drawn(name):
    ex = explained(name)
    ax = ex.plot()
    widths = [ex[step].shape[1] for step in ["A0", *(stage.output for stage in ex.stages if stage.layer.mixes)]]
    edges = sum(a * b for a, b in itertools.pairwise(widths)) + widths[-1]
    assert lines(ax) == [PLAIN] * edges
    assert texts(ax).count(r"$\Sigma$") == sum(widths[1:])
    for stage in ex.stages:
        for step in stage.parameters.values():
            shape = ex[step].shape
            for index in np.ndindex(shape):
                assert f"${step[0]}_{{{step[1:]}}}[{','.join(map(str, index))}]$" in texts(ax)


# "Deep dive into backpropagation": its figures for w10, w9 and w1, of which the last has paths through both neurons of
# the second hidden layer.


@pytest.mark.parametrize(
    ("weight", "dark", "labels"),
    [
        (("W3", 0, 1), 2, ["$W_{3}[0,1]$"]),
        (("W3", 0, 0), 2, ["$W_{3}[0,0]$"]),
        (("W1", 0, 0), 6, ["$W_{1}[0,0]$", "$W_{2}[0,0]$", "$W_{2}[1,0]$", "$W_{3}[0,0]$", "$W_{3}[0,1]$"]),
    ],
    ids=["w10", "w9", "w1"],
)
def test_the_paths_of_a_weight_are_dark(weight, dark, labels):
    ax = explained("tanh-2-2-2-1").plot(weight)
    assert sorted(lines(ax)) == [DARK] * dark + [LIGHT] * (11 - dark)
    assert [text for text in texts(ax) if text.startswith("$W")] == labels


def test_the_dark_edges_are_those_of_the_paths():
    """Of each weight of a network, as many as its paths lead over."""
    ex = explained("tanh-2-2-2-1")
    for stage in ex.stages:
        for name in stage.parameters.values():
            for index in np.ndindex(ex[name].shape):
                weights = {
                    (f.name, f.index) for path in ex.paths(name, *index) for f in path.factors if f.name[0] == "W"
                }
                own = 1 if name[0] == "W" else 0
                assert lines(ex.plot((name, *index))).count(DARK) == len(weights) + own + 1  # and the one to the loss


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_directions(direction):
    ax = explained("tanh-2-2-2-1").plot(("W1", 0, 0), direction=direction)
    styles = {type(p.get_arrowstyle()).__name__ for p in ax.patches if hasattr(p, "get_arrowstyle")}
    assert styles == {
        "Curve",
        {"forward": "CurveFilledB", "backward": "CurveFilledA", "both": "CurveFilledAB"}[direction],
    }


def test_values_and_deltas():
    ex = explained("relu-bce-2-2-3-1")
    shown = texts(ex.plot(values=True, deltas=True))
    assert "$A_{3}[0]$ = 0.73106" in shown
    assert r"$\Delta_{3}[0]$ = 0.73106" in shown
    assert r"$\partial L/\partial X[1]$ = 0" in shown
    assert "$L$ = 1.3133" in shown
    assert "-1" in shown
    assert not any("Delta" in text for text in texts(ex.plot()))


def test_another_row(rng):
    ex = mb.explain(mb.Sequential(mb.Linear(1, 1), rng=0), [[1.0], [2.0]], [[0.0], [0.0]], mb.MSE())
    assert "$A_{0}[0]$ = 2" in texts(ex.plot(values=True, row=1))
    assert texts(ex.plot(values=True, row=-1)) == texts(ex.plot(values=True, row=1))


def test_axes_are_respected_and_pyplot_is_not_imported():
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert explained("relu-1-1").plot(ax=right) is right
    assert not left.patches
    code = (
        "import sys, matbackprop as mb; from matbackprop.notebooks import load; e = load('relu-1-1');"
        "mb.explain(e.model, e.x, e.y, e.loss).plot(('W1', 0, 0)); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def oriented(text):
    """Return the box of a text as it is drawn, turned with it, in pixels."""
    turn = text.get_rotation()
    text.set_rotation(0)
    extent = text.get_window_extent()
    text.set_rotation(turn)
    x, y = text.get_transform().transform(text.get_position())
    dx, dy, angle = (extent.x0 + extent.x1) / 2 - x, (extent.y0 + extent.y1) / 2 - y, np.radians(turn)
    c, s = np.cos(angle), np.sin(angle)
    return Box(x + c * dx - s * dy, y + s * dx + c * dy, extent.width, extent.height, angle)


def corners(box):
    c, s = np.cos(box.angle), np.sin(box.angle)
    ends = [(a * box.wide / 2, b * box.high / 2) for a in (-1, 1) for b in (-1, 1)]
    return np.array([(box.x + c * a - s * b, box.y + s * a + c * b) for a, b in ends])


def overlapping(ax):
    """Return the pairs of texts whose boxes overlap, texts on units they are not of, and texts cut by the edge."""
    from matplotlib.patches import Circle, FancyBboxPatch

    figure = ax.figure
    figure.draw_without_rendering()
    boxes = [(text.get_text(), oriented(text)) for text in ax.texts]
    pairs = [(a, b) for i, (a, first) in enumerate(boxes) for b, second in boxes[:i] if first.touches(second)]
    for circle in (patch for patch in ax.patches if isinstance(patch, Circle)):
        (x, y), (u, _) = ax.transData.transform([circle.center, (circle.center[0] + circle.radius, 0)])
        unit = Box(x, y, 1.4 * (u - x), 1.4 * (u - x))  # the square within it
        pairs += [(a, "unit") for a, box in boxes if a not in (r"$\Sigma$", "$f$") and box.touches(unit)]
    (frame,) = (patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch))
    frame = Box(*frame.min / 2 + frame.max / 2, frame.width, frame.height)
    pairs += [(a, "frame") for a, box in boxes if not a.startswith("$L$") and box.touches(frame)]
    boxes.append(("frame", frame))
    low, high = figure.bbox.min, figure.bbox.max
    cut = [a for a, box in boxes if (corners(box) < low).any() or (corners(box) > high).any()]
    return pairs, cut


def test_boxes_that_overlap_are_seen():
    ax = explained("tanh-2-2-2-1").plot()
    ax.text(0, ax.texts[0].get_position()[1], "over the first unit", rotation=30, rotation_mode="anchor")
    ax.text(ax.get_xlim()[1], 0, "over the edge", rotation=-20, rotation_mode="anchor")
    ax.figure.set_layout_engine("none")
    pairs, cut = overlapping(ax)
    assert cut == ["over the edge"]
    assert {a for a, _ in pairs} >= {"over the first unit"}


OPTIONS = {
    "symbols": {},
    "values": {"values": True},
    "deltas": {"deltas": True},
    "both": {"values": True, "deltas": True},
}


def of_widths(*widths, rng, function=mb.Tanh):
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (mb.Linear(a, b), function())]
    model = mb.Sequential(*layers, rng=rng)
    return mb.explain(model, rng.normal(size=(1, widths[0])), rng.normal(size=(1, widths[-1])), mb.MSE())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("highlight", [None, ("W1", 0, 0)], ids=["all", "W1"])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_overlaps_in_the_notebooks_networks(name, highlight, options):
    assert overlapping(explained(name).plot(highlight, **options)) == ([], [])


@pytest.mark.parametrize("options", [OPTIONS["symbols"], OPTIONS["both"]], ids=["symbols", "both"])
@pytest.mark.parametrize(
    "widths", [(1, 1), (2, 3, 1), (3, 3, 3), (30, 9), (3, 4, 2, 2), (8, 8, 8), (2, 8, 8, 1)], ids=str
)
def test_nothing_overlaps_or_is_cut(widths, options, rng):
    ex = of_widths(*widths, rng=rng)
    assert overlapping(ex.plot(("W1", 0, 0), direction="both", **options)) == ([], [])
    assert overlapping(ex.plot(**options)) == ([], [])


def test_a_minus_sign_is_not_covered():
    """Of a weight's label, by the white ground of its unit's."""
    model = mb.Sequential(mb.Linear(3, 4), mb.Tanh(), mb.Linear(4, 2), mb.ReLU(), mb.Linear(2, 2), rng=0)
    ex = mb.explain(model, [0.5, -1.0, 2.0], [0.0, 0.0], mb.MSE())
    ax = ex.plot(highlight=("W1", 0, 1), values=True, deltas=True, direction="both")
    assert overlapping(ax) == ([], [])
    weights = [digits.number(ex["W1"].value[0, 1])]
    weights += [digits.number(entry) for entry in (*ex["W2"].value[:, 0], *ex["W3"].value.ravel())]
    assert sorted(text.get_text().strip() for text in ax.texts if text.get_rotation_mode() == "anchor") == sorted(
        weights
    )


@pytest.mark.parametrize("size", [(3, 2), (5, 5), (16, 4)], ids=str)
def test_in_axes_of_any_size_letters_fit(size, rng):
    from matplotlib.figure import Figure

    ax = Figure(figsize=size).add_subplot()
    of_widths(3, 4, 2, rng=rng).plot(("W1", 0, 1), values=True, deltas=True, ax=ax)
    assert overlapping(ax) == ([], [])


def test_a_label_without_room_is_left_out():
    line = segment((0, 0), (4, 0))
    post = Box(2, 1, 3.8, 2.2)
    assert clear({0: (1, 0.3)}, {0: line}, [post]) == ({}, False)
    found, free = clear({0: (1, 0.3)}, {0: line, 1: segment((1, -1), (1, 1))}, [])
    assert free
    assert abs(found[0].x - 1) > 0.5
    found, free = clear({0: (3, 0.3)}, {0: line, 1: segment((2, -1), (2, 1))}, [])
    assert list(found) == [0]  # across another line, as there is no other place
    assert not free


def test_labels_of_lines_side_by_side_keep_clear_of_each_other():
    lines = {0: segment((0, 0), (4, 0)), 1: segment((0, 0.1), (4, 0.1))}
    found, free = clear({0: (1, 0.3), 1: (1, 0.3)}, lines, [])
    assert not found[0].touches(found[1])
    assert not free  # each is on the other's line


def test_wide_layers_are_elided_around_the_chosen_units(rng):
    model = mb.Sequential(mb.Linear(30, 12), mb.Tanh(), mb.Linear(12, 1), rng=rng)
    ex = mb.explain(model, rng.normal(size=(2, 30)), rng.normal(size=(2, 1)), mb.MSE())
    shown = texts(ex.plot(("W1", 6, 17)))
    assert "$A_{0}[17]$" in shown
    assert "$A_{1}[6]$" in shown
    assert "$A_{0}[10]$" not in shown
    assert {"⋮ 13 more", "⋮ 9 more", "⋮ 2 more"} <= set(shown)


def test_layers_of_a_users(rng):
    model = mb.Sequential(Scale(2), mb.Linear(2, 2), Leak(), mb.Linear(2, 1), mb.Sigmoid(), mb.Tanh(), rng=rng)
    ex = mb.explain(model, rng.normal(size=(2, 2)), rng.normal(size=(2, 1)), mb.MSE())
    ax = ex.plot(("scale1", 1) if "scale1" in ex else ("s1", 1))
    assert lines(ax).count(DARK) > 0
    assert "$f$" in texts(ax)  # a function that is not known to be one of a number
    ex.plot(("W2", 0, 1), values=True, deltas=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"highlight": "W1"}, TypeError, "plot: highlight: expected a name and an index"),
        ({"highlight": ()}, TypeError, "plot: highlight: expected a name and an index"),
        ({"highlight": ("Z1", 0)}, KeyError, "no parameter 'Z1'"),
        ({"direction": "up"}, ValueError, "plot: direction is one of 'forward', 'backward', 'both', got str 'up'"),
        ({"direction": ["forward"]}, ValueError, "plot: direction is one of"),
        ({"ax": "axes"}, TypeError, "plot: ax: expected matplotlib axes"),
        ({"values": 1}, TypeError, "plot: values: expected True or False"),
        ({"values": True, "row": 3}, IndexError, "plot: row: the batch has 1 example, got 3"),
        ({"values": True, "row": 0.0}, TypeError, "plot: row: expected an integer"),
        ({"row": -2}, IndexError, "plot: row: the batch has 1 example, got -2"),
        ({"row": 0.0}, TypeError, "plot: row: expected an integer"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        explained("relu-1-1").plot(**options)


def test_axes_of_other_kinds():
    from matplotlib.figure import Figure

    figure = Figure()
    for kind in ("polar", "3d"):
        with pytest.raises(TypeError, match="plot: ax: expected matplotlib axes, neither polar nor 3d, got "):
            explained("relu-1-1").plot(ax=figure.add_subplot(projection=kind))
    ax = figure.add_subplot()
    ax.set(xscale="log", yscale="symlog")
    explained("relu-1-1").plot(ax=ax)
    assert ax.get_xlim()[0] < 0


def test_what_has_no_curve_is_an_f():
    class Log(mb.Layer):
        """Warns below zero."""

        elementwise = True

        def forward(self, x, out=None):
            self.x = x
            return np.log(x, out=out)

        def backward(self, delta, out=None):
            return np.divide(delta, self.x, out=out)

    class Pair(mb.Layer):
        """Takes rows of two only."""

        elementwise = True

        def forward(self, x, out=None):
            if x.shape[1] != 2:
                raise RuntimeError("rows of two")
            return np.negative(x, out=out)

        def backward(self, delta, out=None):
            return np.negative(delta, out=out)

    for layer in (Log(), Pair(), mb.Dropout(0.5, rng=0)):
        ax = mb.explain(mb.Sequential(layer), np.ones((1, 2)), np.zeros((1, 2)), mb.MSE()).plot()
        assert texts(ax).count("$f$") == 2
        assert not ax.lines
    assert len(mb.explain(mb.Sequential(mb.Tanh()), np.ones((1, 2)), np.zeros((1, 2)), mb.MSE()).plot().lines) == 2


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match=r"plot: needs matplotlib; pip install 'matbackprop\[viz\]'"):
        explained("relu-1-1").plot()
