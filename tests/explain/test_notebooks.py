"""The blanks of the notebooks, and the step of a worked example that fills each.

Every number is held against torch, whose intermediates keep their gradients, and those of "Backpropagation by example"
against what that notebook prints.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import matbackprop as mb
from explain.reference import quantities
from matbackprop.notebooks import NETWORKS, load

WORKED = Path(__file__).parents[2] / "docs" / "worked"


def explained(name, **options):
    given = load(name)
    return given, mb.explain(given.model, given.x, given.y, given.loss, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_number_against_torch(name, torch):
    given, ex = explained(name, lr=0.5)
    expected = quantities(torch, given.model, given.x, given.y, given.loss, lr=0.5)
    assert sorted(ex.names) == sorted(expected)  # none is left out, on either side
    for step in ex:
        assert step.shape == expected[step.name].shape, step.name
        assert_allclose(step.value, expected[step.name], rtol=1e-12, atol=0, err_msg=step.name)


# What each notebook leaves blank, in its own symbols, and the step that fills it. "Deep dive into backpropagation" are
# two notebooks: in both, sections headed "Algebraic computation" end where they begin.

ONE_NEURON = {  # "Deep dive into backpropagation", y = w x + b
    "∂E/∂w": "∂L/∂W1",
    "∂E/∂b": "∂L/∂b1",
}
TANH = {  # "Deep dive into backpropagation", 2-2-2-1: w9 and w10 are the two entries of W3
    "∂E/∂w10": "∂L/∂W3",
    "∂E/∂w9": "∂L/∂W3",
}
A2 = {  # "A2 - Neural Nets: Backprop"
    # the table of forward values
    "z(2) = Σ w(1) x + b(1)": "Z1",
    "h(2) = max{z(2), 0}": "A1",
    "z(3) = Σ w(2) h(2) + b(2)": "Z2",
    "h(3) = max{z(3), 0}": "A2",
    "z = Σ w(3) h(3) + b(3)": "Z3",
    "ŷ = σ(z)": "A3",
    "L": "L",
    # the table of local derivatives, left column
    "∂z(2)/∂w(1)": "A0",
    "∂h(2)/∂z(2)": "∂A1/∂Z1",
    "∂z(3)/∂w(2)": "A1",
    "∂h(3)/∂z(3)": "∂A2/∂Z2",
    "∂z/∂w(3)": "A2",
    "∂ŷ/∂z": "∂A3/∂Z3",
    "∂L/∂ŷ": "∂L/∂A3",
    # and right column
    "∂z(2)/∂x": "W1",
    "∂z(3)/∂h(2)": "W2",
    "∂z/∂h(3)": "W3",
    # the chain rule
    "∂L/∂z": "Δ3",
    "∂L/∂w(3)": "∂L/∂W3",
    "∂L/∂w(2)": "∂L/∂W2",
    "∂L/∂w(1)": "∂L/∂W1",
}
BLANKS = {"linear-1-1": ONE_NEURON, "tanh-2-2-2-1": TANH, "relu-bce-2-2-3-1": A2}


PAGES = {"linear-1-1": "deep-dive-one-neuron", "tanh-2-2-2-1": "deep-dive-tanh", "relu-bce-2-2-3-1": "a2-backprop"}


@pytest.mark.skipif(not WORKED.exists(), reason="the tests stand alone, without the checkout")
@pytest.mark.parametrize("name", BLANKS)
def test_no_blank_is_left_on_the_site(name):
    page = (WORKED / f"{PAGES[name]}.md").read_text("utf-8").replace('"Ŷ"', '"A3"')
    shown = set(re.findall(r'"([^"\s]+)"', page))
    assert set(BLANKS[name].values()) <= shown


@pytest.mark.parametrize("name", BLANKS)
def test_every_blank_is_filled(name, torch):
    given, ex = explained(name)
    expected = quantities(torch, given.model, given.x, given.y, given.loss)
    for blank, step in BLANKS[name].items():
        assert_allclose(ex[step].value, expected[step], rtol=1e-12, atol=0, err_msg=blank)


S = np.e / (1 + np.e)  # σ(1); the derivation is in tests/test_notebooks.py


@pytest.mark.parametrize(
    ("blank", "value"),
    [
        ("z(2) = Σ w(1) x + b(1)", [[1, -1]]),
        ("h(2) = max{z(2), 0}", [[1, 0]]),
        ("z(3) = Σ w(2) h(2) + b(2)", [[1, -1, 1]]),
        ("h(3) = max{z(3), 0}", [[1, 0, 1]]),
        ("z = Σ w(3) h(3) + b(3)", [[1]]),
        ("ŷ = σ(z)", [[S]]),
        ("L", np.log(1 + np.e)),
        ("∂h(2)/∂z(2)", [[1, 0]]),
        ("∂h(3)/∂z(3)", [[1, 0, 1]]),
        ("∂ŷ/∂z", [[S * (1 - S)]]),
        ("∂L/∂ŷ", [[1 + np.e]]),
        ("∂L/∂z", [[S]]),
        ("∂L/∂w(3)", [[S, 0, S]]),
        ("∂L/∂w(2)", [[S, 0], [0, 0], [0, 0]]),
        ("∂L/∂w(1)", [[S, -S], [0, 0]]),
    ],
)
def test_a2_by_hand(blank, value):
    _, ex = explained("relu-bce-2-2-3-1")
    assert_allclose(ex[A2[blank]].value, value, rtol=1e-14)


def test_the_deep_dive_by_its_own_formulas():
    """2 (y - y*) x and 2 (y - y*); 2 (y - y*) y4 and 2 (y - y*) y3: naive, along paths, and as matrix products."""
    given, ex = explained("linear-1-1")
    error = 2 * (ex["Ŷ"].value - given.y).item()
    assert_allclose(ex["∂L/∂W1"].value, [[error * given.x.item()]], rtol=1e-15)
    assert_allclose(ex["∂L/∂b1"].value, [error], rtol=1e-15)

    given, ex = explained("tanh-2-2-2-1")
    error = 2 * (ex["Ŷ"].value - given.y).item()
    y3, y4 = ex["A2"].value[0]
    assert_allclose(ex["∂L/∂W3"].value, [[error * y3, error * y4]], rtol=1e-15)
    w9, w10 = ex.paths("W3", 0, 0), ex.paths("W3", 0, 1)
    assert w9[0].symbols == "Δ3[0,0] · A2[0,0]"
    assert w10[0].symbols == "Δ3[0,0] · A2[0,1]"
    assert_allclose([w9.total, w10.total], [error * y3, error * y4], rtol=1e-15)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_by_its_paths(name):
    """The scalar view meets the matrix view at every weight and bias of every notebook."""
    _, ex = explained(name)
    for parameter in [key for stage in ex.stages for key in stage.parameters.values()]:
        gradient = ex[f"∂L/∂{parameter}"].value
        totals = [ex.paths(parameter, *index).total for index in np.ndindex(gradient.shape)]
        assert_allclose(np.reshape(totals, gradient.shape), gradient, rtol=1e-14, atol=0)


# "Backpropagation by example", as it prints its numbers, weights transposed to (out, in).

PRINTED = {
    "relu-1-1": {
        "A1": [[0.55]], "L": 0.16, "∂L/∂W1": [[-0.4]], "∂L/∂b1": [-0.8],
        "W1⁺": [[0.5]], "b1⁺": [0.8], "Ŷ⁺": [[1.05]], "L⁺": 0.01,
    },
    "relu-1-1-1": {
        "A1": [[0.55]], "A2": [[0.21]], "L": 0.5476,
        "∂L/∂W2": [[-0.814]], "∂L/∂b2": [-1.48], "∂L/∂W1": [[-0.148]], "∂L/∂b1": [-0.296],
    },
    "relu-1-2-1": {
        "A1": [[0.55, 0.2]], "A2": [[0.495]], "L": 0.2070,
        "∂L/∂W2": [[-0.5005, -0.1820]], "∂L/∂b2": [-0.91],
        "∂L/∂W1": [[-0.0455], [-0.3185]], "∂L/∂b1": [-0.091, -0.637],
    },
    "relu-1-2-2-1": {
        "A1": [[0.55, 0.2]], "A2": [[0.475, 0.78]], "A3": [[0.958]], "L": 6.4001e-05,
        "∂L/∂W3": [[0.0076, 0.0125]], "∂L/∂b3": [0.016],
        "∂L/∂W2": [[0.0035, 0.0013], [0.0053, 0.0019]], "∂L/∂b2": [0.0064, 0.0096],
        "∂L/∂W1": [[0.0042], [0.0053]], "∂L/∂b1": [0.0083, 0.0106],
    },
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", PRINTED)
def test_by_example_as_it_is_printed(name, dtype):
    given = load(name)
    ex = mb.explain(given.model.astype(dtype), given.x, given.y, given.loss, lr=0.5)
    for step, printed in PRINTED[name].items():
        # four decimals, and the float32 in which a half was rounded; the one loss has five significant digits
        atol = 1e-8 if printed == 6.4001e-05 else 0.5001e-4
        assert_allclose(ex[step].value, printed, rtol=0, atol=atol, err_msg=step)
        assert ex[step].value.dtype == dtype
    if name == "relu-1-2-2-1" and dtype == np.float32:
        assert f"{float(ex['L']):.4e}" == "6.4001e-05"


def test_the_notebook_leaves_the_example_as_it_is():
    given, ex = explained("relu-1-1", lr=0.5)
    assert_array_equal(given.model.parameters, [0.3, 0.4])
    assert_array_equal(ex["W1"].value, [[0.3]])
