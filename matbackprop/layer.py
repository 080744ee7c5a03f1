"""What a layer is: the base of every layer, the library's own and a user's."""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from matbackprop.validation import DTYPES, Array, as_array, as_out, check_features
from matbackprop.workspace import Empty, Workspace

__all__ = ["Call", "Gradient", "Layer", "Parameter", "SteppedLayer", "run"]

#: One NumPy call with its arrays, ready to be made: ``partial(np.tanh, z, a)``.
Call = partial[Any]


def run(calls: Iterable[Call]) -> None:
    """Make the calls, in order."""
    for call in calls:
        call()


class Parameter:
    """An array that training changes: a class attribute of a layer that has one.

    The first assignment, in ``__init__``, makes it (a copy, in float64 unless it is another float or complex type);
    None says that this layer has none. Every later assignment writes into the same memory, which is a view into
    the flat vector once a `Sequential` has adopted the layer. The attribute NAME_grad, its gradient, is declared
    beside it with `Gradient`.
    """

    _store = "_parameters"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.key = name

    def __get__(self, layer: Layer | None, owner: type) -> Any:
        if layer is None:
            return self
        if self.key not in layer._parameters:
            layer.initialize()
        return getattr(layer, self._store).get(self.key)

    def __set__(self, layer: Layer, value: object) -> None:
        target = self.__get__(layer, type(layer))
        who = f"{layer.label}.{self.name}"
        if target is None:
            self._create(layer, value, who)
        elif value is not target:
            array = as_array(value, who, target.dtype)
            if array.shape != target.shape:
                hint = "; it looks transposed" if array.shape == target.shape[::-1] else ""
                raise ValueError(f"{who}: expected shape {target.shape}, got {array.shape}{hint}")
            target[...] = array

    def _create(self, layer: Layer, value: object, who: str) -> None:
        if value is None:
            layer._absent.add(self.key)
        elif self.key in layer._absent:
            raise ValueError(f"{who}: this layer was made without one")
        elif layer.owner is not None:
            raise RuntimeError(f"{who}: the layer is part of a Sequential already; set its parameters in __init__")
        else:
            layer._add_parameter(self.key, np.array(as_array(value, who, natural_dtype(value)), order="C"))


class Gradient(Parameter):
    """The gradient of the `Parameter` of that name: replaced at each backward, by assignment.

    Parameters
    ----------
    of : str
        The parameter's name.
    """

    _store = "_gradients"

    def __init__(self, of: str) -> None:
        self.of = of

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.key = name, self.of

    def _create(self, layer: Layer, value: object, who: str) -> None:
        raise AttributeError(f"{who}: the layer has no parameter {self.of!r}; assign that first")


