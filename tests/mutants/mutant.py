"""What a planted bug is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import matbackprop as mb


class Pair(NamedTuple):
    """A function, the wrong gradient, and a point: what every checker can be given."""

    fun: Callable[..., Any]
    grad: Callable[..., Any] | None
    x0: Any


@dataclass(frozen=True)
class Mutant:
    """A planted bug.

    Attributes
    ----------
    name : str
    pair : callable
        Makes a fresh `Pair`.
    cause : str
        A regular expression that the cause in the report must match.
    where : frozenset of str
        The arrays of the gradient that are wrong; empty where it is all of it, or no array in particular.
    check : callable, optional
        Makes the report; by default ``check_gradient(*pair())``.
    """

    name: str
    pair: Callable[[], Pair]
    cause: str
    where: frozenset[str] = frozenset()
    check: Callable[[int], mb.GradientReport] | None = field(default=None)

    def report(self, seed: int) -> mb.GradientReport:
        """Check the bug."""
        if self.check is not None:
            return self.check(seed)
        fun, grad, x0 = self.pair()
        return mb.check_gradient(fun, grad, x0, rng=seed)
