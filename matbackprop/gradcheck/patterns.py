"""What a wrong gradient looks like: the patterns that usual mistakes leave behind, tried in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from matbackprop.validation import Array

__all__ = ["Sample", "describe_pattern", "name_ratio"]


@dataclass
class Sample:
    """Entries of one array of x0: what the gradient says, and what it should say.

    Attributes
    ----------
    index : numpy.ndarray of int
        The sampled entries, flat in the array.
    expected, got, at : numpy.ndarray
        Derivative, gradient and x at those entries.
    full : numpy.ndarray
        The whole array of the gradient, in its shape.
    wrong : numpy.ndarray of bool
        Which of the sampled entries are wrong.
    """

    index: Array
    expected: Array
    got: Array
    at: Array
    full: Array
    wrong: Array

    def close(self, a: Array, b: Array) -> bool:
        """Return whether two versions of the entries agree to six digits, and far better than the gradient does."""
        size = float(max(np.abs(b).max(initial=0.0), np.abs(a).max(initial=0.0)))
        error = float(np.abs(self.expected - self.got).max(initial=0.0))
        return size > 0 and bool(np.abs(a - b).max(initial=0.0) <= min(1e-6 * size, 1e-3 * error))

    def moved(self, version: Array) -> bool:
        """Return whether the gradient, rearranged to `version`, would be right."""
        return self.index.size > 1 and self.close(version.reshape(-1)[self.index], self.expected)


def _isolated(s: Sample) -> str | None:
    count = int(s.wrong.sum())
    if s.index.size < 8 or count > max(1, min(3, s.index.size // 12)):
        return None
    bad = np.flatnonzero(s.wrong)
    if not s.got[bad].any():
        return None
    if count == 1 and s.expected[bad[0]]:
        return f"is right but for one entry, which is {name_ratio(float(s.got[bad[0]] / s.expected[bad[0]]), ())}"
    return f"is right but for {count} entries"


def _transposed(s: Sample) -> str | None:
    if s.full.ndim != 2 or min(s.full.shape) < 2:
        return None
    rows, columns = s.full.shape
    if rows == columns and s.moved(s.full.T):
        return "looks transposed"
    if s.moved(s.full.reshape(columns, rows).T):
        return "looks transposed: its entries are in the order of the transpose (reshape in place of .T?)"
    return None


def _reordered(s: Sample) -> str | None:
    if s.full.ndim and s.moved(s.full[::-1]):
        return "is in reverse order"
    if s.full.ndim == 2 and s.moved(s.full[:, ::-1]):
        return "has its columns in reverse order"
    for axis, what in enumerate(("entries" if s.full.ndim == 1 else "rows", "columns")[: s.full.ndim]):
        if any(s.moved(np.roll(s.full, shift, axis)) for shift in (-1, 1)):
            return f"has its {what} shifted by one"
    whole = s.index.size == s.full.size > 2
    if whole and s.wrong.sum() > 1 and s.close(np.sort(s.got), np.sort(s.expected)):
        return "has the right numbers in the wrong places (an index, or an order, is mixed up)"
    return None


def _missing(s: Sample) -> str | None:
    if not s.got[s.wrong].any():
        return "is zero where it should not be: masked, clipped, overwritten or never computed"
    return None


def _unmasked(s: Sample) -> str | None:
    small = 1e-9 * float(np.abs(s.got).max())
    if np.all(np.abs(s.expected[s.wrong]) <= small):
        return "is not zero where fun does not change: a mask is missing, or the slope of a silent unit is not 0"
    return None


def _constant_ratio(s: Sample) -> str | None:
    expected, got = s.expected[s.wrong], s.got[s.wrong]
    if expected.size < 2 or not expected.all():
        return None
    ratios = got / expected
    if np.ptp(ratios) <= min(1e-6 * abs(ratios[0]), 1e-2 * abs(ratios[0] - 1)):
        return f"is {name_ratio(float(ratios[0]), ())}"
    return None


def _weight_decay(s: Sample) -> str | None:
    difference = s.got - s.expected
    at = s.at
    if np.count_nonzero(at) < 3 or at.size < 3:
        return None
    factor = float(difference @ at) / float(at @ at)
    if factor and np.abs(difference - factor * at).max() <= 1e-4 * np.abs(difference).max() and np.ptp(at):
        verb = "lacks" if factor < 0 else "has too much of"
        return f"{verb} {abs(factor):.4g} times the parameter: weight decay, or half or twice of it?"
    signs = np.sign(at)
    factor = float(difference @ signs) / float(signs @ signs)
    if factor and np.abs(difference - factor * signs).max() <= 1e-4 * abs(factor) and np.ptp(signs):
        verb = "lacks" if factor < 0 else "has too much of"
        return f"{verb} {abs(factor):.4g} times the sign of the parameter: an L1 penalty?"
    return None


def _offset(s: Sample) -> str | None:
    difference = s.got - s.expected
    if difference.size > 2 and np.ptp(difference) <= 1e-5 * np.abs(difference).max() and np.ptp(s.expected):
        return f"is off by the constant {difference[0]:.4g}"
    return None


def _all_equal(s: Sample) -> str | None:
    if s.full.size > 2 and not np.ptp(s.full) and np.ptp(s.expected):
        return "has one value in all entries: summed or averaged over the wrong axis?"
    if s.full.ndim == 2:
        for axis, what in ((0, "rows"), (1, "columns")):
            if s.full.shape[axis] > 1 and not np.ptp(s.full, axis=axis).any() and np.ptp(s.full):
                return f"has equal {what}: summed, averaged or broadcast over the wrong axis?"
    return None


def _line_ratio(s: Sample) -> str | None:
    if s.full.ndim != 2:
        return None
    for axis, what in ((0, "row"), (1, "column")):
        if s.full.shape[1 - axis] < 2:
            continue
        lines = np.unravel_index(s.index, s.full.shape)[axis]
        groups = [(s.expected[lines == line], s.got[lines == line]) for line in np.unique(lines)]
        groups = [(e, g) for e, g in groups if e.size > 1 and e.all()]
        if (
            len(groups) > 1
            and s.wrong.sum() > 3
            and all(np.ptp(g / e) <= 1e-6 * np.abs(g / e).max() for e, g in groups)
        ):
            return f"has a wrong factor in each {what} (a unit's derivative, or a weight of its example)"
    return None


def _few_digits(s: Sample) -> str | None:
    """Every entry a little off, by another factor each: no formula goes wrong like that."""
    size = float(np.abs(s.expected).max())
    error = float(np.abs(s.got - s.expected).max())
    if error >= 1e-2 * size or s.wrong.mean() < 0.5:
        return None
    if error < 1e-6 * size:
        return (
            f"is right to {error / size:.0e} only: float32 somewhere inside, an epsilon in one of the two, or the "
            "tolerance of a solver?"
        )
    return (
        f"is right to {error / size:.0e} only: is fun computed to a tolerance (an ODE solver, a quadrature, an "
        "iteration that stops early)? Tighten it, or differentiate the steps that it takes"
    )


def _magnitude(s: Sample) -> str | None:
    if s.close(np.abs(s.got), np.abs(s.expected)):
        return "has the right size and the wrong sign in some entries"
    return None


PATTERNS: tuple[Callable[[Sample], str | None], ...] = (
    _isolated,
    _transposed,
    _weight_decay,
    _offset,
    _missing,
    _unmasked,
    _all_equal,
    _magnitude,
    _constant_ratio,
    _reordered,
    _line_ratio,
    _few_digits,
)


def describe_pattern(sample: Sample) -> str:
    """Return the first pattern that the sample shows, and where in the array the wrong entries are."""
    text = next(
        (found for pattern in PATTERNS if (found := pattern(sample)) is not None), "is wrong, by no common factor"
    )
    return text if "right but for" in text else text + _place(sample)


def _place(s: Sample) -> str:
    """Say whether the wrong entries fill some rows or columns and leave the others."""
    if s.wrong.all() or not s.wrong.any() or not s.full.ndim:
        return ""
    if s.full.ndim == 1:
        if s.wrong.sum() == 1 and s.index[s.wrong][0] == s.full.size - 1:
            return ", only in the last entry"
        return f", in {int(s.wrong.sum())} of the {s.index.size} entries looked at"
    lines = np.unravel_index(s.index, s.full.shape)
    for axis, what in ((0, "row"), (s.full.ndim - 1, "column")):
        bad = np.unique(lines[axis][s.wrong])
        others = lines[axis][~s.wrong & (s.expected != 0)]
        if not np.intersect1d(bad, others).size and bad.size < s.full.shape[axis]:
            return f", only in {_lines(bad, what, s.full.shape[axis])}"
    return f", in {int(s.wrong.sum())} of the {s.index.size} entries looked at"


def _lines(bad: Array, what: str, count: int) -> str:
    if bad.size == 1 and bad[0] == count - 1:
        return f"the last {what}"
    shown = ", ".join(map(str, bad[:6])) + (", ..." if bad.size > 6 else "")
    return f"{what}{'s' if bad.size > 1 else ''} {shown}"


def name_ratio(ratio: float, sizes: Iterable[tuple[int, str]]) -> str:
    """Return a wrong common factor in words, with its likely cause.

    Parameters
    ----------
    ratio : float
        ``got / expected``.
    sizes : iterable of (int, str)
        Numbers that a factor may come from, and what each is: ``(32, "the batch size")``.

    Examples
    --------
    >>> from matbackprop.gradcheck.patterns import name_ratio
    >>> name_ratio(-1.0, ())
    'the negative of what it should be: a sign is lost (y - ŷ for ŷ - y?)'
    >>> name_ratio(8.0, [(8, "the batch size")])
    '8 times too large, and 8 is the batch size: summed where fun averages?'
    """

    def same(a: float, b: float) -> bool:
        return abs(a - b) <= 1e-6 * abs(b)

    if ratio == 0:
        return "zero: never computed, or cut off on the way"
    if same(ratio, -1):
        return "the negative of what it should be: a sign is lost (y - ŷ for ŷ - y?)"
    large = abs(ratio) > 1
    factor = abs(ratio) if large else 1 / abs(ratio)
    if abs(factor - 1) < 1e-3 and ratio > 0:
        sign = "+" if ratio > 1 else "-"
        return f"off by a common factor of 1 {sign} {abs(ratio - 1):.3g}: an epsilon, or a rounded constant?"
    whole = round(factor)
    text = f"{whole if same(factor, whole) else f'{factor:.8g}'} times too {'large' if large else 'small'}"
    if ratio < 0:
        text += " and of the wrong sign"
    sizes = [(size, what) for size, what in sizes if size > 1]
    batch = next((size for size, what in sizes if what == "the batch size"), None)
    if same(factor, 2) and batch != 2:
        return text + (
            ": added twice, or the 1/2 of the loss forgotten?" if large else ": the 2 of a square forgotten?"
        )
    for size, what in sizes:
        if same(factor, size):
            doubt = "summed where fun averages?" if large else "averaged twice, or averaged where fun sums?"
            return f"{text}, and {size} is {what}: {doubt}"
    if batch is not None and same(factor, batch * batch):
        return f"{text}, the square of {batch}, the batch size: averaged where it should be summed, twice?"
    if same(factor, whole):
        return text + (": summed where fun averages?" if large else ": averaged twice, or averaged where fun sums?")
    return text
