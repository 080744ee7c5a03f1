"""Chain: layers in order over one flat vector of parameters and one of gradients, without the passes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from threading import RLock
from typing import Any, ClassVar, Self, overload

import numpy as np
from numpy.typing import DTypeLike

from matbackprop.flat import (
    check_chain,
    common_dtype,
    draw,
    flatten,
    is_drawn,
    named_parameters,
    own,
    size,
    width_after,
)
from matbackprop.layer import Layer
from matbackprop.validation import Array, as_array, as_dtype, as_rng, as_size, check_finite, describe

__all__ = ["Chain"]

_SETTLING = RLock()


class Chain(Layer):
    """What a `Sequential` is, apart from what it computes: its layers, its two vectors, and its state.

    Parameters
    ----------
    *layers : Layer
        In order. Each can be part of one model only.
    dtype : dtype, keyword-only, optional
        What the model computes in.
    rng : int, numpy.random.Generator or None, keyword-only
        Where weights are drawn from that have not been drawn yet.
    """

    _slices: tuple[tuple[weakref.ref[Chain], int, int], ...] = ()
    _waiting: bool

    #: What belongs to this object and not to its state: copies and pickles make it anew.
    _transient: ClassVar[frozenset[str]] = frozenset({"_flat_parameters", "_flat_gradients", "_slices"})

    def __init__(
        self, *layers: Layer, dtype: DTypeLike | None = None, rng: int | np.random.Generator | None = None
    ) -> None:
        check_chain(layers)
        generator = None if rng is None else as_rng(rng, "Sequential: rng")
        self._dtype = common_dtype(layers, None if dtype is None else as_dtype(dtype, "Sequential: dtype"))
        self._layers = list(layers)
        self._waiting = True
        if generator is not None or is_drawn(self):
            draw(self.leaves(), generator or as_rng(None))
            self._flatten(self._dtype)
        own(self)
        self.requested_dtype = None if self._dtype == np.float64 else self._dtype

    def settle(self) -> None:
        """Draw the weights and lay out the two vectors, if that is still to be done.

        A chain that was given no `rng` waits with it until somebody needs a number of it: it may yet become part of
        a model that has one.
        """
        if not self._waiting:
            return
        with _SETTLING:  # two threads may be the first to ask
            if self.owner is not None:
                self.owner.settle()
            elif self._waiting:
                draw(self.leaves(), as_rng(None))
                self._flatten(self._dtype)

    def _flatten(self, dtype: np.dtype[Any]) -> None:
        """Move all parameters into vectors of this type; the chains inside take their parts of them."""
        parameters, gradients = flatten(self, dtype)
        start = 0
        for _, part in self.walk():
            if isinstance(part, Chain):
                stop = start + size(part)
                part._take(dtype, parameters[start:stop], gradients[start:stop])
            start += sum(array.size for array in part._parameters.values())

    def _take(self, dtype: np.dtype[Any], parameters: Array, gradients: Array) -> None:
        """Take these as the flat vectors; the slices of this chain that are still in use take their parts of them."""
        self._waiting = False
        self._dtype, self._flat_parameters, self._flat_gradients = dtype, parameters, gradients
        for reference, start, stop in self._slices:
            part = reference()
            if part is not None:
                part._take(dtype, parameters[start:stop], gradients[start:stop])

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the model computes in."""
        return self._dtype

    @property
    def parameters(self) -> Array:
        """All weights and biases in one vector: a live view. Assigning writes into it."""
        self.settle()
        return self._flat_parameters

    @parameters.setter
    def parameters(self, value: Array) -> None:
        self._write(self.parameters, value, "parameters")

    @property
    def gradients(self) -> Array:
        """∂L/∂ each parameter, as the last backward left it: a live view. Assigning writes into it."""
        self.settle()
        return self._flat_gradients

    @gradients.setter
    def gradients(self, value: Array) -> None:
        self._write(self.gradients, value, "gradients")

    def _write(self, flat: Array, value: Array, name: str) -> None:
        if value is flat:
            return
        array = as_array(value, f"{name}", flat.dtype)
        if array.shape != flat.shape:
            raise ValueError(f"{name}: expected shape {flat.shape}, got {array.shape}")
        flat[...] = array

    # The layers.

    def leaves(self) -> list[Layer]:
        """Return the layers that compute, in order, with those of nested chains in their place."""
        return [leaf for layer in self._layers for leaf in layer.leaves()]

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield each layer with its index."""
        return ((str(index), layer) for index, layer in enumerate(self._layers))

    @property
    def in_features(self) -> int | None:  # type: ignore[override]
        """The width of the input, or None where any will do, or nobody says."""
        for layer in self._layers:
            if layer.in_features is not None:
                return layer.in_features
            if type(layer).output_width is not Layer.output_width:
                return None
        return None

    def output_width(self, width: int) -> int:
        """Return the number of features that come out where `width` go in."""
        for layer in self._layers:
            width = width_after(layer, width)
        return width

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Layer | Self:
        """Return a layer, or for a slice a Sequential that shares these layers and their parameters."""
        if not isinstance(index, slice):
            try:
                return self._layers[index]
            except (IndexError, TypeError):
                raise IndexError(
                    f"Sequential: expected an index or slice of {len(self)} layers, got {index!r}"
                ) from None
        chosen = range(len(self))[index]
        if not chosen or chosen.step != 1:
            raise IndexError(f"Sequential: a slice must have step 1 and at least one of the {len(self)} layers")
        self.settle()
        start = sum(map(size, self._layers[: chosen.start]))
        stop = start + sum(map(size, self._layers[index]))
        part = self._share(self._layers[index], start, stop)
        self._slices = (*(entry for entry in self._slices if entry[0]() is not None), (weakref.ref(part), start, stop))
        return part

    def _share(self, layers: list[Layer], start: int, stop: int) -> Self:
        """Return a chain of these layers over a part of the same vectors."""
        part = type(self).__new__(type(self))
        part._layers, part._owner = layers, weakref.ref(self)
        part._take(self._dtype, self._flat_parameters[start:stop], self._flat_gradients[start:stop])
        return part

    def follow(self, other: Layer) -> None:
        """Do nothing: the layers follow each for itself."""

    def replica(self) -> Self:
        """Return a twin that shares parameters and gradients and whose layers have caches of their own."""
        return self._share([layer.replica() for layer in self._layers], 0, self.parameters.size)

    # State.

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter under torch's names: "0.weight" (out, in), "0.bias", "2.weight", ...

        Examples
        --------
        >>> import matbackprop as mb
        >>> list(mb.Sequential(mb.Linear(2, 1), mb.Sigmoid()).state_dict())
        ['0.weight', '0.bias']
        """
        self.settle()
        return {name: array.copy() for name, array in named_parameters(self).items()}

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
        self.settle()
        arrays = named_parameters(self)
        missing, unknown = (
            [name for name in arrays if name not in state],
            [name for name in state if name not in arrays],
        )
        if missing or unknown:
            raise ValueError(
                f"load_state_dict: the names do not match: missing {missing}, unknown {unknown}; "
                f"this model has {list(arrays)}"
            )
        checked = {}
        for name, target in arrays.items():
            array = as_array(state[name], f"load_state_dict: {name!r}", self._dtype).copy()  # it may be a live view
            if array.shape != target.shape:
                hint = "; it looks transposed, a weight is (out, in)" if array.shape == target.shape[::-1] else ""
                raise ValueError(f"load_state_dict: {name!r}: expected shape {target.shape}, got {array.shape}{hint}")
            check_finite(f"load_state_dict: {name!r}", array)
            checked[name] = array
        for name, target in arrays.items():
            target[...] = checked[name]

    def astype(self, dtype: DTypeLike) -> Self:
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
        model._flatten(target)
        model.requested_dtype = None if target == np.float64 else target
        return model

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        return {name: value for name, value in super().__getstate__().items() if name not in self._transient}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._flatten(self._dtype)
        requested = self.requested_dtype
        own(self)
        self.requested_dtype = requested

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
        layer                   output   parameters
        0      Linear(30, 16)   (N, 16)         496
        1      Tanh()           (N, 16)           0
        2      Linear(16, 1)    (N, 1)           17
               total (float64)                  513
        """
        self.settle()
        width = self.in_features if width is None else as_size(width, "summary: width")
        table = [("layer", "", "output", "parameters")]
        for prefix, layer in ((p, part) for p, part in self.walk() if part in self.leaves()):
            width = None if width is None else width_after(layer, width)
            table.append((prefix[:-1], repr(layer), f"(N, {'?' if width is None else width})", f"{size(layer):,}"))
        table.append(("", f"total ({self._dtype})", "", f"{self._flat_parameters.size:,}"))
        first, second, third, last = (max(map(len, column)) for column in zip(*table, strict=True))
        return "\n".join(f"{a:<{first}}  {b:<{second}}  {c:<{third}}  {d:>{last}}" for a, b, c, d in table)

    def __repr__(self) -> str:
        dtype = "" if self._dtype == np.float64 else f", dtype={self._dtype.name!r}"
        return f"{type(self).__name__}({', '.join(map(repr, self._layers))}{dtype})"