def natural_dtype(value: object) -> np.dtype[Any]:
    """Return the type to compute in where no parameter decides it: the array's own, or float64."""
    dtype = getattr(value, "dtype", None)
    return dtype if dtype in DTYPES else np.dtype(np.float64)


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
    in_place : bool
        Whether `forward` may be given its own input as `out`, and `backward` its own `delta`. False by default.

    Examples
    --------
    A layer that scales each feature:

    >>> import matbackprop as mb
    >>> class Scale(mb.Layer):
    ...     scale = mb.Parameter()
    ...     scale_grad = mb.Gradient("scale")
    ...
    ...     def __init__(self, features):
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
    #: The name of the rule that suits a Linear just before this layer (see `matbackprop.initializers.RULES`).
    preferred_init: ClassVar[str | None] = None

    _parameters: dict[str, Array]
    _gradients: dict[str, Array]

    def __new__(cls, *args: object, **kwargs: object) -> Layer:
        """Set up the parameter store, so that a subclass need not call ``super().__init__()``."""
        self = super().__new__(cls)
        self._parameters, self._gradients = {}, {}
        self._absent: set[str] = set()
        self._owner: weakref.ref[Layer] | None = None
        self._place = ""
        return self

    @abstractmethod
    def forward(self, x: Array, out: Array | None = None) -> Array:
        """Return the layer's output for the batch `x`, written into `out` if that is given."""

    @abstractmethod
    def backward(self, delta: Array, out: Array | None = None) -> Array:
        """Return ∂L/∂x from ``delta = ∂L/∂y``, after replacing the parameters' gradients."""

    def output_width(self, width: int) -> int:
        """Return the number of features that come out where `width` go in. The same, unless overridden."""
        return width

    def initialize(self, rule: str | None = None, rng: np.random.Generator | None = None) -> None:
        """Draw the parameters that were not yet drawn. A layer that draws none has nothing to do here."""

    def _add_parameter(self, name: str, value: Array) -> None:
        self._parameters[name] = value
        self._gradients[name] = np.zeros_like(value)

    # How a model runs the layer. The next three say it as prepared calls; a layer that wrote plain `forward` and
    # `backward` is called through those.

    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute the output of `x` into `out`, for a training pass."""
        yield partial(_into, self.forward, x, out, self, "forward")

    def backward_steps(
        self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty
    ) -> Iterable[Call]:
        """Yield the calls that compute the gradients and, unless `out` is None, ∂L/∂x into `out`.

        `x` and `y` are the forward pass's input and output, of which only what the layer keeps is still valid.
        """
        yield partial(_into, self.backward, delta, out, self, "backward")

    def predict_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute the output of `x` into `out` and leave no trace on the layer."""
        yield partial(_predict_apart, self, x, out)

    # What a model asks of its layers.

    def leaves(self) -> list[Layer]:
        """Return the layers that compute, in order: the layer itself, unless it is a chain."""
        return [self]

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the name and layer of every layer that is held as an attribute of this one."""
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                yield name, value

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield the layer and everything below it, depth first, with torch's dotted prefixes ("0.", "1.2.")."""
        yield prefix, self
        for name, child in self.children():
            yield from child.walk(f"{prefix}{name}.")

    def has_parameters(self) -> bool:
        """Return whether there is anything to train in the layer or below it."""
        return any(layer._parameters for _, layer in self.walk())

    def replica(self) -> Layer:
        """Return a twin that shares this layer's parameters and gradients and has caches of its own."""
        twin = copy.copy(self)
        for name, child in self.children():
            setattr(twin, name, child.replica())
        return twin

    @property
    def owner(self) -> Layer | None:
        """The model that the layer is part of, if any."""
        return None if self._owner is None else self._owner()

    @property
    def label(self) -> str:
        """The layer as error messages name it: its place in the model, if any, and its repr."""
        return f"{self._place}{self!r}"

    def copy(self) -> Layer:
        """Return an independent copy, with parameters of its own and part of no model."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_owner": None, "_place": ""}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _into(method: Any, value: Array, out: Array | None, layer: Layer, what: str) -> None:
    """Call a user's ``method(value, out)`` and see that the result is in `out`, whatever the method did with it."""
    result = method(value, out)
    if out is None or result is out:
        return
    if np.shape(result) != out.shape:
        raise ValueError(
            f"{layer.label}: {what} of a batch of shape {value.shape} returned shape {np.shape(result)}, "
            f"expected {out.shape}; a layer that changes the number of features defines output_width(width)"
        )
    np.copyto(out, result, casting="same_kind")


def _predict_apart(layer: Layer, x: Array, out: Array) -> None:
    """Run a user's forward on a replica: what it caches stays off the layer, in whichever thread."""
    _into(layer.replica().forward, x, out, layer, "forward")


class _Kept(NamedTuple):
    """What a forward pass leaves for the backward pass, by reference."""

    x: Array | None  # (rows, in), where the layer keeps its input
    y: Array | None  # (rows, out), where it keeps its output
    shape: tuple[int, ...]  # of the input as it came
    out_shape: tuple[int, ...]
    dtype: np.dtype[Any]


