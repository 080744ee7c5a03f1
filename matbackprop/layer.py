"""What a layer is: the base of every layer, the library's own and a user's."""

from __future__ import annotations

import copy
import copyreg
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from matbackprop.calls import Call
from matbackprop.parameter import Gradient, Layout, Parameter
from matbackprop.validation import Array, as_array
from matbackprop.workspace import Empty

__all__ = ["Layer", "as_result", "read_only"]

#: The flag of a function that takes ``*args`` (inspect.CO_VARARGS; importing inspect costs more than NumPy's core).
VARARGS = 0x04


class Layer(ABC):
    """A differentiable map of a batch of rows: the base class of every layer.

    A layer of your own writes `forward` and `backward`, declares its parameters, and then works everywhere: alone,
    in a `Sequential`, in the flat vectors, in the gradient checks. Inside a Sequential both get a 2-D batch of the
    model's type.

    Attributes
    ----------
    in_features : int or None
        The width of the input, or None where any will do.
    keeps_input, keeps_output : bool
        What `backward` reads of the forward pass; nobody may overwrite it in between. True by default, which is
        always safe.
    rowwise : bool
        Whether each row of the output depends on its own row of the input alone, so that a model may cut a batch into
        blocks and share them among threads. False by default, which is always safe.
    in_place : bool
        Whether `forward` may be given its own input as `out`, and `backward` its own `delta`. False by default.
    elementwise : bool
        Whether each element of the output depends on its own element of the input alone. False by default. Then
        `backward` may be called more than once after a forward pass.
    mixes : str or None
        The name of the parameter W, (out, in), by which every input goes into every output: ∂y_k/∂x_j = W_kj. None by
        default.
    formulas : mapping of str to str
        What `matbackprop.worked` writes of the layer, in Unicode, with ``{x}``, ``{y}``, ``{delta}`` (∂L/∂y), ``{1}``
        (a column of ones, one a row) and the parameters' names in braces: "forward" is y, "backward" ∂L/∂x, a
        parameter's name its gradient; an elementwise layer gives "derivative", ∂y/∂x, in place of "backward"; "note"
        says what other letters mean.
    symbols : mapping of str to str
        The letters there of parameters; by default their names.

    Examples
    --------
    A layer that scales each feature:

    >>> import matbackprop as mb
    >>> class Scale(mb.Layer):
    ...     scale = mb.Parameter()
    ...     scale_grad = mb.Gradient("scale")
    ...
    ...     def __init__(self, features):
    ...         self.in_features = features
    ...         self.scale = np.ones(features)
    ...
    ...     def forward(self, x, out=None):
    ...         self.x = x
    ...         return np.multiply(x, self.scale, out=out)
    ...
    ...     def backward(self, delta, out=None):
    ...         self.scale_grad = (delta * self.x).sum(axis=0)
    ...         return np.multiply(delta, self.scale, out=out)
    >>> model = mb.Sequential(Scale(3), mb.Linear(3, 1), rng=0)
    >>> model.parameters.size
    7
    """

    in_features: int | None = None
    requested_dtype: np.dtype[Any] | None = None
    keeps_input: ClassVar[bool] = True
    keeps_output: ClassVar[bool] = True
    in_place: ClassVar[bool] = False
    rowwise: ClassVar[bool] = False
    owns_children: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    mixes: ClassVar[str | None] = None
    formulas: Mapping[str, str] = MappingProxyType({})
    symbols: Mapping[str, str] = MappingProxyType({})
    #: The name of the rule that suits a Linear just before this layer (see `matbackprop.initializers.RULES`).
    preferred_init: ClassVar[str | None] = None
    #: The parameters that `initialize` draws.
    drawn: ClassVar[tuple[str, ...]] = ()

    _parameters: dict[str, Array]
    _gradients: dict[str, Array]
    _absent: set[str]  # parameters that were declared, and set to None
    _layout: Layout | None  # the model's two vectors, of which the arrays are then views
    _offset: int  # where in them
    _adopted: bool  # whether the layer is part of a model; it stays so
    _place: str  # in the model, for messages: "layer 0, "
    _pass: object  # whose forward pass the caches are of; None if nobody's, or a later one has come

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Set up the parameter store, so that a subclass need not call ``super().__init__()``."""
        self = super().__new__(cls)
        self._parameters, self._gradients, self._absent = {}, {}, set()
        self._layout, self._offset, self._adopted, self._place, self._pass = None, 0, False, "", None
        return self

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, Layer) and self._adopted:
            raise RuntimeError(
                f"{self.label}.{name}: the layer is part of a model, which would not know of the new one"
            )
        super().__setattr__(name, value)

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        graded = {value.of for value in vars(cls).values() if isinstance(value, Gradient)}
        for name, value in vars(cls).items():
            if type(value) is Parameter and name not in graded:
                raise TypeError(f'{cls.__name__}: declare {name}_grad = mb.Gradient("{name}") beside {name}')
        for name in ("forward", "backward"):
            code = getattr(vars(cls).get(name), "__code__", None)
            if code is not None and code.co_argcount < 3 and not code.co_flags & VARARGS:
                raise TypeError(
                    f"{cls.__name__}: define {name}(self, {'x' if name == 'forward' else 'delta'}, out=None)"
                )

    @abstractmethod
    def forward(self, x: Array, out: Array | None = None) -> Array:
        """Return the layer's output for the batch `x`, written into `out` if that is given.

        `x` is not to be changed: others need it. What `backward` needs of it is kept as an attribute.
        """

    @abstractmethod
    def backward(self, delta: Array, out: Array | None = None) -> Array:
        """Return ∂L/∂x from ``delta = ∂L/∂y``, after *assigning* the parameters' gradients, not adding to them."""

    def __call__(self, x: Array) -> Array:
        """Return ``forward(x)``."""
        return self.forward(x)

    def output_width(self, width: int) -> int:
        """Return the number of features that come out where `width` go in. The same, unless overridden."""
        return width

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that make this layer again, apart from its parameters: for a file.

        Values are None, bool, int, float, str, layers, or lists of these, or string-keyed dicts. A layer without
        arguments has none; one with arguments overrides this, or cannot be saved.
        """
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return a layer with these settings, of a kind that `config` returned."""
        return cls(**config)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter of the layer's own, drawn already or not."""
        return {name: array.shape for name, array in self._parameters.items()}

    def waits(self) -> bool:
        """Return whether `initialize` has something to draw."""
        return bool(self.drawn) and not self._parameters

    def initialize(self, rule: str | None = None, rng: np.random.Generator | None = None) -> None:
        """Draw the parameters that were not yet drawn. A layer that draws none has nothing to do here."""

    def _add_parameter(self, name: str, value: Array) -> None:
        self._parameters[name] = value
        self._gradients[name] = np.zeros_like(value)

    # How a model runs the layer. The next three say it as prepared calls; a layer that wrote plain `forward` and
    # `backward` is called through those.

    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute the output of `x` into `out`, for a training pass."""
        yield partial(setattr, self, "_pass", None)  # what an earlier pass left is about to go
        yield partial(_into, self.forward, read_only(x), out, self, "forward")

    def backward_steps(self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute the gradients and, unless `out` is None, ∂L/∂x into `out`.

        `x` and `y` are the forward pass's input and output, of which only what the layer keeps is still valid.
        """
        yield partial(_into, self.backward, read_only(delta), out, self, "backward")

    def predict_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute the output of `x` into `out` and leave no trace on the layer."""
        yield partial(_predict_apart, self, read_only(x), out)

    def row_gradients(self, x: Array, delta: Array, out: Array) -> None:
        """Write what each row alone adds to the gradients into `out`, shape (rows, parameters in and below the layer).

        Only a `rowwise` layer is asked, with the `x` and the upstream gradient of a whole batch, of which it keeps what
        it kept. By default the rows go through a replica one by one, and what is then in the gradients is the last's.
        """
        twin = self.replica()
        for row, target in enumerate(out):
            twin.forward(x[row : row + 1])
            twin.backward(delta[row : row + 1])
            gradients = [array.reshape(-1) for _, part in twin.walk() for array in part._gradients.values()]
            np.concatenate(gradients, out=target)

    # What a model asks of its layers.

    def leaves(self) -> list[Layer]:
        """Return the layers that compute, in order: the layer itself, unless it is a chain."""
        return [self]

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the name and layer of every layer that is an attribute of this one, or in a list or tuple that is."""
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                yield name, value
            elif isinstance(value, dict) and any(isinstance(part, Layer) for part in value.values()):
                raise TypeError(f"{self.label}.{name}: hold layers as attributes, or in a list or tuple, not in a dict")
            elif isinstance(value, (list, tuple)):
                yield from ((f"{name}.{index}", part) for index, part in enumerate(value) if isinstance(part, Layer))

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield the layer and everything below it, depth first, with torch's dotted prefixes ("0.", "1.2.")."""
        yield prefix, self
        for name, child in self.children():
            yield from child.walk(f"{prefix}{name}.")

    def has_parameters(self) -> bool:
        """Return whether there is anything to train in the layer or below it."""
        return any(layer._parameters for _, layer in self.walk())

    def replica(self) -> Self:
        """Return a twin that shares this layer's parameters and gradients and has caches of its own.

        Its attributes are this layer's, layers among them replicated; so a cache is to be an attribute that `forward`
        assigns, not a container that it changes.
        """
        twin = type(self).__new__(type(self))
        kept = {name: getattr(self, name) for name in ("_layout", "_offset", "_adopted", "_place")}
        vars(twin).update(self.__getstate__(), **kept)
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                vars(twin)[name] = value.replica()
            elif isinstance(value, (list, tuple)) and any(isinstance(part, Layer) for part in value):
                parts = [part.replica() if isinstance(part, Layer) else part for part in value]
                vars(twin)[name] = getattr(value, "_make", type(value))(parts)  # _make is a namedtuple's
        return twin

    def follow(self, other: Layer) -> None:
        """Take over the settings of `other`, of which this is a replica: all but its layers and parameters."""
        own = {"_parameters", "_gradients", *(name.partition(".")[0] for name, _ in other.children())}
        vars(self).update((name, value) for name, value in vars(other).items() if name not in own)

    @property
    def adopted(self) -> bool:
        """Whether the layer is part of a model. It stays so; a copy of it is free."""
        return self._adopted

    def forget(self) -> None:
        """Drop what the last forward pass left."""
        self._pass = None

    @property
    def label(self) -> str:
        """The layer as error messages name it: its place in the model, if any, and its repr."""
        return f"{self._place}{self!r}"

    def copy(self) -> Self:
        """Return an independent copy, with parameters of its own and part of no model."""
        return copy.deepcopy(self)

    def __copy__(self) -> Self:
        return self.copy()  # two layers must not share the store of their parameters

    def __getstate__(self) -> dict[str, Any]:
        self.initialize()  # so that a copy is equal
        types = {array.dtype for array in self._parameters.values()} - {np.dtype(np.float64)}
        requested = self.requested_dtype or next(iter(types), None)
        own = {"_layout": None, "_offset": 0, "_adopted": False, "_place": "", "_pass": None}
        return {**vars(self), **own, "requested_dtype": requested}

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def read_only(array: Array) -> Array:
    """Return a view that cannot be written to: what a layer is given is still needed by others."""
    view = array.view()
    view.flags.writeable = False
    return view


def _into(method: Any, value: Array, out: Array | None, layer: Layer, what: str) -> None:
    """Call a user's ``method(value, out)`` and see that the result is in `out`, whatever the method did with it."""
    result = method(value, out)
    if out is not None and result is not out:
        out[...] = as_result(layer, what, result, out.shape, out.dtype)


def as_result(layer: Layer, what: str, result: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return what a layer's forward or backward gave, if it is an array of this shape, as one of this type.

    Raises
    ------
    TypeError, ValueError
        That name the layer.
    """
    array = as_array(result, f"{layer.label}: what {what} returned", dtype)
    if array.shape != shape:
        raise ValueError(
            f"{layer.label}: {what} returned shape {array.shape}, expected {shape}; "
            "a layer that changes the number of features defines output_width(width)"
        )
    return array


def _predict_apart(layer: Layer, x: Array, out: Array) -> None:
    """Run a user's forward on a replica: what it caches stays off the layer, in whichever thread."""
    _into(layer.replica().forward, x, out, layer, "forward")
