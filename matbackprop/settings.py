"""Settings: what a user chooses for an optimiser, a schedule, a penalty, a loss: how it is checked, and shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from matbackprop.validation import as_flag, as_real, describe

__all__ = ["Check", "Configured", "Setting", "T", "count", "flag", "one_of", "real"]

T = TypeVar("T")

Check = Callable[[object, str], T]

_MISSING = object()


class Configured:
    """Something with settings: it checks them together, and its repr shows those that are not the default."""

    def check_settings(self) -> None:
        """Raise a ValueError if settings exclude each other; some may not be set yet. By default none do."""

    def __repr__(self) -> str:
        """Show the arguments of ``__init__`` that are attributes too and differ from their defaults.

        A word that comes first, a reduction say, needs no name.
        """
        names, defaults, first = _arguments(type(self).__init__)
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        bare = first if isinstance(values.get(first), str) else None
        shown = [
            _text(value) if name == bare else f"{name}={_text(value)}"
            for name, value in values.items()
            if not _same(value, defaults.get(name, _MISSING))
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


class Setting(Generic[T]):
    """An attribute that is checked whenever it is set.

    Its owner is a `Configured`, whose ``check_settings()`` is called too; if that raises, the old value stays. There
    is no ``__get__``: the value lies in the instance's dictionary, and reading it costs what any attribute costs.

    Parameters
    ----------
    check : callable
        ``check(value, name)`` returns the value to keep, or raises.
    """

    def __init__(self, check: Check[T]) -> None:
        self.check = check

    if TYPE_CHECKING:  # what is read is what the check has returned

        def __get__(self, owner: object, kind: type) -> T: ...

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, owner: Configured, value: object) -> None:
        kept = vars(owner)
        old = kept.get(self.name, _MISSING)
        kept[self.name] = self.check(value, f"{type(owner).__name__}: {self.name}")
        try:
            owner.check_settings()
        except Exception:
            if old is _MISSING:
                del kept[self.name]
            else:
                kept[self.name] = old
            raise


def real(low: float = 0.0, high: float = float("inf"), ends: str = "[)") -> Check[float]:
    """Return a check for a real number in an interval: by default finite and not negative.

    Parameters
    ----------
    low, high : float
    ends : str
        Two brackets: whether `low` and `high` are themselves allowed.

    Examples
    --------
    >>> from matbackprop.settings import real
    >>> real(0, 1)(np.float32(0.5), "momentum")
    0.5
    >>> real(0, 1)(1, "momentum")
    Traceback (most recent call last):
    ValueError: momentum: expected a number in [0, 1), got int 1
    """
    if high == float("inf") and ends == "[)":
        wanted = f"a finite number of at least {low:g}"
    elif high == float("inf") and ends == "()":
        wanted = f"a finite number above {low:g}"
    else:
        wanted = f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}"

    def check(value: object, name: str) -> float:
        number = as_real(value, name, wanted)
        if not low <= number <= high or (number == low and ends[0] == "(") or (number == high and ends[1] == ")"):
            raise ValueError(f"{name}: expected {wanted}, got {describe(value)}")
        return number

    return check


def count(value: object, name: str) -> int:
    """Return `value` if it is an integer of at least 0, and raise if not."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{name}: expected an integer of at least 0, got {describe(value)}")
        return int(value)
    raise TypeError(f"{name}: expected an integer of at least 0, got {describe(value)}")


def flag(value: object, name: str) -> bool:
    """Return `value` if it is True or False, and raise if not."""
    return as_flag(value, name, "numbers and words are not taken for either")


def one_of(*names: str) -> Check[str]:
    """Return a check for one of these words."""

    def check(value: object, name: str) -> str:
        if value not in names:
            raise ValueError(f"{name}: expected one of {list(names)}, got {describe(value)}")
        return str(value)

    return check


@lru_cache
def _arguments(init: Any) -> tuple[tuple[str, ...], dict[str, object], str]:
    """Return the names that an ``__init__`` takes, their defaults, and the first that needs no name."""
    code = getattr(init, "__code__", None)
    if code is None:  # object's own
        return (), {}, ""
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    plain, given = names[: code.co_argcount - 1], init.__defaults__ or ()
    defaults = {**dict(zip(plain[len(plain) - len(given) :], given, strict=True)), **(init.__kwdefaults__ or {})}
    return names, defaults, plain[0] if plain else ""


def _text(value: object) -> str:
    """Return a value's repr, with all digits of a short array."""
    return repr(value.tolist() if isinstance(value, np.ndarray) and value.size <= 1000 else value)


def _same(value: object, default: object) -> bool:
    """Return whether a value is its default; arrays and the like never are."""
    return value is default or (type(default) in (bool, int, float, str, tuple) and bool(value == default))
