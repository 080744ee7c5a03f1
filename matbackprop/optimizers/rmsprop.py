"""RMSprop, also centred and with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial as call

import numpy as np

from matbackprop.calls import Call
from matbackprop.optimizer import Structural
from matbackprop.prepared import PreparedOptimizer, Scratch
from matbackprop.settings import flag, real
from matbackprop.validation import Array

__all__ = ["RMSprop"]


class RMSprop(PreparedOptimizer):
    """RMSprop: each gradient over the root of its mean square.

    v ← α v + (1 - α) g²;  w ← w - γ g / (√v + ε). With `centered`, ḡ ← α ḡ + (1 - α) g and √(v - ḡ²) stands for √v;
    with momentum μ, u ← μ u + g / (√v + ε) and w ← w - γ u.

    Parameters
    ----------
    lr : float, default 0.01
        The learning rate γ.
    alpha : float, keyword-only, default 0.99
        α, in [0, 1).
    eps : float, keyword-only, default 1e-8
    weight_decay : float, keyword-only, default 0
        λ: adds λ w to the gradient.
    momentum : float, keyword-only, default 0
        μ, in [0, 1).
    centered : bool, keyword-only, default False

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number in its range, now or when it is set later.

    Notes
    -----
    v - ḡ² is never negative, but for rounding, where a gradient hardly changes. It counts as 0 then, so that the
    step is g / ε; torch takes the root of the negative number, and the parameter becomes NaN.

    References
    ----------
    Tieleman, Hinton. Lecture 6.5, COURSERA: Neural networks for machine learning, 2012.
    Graves. Generating sequences with recurrent neural networks. 2013. arXiv:1308.0850: centred, with momentum.

    Examples
    --------
    >>> import matbackprop as mb
    >>> optimizer = mb.RMSprop(lr=0.1)
    >>> parameters = np.array([1.0, 1.0])
    >>> optimizer.step(parameters, np.array([1e-3, -1e3]))
    >>> parameters.round(3)
    array([0., 2.])
    """

    alpha = Structural(real(0, 1))
    eps = Structural(real())
    weight_decay = Structural(real())
    momentum = Structural(real(0, 1))
    centered = Structural(flag)
    squares = frozenset({"v"})

    def __init__(
        self,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(lr)
        self.alpha, self.eps, self.weight_decay = alpha, eps, weight_decay
        self.momentum, self.centered = momentum, centered

    @property
    def slots(self) -> tuple[str, ...]:
        """The mean square v, where `centered` the mean ḡ, and with momentum the velocity u."""
        return ("v", *(("mean",) if self.centered else ()), *(("velocity",) if self.momentum else ()))

    def numbers(self) -> tuple[float, ...]:
        """-γ, α, 1 - α, ε, λ, μ."""
        return -self.lr, self.alpha, 1 - self.alpha, self.eps, self.weight_decay, self.momentum

    def calls(
        self,
        w: Array,
        g: Array,
        numbers: tuple[Array, ...],
        scratch: Scratch,
        *,
        v: Array,
        mean: Array | None = None,
        velocity: Array | None = None,
    ) -> Iterable[Call]:
        """Yield v ← α v + (1 - α) g²; w ← w - γ g / (√v + ε)."""
        (rate, alpha, rest, eps, decay, momentum), (d, s) = numbers, scratch
        if self.weight_decay:
            yield from self.with_multiple(g, decay, w, d)
            g = d
        yield from self.average_square(v, alpha, g, rest, s)
        if mean is not None:
            yield from self.average(mean, alpha, g, rest, s)
            yield call(np.multiply, mean, mean, s)
            yield call(np.subtract, v, s, s)
            yield call(np.maximum, s, np.zeros((), s.dtype), out=s)
            v = s
        yield call(np.sqrt, v, s)
        yield call(np.add, s, eps, s)
        yield call(np.divide, g, s, s)
        if velocity is not None:
            yield from self.with_multiple(s, momentum, velocity, velocity)
            s, d = velocity, s
        yield from self.add_multiple(w, rate, s, d)
