"""SteppedLayer: a layer whose passes are lists of NumPy calls, run at once when it stands alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from math import prod
from threading import get_ident
from typing import Any, NamedTuple, Self

import numpy as np

from matbackprop.calls import Call, run
from matbackprop.layer import Layer
from matbackprop.parameter import natural_dtype
from matbackprop.validation import Array, as_array, as_out, check_features
from matbackprop.workspace import Empty, Workspace

__all__ = ["SteppedLayer"]


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

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Start with nothing kept."""
        self = super().__new__(cls, *args, **kwargs)
        self._kept = None
        self._workspace = Workspace()
        return self

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("forward", "backward"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__}: a model runs this kind of layer by its {name}_steps and would not see {name}; "
                    f"override {name}_steps, or derive from Layer"
                )

    @abstractmethod
    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute the output of `x` into `out`."""

    @abstractmethod
    def backward_steps(self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty) -> Iterable[Call]:
        """Yield the calls that compute the gradients and, unless `out` is None, ∂L/∂x into `out`."""

    def predict_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Yield the calls of `forward_steps`, which cache nothing."""
        return self.forward_steps(x, out, empty)

    def forget(self) -> None:
        """Drop what the last forward pass left."""
        self._pass = self._kept = None

    def follow(self, other: Layer) -> None:
        """Do nothing: what the calls are made of is settled when they are prepared."""

    def forward(self, x: Array, out: Array | None = None) -> Array:
        """Return the layer's output for `x`, and keep what `backward` needs, by reference.

        Parameters
        ----------
        x : array_like, shape (..., in)
            One example a row; one example alone, (in,), or more leading dimensions are taken too. Do not change it,
            nor the result, between this call and `backward`.
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
        self._kept = self._pass = None
        self.initialize()
        dtype = next((p.dtype for p in self._parameters.values()), None) or natural_dtype(x)
        x = as_array(x, f"{self.label}: x", dtype)
        check_features(self.label, x.shape, self.in_features)
        shape = (*x.shape[:-1], self.output_width(x.shape[-1]))
        y = np.empty(shape, dtype) if out is None else as_out(out, self.label, shape, dtype)

        if self.keeps_input and np.may_share_memory(x, y):
            x = x.copy()  # the result is about to overwrite what backward reads
        rows = _as_rows(x)
        target, copy_back = self._target(y, () if self.in_place else (rows,))
        run(self.forward_steps(rows, target, self._workspace.scratch(("forward", get_ident()))))  # threads may share it
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
            raise RuntimeError(
                f"{self.label}: backward before forward; call forward(x) first (the last one may have failed)"
            )
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
        if result.flags.carray and not any(np.may_share_memory(result, array) for array in busy):
            return _as_rows(result), False
        return np.empty((prod(result.shape[:-1]), result.shape[-1]), result.dtype), True

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None, "_workspace": Workspace()}


def _as_rows(array: Array) -> Array:
    """View (..., features) as (rows, features)."""
    return array if array.ndim == 2 else array.reshape(prod(array.shape[:-1]), array.shape[-1])
