"""Numbers as they are printed: five significant digits, and no surprise at zero, infinity and NaN."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from matbackprop.validation import Array

__all__ = ["DIGITS", "Digits", "digits", "number", "span"]

#: How many significant digits are printed.
DIGITS = 5


class Digits(NamedTuple):
    """A number in decimal: ``mantissa`` × 10^``exponent``; an exponent of None is written without a power of ten."""

    mantissa: str
    exponent: int | None = None


def digits(value: Any) -> Digits:
    """Return a real number as text, with `DIGITS` significant digits.

    Zero has no sign here, whichever way it was rounded; infinities are ∞ and -∞.

    Examples
    --------
    >>> from matbackprop.worked.digits import digits
    >>> digits(-0.0), digits(-1.5e-300).exponent
    (Digits(mantissa='0', exponent=None), -300)
    """
    if np.isnan(value):
        return Digits("NaN")
    if np.isinf(value):
        return Digits("∞" if value > 0 else "-∞")
    if value == 0:
        return Digits("0")
    if isinstance(value, (int, np.integer)):
        return Digits(str(int(value)))
    # A long double is beyond float()'s range; NumPy's own formatting knows it.
    text = np.format_float_scientific(value, precision=DIGITS - 1, trim="-")
    mantissa, _, power = text.partition("e")
    exponent = int(power)
    if -4 <= exponent < DIGITS + 1:
        text = np.format_float_positional(float(f"{mantissa}e{exponent}"), trim="-")
        return Digits(text)
    return Digits(mantissa, exponent)


def number(value: Any) -> str:
    """Return a number as plain text, a complex one too.

    Examples
    --------
    >>> from matbackprop.worked.digits import number
    >>> number(1 / 3), number(6.02214e23), number(1 - 2j)
    ('0.33333', '6.0221e23', '1-2i')
    """
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (complex, np.complexfloating)):
        imaginary = number(value.imag)
        return f"{number(value.real)}{'' if imaginary.startswith('-') else '+'}{imaginary}i"
    mantissa, exponent = digits(value)
    return mantissa if exponent is None else f"{mantissa}e{exponent}"


def span(value: Array) -> str:
    """Return the range of an array's finite elements, and how many are not finite, in words.

    Examples
    --------
    >>> from matbackprop.worked.digits import span
    >>> span(np.array([1.0, np.nan, -2.0]))
    '-2 to 1, 1 not finite'
    """
    if not value.size:
        return "empty"
    size = np.abs(value) if np.iscomplexobj(value) else value
    finite = size[np.isfinite(size)]
    bad = value.size - finite.size
    low, high = (number(finite.min()), number(finite.max())) if finite.size else ("", "")
    text = "nothing finite" if not finite.size else f"all {low}" if low == high else f"{low} to {high}"
    if np.iscomplexobj(value):
        text = f"absolute values {text}"
    return f"{text}, {bad} not finite" if bad and finite.size else text
