"""The optimisers: SGD, Adam, AdamW, RMSprop.

With w the parameters, g the gradients, γ the learning rate, λ the weight decay and t the number of the step:

========  ==========================================================================================
SGD       u ← μ u + (1 - τ) g;  w ← w - γ u
Adam      m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  w ← w - γ m̂ / (√v̂ + ε)
          with m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)
AdamW     w ← (1 - γ λ) w, then Adam
RMSprop   v ← α v + (1 - α) g²;  w ← w - γ g / (√v + ε)
========  ==========================================================================================

Everywhere but in AdamW, weight decay adds λ w to g first. Names, defaults and the options' meaning are torch's, of
`torch.optim` 2.13, with which the trajectories agree to rounding (benchmarks/optimizer_agreement.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial as call
from math import sqrt
from typing import Any

import numpy as np

from matbackprop.calls import Call
from matbackprop.optimizer import Structural
from matbackprop.prepared import PreparedOptimizer
from matbackprop.settings import flag, real
from matbackprop.validation import Array, describe

__all__ = ["SGD", "Adam", "AdamW", "RMSprop"]

Scratch = tuple[Array, Array]


def average(mean: Array, beta: Array, x: Array, rest: Array, s: Array) -> Iterator[Call]:
    """Yield the calls for m ← β m + (1 - β) x."""
    yield call(np.multiply, mean, beta, mean)
    yield call(np.multiply, x, rest, s)
    yield call(np.add, mean, s, mean)


def average_square(mean: Array, beta: Array, x: Array, rest: Array, s: Array) -> Iterator[Call]:
    """Yield the calls for v ← β v + (1 - β) x²."""
    yield call(np.multiply, mean, beta, mean)
    yield call(np.multiply, x, x, s)
    yield call(np.multiply, s, rest, s)
    yield call(np.add, mean, s, mean)


def plus(g: Array, w: Array, factor: Array, d: Array) -> Iterator[Call]:
    """Yield the calls for d = g + λ w."""
    yield call(np.multiply, w, factor, d)
    yield call(np.add, d, g, d)


def minus(w: Array, rate: Array, u: Array, s: Array) -> Iterator[Call]:
    """Yield the calls for w ← w - γ u."""
    yield call(np.multiply, u, rate, s)
    yield call(np.subtract, w, s, w)


class SGD(PreparedOptimizer):
    """Gradient descent, with momentum and Nesterov's variant of it.

    w ← w - γ g; with momentum μ, u ← μ u + (1 - τ) g and w ← w - γ u, where u's first step has u = g, and u is kept
    as it is while there is no momentum; with `nesterov`, w ← w - γ (g + μ u). As in torch, and in Sutskever et al.
    (2013) but for γ, which stands before u here.

    Parameters
    ----------
    lr : float
        The learning rate γ.
    momentum : float, keyword-only, default 0
        μ, in [0, 1).
    dampening : float, keyword-only, default 0
        τ, in [0, 1].
    weight_decay : float, keyword-only, default 0
        λ: adds λ w to the gradient, the gradient of ``L2(λ)`` over all parameters, biases too.
    nesterov : bool, keyword-only, default False
        Needs momentum, and no dampening.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number in its range, now or when it is set later.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton. On the importance of initialization and momentum in deep learning. ICML 2013.

    Examples
    --------
    >>> import matbackprop as mb
    >>> optimizer = mb.SGD(lr=0.1, momentum=0.9)
    >>> parameters, gradients = np.array([1.0, 2.0]), np.array([1.0, -1.0])
    >>> for _ in range(2):
    ...     optimizer.step(parameters, gradients)
    >>> parameters
    array([0.71, 2.29])
    """

    momentum = Structural(real(0, 1))
    dampening = Structural(real(0, 1, "[]"))
    weight_decay = Structural(real())
    nesterov = Structural(flag)

    _first: int  # the velocity's first step

    def __init__(
        self,
        lr: float,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(lr)
        self.momentum, self.dampening, self.weight_decay = momentum, dampening, weight_decay
        self.nesterov = nesterov

    def check_settings(self) -> None:
        """Raise a ValueError where Nesterov's variant has no momentum to look ahead with, or a dampened one."""
        if vars(self).get("nesterov") and (not self.momentum or self.dampening):
            raise ValueError(
                f"SGD: nesterov needs momentum above 0 and no dampening, got momentum={self.momentum}, "
                f"dampening={self.dampening}"
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """The velocity u, where there is momentum, or was."""
        return ("velocity",) if self.momentum or "velocity" in self._state else ()

    def numbers(self) -> tuple[float, ...]:
        """γ, λ, μ, 1 - τ, the last of which is 1 in the velocity's first step."""
        return self.lr, self.weight_decay, self.momentum, 1.0 if self._steps <= self._first else 1.0 - self.dampening

    def calls(
        self, w: Array, g: Array, numbers: tuple[Array, ...], scratch: Scratch, velocity: Array | None = None
    ) -> Iterable[Call]:
        """Yield u ← μ u + (1 - τ) g; w ← w - γ u, or w - γ (g + μ u)."""
        (lr, decay, momentum, rest), (d, s) = numbers, scratch
        if self.weight_decay:
            yield from plus(g, w, decay, d)
            g = d
        if velocity is not None and self.momentum:
            u = velocity
            if self.dampening:
                yield from average(u, momentum, g, rest, s)
            else:
                yield call(np.multiply, u, momentum, u)
                yield call(np.add, u, g, u)
            if self.nesterov:
                yield call(np.multiply, u, momentum, s)
                yield call(np.add, s, g, s)
                u = s
            g = u
        yield from minus(w, lr, g, s)

    def _bind(self, parameters: Array, gradients: Array) -> None:
        begins = "velocity" not in self._state
        super()._bind(parameters, gradients)
        if begins and "velocity" in self._state:
            self._first = self._steps + 1

    def reset(self) -> None:
        """Forget the state and the number of steps, as if no step had been taken. The settings stay."""
        super().reset()
        self._first = 0


class Adam(PreparedOptimizer):
    """Adam: steps of the size γ, in the direction of a mean gradient, measured by its spread.

    m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  w ← w - γ m̂ / (√v̂ + ε), with the means' start from zero
    corrected, m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) (Kingma & Ba, Algorithm 1, computed in the order that the end
    of their section 2 gives). With `amsgrad` the largest v so far stands for v (Reddi et al., as torch has it).

    Parameters
    ----------
    lr : float, default 0.001
        The learning rate γ.
    betas : (float, float), keyword-only, default (0.9, 0.999)
        β₁ and β₂, each in [0, 1). They may be set as `beta1` and `beta2` too.
    eps : float, keyword-only, default 1e-8
        ε, added to the root.
    weight_decay : float, keyword-only, default 0
        λ: adds λ w to the gradient. See `AdamW` for the decay that the adaptive rate leaves alone.
    amsgrad : bool, keyword-only, default False

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number in its range, now or when it is set later.

    References
    ----------
    Kingma, Ba. Adam: a method for stochastic optimization. ICLR 2015. arXiv:1412.6980.
    Reddi, Kale, Kumar. On the convergence of Adam and beyond. ICLR 2018. arXiv:1904.09237.

    Examples
    --------
    The first step has the size of the learning rate, whatever the gradient's:

    >>> import matbackprop as mb
    >>> optimizer = mb.Adam(lr=0.1)
    >>> parameters = np.array([1.0, 1.0])
    >>> optimizer.step(parameters, np.array([1e-3, -1e3]))
    >>> parameters.round(3)
    array([0.9, 1.1])
    """

    beta1 = Structural(real(0, 1))
    beta2 = Structural(real(0, 1))
    eps = Structural(real())
    weight_decay = Structural(real())
    amsgrad = Structural(flag)
    squares = frozenset({"v", "v_max"})

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(lr)
        self.betas, self.eps, self.weight_decay, self.amsgrad = betas, eps, weight_decay, amsgrad

    @property
    def betas(self) -> tuple[float, float]:
        """β₁ and β₂."""
        return self.beta1, self.beta2

    @betas.setter
    def betas(self, value: Any) -> None:
        who = f"{type(self).__name__}: betas"
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"{who}: expected two numbers in [0, 1), (0.9, 0.999) say, got {describe(value)}")
        self.beta1, self.beta2 = (real(0, 1)(beta, f"{who}[{index}]") for index, beta in enumerate(value))

    @property
    def slots(self) -> tuple[str, ...]:
        """The means m and v, and with `amsgrad` the largest v so far."""
        return ("m", "v", "v_max") if self.amsgrad else ("m", "v")

    def numbers(self) -> tuple[float, ...]:
        """β₁, 1 - β₁, β₂, 1 - β₂, and γ and ε with the corrections for t drawn in; last the decay."""
        beta1, beta2, t = self.beta1, self.beta2, max(self._steps, 1)
        root = sqrt(1 - beta2**t)
        rate = self.lr * root / (1 - beta1**t)
        return beta1, 1 - beta1, beta2, 1 - beta2, rate, self.eps * root, self.decay()

    def decay(self) -> float:
        """Return the number that `decayed` needs."""
        return self.weight_decay

    def decayed(self, w: Array, g: Array, decay: Array, d: Array) -> tuple[Array, Iterable[Call]]:
        """Return the gradients to go on with, d = g + λ w, and the calls for it."""
        return d, plus(g, w, decay, d)

    def calls(
        self,
        w: Array,
        g: Array,
        numbers: tuple[Array, ...],
        scratch: Scratch,
        *,
        m: Array,
        v: Array,
        v_max: Array | None = None,
    ) -> Iterable[Call]:
        """Yield m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; w ← w - γₜ m / (√v + εₜ)."""
        (beta1, rest1, beta2, rest2, rate, eps, decay), (d, s) = numbers, scratch
        if self.weight_decay:
            g, calls = self.decayed(w, g, decay, d)
            yield from calls
        yield from average(m, beta1, g, rest1, s)
        yield from average_square(v, beta2, g, rest2, s)
        if v_max is not None:
            yield call(np.maximum, v_max, v, out=v_max)
            v = v_max
        yield call(np.sqrt, v, s)
        yield call(np.add, s, eps, s)
        yield call(np.divide, m, s, s)
        yield from minus(w, rate, s, s)


