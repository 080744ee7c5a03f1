"""Adam, and AdamW, whose weight decay the adaptive rate leaves alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial as call
from math import sqrt
from typing import Any

import numpy as np

from matbackprop.calls import Call
from matbackprop.optimizer import Structural
from matbackprop.prepared import PreparedOptimizer, Scratch
from matbackprop.settings import flag, real
from matbackprop.validation import Array, describe

__all__ = ["Adam", "AdamW"]


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
        """β₁, 1 - β₁, β₂, 1 - β₂, and -γ and ε with the corrections for t drawn in; last the decay."""
        beta1, beta2, t = self.beta1, self.beta2, max(self._steps, 1)
        root = sqrt(1 - beta2**t)
        rate = -self.lr * root / (1 - beta1**t)
        return beta1, 1 - beta1, beta2, 1 - beta2, rate, self.eps * root, self.decay()

    def decay(self) -> float:
        """Return the number that `decayed` needs."""
        return self.weight_decay

    def decayed(self, w: Array, g: Array, decay: Array, d: Array) -> tuple[Array, Iterable[Call]]:
        """Return the gradients to go on with, d = g + λ w, and the calls for it."""
        return d, self.with_multiple(g, decay, w, d)

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
        yield from self.average(m, beta1, g, rest1, s)
        yield from self.average_square(v, beta2, g, rest2, s)
        if v_max is not None:
            yield call(np.maximum, v_max, v, out=v_max)
            v = v_max
        yield call(np.sqrt, v, s)
        yield call(np.add, s, eps, s)
        yield call(np.divide, m, s, s)
        yield from self.add_multiple(w, rate, s, s)


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
