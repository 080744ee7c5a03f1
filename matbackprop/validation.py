"""Checks at the door: what a caller hands in becomes a sound array, or a clear error.

Every message says which argument of which layer it is about, what was expected, what came, and the likely fix.
"""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import numpy as np

__all__ = [
    "DTYPES",
    "Array",
    "as_array",
    "as_dtype",
    "as_flag",
    "as_numbers",
    "as_out",
    "as_real",
    "as_rng",
    "as_size",
    "as_tolerance",
    "check_features",
    "check_finite",
    "check_interval",
    "check_vector",
    "describe",
]

Array = np.ndarray[Any, np.dtype[Any]]

#: The types a model can compute in. float16 is absent: BLAS has no products for it.
DTYPES = tuple(np.dtype(t) for t in (np.float32, np.float64, np.longdouble, np.complex64, np.complex128))


def describe(value: object) -> str:
    """Name a value in an error message: its type, and its shape and dtype if it is an array.

    Examples
    --------
    >>> from matbackprop.validation import describe
    >>> describe(np.zeros((3, 2)))
    'ndarray of shape (3, 2) and dtype float64'
    >>> describe(None)
    'None'
    """
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"{type(value).__name__} of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def as_array(value: object, name: str, dtype: np.dtype[Any]) -> Array:
    """Return `value` as a plain array that can be computed with in `dtype`.

    Numbers, nested sequences, arrays, memory maps and data frames are taken. The array itself is passed on where it
    already fits, so that nothing is copied needlessly; it is never modified.

    Parameters
    ----------
    value : array_like
        What the caller handed in.
    name : str
        What the message calls it: the layer, where there is one, and the argument.
    dtype : numpy.dtype
        The model's type. Integers, booleans and other floats are converted to it; complex values fit a complex
        type only.

    Returns
    -------
    numpy.ndarray
        Of type `dtype`.

    Raises
    ------
    TypeError
        For None, text, objects, dates, sparse matrices, masked arrays, and complex values where `dtype` is real.
    ValueError
        For ragged sequences.

    Examples
    --------
    >>> from matbackprop.validation import as_array
    >>> as_array([1, 2], "x", np.dtype("float64"))
    array([1., 2.])
    """
    if type(value) is np.ndarray and value.dtype == dtype:
        return value
    array = as_numbers(value, name)
    if array.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(
            f"{name}: expected real numbers for a {dtype} model, got dtype {array.dtype}; "
            "use .real, or model.astype(np.complex128) to take complex steps"
        )
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype, copy=False)
    except FloatingPointError:
        raise ValueError(
            f"{name}: expected numbers that fit {dtype}, got some that are too large; scale them"
        ) from None


def as_numbers(value: object, name: str) -> Array:
    """Return `value` as a plain array of whatever type of number it holds: `as_array` without the conversion.

    Raises
    ------
    TypeError, ValueError
        As `as_array`, for what holds no numbers.
    """
    if type(value) is np.ndarray and value.dtype.kind in "biufc":
        return value
    wanted = f"{name}: expected an array of numbers"
    if value is None:
        raise TypeError(f"{wanted}, got None")
    parts = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise TypeError(f"{wanted}, got a masked array, whose mask would be lost; use x.filled(...) or drop those rows")
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{wanted}, got a sparse {type(value).__name__}; make it dense with .toarray()")
    try:
        array = np.asarray(value)
    except Exception as error:
        if isinstance(value, (list, tuple)) and isinstance(error, ValueError):
            raise ValueError(
                f"{wanted}, got a sequence whose rows differ in length ({error})"
            ) from None  # an object's own __array__ may raise anything
        raise TypeError(f"{wanted}, got {describe(value)}, which could not be converted: {error}") from error
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{wanted}, got {describe(value)}, whose elements have dtype {array.dtype}")
    return array


