"""Chain: layers in order over one flat vector of parameters and one of gradients, without the passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, overload

import numpy as np
from numpy.typing import DTypeLike

from matbackprop.flat import check_chain, common_dtype, draw, flatten, named_parameters, size, width_after
from matbackprop.layer import Layer
from matbackprop.parameter import Layout
from matbackprop.validation import Array, as_array, as_dtype, as_rng, as_size, check_finite, describe

__all__ = ["Chain"]


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

    owns_children: ClassVar[bool] = True
    _layers: list[Layer]
    _seen: Layout | None = None  # the layout that the vectors below are parts of
    _vectors: tuple[Array, Array]
    _unseeded: bool = False  # whether weights were drawn for want of an rng

    #: What belongs to this object and not to its state: copies and pickles do without.
    _transient: ClassVar[frozenset[str]] = frozenset({"_seen", "_vectors"})

    def __init__(
        self, *layers: Layer, dtype: DTypeLike | None = None, rng: int | np.random.Generator | None = None
    ) -> None:
        check_chain(layers)
        generator = as_rng(rng, "Sequential: rng")
        common = common_dtype(layers, None if dtype is None else as_dtype(dtype, "Sequential: dtype"))
        if rng is not None:
            self._check_seeded(layers)
        self._layers = list(layers)
        self._unseeded = draw(self.leaves(), generator) and rng is None
        self._flatten(common)

    @staticmethod
    def _check_seeded(layers: Sequence[Layer]) -> None:
        """Check that an rng that is given decides all weights, those of chains inside too."""
        for index, outer in enumerate(layers):
            for prefix, part in outer.walk(f"{index}."):
                if isinstance(part, Chain) and part._unseeded:
                    raise ValueError(
                        f"Sequential: layer {prefix[:-1]}, {part!r}, has drawn its weights without a seed, so that rng "
                        "would not decide them; give rng to it, or to the new layers alone"
                    )

    def _flatten(self, dtype: np.dtype[Any]) -> None:
        """Lay out the two vectors in this type."""
        flatten(self, dtype)
        self.requested_dtype = None if dtype == np.float64 else dtype

    def _refresh(self) -> None:
        """Take this chain's parts of the model's vectors, which are new to it."""
        layout, start = self._layers[0]._layout, self._layers[0]._offset
        assert layout is not None
        span = slice(start, start + sum(map(size, self._layers)))
        self._vectors = layout.parameters[span], layout.gradients[span]
        self._renew()
        self._seen = layout  # last: another thread may be looking

    def _renew(self) -> None:
        """Make anew what depends on the vectors."""

    def _flat(self) -> tuple[Array, Array]:
        """Return the vectors of parameters and gradients."""
        if self._seen is not self._layers[0]._layout:
            self._refresh()
        return self._vectors

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the model computes in."""
        return self._flat()[0].dtype

    @property
    def parameters(self) -> Array:
        """All weights and biases in one vector: a live view. Assigning writes into it.

        The vector stays the same until the model becomes part of another one.
        """
        return self._flat()[0]

    @parameters.setter
    def parameters(self, value: Array) -> None:
        self._write(self.parameters, value, "parameters")
        self._unseeded = False

    @property
    def gradients(self) -> Array:
        """∂L/∂ each parameter, as the last backward left it: a live view. Assigning writes into it."""
        return self._flat()[1]

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

    def config(self) -> dict[str, Any]:
        """Return the layers. The type is that of the whole model."""
        return {"layers": list(self._layers)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return a chain of these layers."""
        if config.keys() != {"layers"} or not isinstance(config["layers"], list):
            raise ValueError(f"{cls.__name__}: expected a list of layers, got {describe(config)}")
        return cls(*config["layers"])

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
            width = layer.in_features  # asked once: twice at each level is exponential
            if width is not None:
                return width
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
        part = type(self).__new__(type(self))
        vars(part).update(self._settings(), _layers=self._layers[index], _adopted=True)
        return part

    def _settings(self) -> dict[str, Any]:
        """Return the attributes that are this object's state."""
        return {name: value for name, value in vars(self).items() if name not in self._transient}

    def follow(self, other: Layer) -> None:
        """Do nothing: the layers follow each for itself."""

    def forget(self) -> None:
        """Drop what the last forward pass left, and the vectors that the layers are about to leave."""
        super().forget()
        for name in self._transient:
            vars(self).pop(name, None)

    def replica(self) -> Self:
        """Return a twin that shares parameters and gradients and whose layers have caches of their own."""
        twin = type(self).__new__(type(self))
        vars(twin).update(self._settings(), _layers=[layer.replica() for layer in self._layers])
        return twin

    # State.

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter under torch's names: "0.weight" (out, in), "0.bias", "2.weight", ...

        Examples
        --------
        >>> import matbackprop as mb
        >>> list(mb.Sequential(mb.Linear(2, 1), mb.Sigmoid()).state_dict())
        ['0.weight', '0.bias']
        """
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
            array = as_array(state[name], f"load_state_dict: {name!r}", self.dtype).copy()  # it may be a live view
            if array.shape != target.shape:
                hint = "; it looks transposed, a weight is (out, in)" if array.shape == target.shape[::-1] else ""
                raise ValueError(f"load_state_dict: {name!r}: expected shape {target.shape}, got {array.shape}{hint}")
            check_finite(f"load_state_dict: {name!r}", array)
            checked[name] = array
        self._unseeded = False
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
        if self.dtype.kind == "c" and target.kind != "c":
            raise TypeError(f"astype: a {self.dtype} model does not fit {target}; its imaginary parts would be lost")
        model = self.copy()
        model._flatten(target)
        return model

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in super().__getstate__().items() if name not in self._transient}
        return {**state, "_unseeded": False, "_dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype = state.pop("_dtype")
        vars(self).update(state)
        self._flatten(dtype)

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
        width = self.in_features if width is None else as_size(width, "summary: width")
        table = [("layer", "", "output", "parameters")]
        leaves = {id(leaf) for leaf in self.leaves()}
        for prefix, layer in ((prefix, part) for prefix, part in self.walk() if id(part) in leaves):
            width = None if width is None else width_after(layer, width)
            table.append((prefix[:-1], repr(layer), f"(N, {'?' if width is None else width})", f"{size(layer):,}"))
        table.append(("", f"total ({self.dtype})", "", f"{self.parameters.size:,}"))
        first, second, third, last = (max(map(len, column)) for column in zip(*table, strict=True))
        return "\n".join(f"{a:<{first}}  {b:<{second}}  {c:<{third}}  {d:>{last}}" for a, b, c, d in table)

    def __repr__(self) -> str:
        dtype = "" if self.dtype == np.float64 else f", dtype={self.dtype.name!r}"
        return f"{type(self).__name__}({', '.join(map(repr, self._layers))}{dtype})"
