"""Against golden values: numbers that torch computed, kept in golden/golden.json, for those who have no torch.

golden/make_golden.py wrote the file, which names torch's version and the day.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import matbackprop as mb

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("golden.json").read_text(encoding="utf-8"))

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


def cases(kind):
    """Parametrise a test with the cases of a kind, each under its layer's or loss's name and its number."""
    ids = [f"{case.get('layer', case.get('loss'))[0]}-{number}" for number, case in enumerate(GOLDEN[kind])]
    return pytest.mark.parametrize("case", GOLDEN[kind], ids=ids)


def build(spec, **more):
    """Make a layer or a loss from its name and arguments."""
    name, arguments = spec
    return getattr(mb, name)(**arguments, **more)


def agree(ours, golden, dtype, steps=10):
    """Assert equality within so many rounding steps of the array's largest entry (sums cancel, entries by themselves).

    Both types' bounds, for a whole network and a training too, lie within 1e-12 and 1e-5.
    """
    golden = np.array(golden, dtype)
    assert (ours.dtype, ours.shape) == (golden.dtype, golden.shape)
    np.testing.assert_allclose(ours, golden, 0, steps * np.finfo(dtype).eps * np.abs(golden).max())


@dtypes
@cases("layers")
def test_layer(case, dtype):
    linear = case["layer"][0] == "Linear"
    layer = build(case["layer"], **({"dtype": dtype} if linear else {}))
    for name, value in case["parameters"].items():
        setattr(layer, name, value)
    golden = case[dtype]
    agree(layer.forward(np.array(case["x"], dtype)), golden["y"], dtype)
    agree(layer.backward(np.array(case["upstream"], dtype)), golden["x_grad"], dtype)
    for name, value in golden["gradients"].items():
        agree(getattr(layer, f"{name}_grad"), value, dtype)


@dtypes
@cases("losses")
def test_loss(case, dtype):
    loss = build(case["loss"])
    value = loss(np.array(case["y_pred"], dtype), case["y"], case["weight"])
    agree(np.asarray(value, dtype), case[dtype]["value"], dtype)
    agree(loss.backward(), case[dtype]["gradient"], dtype)


def network(case, dtype):
    """Return the model, and the arguments of backprop."""
    model = mb.Sequential(*map(build, case["layers"]), dtype=dtype)
    model.load_state_dict(case["parameters"])
    return model, (case["x"], case["y"], build(case["loss"])), {"sample_weight": case["weight"]}


def flat(arrays):
    return [number for array in arrays.values() for number in np.ravel(array)]


@dtypes
@cases("networks")
def test_network(case, dtype):
    model, (x, y, loss), weight = network(case, dtype)
    golden = case[dtype]
    gradient = flat(golden["gradients"])
    y_pred = model(x)
    agree(y_pred, golden["y_pred"], dtype, 40)
    agree(np.asarray(loss(y_pred, y, **weight), dtype), golden["value"], dtype, 40)
    agree(model.backward(loss.backward()), golden["x_grad"], dtype, 40)
    agree(model.gradients, gradient, dtype, 40)

    value, fresh = model.value_and_grad(x, y, loss, **weight)
    agree(np.asarray(value, dtype), golden["value"], dtype, 40)
    agree(fresh, gradient, dtype, 40)


@dtypes
@cases("trainings")
def test_training(case, dtype):
    model, batch, weight = network(case, dtype)
    values = []
    for _ in case[dtype]["values"]:
        values.append(model.backprop(*batch, **weight))
        model.parameters -= GOLDEN["about"]["learning_rate"] * model.gradients
    agree(np.array(values, dtype), case[dtype]["values"], dtype, 40)
    agree(model.parameters, flat(case[dtype]["trained"]), dtype, 40)