def as_out(out: object, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return `out` if a result of this shape and type can be written into it.

    Raises
    ------
    TypeError
        If `out` is not an array of type `dtype`.
    ValueError
        If its shape differs, or it is read-only.
    """
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray) or out.dtype != dtype:
        raise TypeError(f"{name}: out must be an array of dtype {dtype}, got {describe(out)}")
    if out.shape != shape:
        raise ValueError(f"{name}: out must have the shape of the result, {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name}: out is read-only")
    return out


def as_size(value: object, name: str) -> int:
    """Return `value` as a positive int.

    Raises
    ------
    TypeError
        If it is not an integer (2.0 and True are not).
    ValueError
        If it is not positive.

    Examples
    --------
    >>> from matbackprop.validation import as_size
    >>> as_size(np.int64(3), "in_features")
    3
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        size = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected a positive integer, got {describe(value)}") from None
    if size < 1:
        raise ValueError(f"{name}: expected a positive integer, got {size}")
    if size >= 1 << 40:
        raise ValueError(f"{name}: expected an integer of a size that fits memory, got {size}")
    return size


def as_real(value: object, name: str, wanted: str) -> float:
    """Return a real number as a float: NaN too, and an integer beyond the floats as an infinity.

    Raises
    ------
    TypeError
        If it is anything else (True and text are); `wanted` says what was expected.

    Examples
    --------
    >>> from matbackprop.validation import as_real
    >>> as_real(-(10**400), "loss", "a number")
    -inf
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected {wanted}, got {describe(value)}")
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value == abs(value) else -float("inf")


def as_tolerance(tolerance: object, name: str) -> float | None:
    """Return `tolerance` as a positive finite float, or None.

    Raises
    ------
    TypeError, ValueError
        If it is anything else.
    """
    if tolerance is None:
        return None
    number = as_real(tolerance, name, "a positive number")
    if not 0 < number < float("inf"):
        raise ValueError(f"{name}: expected a positive number, got {describe(tolerance)}")
    return number


def as_flag(value: object, name: str, fix: str) -> bool:
    """Return `value` if it is True or False.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}; {fix}")
    return bool(value)


def as_dtype(dtype: object, name: str = "dtype") -> np.dtype[Any]:
    """Return `dtype` as one of the types that a model can have: `DTYPES`.

    Raises
    ------
    TypeError
        For every other type.
    """
    try:
        result: np.dtype[Any] | None = np.dtype(dtype)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        result = None
    if dtype is None or result is None or result not in DTYPES:
        names = ", ".join(sorted({d.name for d in DTYPES}))
        raise TypeError(f"{name}: expected one of {names}, got {dtype!r}")
    return result


def as_rng(rng: object, name: str = "rng") -> np.random.Generator:
    """Return the generator that `rng` stands for: None, a seed, a SeedSequence, or a Generator.

    Raises
    ------
    TypeError
        If NumPy's ``default_rng`` cannot make a generator of it.
    """
    if isinstance(rng, np.random.RandomState):
        raise TypeError(f"{name}: got a RandomState, the old interface; pass np.random.default_rng(seed)")
    try:
        if isinstance(rng, bool):
            raise TypeError("a truth value is no seed")
        return np.random.default_rng(rng)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected None, a seed or a numpy Generator, got {describe(rng)} ({error})") from None


def check_features(who: str, shape: tuple[int, ...], width: int | None) -> None:
    """Check that an input of this shape has rows of `width` features (any number, where that is None).

    Raises
    ------
    ValueError
        If it has no rows, or rows of another width.
    """
    if not shape:
        raise ValueError(f"{who}: expected inputs of at least one dimension, (..., features), got a scalar")
    if width is None or shape[-1] == width:
        return
    hint = ""
    if len(shape) == 2 and shape[0] == width:
        hint = "; it looks transposed: one example a row"
    elif len(shape) == 1 and width == 1:
        hint = "; a column of examples is x[:, None]"
    raise ValueError(f"{who}: expected inputs of {width} features, shape (N, {width}), got shape {shape}{hint}")


def check_vector(name: str, value: object, fix: str) -> None:
    """Check that a value is a flat vector that a model could own: 1-D, and of one of `DTYPES`.

    Raises
    ------
    TypeError, ValueError
        If it is not.
    """
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a NumPy vector, got {describe(value)}; {fix}")
    if value.dtype not in DTYPES:
        names = ", ".join(sorted({dtype.name for dtype in DTYPES}))
        raise TypeError(f"{name}: expected one of {names}, got {describe(value)}; convert it with .astype(np.float64)")
    if value.ndim != 1:
        raise ValueError(f"{name}: expected one flat vector, shape (P,), got {describe(value)}; {fix}")


def check_finite(name: str, values: Array) -> None:
    """Raise a ValueError that names the first NaN or infinity, if there is one."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduce(values, None)
    if np.isfinite(total):
        return  # so are all; without an array of their size
    bad = ~np.isfinite(values)
    if bad.any():
        where = tuple(map(int, np.argwhere(bad)[0]))
        raise ValueError(f"{name}: expected finite numbers, got {values[where]} at {where}; drop or fill such rows")


def check_interval(who: object, name: str, values: Array, fix: str) -> None:
    """Raise a ValueError that names the first value outside [0, 1], NaN included, if there is one.

    It is made at every step, so that the repr of `who` waits until it is needed.
    """
    values = values.real
    if values.size and not (np.minimum.reduce(values, None) >= 0 and np.maximum.reduce(values, None) <= 1):
        where = tuple(map(int, np.argwhere(~((values >= 0) & (values <= 1)))[0]))
        raise ValueError(f"{who!r}: {name}: expected values in [0, 1], got {values[where]} at {where}; {fix}")
