"""Schedules of the learning rate: StepLR, CosineAnnealingLR, WarmUp, ReduceLROnPlateau, or a function of one's own.

A schedule knows no optimiser. ``start(lr)`` gives the rate of epoch 0 from the base rate, and each ``step(loss)`` at
an epoch's end that of the next:

>>> import matbackprop as mb
>>> schedule = mb.StepLR(step_size=2, gamma=0.5)
>>> [schedule.start(0.8), *(schedule.step() for _ in range(4))]
[0.8, 0.8, 0.4, 0.4, 0.2]

Names and meaning are torch's, of `torch.optim.lr_scheduler` 2.13. Rates are computed in closed form, from the epoch
alone; torch multiplies from epoch to epoch, and its rounding adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, pi, sin
from typing import Any, ClassVar

from matbackprop.schedule import Schedule
from matbackprop.settings import Check, Setting, count, one_of, real
from matbackprop.validation import as_real, as_size, describe

__all__ = [
    "CosineAnnealingLR",
    "LambdaLR",
    "ReduceLROnPlateau",
    "StepLR",
    "WarmUp",
    "as_schedule",
]


class StepLR(Schedule):
    """The rate times γ after every `step_size` epochs: lr γ^⌊epoch / step_size⌋.

    Parameters
    ----------
    step_size : int
    gamma : float, default 0.1

    Examples
    --------
    >>> import matbackprop as mb
    >>> schedule = mb.StepLR(1, gamma=0.5)
    >>> schedule.start(1.0), schedule.step(), schedule.step()
    (1.0, 0.5, 0.25)
    """

    step_size = Setting(as_size)
    gamma = Setting(real())

    def __init__(self, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = step_size, gamma

    def rate(self, lr: float, epoch: int) -> float:
        """Return lr γ^⌊epoch / step_size⌋."""
        return lr * self.gamma ** (epoch // self.step_size)


class CosineAnnealingLR(Schedule):
    """Half a cosine from the base rate down to `eta_min` in `T_max` epochs.

    η + (lr - η) (1 + cos(π epoch / T)) / 2, from Loshchilov & Hutter (2017), without restarts. As in torch the rate
    rises again after epoch T, and is back at the base rate at 2T.

    Parameters
    ----------
    T_max : int
        T, in epochs.
    eta_min : float, default 0
        η, the lowest rate.

    References
    ----------
    Loshchilov, Hutter. SGDR: stochastic gradient descent with warm restarts. ICLR 2017. arXiv:1608.03983.

    Examples
    --------
    >>> import matbackprop as mb
    >>> schedule = mb.CosineAnnealingLR(T_max=3)
    >>> np.array([schedule.start(0.4), *(schedule.step() for _ in range(3))])
    array([0.4, 0.3, 0.1, 0. ])
    """

    T_max = Setting(as_size)
    eta_min = Setting(real())

    def __init__(self, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = T_max, eta_min

    def rate(self, lr: float, epoch: int) -> float:
        """Return η + (lr - η) sin²(π (T - epoch) / 2T), which is the same and loses no digits near T."""
        return self.eta_min + (lr - self.eta_min) * sin(pi / 2 * (self.T_max - epoch) / self.T_max) ** 2


def _as_following(value: Any, name: str) -> Schedule | None:
    return None if value is None else _as_schedule(value, name)


class WarmUp(Schedule):
    """A straight line up to the base rate in the first epochs, then another schedule, or the base rate for good.

    lr (s + (1 - s) epoch / epochs) before the epoch `epochs`, which is the first of the schedule `then`. It is torch's
    LinearLR, followed by `then` in a SequentialLR.

    Parameters
    ----------
    epochs : int
        How many epochs are below the base rate.
    then : Schedule or callable, optional
        See `as_schedule`. It starts from the base rate when the warm-up is over.
    start_factor : float, keyword-only, default 0.1
        s, in (0, 1]: the first rate over the base rate.

    Examples
    --------
    >>> import matbackprop as mb
    >>> schedule = mb.WarmUp(2, then=mb.StepLR(1, gamma=0.5), start_factor=0.2)
    >>> np.array([schedule.start(1.0), *(schedule.step() for _ in range(4))])
    array([0.2 , 0.6 , 1.  , 0.5 , 0.25])
    """

    epochs = Setting(as_size)
    then = Setting(_as_following)
    start_factor = Setting(real(0, 1, "(]"))

    def __init__(
        self, epochs: int, then: Schedule | Callable[[int], float] | None = None, *, start_factor: float = 0.1
    ) -> None:
        self.epochs, self.start_factor, self.then = epochs, start_factor, then

    def rate(self, lr: float, epoch: int) -> float:
        """Return lr (s + (1 - s) epoch / epochs), and lr from there on."""
        done = min(epoch / self.epochs, 1.0)
        return lr * (self.start_factor + (1 - self.start_factor) * done)

    def step(self, loss: float | None = None) -> float:
        """Return the rate of the next epoch. The losses of the warm-up are not shown to `then`."""
        base, epoch = self._started()
        if self.then is None or epoch + 1 < self.epochs:
            return super().step(loss)
        following = self.then.start(base) if epoch + 1 == self.epochs else self.then.step(loss)
        self.epoch = epoch + 1
        return following

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands, and `then`, whose numbers' names begin with "then."."""
        inner = {} if self.then is None else self.then.state_dict()
        return {**super().state_dict(), **{f"then.{name}": value for name, value in inner.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        numbers = self._as_mapping(state)
        inner = {name[5:]: value for name, value in numbers.items() if name.startswith("then.")}
        own = self._loaded({name: value for name, value in numbers.items() if not name.startswith("then.")})
        if self.then is not None:
            self.then.load_state_dict(inner)
        elif inner:
            raise ValueError("WarmUp.load_state_dict: the state is of one with a schedule after it, and there is none")
        vars(self).update(own)


class ReduceLROnPlateau(Schedule):
    """The rate times a factor whenever the loss has not improved for more than `patience` epochs.

    Parameters
    ----------
    mode : {"min", "max"}, keyword-only, default "min"
        Whether what is watched is to fall or to rise.
    factor : float, keyword-only, default 0.1
        In (0, 1).
    patience : int, keyword-only, default 10
        How many epochs in a row may be no better than the best. A NaN is no better.
    threshold : float, keyword-only, default 1e-4
        Better is below ``best * (1 - threshold)``, or ``best - threshold`` ("max": above, with +).
    threshold_mode : {"rel", "abs"}, keyword-only, default "rel"
        Take "abs" where the loss can be negative: of such a best, "rel" calls a slightly worse loss better.
    cooldown : int, keyword-only, default 0
        How many epochs after a reduction do not count.
    min_lr : float, keyword-only, default 0
        No rate is below it.
    eps : float, keyword-only, default 1e-8
        A reduction by no more than this is left out.

    Notes
    -----
    What each setting means, down to the order of the checks, is torch's. The base rate is the one of `start`; a rate
    set on the optimiser in between is not seen.

    Examples
    --------
    >>> import matbackprop as mb
    >>> schedule = mb.ReduceLROnPlateau(factor=0.5, patience=1)
    >>> [schedule.start(0.8), *(schedule.step(loss) for loss in [3.0, 2.0, 2.0, 2.0, 1.0])]
    [0.8, 0.8, 0.8, 0.8, 0.4, 0.4]
    """

    _progress: ClassVar[dict[str, Check[Any]]] = {
        **Schedule._progress,
        "lr": real(),
        "best": real(-inf, inf, "[]"),
        "bad_epochs": count,
        "cooldown_left": count,
    }

    mode = Setting(one_of("min", "max"))
    threshold_mode = Setting(one_of("rel", "abs"))
    factor = Setting(real(0, 1, "()"))
    patience = Setting(count)
    threshold = Setting(real())
    cooldown = Setting(count)
    min_lr = Setting(real())
    eps = Setting(real())

    lr: float | None = None
    best: float | None = None
    bad_epochs: int = 0
    cooldown_left: int = 0

    def __init__(
        self,
        *,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.mode, self.factor, self.patience, self.threshold = mode, factor, patience, threshold
        self.threshold_mode, self.cooldown, self.min_lr, self.eps = threshold_mode, cooldown, min_lr, eps

    def rate(self, lr: float, epoch: int) -> float:
        """Return the base rate, which is epoch 0's; later ones depend on the losses."""
        return lr

    def start(self, lr: float) -> float:
        """Begin at epoch 0, without a best loss, and return its rate: the base rate."""
        self.lr = super().start(lr)
        self.best, self.bad_epochs, self.cooldown_left = None, 0, 0
        return self.lr

    def step(self, loss: float | None = None) -> float:
        """Return the rate of the next epoch, given the loss at the end of this one.

        Raises
        ------
        RuntimeError
            If `start` was not called.
        TypeError
            If `loss` is not a number.
        """
        _, epoch = self._started()
        loss = as_real(loss, f"{self!r}: step", "the loss, a number")  # which may be NaN
        assert self.lr is not None
        if self._is_better(loss):
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left:
            self.cooldown_left, self.bad_epochs = self.cooldown_left - 1, 0
        if self.bad_epochs > self.patience:
            reduced = max(self.lr * self.factor, self.min_lr)
            if self.lr - reduced > self.eps:
                self.lr = reduced
            self.cooldown_left, self.bad_epochs = self.cooldown, 0
        self.epoch = epoch + 1
        return self.lr

    def _is_better(self, loss: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        best = -sign * inf if self.best is None else self.best
        margin = best * (1 + sign * self.threshold) if self.threshold_mode == "rel" else best + sign * self.threshold
        return loss < margin if self.mode == "min" else loss > margin


def _as_function(value: object, name: str) -> Any:
    if not callable(value):
        raise TypeError(f"{name}: expected a function of the epoch, got {describe(value)}")
    return value


class LambdaLR(Schedule):
    """The base rate times a function of the epoch, as torch's LambdaLR: what `as_schedule` makes of a function.

    Parameters
    ----------
    function : callable
        ``function(epoch) -> factor``.
    """

    function = Setting(_as_function)

    def __init__(self, function: Callable[[int], float]) -> None:
        self.function = function

    def rate(self, lr: float, epoch: int) -> float:
        """Return lr function(epoch)."""
        return lr * real()(self.function(epoch), f"{self!r}: the factor of epoch {epoch}")


def as_schedule(schedule: Schedule | Callable[[int], float]) -> Schedule:
    """Return the schedule, or one that multiplies the base rate by ``schedule(epoch)``.

    Raises
    ------
    TypeError
        If it is neither a schedule nor a function.

    Examples
    --------
    >>> import matbackprop as mb
    >>> schedule = mb.as_schedule(lambda epoch: 0.5**epoch)
    >>> schedule.start(1.0), schedule.step()
    (1.0, 0.5)
    """
    return _as_schedule(schedule, "schedule")


def _as_schedule(value: Any, name: str) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, type) or not callable(value):
        hint = f"; make one with {value.__name__}(...)" if isinstance(value, type) else ""
        raise TypeError(f"{name}: expected a Schedule or a function of the epoch, got {describe(value)}{hint}")
    return LambdaLR(value)
