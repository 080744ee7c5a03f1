"""A function and its gradient as a checker calls them: flat vectors in, checked numbers out, every call counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from matbackprop.gradcheck.packing import Packing
from matbackprop.gradcheck.report import Reason
from matbackprop.validation import Array, describe

__all__ = ["BadGradient", "EvaluationError", "Problem", "no_gradient", "overlap"]

#: So many calls are watched for writes to their input.
WATCHED = 8


class EvaluationError(Exception):
    """A call of the user's function that raised, or gave no finite number.

    Attributes
    ----------
    point : numpy.ndarray
        The flat vector at which it happened.
    reason : Reason
    """

    def __init__(self, message: str, point: Array, reason: Reason = Reason.FUN_FAILED) -> None:
        super().__init__(message)
        self.point, self.reason = point, reason


class BadGradient(Exception):
    """A gradient that is none: of another form, shape or type than x0, or with entries that are not finite.

    Attributes
    ----------
    where : tuple of (str, tuple of int), or None
        The first bad entry.
    """

    def __init__(
        self, message: str, where: tuple[str, tuple[int, ...]] | None = None, got: float | None = None
    ) -> None:
        super().__init__(message)
        self.where, self.got = where, got


def no_gradient(x: Any) -> Any:
    """Stand for the gradient of a problem of which only the function is asked."""
    raise AssertionError("this problem has no gradient to call")


class Problem:
    """A scalar function, its gradient, and the point x0.

    Parameters
    ----------
    fun : callable
        ``fun(x) -> float``, with x in the form of x0; or, where `grad` is None, ``fun(x) -> (float, gradient)``.
    grad : callable or None
        ``grad(x) -> gradient``, in the form of x0.
    x0 : array_like, dict or list
    complex_fun : callable, optional
        What to call instead of `fun` where x is complex or longdouble; by default `fun`.
    complex_grad : callable, optional
        The same for `grad`.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        grad: Callable[..., Any] | None,
        x0: object,
        complex_fun: Callable[..., Any] | None = None,
        complex_grad: Callable[..., Any] | None = None,
    ) -> None:
        for name, part in (("fun", fun), ("grad", grad)):
            if not callable(part) and not (name == "grad" and part is None):
                raise TypeError(f"check_gradient: {name} must be callable, got {describe(part)}")
        self.packing = Packing(x0)
        self._fun, self._grad = fun, grad
        self._wide_fun, self._wide_grad = complex_fun or fun, complex_grad or grad
        #: How many examples fun averages or sums over, if the caller knows.
        self.batch: int | None = None
        self.fun_calls = self.grad_calls = 0
        #: Which of the two were seen to write to their input.
        self.modified: set[str] = set()
        #: What the last gradient call returned, untouched: to see whether a later call overwrites it.
        self.last_returned: list[Array] = []
        #: The blocks whose gradient came back in the memory of the input.
        self.aliased: set[str] = set()
        self._given: Any = None
        #: The blocks whose gradient came back in another type.
        self.cast: dict[str, np.dtype[Any]] = {}

    def value(self, x: Array) -> Any:
        """Return fun at the flat vector `x`, in whatever precision it comes: float, longdouble or complex.

        Raises
        ------
        EvaluationError
            If it raises.
        TypeError
            If it returns no scalar.
        """
        wide = x.dtype != self.packing.dtype
        self.fun_calls += 1
        result = self._call(self._wide_fun if wide else self._fun, "fun", x)
        if self._grad is None:
            result = self._pair(result)[0]
        value = as_scalar(result)
        if x.dtype.kind == "f" and np.iscomplexobj(value):
            raise TypeError(
                f"check_gradient: fun returned the complex number {value} at a real x; a function with a gradient "
                "returns a real one (its .real, or the square of its absolute value?)"
            )
        return value

    def finite_value(self, x: Array) -> Any:
        """Return `value`, or raise an EvaluationError if it is not finite."""
        value = self.value(x)
        if not np.isfinite(value):
            raise EvaluationError(f"fun returned {value}", x)
        return value

    def gradient(self, x: Array) -> Array:
        """Return a copy of the gradient at the flat vector `x`, as a flat vector.

        Raises
        ------
        EvaluationError
            If it raises.
        BadGradient
            If what it returns is no gradient by x0.
        """
        wide = x.dtype != self.packing.dtype
        self.grad_calls += 1
        result = self._call((self._wide_grad if wide else self._grad) or self._fun, "grad" if self._grad else "fun", x)
        if self._grad is None:
            result = self._pair(result)[1]
        return self._flatten(result, x, wide)

    def gradient_at(self, x: Any) -> Any:
        """Return the gradient at a point in the form of x0, as the user's function returns it."""
        if self._grad is not None:
            return self._grad(x)
        return self._pair(self._fun(x))[1]

    def _pair(self, result: Any) -> tuple[Any, Any]:
        if isinstance(result, tuple) and len(result) == 2:
            return result
        raise TypeError(
            f"check_gradient: without grad, fun must return (value, gradient), got {describe(result)}; "
            "pass the gradient as check_gradient(fun, grad, x0)"
        )

    def _call(self, function: Callable[..., Any], name: str, x: Array) -> Any:
        handed = x.copy()
        arguments = self._given = self.packing.unpack(handed)
        # Code that writes to its input does so from the start; to watch all calls would cost more than they do.
        watched = self.fun_calls + self.grad_calls <= WATCHED
        before = self._handed(arguments, handed).copy() if watched else handed
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                result = function(arguments)
        except BadGradient:
            raise
        except Exception as error:
            reason = Reason.FUN_FAILED if name == "fun" else Reason.GRAD_FAILED
            raise EvaluationError(f"{name} raised {type(error).__name__}: {error}", x, reason) from error
        if watched and not _same(before, self._handed(arguments, handed)):
            self.modified.add(name)
        return result

    def _handed(self, arguments: Any, handed: Array) -> Array:
        try:
            return np.concatenate([np.asarray(part).reshape(-1) for _, part in self.packing.arrays(arguments)])
        except ValueError:
            return handed[:0]  # it changed the dict or list itself

    def _flatten(self, result: Any, x: Array, wide: bool) -> Array:
        """Return a gradient as a checked flat vector, and remember what was handed out."""
        try:
            found = self.packing.arrays(result)
        except ValueError as error:
            raise BadGradient(str(error)) from None
        parts: list[Array] = []
        self.last_returned = []
        for (block, value), (_, handed) in zip(found, self.packing.arrays(self._given), strict=True):
            array = _as_array(value, block.name)
            if array.dtype.kind not in "fiubc":
                raise BadGradient(f"the gradient of {block.name} has dtype {array.dtype}, expected {block.dtype}")
            if array.shape != block.shape:
                raise BadGradient(_shape_message(block.name, block.shape, array.shape))
            if isinstance(value, np.ndarray):
                self.last_returned.append(value)
                if overlap(value, handed):
                    self.aliased.add(block.name)
            native = block.dtype.newbyteorder("=")
            if not wide and array.dtype.newbyteorder("=") != native and not isinstance(value, (float, list)):
                self.cast[block.name] = array.dtype
            parts.append(array.reshape(-1))
        flat = np.concatenate(parts)
        if flat.dtype.kind == "c" and x.dtype.kind != "c":
            raise BadGradient(f"the gradient has dtype {flat.dtype} at a real x; expected {self.packing.dtype}")
        finite = np.isfinite(flat)
        if not finite.all():
            index = int(np.argmin(finite))
            name, at = self.packing.locate(index)
            count = int((~finite).sum())
            raise BadGradient(f"{count} of {flat.size} entries are not finite", (name, at), float(flat[index].real))
        return flat.astype(np.result_type(flat.dtype, np.float64), copy=True)


