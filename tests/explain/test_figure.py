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
from matbackprop.worked.figure import DARK, LIGHT, PLAIN

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
    return [text.get_text() for text in ax.texts if colour in (None, text.get_color())]


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


def overlapping(ax):
    """Return the pairs of texts whose boxes overlap, in a figure as it is saved."""
    figure = ax.figure
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in ax.texts if not text.get_rotation()]
    pairs = [(a, b) for i, (a, first) in enumerate(boxes) for b, second in boxes[:i] if first.overlaps(second)]
    inside = figure.bbox
    cut = [a for a, box in boxes if not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0)]
    return pairs, cut


@pytest.mark.parametrize("options", [{}, {"values": True, "deltas": True}], ids=["symbols", "numbers"])
@pytest.mark.parametrize("widths", [(1, 1), (2, 3, 1), (8, 8), (30, 9)], ids=str)
def test_nothing_overlaps_or_is_cut(widths, options, rng):
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (mb.Linear(a, b), mb.Tanh())]
    model = mb.Sequential(*layers, rng=rng)
    x, y = rng.normal(size=(1, widths[0])), rng.normal(size=(1, widths[-1]))
    ax = mb.explain(model, x, y, mb.MSE()).plot(("W1", 0, 0), **options)
    assert overlapping(ax) == ([], [])


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
