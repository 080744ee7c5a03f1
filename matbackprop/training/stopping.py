"""When a run ends before its time: EarlyStopping, a loss that is no longer finite, and Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.flat import named_parameters
from matbackprop.settings import Configured, Setting, flag, one_of, real
from matbackprop.training.batches import Batch
from matbackprop.validation import Array, as_size, describe

if TYPE_CHECKING:
    from matbackprop.sequential import Sequential
    from matbackprop.training.history import History

__all__ = ["Diverged", "EarlyStopping", "Interrupt", "first_bad", "interruptible"]


def _column(value: object, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected the name of a column of the history, got {describe(value)}")
    return value


class EarlyStopping(Configured):
    """Stop when nothing has got better for a while, and go back to the best.

    Parameters
    ----------
    patience : int, default 10
        How many epochs in a row may bring nothing better.
    min_delta : float, keyword-only, default 0.0
        By how much a value must be better to count.
    monitor : str, keyword-only, optional
        The column of the `History` that is to fall. By default ``validation_loss``, or ``loss`` without validation.
    mode : {"min", "max"}, keyword-only, default "min"
        Whether less is better, or more (for an accuracy).
    restore_best : bool, keyword-only, default True
        Whether the model ends with the parameters of its best epoch, by whatever the run was ended, Ctrl-C too; only
        where an error is raised, `Diverged` for one, it does not.

    Raises
    ------
    TypeError, ValueError
        If a setting is not of that kind.

    Examples
    --------
    >>> import matbackprop as mb
    >>> mb.EarlyStopping(5, monitor="accuracy", mode="max")
    EarlyStopping(patience=5, monitor='accuracy', mode='max')
    """

    patience = Setting(as_size)
    min_delta = Setting(real())
    monitor = Setting(_column)
    mode = Setting(one_of("min", "max"))
    restore_best = Setting(flag)

    def __init__(
        self,
        patience: int = 10,
        *,
        min_delta: float = 0.0,
        monitor: str | None = None,
        mode: str = "min",
        restore_best: bool = True,
    ) -> None:
        self.patience, self.min_delta, self.monitor = patience, min_delta, monitor
        self.mode, self.restore_best = mode, restore_best

    def better(self, value: float, best: float) -> bool:
        """Return whether `value` is better than the best so far; NaN is not, and everything is better than NaN."""
        if math.isnan(best):
            return not math.isnan(value)
        gain = best - value if self.mode == "min" else value - best
        return gain > self.min_delta


class Diverged(FloatingPointError):
    """Training came to a loss or to parameters that are NaN or infinite.

    The model has the parameters with which the last good epoch ended, and the optimiser starts afresh.

    Attributes
    ----------
    epoch, step : int
        Where, from 0.
    layer : str or None
        The first layer whose output or parameters are not finite.
    history : History
        Of the epochs before.
    """

    def __init__(self, message: str, epoch: int, step: int, layer: str | None, history: History) -> None:
        super().__init__(message, epoch, step, layer, history)  # all of them, so that it can be pickled
        self.epoch, self.step, self.layer, self.history = epoch, step, layer, history

    def __str__(self) -> str:
        return str(self.args[0])


def first_bad(model: Sequential, batch: Batch) -> tuple[str | None, str]:
    """Find where NaN or infinity first appears: the layer, and the finding in words.

    Parameters
    ----------
    model : Sequential
    batch : Batch
        The batch whose loss was not finite.
    """
    for name, parameter in named_parameters(model).items():
        if not np.isfinite(parameter).all():
            label = _label(model, name)
            return label, f"{label} has {_worst(parameter)} in its {name.rpartition('.')[2]}, left by the update before"
    x = np.asarray(batch.x)
    if not np.isfinite(x).all():
        return None, f"x has {_worst(x)} in this batch"
    rows: Array = x.reshape(-1, x.shape[-1]).astype(model.dtype)
    for layer in model.leaves():
        with np.errstate(all="ignore"):
            rows = layer.replica().forward(rows)
        if not np.isfinite(rows).all():
            return layer.label, f"the output of {layer.label} is the first with {_worst(rows)}"
    return None, "every layer's output is finite, so it is the loss itself"


def _label(model: Sequential, name: str) -> str:
    """Return how messages name the layer that has this parameter."""
    prefix = name.rpartition(".")[0] + "."
    return next(layer.label for start, layer in model.walk() if start == prefix)


def _worst(array: Array) -> str:
    return "NaN" if np.isnan(array).any() else "an infinity"


class Interrupt:
    """Whether Ctrl-C has been pressed."""

    pressed = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Let Ctrl-C wait for the end of the step that is running; a second one does not wait.

    Only the main thread is sent signals, and only Python's own handler is replaced: whoever has set another knows why.
    """
    interrupt = Interrupt()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield interrupt
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.pressed:
            signal.default_int_handler(number, frame)
        interrupt.pressed = True

    previous: Any = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