def as_scalar(result: Any) -> Any:
    """Return what fun returned as one NumPy number.

    Raises
    ------
    TypeError
        If it is no real or complex floating-point scalar.
    """
    if isinstance(result, (np.floating, np.complexfloating, float, complex)):
        return result
    if result is None:
        raise TypeError("check_gradient: fun returned None; does it lack a return?")
    if isinstance(result, tuple):
        raise TypeError("check_gradient: fun returned a tuple; if that is (value, gradient), leave out grad")
    array = np.asarray(result)
    if array.dtype.kind in "biu" and array.ndim == 0:
        raise TypeError(
            f"check_gradient: fun returned the integer {result!r}; a function with a gradient returns a float (an "
            "integer division, or a count?)"
        )
    if array.dtype.kind not in "fc":
        raise TypeError(f"check_gradient: fun must return a float, got {describe(result)}")
    if array.ndim:
        raise TypeError(
            f"check_gradient: fun must return one number, got shape {array.shape}; check a sum of it under random "
            "weights: fun = lambda x: w @ f(x), grad = lambda x: J(x).T @ w"
        )
    return array[()]


def _as_array(value: Any, name: str) -> Array:
    """Return what came for the gradient of one array as an array, or say why it is none."""
    if value is None:
        raise BadGradient(f"the gradient of {name} is None; does grad lack a return?")
    if isinstance(value, (str, bytes)):
        raise BadGradient(f"the gradient of {name} is text, {value!r}; expected an array of numbers")
    if isinstance(value, np.ma.MaskedArray):
        raise BadGradient(f"the gradient of {name} is a masked array, whose mask would be lost; return g.filled(0)")
    if hasattr(value, "toarray"):
        raise BadGradient(f"the gradient of {name} is a sparse {type(value).__name__}; return g.toarray()")
    try:
        return np.asarray(value)
    except Exception as error:  # noqa: BLE001 - an object's own __array__ may raise anything
        raise BadGradient(f"the gradient of {name} is no array of numbers: {error}") from None


def overlap(a: Any, b: Any) -> bool:
    """Return whether two arrays that can be written to have memory in common."""
    writeable = all(isinstance(array, np.ndarray) and array.flags.writeable for array in (a, b))
    return writeable and np.shares_memory(a, b)


def _shape_message(name: str, expected: tuple[int, ...], got: tuple[int, ...]) -> str:
    hint = ""
    if got == expected[::-1] and got != expected:
        hint = "; it looks transposed"
    elif np.prod(got) == np.prod(expected):
        hint = "; it has the right number of entries, so reshape it"
    return f"the gradient of {name} has shape {got}, expected {expected}{hint}"


def _same(a: Array, b: Array) -> bool:
    return a.size == b.size and (bool((a == b).all()) or bool(np.array_equal(a, b, equal_nan=True)))
