"""Plans: a model's NumPy calls for one batch size, prepared once, and who may overwrite which buffer.

A step then costs its calls and little else. The contract on buffers, in one place:

1. The caller's arrays (X, Y, weights) are never written to.
2. Forward, a layer writes over its input only if it is `in_place`, does not keep its input, is not the first, and
   the layer before does not keep its output. So Z becomes A = tanh Z in place, since Linear keeps only its input.
3. What a layer keeps (`keeps_input`, `keeps_output`) stays until its own backward has run.
4. Backward, Δ moves between two buffers. A layer reads it in one and writes ∂L/∂A into the other, or over it if it
   is `in_place`. Nobody reads a Δ after the layer below has used it.
5. Scratch belongs to a layer for one pass, and is anybody's afterwards.
6. Below the lowest layer that has parameters no Δ is needed, so none is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import prod
from typing import Any, Generic, TypeVar

import numpy as np

from matbackprop.calls import Call
from matbackprop.layer import Layer
from matbackprop.loss import Loss, Objective
from matbackprop.validation import Array
from matbackprop.workspace import Workspace

__all__ = ["Plans", "PredictPlan", "TrainingPlan"]

P = TypeVar("P")

#: An input of at most this many bytes is copied into the workspace, where prepared calls find it: 7 µs at the most.
#: For a larger one the first layer's calls are made anew, which takes 10 to 20 µs and no copy.
COPY_BYTES = 1 << 18


class Plans(Generic[P]):
    """The plans made so far and the workspace that they share.

    Parameters
    ----------
    limit : int
        How many plans are held; beyond it the oldest goes.
    """

    def __init__(self, limit: int = 32) -> None:
        self.workspace = Workspace()
        self.limit = limit
        self._plans: dict[Hashable, P] = {}

    def get(self, key: Hashable, make: Callable[[Workspace], P]) -> P:
        """Return the plan of that key, made by ``make(workspace)`` if there is none."""
        plan = self._plans.get(key)
        if plan is None:
            grown = self.workspace.grown
            plan = make(self.workspace)
            if self.workspace.grown > grown:
                self._plans.clear()  # they hold buffers that have been replaced
            elif len(self._plans) >= self.limit:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return plan


class TrainingPlan:
    """Loss and gradients for one batch size: forward, loss, backward.

    Parameters
    ----------
    layers : sequence of Layer
        In order; a trailing Sigmoid is left out where the loss takes its place.
    loss : Loss
    shape : tuple of int
        (rows, features) of the input.
    dtype : numpy.dtype
    y : numpy.ndarray
        Targets of the shape and type of those to come.
    weighted : bool
        Whether there are sample weights.
    workspace : Workspace

    Attributes
    ----------
    light : bool
        Whether the step is so small that BLAS keeps to one thread by itself.
    """

    light = True

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: Loss,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        y: Array,
        weighted: bool,
        workspace: Workspace,
    ) -> None:
        self.loss = loss
        fused = loss.through(layers[-1]) if len(layers) > 1 else None
        self.layers = list(layers if fused is None else layers[:-1])
        self.workspace = workspace
        self.outputs = self._place_outputs(*shape, dtype)
        self.forward: list[Call] = []
        for below, layer, output in zip(self.outputs, self.layers[1:], self.outputs[1:], strict=False):
            self.forward += layer.forward_steps(below, output, workspace.scratch("scratch"))

        prediction = self.outputs[-1]
        self.y = workspace.take("y", y.shape, y.dtype)
        self.weight = workspace.take("weight", loss.loss_shape(prediction.shape), dtype) if weighted else None
        delta = workspace.take(("delta", 0), prediction.shape, dtype)
        scratch = workspace.scratch("scratch")
        self.objective = Objective(fused or loss, prediction, self.y, self.weight, delta, scratch, loss)

        self.backward: list[Call] = []
        self.lowest = next((i for i, layer in enumerate(self.layers) if layer.has_parameters()), len(self.layers))
        self.first_delta = self._prepare_backward(delta)
        self.x_shape, self.dtype = shape, dtype
        self.x = workspace.take("x", shape, dtype) if prod(shape) * dtype.itemsize <= COPY_BYTES else None
        self.first = None if self.x is None else self._bind(self.x)

    def _place_outputs(self, rows: int, width: int, dtype: np.dtype[Any]) -> list[Array]:
        """Return the array that each layer writes to (rule 2)."""
        outputs: list[Array] = []
        name, before = 0, None
        for layer in self.layers:
            above = layer.output_width(width)
            fits = layer.in_place and above == width
            if before is None or not fits or layer.keeps_input or before.keeps_output:
                name += 1
            width = above
            outputs.append(self.workspace.take(("activation", name), (rows, width), dtype))
            before = layer
        return outputs

    def _prepare_backward(self, delta: Array) -> Array:
        """Prepare the backward calls of all layers but the first; return the Δ that reaches that (rules 4 and 6)."""
        spare = 1
        for index in range(len(self.layers) - 1, max(self.lowest - 1, 0), -1):
            layer, x, y = self.layers[index], self.outputs[index - 1], self.outputs[index]
            if index == self.lowest:
                out = None
            elif layer.in_place and x.shape == delta.shape:
                out = delta
            else:
                out, spare = self.workspace.take(("delta", spare), x.shape, x.dtype), 1 - spare
            self.backward += layer.backward_steps(x, y, delta, out, self.workspace.scratch("scratch"))
            delta = delta if out is None else out
        return delta

    def _bind(self, x: Array) -> tuple[list[Call], list[Call]]:
        """Return the first layer's calls for the input `x`: forward, and backward if it has parameters."""
        layer, output, delta = self.layers[0], self.outputs[0], self.first_delta
        forward = list(layer.forward_steps(x, output, self.workspace.scratch("scratch")))
        if self.lowest > 0:
            return forward, []
        return forward, list(layer.backward_steps(x, output, delta, None, self.workspace.scratch("scratch")))

    def fits(self, x: object, y: object, loss: Loss, weight: object) -> bool:
        """Return whether the plan serves this call as it stands: the quick way in for the same kind of batch again."""
        return (
            type(x) is np.ndarray
            and type(y) is np.ndarray
            and x.shape == self.x_shape
            and y.shape == self.y.shape
            and x.dtype == self.dtype
            and y.dtype == self.y.dtype
            and loss is self.loss
            and weight is None
            and self.weight is None
        )

    def run(self, x: Array, y: Array, weight: Array | None = None, divisor: float | None = None) -> float:
        """Fill the gradients and return the loss, a mean by `divisor` where the rows are a block of a larger batch."""
        self.y[...] = y
        if self.weight is not None:
            self.weight[...] = weight
        if self.x is not None and self.first is not None:
            self.x[...] = x
            first_forward, first_backward = self.first
        else:
            first_forward, first_backward = self._bind(self._contiguous(x))
        with np.errstate(invalid="ignore"):  # see matbackprop.calls.run
            for call in first_forward:
                call()
            for call in self.forward:
                call()
            value = self.objective.run(divisor)
            for call in self.backward:
                call()
            for call in first_backward:
                call()
        return value

    def _contiguous(self, x: Array) -> Array:
        """Return `x`, or a copy in the workspace if its rows do not lie one after the other, as BLAS wants them."""
        if x.flags.c_contiguous:
            return x
        buffer = self.workspace.take("x", self.x_shape, x.dtype)
        buffer[...] = x
        return buffer


