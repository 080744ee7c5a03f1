"""What a schedule of the learning rate is: the base of the library's own and of a user's."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from matbackprop.settings import Check, Configured, count, real
from matbackprop.validation import describe

__all__ = ["Schedule"]


class Schedule(Configured, ABC):
    """The learning rate of each epoch: the base class of every schedule.

    One of your own writes `rate`, or is a plain function, see `as_schedule`.

    Attributes
    ----------
    epoch : int or None
        The epoch that the last rate was for, or None before `start`.

    Examples
    --------
    >>> import matbackprop as mb
    >>> class InverseTime(mb.Schedule):
    ...     def rate(self, lr, epoch):
    ...         return lr / (1 + epoch)
    >>> schedule = InverseTime()
    >>> schedule.start(0.6), schedule.step(), schedule.step()
    (0.6, 0.3, 0.2)
    """

    #: What `state_dict` holds, and how each number is checked.
    _progress: ClassVar[dict[str, Check[Any]]] = {"epoch": count, "base_lr": real()}

    epoch: int | None = None
    base_lr: float | None = None

    @abstractmethod
    def rate(self, lr: float, epoch: int) -> float:
        """Return the learning rate of the epoch, 0, 1, ..., where `lr` is the base rate."""

    def start(self, lr: float) -> float:
        """Begin at epoch 0 and return its rate.

        Parameters
        ----------
        lr : float
            The base rate: the optimiser's.

        Raises
        ------
        TypeError, ValueError
            If it is not a finite number of at least 0.
        """
        base = real()(lr, f"{type(self).__name__}.start: lr")
        first = self._checked(base, 0)
        self.base_lr, self.epoch = base, 0
        return first

    def step(self, loss: float | None = None) -> float:
        """Return the rate of the next epoch.

        Parameters
        ----------
        loss : float, optional
            The loss that is watched, at the end of this epoch; `ReduceLROnPlateau` needs it.

        Raises
        ------
        RuntimeError
            If `start` was not called.
        """
        base, epoch = self._started()
        following = self._checked(base, epoch + 1)
        self.epoch = epoch + 1
        return following

    def _started(self) -> tuple[float, int]:
        if self.base_lr is None or self.epoch is None:
            raise RuntimeError(f"{self!r}: step before start; call start(lr) with the optimiser's rate first")
        return self.base_lr, self.epoch

    def _checked(self, lr: float, epoch: int) -> float:
        """Return `rate`, which may be a user's, if it is a rate."""
        return real()(self.rate(lr, epoch), f"{self!r}: the rate of epoch {epoch}")

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands: the class's name as "kind", and numbers or None. Settings are not in it."""
        return {"kind": type(self).__name__, **{name: getattr(self, name) for name in self._progress}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        TypeError, ValueError
            If it is not a state of this kind of schedule. Nothing has changed then.
        """
        vars(self).update(self._loaded(self._as_mapping(state)))

    def _as_mapping(self, state: object) -> dict[str, Any]:
        if not isinstance(state, Mapping):
            raise TypeError(
                f"{type(self).__name__}.load_state_dict: expected what state_dict() returned, got {describe(state)}"
            )
        return {str(name): value for name, value in state.items()}

    def _loaded(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checked state."""
        who = f"{type(self).__name__}.load_state_dict"
        if state.get("kind") != type(self).__name__:
            raise ValueError(f"{who}: expected the state of one of its kind, got {describe(state.get('kind'))}")
        if set(state) != {"kind", *self._progress}:
            raise ValueError(f"{who}: expected {sorted(self._progress)}, got {sorted(map(str, set(state) - {'kind'}))}")
        result: dict[str, Any] = {}
        for name, check in self._progress.items():
            unset = state[name] is None and getattr(type(self), name) is None
            result[name] = None if unset else check(state[name], f"{who}: {name}")
        if len({result[name] is None for name in ("epoch", "base_lr", "lr") if name in result}) > 1:
            raise ValueError(f"{who}: expected a schedule that has started or one that has not, got {dict(state)}")
        return result

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # two schedules must not share the one inside