class SteppedLayer(Layer):
    """A layer whose passes are short lists of NumPy calls: the base of the library's own layers.

    A subclass writes `forward_steps` and `backward_steps`. `forward` and `backward` check what comes, run the same
    calls on fresh arrays, and keep what the backward pass needs; a `Sequential` prepares the calls once for its
    workspace's arrays and then only makes them.
    """

    _kept: _Kept | None
    _workspace: Workspace

    def __new__(cls, *args: object, **kwargs: object) -> SteppedLayer:
        """Start with nothing kept."""
        self = super().__new__(cls, *args, **kwargs)
        self._kept = None
        self._workspace = Workspace()
        return self

    @abstractmethod
    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]: ...

    @abstractmethod
    def backward_steps(
        self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty
    ) -> Iterable[Call]: ...

    def predict_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls of `forward_steps`, which cache nothing."""
        return self.forward_steps(x, out, empty)

    def forward(self, x: Array, out: Array | None = None) -> Array:
        """Return the layer's output for `x`, and keep what `backward` needs, by reference.

        Parameters
        ----------
        x : array_like, shape (..., in)
            One example a row; one example alone, (in,), or more leading dimensions are taken too. Do not change it
            between this call and `backward`.
        out : numpy.ndarray, shape (..., out), optional
            Where to write the result: of its exact shape and dtype.

        Returns
        -------
        numpy.ndarray, shape (..., out)
            `out`, or a fresh array.

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` does not fit, with what was expected and what came.
        """
        self._kept = None
        dtype = next((p.dtype for p in self._parameters.values()), None) or natural_dtype(x)
        x = as_array(x, f"{self.label}: x", dtype)
        check_features(self.label, x.shape, self.in_features)
        shape = (*x.shape[:-1], self.output_width(x.shape[-1]))
        y = np.empty(shape, dtype) if out is None else as_out(out, self.label, shape, dtype)

        rows = _as_rows(x)
        target, copy_back = self._target(y, () if self.in_place else (rows,))
        run(self.forward_steps(rows, target, self._workspace.scratch("forward")))
        if copy_back:
            y[...] = target.reshape(shape)
        self._kept = _Kept(
            rows if self.keeps_input else None, target if self.keeps_output else None, x.shape, shape, dtype
        )
        return y

    def backward(self, delta: Array, out: Array | None = None) -> Array:
        """Return ∂L/∂x from ``delta = ∂L/∂y``, and replace the gradients of the layer's parameters.

        Parameters
        ----------
        delta : array_like, shape (..., out)
            The upstream gradient, of the shape that `forward` returned. It is not modified, unless it is `out`.
        out : numpy.ndarray, shape (..., in), optional
            Where to write the result: of its exact shape and dtype.

        Returns
        -------
        numpy.ndarray, shape (..., in)
            `out`, or a fresh array.

        Raises
        ------
        RuntimeError
            If no successful `forward` came before.
        TypeError, ValueError
            If `delta` or `out` does not fit.
        """
        kept = self._kept
        if kept is None:
            raise RuntimeError(f"{self.label}: backward before forward; call forward(x) first (the last one may have failed)")
        delta = as_array(delta, f"{self.label}: delta", kept.dtype)
        if delta.shape != kept.out_shape:
            raise ValueError(
                f"{self.label}: delta must have the shape of the output, {kept.out_shape}, got {delta.shape}"
            )
        dx = np.empty(kept.shape, kept.dtype) if out is None else as_out(out, self.label, kept.shape, kept.dtype)

        rows = _as_rows(delta)
        busy = [array for array in (kept.x, kept.y, None if self.in_place else rows) if array is not None]
        target, copy_back = self._target(dx, busy)
        run(self.backward_steps(kept.x, kept.y, rows, target, self._workspace.scratch("backward")))  # type: ignore[arg-type]
        if copy_back:
            dx[...] = target.reshape(kept.shape)
        return dx

    @staticmethod
    def _target(result: Array, busy: Iterable[Array]) -> tuple[Array, bool]:
        """Return the rows to compute into, and whether they are to be copied to `result` afterwards.

        Products need C order, and none may write over an array that it still reads.
        """
        if result.flags.c_contiguous and not any(np.may_share_memory(result, array) for array in busy):
            return _as_rows(result), False
        return np.empty((prod(result.shape[:-1]), result.shape[-1]), result.dtype), True

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None, "_workspace": Workspace()}


def _as_rows(array: Array) -> Array:
    """View (..., features) as (rows, features)."""
    return array if array.ndim == 2 else array.reshape(prod(array.shape[:-1]), array.shape[-1])