class PredictPlan:
    """The output alone, for one block of rows: activations move between two buffers, and nothing is kept."""

    light = True  # as a TrainingPlan's

    def __init__(
        self, layers: Sequence[Layer], shape: tuple[int, int], dtype: np.dtype[Any], workspace: Workspace
    ) -> None:
        self.layers, self.workspace, self.x_shape = layers, workspace, shape
        rows, width = shape
        outputs: list[Array] = []
        name = 0
        for index, layer in enumerate(layers):
            above = layer.output_width(width)
            if index == 0 or not layer.in_place or above != width:
                name = 1 - name
            width = above
            outputs.append(workspace.take(("activation", name), (rows, width), dtype))
        self.first_output, self.output = outputs[0], outputs[-1]
        self.calls: list[Call] = []
        for below, layer, output in zip(outputs, layers[1:], outputs[1:], strict=False):
            self.calls += layer.predict_steps(below, output, workspace.scratch("scratch"))
        self.x = workspace.take("x", shape, dtype) if prod(shape) * dtype.itemsize <= COPY_BYTES else None
        self.first = None if self.x is None else self._bind(self.x)

    def _bind(self, x: Array) -> list[Call]:
        """Return the first layer's calls for the input `x`."""
        return list(self.layers[0].predict_steps(x, self.first_output, self.workspace.scratch("scratch")))

    def run(self, x: Array) -> Array:
        """Return the output for the rows `x`, in a buffer of the workspace."""
        if self.x is not None and self.first is not None:
            self.x[...] = x
            first = self.first
        else:
            first = self._bind(x)
        with np.errstate(invalid="ignore"):  # see matbackprop.calls.run
            for call in first:
                call()
            for call in self.calls:
                call()
        return self.output
