"""Sequential: a chain of layers over one flat vector of parameters and one of gradients."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike

from matbackprop.layer import Layer
from matbackprop.loss import Loss, as_weight, check_finite, check_same_shape
from matbackprop.plan import Plans, PredictPlan, TrainingPlan
from matbackprop.validation import Array, as_array, as_dtype, as_out, as_rng, as_size, check_features, describe

__all__ = ["Sequential"]

#: `predict` works in blocks of rows whose widest activation takes about this many bytes, so that it stays in cache.
BLOCK_BYTES = 1 << 18


class Sequential(Layer):
    """A chain of layers, with every parameter in one flat vector and every gradient in another.

    The layers become part of the model: their `weight`, `bias` and gradients are from then on views into the two
    vectors, which are never replaced. A Sequential is itself a layer and can stand in another one.

    Parameters
    ----------
    *layers : Layer
        In order. Each can be part of one model only.
    dtype : dtype, keyword-only, default float64
        What the model computes in: float32, float64, longdouble, or a complex type for complex-step derivatives.
        By default the type that its layers were made with, if any was.
    rng : int, numpy.random.Generator or None, keyword-only
        Where the weights are drawn from that have not been drawn yet, in the order of the layers.

    Attributes
    ----------
    parameters, gradients : numpy.ndarray, shape (P,)
        Live views: of all weights and biases, in the order of `state_dict`, and of ∂L/∂ each of them. Assigning
        writes into them, so that ``model.parameters -= 0.1 * model.gradients`` is a training step.
    dtype : numpy.dtype

    Raises
    ------
    TypeError
        If something is not a layer, or the types of layers disagree.
    ValueError
        If there is no layer, one appears twice or is part of another model, or the widths do not fit.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
    >>> x, y = [[0.0, 1.0], [1.0, 1.0]], [[1.0], [0.0]]
    >>> first = model.backprop(x, y, mb.MSE())
    >>> for _ in range(100):
    ...     value = model.backprop(x, y, mb.MSE())
    ...     model.parameters -= 0.1 * model.gradients
    >>> value < first / 100
    True
    >>> model.predict([0.0, 1.0]).round(1)
    array([1.])
    """

    def __init__(
        self, *layers: Layer, dtype: DTypeLike | None = None, rng: int | np.random.Generator | None = None
    ) -> None:
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
        self._layers = list(layers)
        self.requested_dtype = None if dtype is None else as_dtype(dtype, "Sequential: dtype")
        rng = as_rng(rng, "Sequential: rng")
        self._check_unowned()
        self._check_widths()
        common = self._common_dtype()
        self._draw(rng)
        self._adopt(common)

    # Making the model one.

    def _check_unowned(self) -> None:
        """Check that no layer appears twice or belongs to another model."""
        seen: dict[int, str] = {}
        for prefix, layer in self.walk():
            name = f"layer {prefix[:-1]}"
            if id(layer) in seen:
                raise ValueError(
                    f"Sequential: {name}, {layer!r}, is {seen[id(layer)]} again; a layer holds its own gradients and "
                    "can appear once. Use layer.copy()"
                )
            if layer.owner is not None and id(layer.owner) not in seen:
                raise ValueError(
                    f"Sequential: {name}, {layer!r}, is part of another model already, which owns its parameters. "
                    "Use layer.copy()"
                )
            seen[id(layer)] = name

    def _check_widths(self) -> None:
        """Check that each layer takes what the one before gives."""
        width, before = None, None
        for index, layer in enumerate(self._layers):
            wanted = layer.in_features
            if width is not None and wanted is not None and wanted != width:
                raise ValueError(
                    f"Sequential: layer {index}, {layer!r}, takes {wanted} features, but layer {before}, "
                    f"{self._layers[before or 0]!r}, gives {width}"
                )
            start = wanted if width is None else width
            width = None if start is None else layer.output_width(start)
            before = index

    def _common_dtype(self) -> np.dtype[Any]:
        """Return the one type that was asked for, of the model or of its layers."""
        wanted = {layer.requested_dtype: f"{layer!r}" for _, layer in self.walk() if layer.requested_dtype is not None}
        if len(wanted) > 1:
            asked = " and ".join(f"{dtype.name}" for dtype in wanted if dtype is not None)
            raise TypeError(f"Sequential: one model has one dtype, but {asked} were asked for; give it to Sequential alone")
        return next((dtype for dtype in wanted if dtype is not None), np.dtype(np.float64))

    def _draw(self, rng: np.random.Generator) -> None:
        """Draw the weights that were not yet drawn, each by the rule that suits the activation after it."""
        leaves = self.leaves()
        for index, layer in enumerate(leaves):
            rules = (after.preferred_init for after in leaves[index + 1 :])
            rule = next((rule for rule in rules if rule is not None), None)
            for _, part in layer.walk():
                part.initialize(rule, rng)

    def _adopt(self, dtype: np.dtype[Any]) -> None:
        """Move all parameters into one vector of this type, and make the layers' arrays views into it."""
        members = list(self.walk())
        size = sum(array.size for _, layer in members for array in layer._parameters.values())
        parameters, gradients = np.empty(size, dtype), np.zeros(size, dtype)
        start = 0
        for prefix, layer in members:
            for name, array in layer._parameters.items():
                span = slice(start, start + array.size)
                for store, flat in ((layer._parameters, parameters), (layer._gradients, gradients)):
                    view = flat[span].reshape(array.shape)
                    np.copyto(view, store[name], casting="same_kind")
                    store[name] = view
                start = span.stop
            if layer is not self:
                layer._owner, layer._place = weakref.ref(self), f"layer {prefix[:-1]}, "
                layer.requested_dtype = None
        self._attach(dtype, parameters, gradients)

    def _attach(self, dtype: np.dtype[Any], parameters: Array, gradients: Array) -> None:
        """Take these as the flat vectors; a Sequential inside takes its part of them."""
        self._dtype, self._flat_parameters, self._flat_gradients = dtype, parameters, gradients
        self._training: Plans[TrainingPlan] = Plans()
        self._predictors: list[Plans[PredictPlan]] = []
        self._output_shape: tuple[int, ...] | None = None
        start = 0
        for layer in self._layers:
            stop = start + sum(array.size for _, part in layer.walk() for array in part._parameters.values())
            if isinstance(layer, Sequential):
                layer._attach(dtype, parameters[start:stop], gradients[start:stop])
            start = stop

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the model computes in."""
        return self._dtype

    @property
    def parameters(self) -> Array:
        """All weights and biases in one vector: a live view. Assigning writes into it."""
        return self._flat_parameters

    @parameters.setter
    def parameters(self, value: Array) -> None:
        self._write(self._flat_parameters, value, "parameters")

    @property
    def gradients(self) -> Array:
        """∂L/∂ each parameter, as the last backward left it: a live view. Assigning writes into it."""
        return self._flat_gradients

    @gradients.setter
    def gradients(self, value: Array) -> None:
        self._write(self._flat_gradients, value, "gradients")

    def _write(self, flat: Array, value: Array, name: str) -> None:
        if value is flat:
            return
        array = as_array(value, f"{name}", flat.dtype)
        if array.shape != flat.shape:
            raise ValueError(f"{name}: expected shape {flat.shape}, got {array.shape}")
        flat[...] = array

    # The passes.

    def __call__(self, x: Array) -> Array:
        """Return ``forward(x)``."""
        return self.forward(x)

    def forward(self, x: Array, out: Array | None = None) -> Array:
        """Return the model's output, and let each layer keep what `backward` needs.

        Parameters
        ----------
        x : array_like, shape (..., in)
            One example a row; one example alone, (in,), or more leading dimensions are taken too. Do not change it
            between this call and `backward`.
        out : numpy.ndarray, shape (..., out), optional
            Where to write the result.

        Returns
        -------
        numpy.ndarray, shape (..., out)
            `out`, or a fresh array, which the library never overwrites.

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` does not fit.
        """
        self._output_shape = None
        x, rows = self._as_rows(x)
        shape = (*x.shape[:-1], self.output_width(x.shape[-1]))
        if out is not None:
            as_out(out, "Sequential", shape, self._dtype)
        for layer in self.leaves():
            rows = layer.forward(rows)
        self._input_shape, self._output_shape = x.shape, shape
        return _deliver(rows, shape, out)

    def backward(self, delta: Array, out: Array | None = None) -> Array:
        """Return ∂L/∂X from ``delta = ∂L/∂Ŷ``, and replace `gradients`.

        Parameters
        ----------
        delta : array_like, shape (..., out)
            The upstream gradient, of the shape that `forward` returned: a loss's ``backward()``.
        out : numpy.ndarray, shape (..., in), optional
            Where to write the result.

        Returns
        -------
        numpy.ndarray, shape (..., in)

        Raises
        ------
        RuntimeError
            If no successful `forward` came before, or a `backprop` came in between.
        TypeError, ValueError
            If `delta` or `out` does not fit.
        """
        if self._output_shape is None:
            raise RuntimeError(
                "Sequential: backward before forward; call forward(x) first (the last one may have failed, or a "
                "backprop come in between)"
            )
        delta = as_array(delta, "Sequential: delta", self._dtype)
        if delta.shape != self._output_shape:
            raise ValueError(
                f"Sequential: delta must have the shape of the output, {self._output_shape}, got {delta.shape}"
            )
        if out is not None:
            as_out(out, "Sequential", self._input_shape, self._dtype)
        rows = delta.reshape(prod(delta.shape[:-1]), delta.shape[-1])
        for layer in reversed(self.leaves()):
            rows = layer.backward(rows)
        return _deliver(rows, self._input_shape, out)

    def predict(self, x: Array) -> Array:
        """Return the model's output and keep nothing: for evaluation.

        It works in blocks of rows, so that it needs little memory beyond the result, and may be called from several
        threads at once.

        Parameters
        ----------
        x : array_like, shape (..., in)

        Returns
        -------
        numpy.ndarray, shape (..., out)
            A fresh array.

        Raises
        ------
        TypeError, ValueError
            If `x` does not fit.

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(2, 1), rng=0)
        >>> model.predict(np.ones((1000, 2))).shape
        (1000, 1)
        """
        x, rows = self._as_rows(x)
        layers, width = self.leaves(), rows.shape[1]
        result = np.empty((len(rows), self.output_width(width)), self._dtype)
        try:
            plans = self._predictors.pop()  # taken by one thread at a time
        except IndexError:
            plans = Plans()
        block = self._block(width)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            plan = plans.get(part.shape, lambda workspace: PredictPlan(layers, part.shape, self._dtype, workspace))  # noqa: B023
            plan.run(part, result[start : start + block])
        self._predictors.append(plans)
        return result.reshape(*x.shape[:-1], result.shape[1])

    def backprop(self, x: Array, y: Array, loss: Loss, *, sample_weight: Array | float | None = None) -> float:
        """Return the loss of a batch and leave its gradient in `gradients`.

        After the first call with a batch size it allocates no array. Where the network ends in `Sigmoid` and the
        loss is `BCE`, both come from the pre-activation, so that saturation loses nothing.

        Parameters
        ----------
        x : array_like, shape (..., in)
        y : array_like, shape (..., out)
            Targets, of the shape of the output.
        loss : Loss
        sample_weight : array_like, optional
            Multiplies each element's loss; anything that broadcasts to the shape of `y`.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; parameters and gradients are then as before.

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(1, 1), rng=0)
        >>> model.parameters = [0.3, 0.4]
        >>> round(model.backprop([[0.5]], [[0.95]], mb.MSE()), 4)
        0.16
        >>> model.gradients.round(4)
        array([-0.4, -0.8])
        """
        if not isinstance(loss, Loss):
            made = isinstance(loss, type) and issubclass(loss, Loss)
            hint = f"; make one with {loss.__name__}()" if made else ""
            raise TypeError(f"backprop: loss must be a Loss such as mb.MSE(), got {describe(loss)}{hint}")
        x, rows = self._as_rows(x)
        count, width = rows.shape
        y = as_array(y, "backprop: y", self._dtype)
        shape = (*x.shape[:-1], self.output_width(width))
        if y.shape != shape:
            check_same_shape("backprop", shape, y.shape)
        weight = None if sample_weight is None else as_weight(sample_weight, shape, self._dtype)
        plan = self._training.get(
            (count, width, loss, weight is not None),
            lambda workspace: TrainingPlan(
                self.leaves(), loss, rows.shape, self._dtype, weight is not None, workspace
            ),
        )
        self._output_shape = None  # the layers of a user's own may have been through another batch
        return plan.run(
            rows, y.reshape(plan.y.shape), None if weight is None else weight.reshape(plan.y.shape)
        )

    def value_and_grad(
        self, x: Array, y: Array, loss: Loss, *, sample_weight: Array | float | None = None
    ) -> tuple[float, Array]:
        """Return the loss of a batch and its gradient as a fresh vector: `backprop` for functional use.

        Parameters and errors are those of `backprop`, which it calls: `gradients` holds the same numbers afterwards.

        Returns
        -------
        value : float
        gradient : numpy.ndarray, shape (P,)

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(1, 1), rng=0)
        >>> value, gradient = model.value_and_grad([[0.5]], [[0.95]], mb.MSE())
        >>> gradient.shape
        (2,)
        """
        value = self.backprop(x, y, loss, sample_weight=sample_weight)
        return value, self._flat_gradients.copy()

    def _as_rows(self, x: Array) -> tuple[Array, Array]:
        """Return `x` as a checked array of the model's type, and as a view of shape (rows, features)."""
        first = self._layers[0]
        if type(x) is not np.ndarray or x.dtype != self._dtype:
            x = as_array(x, f"{first.label}: x", self._dtype)
        if x.ndim != 2 or x.shape[1] != first.in_features:
            check_features(first.label, x.shape, self.in_features)
            return x, x.reshape(prod(x.shape[:-1]), x.shape[-1])
        return x, x

    def _block(self, width: int) -> int:
        """Return how many rows `predict` takes at a time."""
        widest = width
        for layer in self.leaves():
            width = layer.output_width(width)
            widest = max(widest, width)
        return max(16, BLOCK_BYTES // (widest * self._dtype.itemsize))

    # The layers.

    def leaves(self) -> list[Layer]:
        """Return the layers that compute, in order, with those of nested chains in their place."""
        return [leaf for layer in self._layers for leaf in layer.leaves()]

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield each layer with its index."""
        return ((str(index), layer) for index, layer in enumerate(self._layers))

    @property
    def in_features(self) -> int | None:  # type: ignore[override]
        """The width of the input, or None where any will do."""
        for layer in self._layers:
            if layer.in_features is not None:
                return layer.in_features
            if type(layer).output_width is not Layer.output_width:
                return None
        return None

    def output_width(self, width: int) -> int:
        """Return the number of features that come out where `width` go in."""
        for layer in self._layers:
            width = layer.output_width(width)
        return width

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Layer | Sequential:
        """Return a layer, or for a slice a Sequential that shares these layers and their parameters."""
        if not isinstance(index, slice):
            return self._layers[index]
        chosen = range(len(self))[index]
        if not chosen or chosen.step != 1:
            raise IndexError(f"Sequential: a slice must have step 1 and at least one of the {len(self)} layers")
        return self._share(self._layers[index], self._span(chosen.start), self._span(chosen.stop))

    def _span(self, index: int) -> int:
        """Return where the parameters of layer `index` start in the flat vector."""
        return sum(array.size for layer in self._layers[:index] for _, part in layer.walk() for array in part._parameters.values())

    def _share(self, layers: list[Layer], start: int, stop: int) -> Sequential:
        """Return a Sequential of these layers over a part of the same vectors."""
        part = Sequential.__new__(Sequential)
        part._layers, part._owner = layers, weakref.ref(self)
        part._attach(self._dtype, self._flat_parameters[start:stop], self._flat_gradients[start:stop])
        return part

    def replica(self) -> Sequential:
        """Return a twin that shares parameters and gradients and whose layers have caches of their own."""
        return self._share([layer.replica() for layer in self._layers], 0, self._flat_parameters.size)

    # State.

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter under torch's names: "0.weight" (out, in), "0.bias", "2.weight", ...

        Examples
        --------
        >>> import matbackprop as mb
        >>> list(mb.Sequential(mb.Linear(2, 1), mb.Sigmoid()).state_dict())
        ['0.weight', '0.bias']
        """
        return {
            prefix + name: array.copy() for prefix, layer in self.walk() for name, array in layer._parameters.items()
        }

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Write the parameters of `state` into the model: all of them, or, after an error, none.

        Parameters
        ----------
        state : mapping of str to array_like
            As `state_dict` returns it, or ``{k: v.numpy() for k, v in torch_model.state_dict().items()}``.

        Raises
        ------
        TypeError
            If `state` is not a mapping, or a value is not an array of real numbers.
        ValueError
            If a name is missing or unknown, a shape differs, or a value is not finite.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: expected a mapping of names to arrays, got {describe(state)}")
        own = {prefix + name: array for prefix, layer in self.walk() for name, array in layer._parameters.items()}
        missing, unknown = [name for name in own if name not in state], [name for name in state if name not in own]
        if missing or unknown:
            raise ValueError(
                f"load_state_dict: the names do not match: missing {missing}, unknown {unknown}; this model has {list(own)}"
            )
        checked = {}
        for name, target in own.items():
            array = as_array(state[name], f"load_state_dict: {name!r}", self._dtype)
            if array.shape != target.shape:
                hint = "; it looks transposed, a weight is (out, in)" if array.shape == target.shape[::-1] else ""
                raise ValueError(f"load_state_dict: {name!r}: expected shape {target.shape}, got {array.shape}{hint}")
            check_finite(f"load_state_dict: {name!r}", array)
            checked[name] = array
        for name, target in own.items():
            target[...] = checked[name]

    def copy(self) -> Sequential:
        """Return an independent copy of the model, part of no other."""
        return copy.deepcopy(self)

    __copy__ = copy

    def astype(self, dtype: DTypeLike) -> Sequential:
        """Return an independent copy that computes in `dtype`.

        Raises
        ------
        TypeError
            If it is no type that a model can have, or is real while the model is complex.
        """
        target = as_dtype(dtype, "astype: dtype")
        if self._dtype.kind == "c" and target.kind != "c":
            raise TypeError(f"astype: a {self._dtype} model does not fit {target}; its imaginary parts would be lost")
        model = self.copy()
        model._adopt(target)
        return model

    def __getstate__(self) -> dict[str, Any]:
        return {"_layers": self._layers, "_dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._layers = state["_layers"]
        self._adopt(state["_dtype"])

    def summary(self, width: int | None = None) -> str:
        """Return a table of the layers: name, output shape and number of parameters.

        Parameters
        ----------
        width : int, optional
            The number of input features, for a model whose layers do not say it.

        Examples
        --------
        >>> import matbackprop as mb
        >>> print(mb.Sequential(mb.Linear(30, 16), mb.Tanh(), mb.Linear(16, 1)).summary())
        layer             output    parameters
        0  Linear(30, 16)  (N, 16)          496
        1  Tanh()          (N, 16)            0
        2  Linear(16, 1)   (N, 1)            17
        total (float64)                      513
        """
        width = self.in_features if width is None else as_size(width, "summary: width")
        table = [("layer", "", "output", "parameters")]
        for prefix, layer in ((p, part) for p, part in self.walk() if part in self.leaves()):
            width = None if width is None else layer.output_width(width)
            count = sum(array.size for _, part in layer.walk() for array in part._parameters.values())
            table.append((prefix[:-1], repr(layer), f"(N, {'?' if width is None else width})", f"{count:,}"))
        table.append(("", f"total ({self._dtype})", "", f"{self._flat_parameters.size:,}"))
        first, second, third, last = (max(map(len, column)) for column in zip(*table, strict=True))
        return "\n".join(f"{a:<{first}}  {b:<{second}}  {c:<{third}}  {d:>{last}}" for a, b, c, d in table)

    def __repr__(self) -> str:
        dtype = "" if self._dtype == np.float64 else f", dtype={self._dtype.name!r}"
        return f"Sequential({', '.join(map(repr, self._layers))}{dtype})"


def _deliver(rows: Array, shape: tuple[int, ...], out: Array | None) -> Array:
    """Return the rows in their final shape, in `out` if that is given."""
    result = rows.reshape(shape)
    if out is None:
        return result
    np.copyto(out, result)
    return out