class AdamW(Adam):
    """Adam with decoupled weight decay: w ← (1 - γ λ) w, then Adam's step.

    Parameters
    ----------
    lr : float, default 0.001
        The learning rate γ.
    betas : (float, float), keyword-only, default (0.9, 0.999)
        β₁ and β₂, each in [0, 1).
    eps : float, keyword-only, default 1e-8
    weight_decay : float, keyword-only, default 0.01
        λ. All parameters decay, biases too, as in torch.
    amsgrad : bool, keyword-only, default False

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number in its range, now or when it is set later.

    References
    ----------
    Loshchilov, Hutter. Decoupled weight decay regularization. ICLR 2019. arXiv:1711.05101. As in torch, λ is
    multiplied by the learning rate.

    Examples
    --------
    >>> import matbackprop as mb
    >>> optimizer = mb.AdamW(lr=0.1, weight_decay=0.5)
    >>> parameters = np.array([1.0, 1.0])
    >>> optimizer.step(parameters, np.array([2.0, 0.0]))
    >>> parameters.round(3)
    array([0.85, 0.95])
    """

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def decay(self) -> float:
        """1 - γ λ."""
        return 1 - self.lr * self.weight_decay

    def decayed(self, w: Array, g: Array, decay: Array, d: Array) -> tuple[Array, Iterable[Call]]:
        """Return the gradients as they are, and the call for w ← (1 - γ λ) w."""
        return g, [call(np.multiply, w, decay, w)]


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
        """γ, α, 1 - α, ε, λ, μ."""
        return self.lr, self.alpha, 1 - self.alpha, self.eps, self.weight_decay, self.momentum

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
        (lr, alpha, rest, eps, decay, momentum), (d, s) = numbers, scratch
        if self.weight_decay:
            yield from plus(g, w, decay, d)
            g = d
        yield from average_square(v, alpha, g, rest, s)
        if mean is not None:
            yield from average(mean, alpha, g, rest, s)
            yield call(np.multiply, mean, mean, s)
            yield call(np.subtract, v, s, s)
            yield call(np.maximum, s, np.zeros((), s.dtype), out=s)
            v = s
        yield call(np.sqrt, v, s)
        yield call(np.add, s, eps, s)
        yield call(np.divide, g, s, s)
        if velocity is not None:
            yield call(np.multiply, velocity, momentum, velocity)
            yield call(np.add, velocity, s, velocity)
            s, d = velocity, s
        yield from minus(w, lr, s, d)
