"""SGD: gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Iterable

from matbackprop.calls import Call
from matbackprop.optimizer import Structural
from matbackprop.prepared import PreparedOptimizer, Scratch
from matbackprop.settings import flag, real
from matbackprop.validation import Array

__all__ = ["SGD"]


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
        """-γ, λ, μ, 1 - τ, the last of which is 1 in the velocity's first step."""
        return -self.lr, self.weight_decay, self.momentum, 1.0 if self._steps <= self._first else 1.0 - self.dampening

    def calls(
        self, w: Array, g: Array, numbers: tuple[Array, ...], scratch: Scratch, velocity: Array | None = None
    ) -> Iterable[Call]:
        """Yield u ← μ u + (1 - τ) g; w ← w - γ u, or w - γ (g + μ u)."""
        (rate, decay, momentum, rest), (d, s) = numbers, scratch
        if self.weight_decay:
            yield from self.with_multiple(g, decay, w, d)
            g = d
        if velocity is not None and self.momentum:
            u = velocity
            if self.dampening:
                yield from self.average(u, momentum, g, rest, s)
            else:
                yield from self.with_multiple(g, momentum, u, u)
            if self.nesterov:
                yield from self.with_multiple(g, momentum, u, s)
                u = s
            g = u
        yield from self.add_multiple(w, rate, g, s)

    def _bind(self, parameters: Array, gradients: Array) -> None:
        begins = "velocity" not in self._state
        super()._bind(parameters, gradients)
        if begins and "velocity" in self._state:
            self._first = self._steps + 1

    def reset(self) -> None:
        """Forget the state and the number of steps, as if no step had been taken. The settings stay."""
        super().reset()
        self._first = 0
