"""One flat vector for all parameters of a model, and one for all gradients: how layers come to share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from matbackprop import aligned
from matbackprop.initializers import RULES
from matbackprop.layer import Layer
from matbackprop.parameter import Layout
from matbackprop.validation import Array, as_array, as_size, describe

__all__ = [
    "check_chain",
    "common_dtype",
    "draw",
    "flatten",
    "named_gradients",
    "named_parameters",
    "own_gradients",
    "size",
    "stand_in",
    "width_after",
]


def named_parameters(layer: Layer) -> dict[str, Array]:
    """Return every parameter in and below the layer, in order, under torch's names: "0.weight", "0.bias", ..."""
    return {prefix + name: array for prefix, part in layer.walk() for name, array in part._parameters.items()}


def named_gradients(layer: Layer) -> dict[str, Array]:
    """Return the gradient of every parameter in and below the layer, under the same names."""
    return {prefix + name: array for prefix, part in layer.walk() for name, array in part._gradients.items()}


def size(layer: Layer) -> int:
    """Return the number of parameters in and below the layer."""
    return sum(array.size for array in named_parameters(layer).values())


def check_chain(layers: Sequence[Any]) -> None:
    """Check that these are layers, each free and standing once, and that each takes what the one before gives.

    Raises
    ------
    TypeError
        If something is not a layer.
    ValueError
        If there is none, one appears twice or is part of another model, or the widths do not fit.
    """
    if not layers:
        raise ValueError("Sequential: expected at least one layer, got none")
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            hint = ""
            if isinstance(layer, type) and issubclass(layer, Layer):
                hint = f"; make one with {layer.__name__}(...)"
            elif isinstance(layer, (list, tuple)):
                hint = "; unpack it with Sequential(*layers)"
            raise TypeError(f"Sequential: layer {index} must be a Layer, got {describe(layer)}{hint}")
    _check_unowned(layers)
    _check_widths(layers)


def _check_unowned(layers: Sequence[Layer]) -> None:
    seen: dict[int, str] = {}

    def visit(layer: Layer, name: str, within: bool) -> None:
        if id(layer) in seen:
            raise ValueError(
                f"Sequential: {name}, {layer!r}, is {seen[id(layer)]} again; a layer holds its own gradients and "
                "can appear once. Use layer.copy()"
            )
        if layer.adopted and not within:
            raise ValueError(
                f"Sequential: {name}, {layer!r}, is part of another model already, which owns its parameters. "
                "Use layer.copy()"
            )
        seen[id(layer)] = name
        for child, part in layer.children():
            visit(part, f"{name}.{child}", layer.owns_children or layer.adopted)

    for index, layer in enumerate(layers):
        visit(layer, f"layer {index}", False)


def _check_widths(layers: Sequence[Layer]) -> None:
    width: int | None = None
    for index, layer in enumerate(layers):
        wanted = layer.in_features
        if width is not None and wanted is not None and wanted != width:
            raise ValueError(
                f"Sequential: layer {index}, {layer!r}, takes {wanted} features, but layer {index - 1}, "
                f"{layers[index - 1]!r}, gives {width}"
            )
        width = wanted if width is None else width
        width = None if width is None else width_after(layer, width, f"Sequential: layer {index}, {layer!r}")


