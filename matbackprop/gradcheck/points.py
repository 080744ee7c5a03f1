"""`check_layer` and `check_model`: at the points that bugs hide from."""

from __future__ import annotations

import numpy as np

from matbackprop.flat import named_parameters
from matbackprop.gradcheck.api import check_problem, combined
from matbackprop.gradcheck.at_zero import kink_at_zero
from matbackprop.gradcheck.models import draw, layer_problem, layered_problem, model_problem, parameters_of
from matbackprop.gradcheck.report import GradientReport, Reason, Verdict
from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU
from matbackprop.loss import Loss
from matbackprop.sequential import Sequential
from matbackprop.validation import Array, as_array, as_rng, as_tolerance, describe

__all__ = ["check_layer", "check_model"]

SATURATED = "saturated"
BALANCED = "every ReLU unit on and off"


def check_layer(
    layer: Layer,
    x: Array,
    *,
    rng: int | np.random.Generator | None = None,
    points: bool = True,
    tolerance: float | None = None,
) -> GradientReport:
    """Check a layer's backward pass: ∂L/∂x and the gradient of every parameter, under a random upstream Δ.

    L = Σ Δ ⊙ layer(x) is the function, and what `backward` returns and leaves is its gradient. A copy of the layer is
    checked; the layer itself is not touched.

    Parameters
    ----------
    layer : Layer
        One of the library's, your own, or a Sequential.
    x : array_like, shape (N, in)
        A batch. Beyond it the checker chooses its own points, unless `points` is False: batches of 1, 2 and 7 rows,
        exact zeros, and a saturated batch.
    rng : int, numpy.random.Generator or None, keyword-only
    points : bool, default True
    tolerance : float, optional
        See `check_gradient`.

    Returns
    -------
    GradientReport
        Whose `parts` are the reports of the single points.

    Raises
    ------
    TypeError, ValueError
        If `layer` is no layer, or `x` does not fit it.

    Examples
    --------
    >>> import matbackprop as mb
    >>> bool(mb.check_layer(mb.Linear(3, 2, rng=0), np.ones((4, 3)), rng=0))
    True
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"check_layer: expected a Layer, got {describe(layer)}; a class is not one yet: make one first")
    generator = as_rng(rng, "check_layer: rng")
    tolerance = as_tolerance(tolerance, "check_layer: tolerance")
    layer = layer.copy()
    draw(layer)
    x = as_array(x, "check_layer: x", _dtype(layer, x))
    if not x.size:
        raise ValueError(f"check_layer: x: expected at least one row, got shape {x.shape}")
    layer.forward(x)  # what does not fit is an error here, in the layer's own words
    live = parameters_of(layer)
    start = {name: array.copy() for name, array in live.items()}
    parts = []
    # One copy goes through all batches in turn, so that whatever it keeps from the one before shows; but a check leaves
    # it with the parameters that it looked at last.
    for name, batch in _batches(x, generator) if points else [("the batch given", x)]:
        for key, array in live.items():
            array[...] = start[key]
        problem, hypotheses = layer_problem(layer, batch, generator)
        parts.append(check_problem(problem, generator, tolerance, name=name, hypotheses=hypotheses))
        if _random(parts[0]):
            points = False
            break
    if points:
        parts += kink_at_zero(layer, x)
    return _together(parts, repr(layer))


def check_model(
    model: Sequential,
    loss: Loss,
    x: Array,
    y: Array,
    *,
    rng: int | np.random.Generator | None = None,
    points: bool = True,
    tolerance: float | None = None,
) -> GradientReport:
    """Check the gradient that a model's `backprop` computes, and its layer-by-layer backward pass.

    Parameters
    ----------
    model : Sequential
        A copy is checked; the model itself is not touched.
    loss : Loss
    x, y : array_like, shapes (N, in) and (N, out)
        A batch. Beyond it the checker chooses its own points, unless `points` is False: batches of 1, 2 and 7 rows made
        from this one, exact zeros, saturation, and biases such that each ReLU unit is on for some rows and off for
        others.
    rng, points, tolerance
        As in `check_layer`.

    Returns
    -------
    GradientReport

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(2, 3), mb.ReLU(), mb.Linear(3, 1), rng=0)
    >>> x, y = np.array([[0.0, 1.0], [1.0, 0.5]]), np.array([[1.0], [0.0]])
    >>> bool(mb.check_model(model, mb.MSE(), x, y, rng=0))
    True
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"check_model: expected a Sequential, got {describe(model)}; for one layer use check_layer")
    generator = as_rng(rng, "check_model: rng")
    tolerance = as_tolerance(tolerance, "check_model: tolerance")
    model = model.copy()
    if not model.parameters.size:
        raise ValueError(f"check_model: {model!r} has no parameters; use check_layer")
    x = as_array(x, "check_model: x", model.dtype)
    if not x.size:
        raise ValueError(f"check_model: x: expected at least one row, got shape {x.shape}")
    model.backprop(x, y, loss)  # what does not fit is an error here, in the model's own words
    y = loss.as_targets(y, (*x.shape[:-1], model.output_width(x.shape[-1])), model.dtype, "check_model: y")
    start = model.parameters.copy()
    parts = []
    for name, a, b, parameters in _situations(model, x, y, generator) if points else [("the batch given", x, y, start)]:
        model.parameters = parameters
        idle = _idle(model, a) if name == BALANCED else []
        problem, hypotheses = model_problem(model, loss, a, b)
        parts.append(check_problem(problem, generator, tolerance, name=name, hypotheses=hypotheses))
        parts[-1].notes += idle
        if _random(parts[0]):
            points = False
            break
    if points:
        model.parameters = start
        problem = layered_problem(model, loss, x, y)
        parts.append(check_problem(problem, generator, tolerance, name="forward, loss.backward and backward"))
    return _together(parts, f"{model!r}, {loss!r}")


