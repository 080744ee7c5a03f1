"""Parameter and Gradient: the arrays of a layer that training changes, as attributes of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.validation import DTYPES, Array, as_array

if TYPE_CHECKING:
    from matbackprop.layer import Layer

__all__ = ["Gradient", "Layout", "Parameter", "natural_dtype"]


class Layout:
    """The two vectors of a model, and with them its type.

    Parameters
    ----------
    parameters, gradients : numpy.ndarray, shape (P,)
    """

    def __init__(self, parameters: Array, gradients: Array) -> None:
        self.parameters, self.gradients = parameters, gradients


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
        target = getattr(layer, self._store).get(self.key)
        if target is None and self.key in layer.drawn:
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
        elif layer.adopted:
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
    return dtype if isinstance(dtype, np.dtype) and dtype in DTYPES else np.dtype(np.float64)