def common_dtype(layers: Sequence[Layer], requested: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return the one type that was asked for, of the model or its layers, or float64.

    Raises
    ------
    TypeError
        If two types were asked for, or a layer's parameters do not fit it.
    """
    parts = [(f"{index}.", part) for index, layer in enumerate(layers) for _, part in layer.walk()]
    wanted = list({requested, *(part.requested_dtype for _, part in parts)} - {None}) or [np.dtype(np.float64)]
    if len(wanted) > 1:
        asked = " and ".join(sorted(dtype.name for dtype in wanted if dtype is not None))
        raise TypeError(
            f"Sequential: a model has one dtype, but {asked} were asked for; give the dtype to the Sequential alone"
        )
    dtype = wanted[0]
    assert dtype is not None
    for prefix, part in parts:
        if dtype.kind != "c" and any(array.dtype.kind == "c" for array in part._parameters.values()):
            raise TypeError(
                f"Sequential: layer {prefix[:-1]}, {part!r}, has complex parameters, which a {dtype} model cannot "
                "hold; pass dtype=np.complex128"
            )
    return dtype


def width_after(layer: Layer, width: int, who: str | None = None) -> int:
    """Return the number of features that the layer makes of `width`.

    Raises
    ------
    TypeError, ValueError
        If it does not take so many, or a user's `output_width` returns no size.
    """
    who = who or layer.label
    if layer.in_features is not None and layer.in_features != width:
        raise ValueError(f"{who}: expected inputs of {layer.in_features} features, got {width}")
    result = layer.output_width(width)
    return width if result == width else as_size(result, f"{who}: output_width({width})")


def draw(leaves: Sequence[Layer], rng: np.random.Generator) -> bool:
    """Draw the weights that were not yet drawn, each by the rule that suits the activation after it.

    Returns
    -------
    bool
        Whether there was anything to draw.
    """
    waiting = [part for layer in leaves for _, part in layer.walk() if part.waits()]
    for index, layer in enumerate(leaves):
        wishes = ((after, after.preferred_init) for after in leaves[index + 1 :])
        after, rule = next(((after, rule) for after, rule in wishes if rule is not None), (layer, None))
        if rule is not None and rule not in RULES:
            raise ValueError(f"{after!r}: preferred_init: expected one of {list(RULES)}, got {rule!r}")
        for _, part in layer.walk():
            part.initialize(rule, rng)
    return bool(waiting)


def views(layer: Layer, vector: Array, start: int) -> dict[str, Array]:
    """Return the layer's own parameters' places in a vector, from `start` on, in their shapes."""
    result = {}
    for name, array in layer._parameters.items():
        result[name] = vector[start : start + array.size].reshape(array.shape)
        start += array.size
    return result


def spans(model: Layer) -> Iterator[tuple[int, str, Layer]]:
    """Yield each layer in and below the model with the place of its own parameters in the vectors, and its prefix."""
    start = 0
    for prefix, layer in model.walk():
        yield start, prefix, layer
        start += sum(array.size for array in layer._parameters.values())


def stand_in(layer: Layer, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Let zeros that take no memory stand for a parameter that was not yet drawn, and for its gradient."""
    layer._parameters[name] = layer._gradients[name] = np.broadcast_to(np.zeros((), dtype), shape)


def flatten(model: Layer, dtype: np.dtype[Any]) -> None:
    """Make all layers part of the model, and their parameters and gradients views into two vectors of this type."""
    count = size(model)
    layout = Layout(aligned.empty(count, dtype), aligned.zeros(count, dtype))
    moved = []
    for start, prefix, layer in spans(model):
        parameters, gradients = views(layer, layout.parameters, start), views(layer, layout.gradients, start)
        for name, place in parameters.items():
            place[...] = as_array(layer._parameters[name], f"{layer.label}.{name}", dtype)
            gradients[name][...] = layer._gradients[name]
        moved.append((start, prefix, layer, parameters, gradients))
    for start, prefix, layer, parameters, gradients in moved:  # nothing can fail from here on
        layer._parameters, layer._gradients = parameters, gradients
        layer._layout, layer._offset = layout, start
        layer.forget()
        if layer is not model:
            layer._adopted, layer._place, layer.requested_dtype = True, f"layer {prefix[:-1]}, ", None


def own_gradients(layers: Sequence[Layer], dtype: np.dtype[Any]) -> Array:
    """Give replicas gradients of their own, and return the vector of which they are views."""
    gradients, start = aligned.zeros(sum(map(size, layers)), dtype), 0
    for outer in layers:
        for _, layer in outer.walk():
            layer._gradients = views(layer, gradients, start)
            start += sum(array.size for array in layer._gradients.values())
    return gradients