def _random(report: GradientReport) -> bool:
    """Return whether the function is random: then a small batch may seem repeatable, and its gradient wrong."""
    return report.reason_code is Reason.NOT_REPEATABLE


def _dtype(layer: Layer, x: object) -> np.dtype[np.floating]:
    """Return the type to check a layer in: its parameters', or x's where it is a float."""
    found = [array.dtype for array in named_parameters(layer).values()]
    dtype = found[0] if found else getattr(x, "dtype", None)
    return dtype if dtype in (np.float32, np.float64, np.longdouble) else np.dtype(np.float64)


def _together(parts: list[GradientReport], name: str) -> GradientReport:
    """Return one report for all points; of those that the checker chose itself, what shows nothing does not count."""
    counted = [parts[0]]
    for part in parts[1:]:
        if (part.verdict is Verdict.INCONCLUSIVE and part.reason_code is not Reason.GRAD_FAILED) or (
            part.verdict is Verdict.PRECISION_LOSS and part.name == SATURATED
        ):
            continue
        counted.append(part)
    if parts[0].reason_code in (Reason.KINK, Reason.STATIONARY) and counted[1:]:
        counted = counted[1:]
    report = combined(counted, name)
    report.parts = parts
    report.fun_calls, report.grad_calls = sum(p.fun_calls for p in parts), sum(p.grad_calls for p in parts)
    report.seconds = sum(p.seconds for p in parts)
    aside = [part for part in parts if part not in counted]
    report.notes += [f"{part.name}: {part.verdict}, {part.cause or part.reason}" for part in aside]
    report.notes += [note for part in parts if part.name == BALANCED for note in part.notes if "ReLU" in note]
    report.notes = list(dict.fromkeys(report.notes))
    return report


def _batches(x: Array, rng: np.random.Generator) -> list[tuple[str, Array]]:
    """Return the batches to check a layer at: the one given first."""
    width, typical = x.shape[-1], float(np.sqrt(np.mean(x.astype(np.float64) ** 2))) or 1.0
    sizes = (1, 2, 7)
    batches = [(f"N = {rows}", (typical * rng.standard_normal((rows, width))).astype(x.dtype)) for rows in sizes]
    zeros = (typical * rng.standard_normal((5, width))).astype(x.dtype)
    zeros[0] = 0.0
    zeros[1:][rng.random((4, width)) < 0.3] = 0.0
    far = rng.choice((-1.0, 1.0), (7, width)) * rng.uniform(4.0, 25.0, (7, width))
    far[::3] = rng.standard_normal((3, width))
    return [("the batch given", x), *batches, ("exact zeros", zeros), (SATURATED, far.astype(x.dtype))]


def _situations(
    model: Sequential, x: Array, y: Array, rng: np.random.Generator
) -> list[tuple[str, Array, Array, Array]]:
    """Return the batches and parameters to check a model at: what was given first."""
    start = model.parameters.copy()
    rows, targets = x.reshape(-1, x.shape[-1]), y.reshape(-1, *y.shape[x.ndim - 1 :])
    spread = float(rows.std()) or 1.0

    def batch(count: int) -> tuple[Array, Array]:
        chosen = rng.integers(len(rows), size=count)
        noise = 0.3 * spread * rng.standard_normal((count, rows.shape[1]))
        return (rows[chosen] + noise).astype(x.dtype), targets[chosen]

    found = [("the batch given", x, y, start)]
    found += [(f"N = {count}", *batch(count), start) for count in (1, 2, 7)]
    zeros, targets_zeros = batch(5)
    zeros[0] = 0.0
    zeros[1:][rng.random(zeros[1:].shape) < 0.3] = 0.0
    found.append(("exact zeros", zeros, targets_zeros, start))
    far, targets_far = batch(7)
    found.append((SATURATED, far * x.dtype.type(20.0 / spread), targets_far, start))
    if any(isinstance(layer, ReLU) for layer in model.leaves()):
        found.append((BALANCED, *_balanced(model, *batch(8), start)))
    return found


def _balanced(model: Sequential, x: Array, y: Array, start: Array) -> tuple[Array, Array, Array]:
    """Return parameters for which every ReLU unit after a bias is on for half of the rows and off for the others."""
    model.parameters = start
    layers, a = model.leaves(), x
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        z = layer.forward(a)
        if isinstance(layer, Linear) and isinstance(after, ReLU) and layer.has_bias:
            ordered = np.sort(z, axis=0)
            middle = len(ordered) // 2
            layer.bias = layer.bias - (ordered[middle - 1] + ordered[middle]) / 2
            z = layer.forward(a)
        a = z
    parameters = model.parameters.copy()
    model.parameters = start
    return x, y, parameters


def _idle(model: Sequential, x: Array) -> list[str]:
    """Return which ReLU units are on, or off, for all rows of `x`, as notes."""
    notes, a = [], x
    for number, layer in enumerate(model.leaves()):
        if isinstance(layer, ReLU):
            share = (a.reshape(-1, a.shape[-1]) > 0).mean(axis=0)
            for what, units in (("on", np.flatnonzero(share == 1)), ("off", np.flatnonzero(share == 0))):
                if units.size:
                    names = ", ".join(map(str, units[:6])) + (", ..." if units.size > 6 else "")
                    notes.append(
                        f"layer {number}, ReLU: unit {names} is {what} for every row, and no bias before it could "
                        "change that: the other side was not checked"
                    )
        a = layer.forward(a)
    return notes
