"""Run: a training run, step by step and epoch by epoch."""

from __future__ import annotations

import copy
import math
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from matbackprop.clipping import clip_norm
from matbackprop.loss import Loss
from matbackprop.optimizer import Optimizer
from matbackprop.penalties import Penalty
from matbackprop.schedule import Schedule
from matbackprop.sequential import Sequential
from matbackprop.training.batches import Batch, Batches
from matbackprop.training.checkpoint import (
    Checkpoint,
    generator_state,
    generators,
    identity,
    restore_generator,
)
from matbackprop.training.history import History
from matbackprop.training.progress import Progress
from matbackprop.training.stopping import Diverged, EarlyStopping, Interrupt, first_bad
from matbackprop.training.validation import Validation
from matbackprop.validation import Array

__all__ = ["Epoch", "Run"]


class Epoch(NamedTuple):
    """What a callback is shown when an epoch has ended.

    Attributes
    ----------
    number : int
        From 0.
    entries : dict of str to float
        The epoch's row of the history: loss, validation_loss, metrics, lr, seconds.
    model : Sequential
    optimizer : Optimizer
    history : History
    """

    number: int
    entries: dict[str, float]
    model: Sequential
    optimizer: Optimizer
    history: History


class Run:
    """What happens in a training run; `fit` has checked what it is made of, and says what each part is."""

    def __init__(
        self,
        model: Sequential,
        batches: Batches,
        loss: Loss,
        optimizer: Optimizer,
        *,
        validation: Validation | None,
        early_stopping: EarlyStopping | None,
        callbacks: Sequence[Callable[[Epoch], object]],
        schedule: Schedule | None,
        clip: float | None,
        penalty: Penalty | None,
        rng: np.random.Generator,
        workers: int | None,
    ) -> None:
        self.model, self.batches, self.loss, self.optimizer = model, batches, loss, optimizer
        self.validation, self.early_stopping, self.callbacks = validation, early_stopping, callbacks
        self.schedule, self.clip, self.penalty = schedule, clip, penalty
        self.rng, self.workers = rng, workers
        self.parameters, self.gradients = model.parameters, model.gradients  # live views, never replaced
        self.history = History()
        self.monitor = "loss" if validation is None else "validation_loss"
        if early_stopping is not None and early_stopping.monitor is not None:
            self.monitor = early_stopping.monitor
        self.best_value, self.best_epoch, self.best = math.nan, -1, self.parameters.copy()
        self.good = self.parameters.copy()  # those with which the last epoch ended

    @property
    def number(self) -> int:
        """The epoch that comes next, from 0."""
        return self.history.epochs

    def epoch(self, interrupt: Interrupt, display: Progress) -> str | None:
        """Run an epoch, and return why the run ends with it, if it does."""
        began, number, rate = time.perf_counter(), self.number, self.optimizer.lr
        loss = self._steps(interrupt, display)
        if isinstance(loss, str):
            return loss
        entries = {"loss": loss}
        if self.validation is not None:
            entries.update(self.validation.measure(self.workers))
        shown = entries if self.schedule is None else {**entries, "lr": rate}
        entries = {**entries, "lr": rate, "seconds": time.perf_counter() - began}
        self.history.append(entries)
        display.epoch(number + 1, {**shown, "seconds": entries["seconds"]})
        self.good[...] = self.parameters
        if self.schedule is not None:
            self.optimizer.lr = self.schedule.step(entries["loss" if self.validation is None else "validation_loss"])
        reason = self._judge(number, entries[self.monitor])
        for callback in self.callbacks:
            answer = callback(Epoch(number, entries, self.model, self.optimizer, self.history))
            if isinstance(answer, (bool, np.bool_)) and answer:
                reason = reason or f"a callback, {getattr(callback, '__name__', repr(callback))}, asked to stop"
        if self.model.parameters is not self.parameters:
            raise RuntimeError("fit: a callback has made the model part of another one; train that, or a copy")
        return reason

    def _steps(self, interrupt: Interrupt, display: Progress) -> float | str:
        """Make the updates of an epoch; return the mean of the batches' losses, or why it was broken off."""
        model, loss, optimizer, workers = self.model, self.loss, self.optimizer, self.workers
        parameters, gradients = self.parameters, self.gradients
        mean, total, rows = loss.reduction == "mean", 0.0, 0
        step = -1
        for step, batch in enumerate(self.batches.epoch(self.rng)):
            x, y, weight = batch
            try:
                value = model.backprop(x, y, loss, sample_weight=weight, workers=workers)
            except (TypeError, ValueError) as error:
                error.add_note(f"fit: in epoch {self.number + 1}, step {step + 1}; rows are counted within the batch")
                raise
            if self.penalty is not None:
                value += self.penalty.add_to(model)
            if not math.isfinite(value):
                raise self._diverged(step, f"the loss became {value}", batch)
            if self.clip is not None:
                clip_norm(gradients, self.clip)
            optimizer.step(parameters, gradients)
            count = math.prod(np.shape(x)[:-1]) if mean else 1
            total += value * count
            rows += count
            display.step()
            if interrupt.pressed and step + 1 != self.batches.steps:
                of = "" if self.batches.steps is None else f" of its {self.batches.steps}"
                return f"interrupted in epoch {self.number + 1}, after {step + 1}{of} steps"
        if step < 0:
            raise ValueError(
                f"fit: the iterable gave no batch in epoch {self.number + 1}; an iterator ends after one epoch, so "
                "pass a list, an object with __iter__, or a function that returns a fresh iterator"
            )
        if not np.isfinite(parameters).all():
            raise self._diverged(step, "the last update made parameters that are not finite", batch)
        try:
            optimizer.check_state()
        except ValueError as error:
            what = "the last update left the optimiser with no sound state"
            raise self._diverged(step, what, batch, str(error)) from None
        return total / rows if mean else total

    def _judge(self, number: int, value: float) -> str | None:
        """Take note of the best epoch, and say if it is too long ago."""
        rule = self.early_stopping
        if rule is None:
            return None
        if self.best_epoch < 0 or rule.better(value, self.best_value):
            self.best_value, self.best_epoch = value, number
            self.best[...] = self.parameters
        if number - self.best_epoch < rule.patience:
            return None
        if math.isnan(self.best_value):
            return f"early stopping: {self.monitor} was NaN in {rule.patience + 1} epochs"
        return f"early stopping: {self.monitor} was best in epoch {self.best_epoch + 1}, {rule.patience} epochs before"

    def _diverged(self, step: int, what: str, batch: Batch, finding: str | None = None) -> Diverged:
        """Put back the last good epoch's parameters, and return the error that says what has happened and where."""
        layer, finding = first_bad(self.model, batch) if finding is None else (None, finding)
        row = self.batches.first_bad_row()
        if row is not None:
            layer, finding = None, f"x has NaN or an infinity in row {row}"
        largest = float(np.abs(np.asarray(batch.x, np.float64)).max(initial=0))
        advice = [f"a smaller learning rate (it is {self.optimizer.lr:g})"]
        if self.clip is None:
            advice.append("clip_norm=1.0")
        if largest >= 100:
            advice.append(f"inputs with mean 0 and variance 1 (the largest here is {largest:.3g})")
        if row is not None or not math.isfinite(largest):
            advice = ["leaving out such rows, or filling in the numbers"]
        self.parameters[...] = self.good
        self.optimizer.reset()
        self.history.stopped = f"{what} in epoch {self.number + 1}, step {step + 1}"
        return Diverged(
            f"fit: {self.history.stopped}: {finding}. Try {', or '.join(advice)}. The model has the parameters of "
            f"{f'epoch {self.number}' if self.number else 'the start'} again, and the optimiser starts afresh",
            self.number,
            step,
            layer,
            self.history,
        )

    def end(self, reason: str | None) -> None:
        """Note what ended the run, if anything did, and go back to the best parameters if that was asked for."""
        self.history.completed = reason is None
        self.history.stopped = reason or f"all {self.number} epochs done"
        if self.early_stopping is not None and self.early_stopping.restore_best and self.best_epoch >= 0:
            self.parameters[...] = self.best
            self.history.best_epoch = self.best_epoch
            self.history.stopped += f"; the model has the parameters of its best epoch, {self.best_epoch + 1}"

    # What a checkpoint holds.

    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must agree on."""
        judge = self.validation
        return {
            "model": ", ".join(identity(layer) for layer in self.model.leaves()),
            "dtype": self.model.dtype.name,
            "loss": identity(self.loss),
            "optimizer": identity(self.optimizer),
            "schedule": identity(self.schedule),
            "penalty": identity(self.penalty),
            "clip_norm": self.clip,
            "early_stopping": identity(self.early_stopping),
            "validation": None if judge is None else judge.count,
            "metrics": [] if judge is None else list(judge.metrics),
            "workers": self.workers,
            **self.batches.settings(),
        }

    def save(self, checkpoint: Checkpoint, settings: dict[str, Any], finished: str | None) -> None:
        """Write down everything that the next epoch depends on."""
        optimizer = self.optimizer.state_dict()
        tensors = {"parameters": self.parameters, "best": self.best}
        tensors |= {f"history.{name}": column for name, column in self.history.items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer.items() if isinstance(value, np.ndarray)}
        state = {
            "settings": settings,
            "finished": finished,
            "best_epoch": self.best_epoch,
            "columns": list(self.history),  # a file has an order of its own
            "optimizer": {name: value for name, value in optimizer.items() if not isinstance(value, np.ndarray)},
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "generators": [generator_state(rng) for rng in (self.rng, *generators(self.model))],
        }
        checkpoint.write(tensors, state)

    def restore(self, tensors: dict[str, Array], state: dict[str, Any]) -> None:
        """Go back to where `save` was. What does not fit raises whatever it may, and nothing has changed then."""
        columns = {name: tensors[f"history.{name}"] for name in state["columns"]}
        if len({column.shape for column in columns.values()}) != 1 or columns["loss"].ndim != 1:
            raise ValueError("the history's columns differ in length")
        history, best_epoch = History.of(columns), operator.index(state["best_epoch"])
        best_value = float(history[self.monitor][best_epoch]) if best_epoch >= 0 else math.nan
        for name in ("parameters", "best", *(name for name in tensors if name.startswith("optimizer."))):
            if (tensors[name].shape, tensors[name].dtype) != (self.parameters.shape, self.parameters.dtype):
                raise ValueError(f"{name!r} does not fit the model's parameters")
            if not np.isfinite(tensors[name]).all():
                raise ValueError(f"{name!r} is not finite")
        optimizer = {**state["optimizer"], **_below("optimizer", tensors)}
        live = list(zip((self.rng, *generators(self.model)), state["generators"], strict=True))
        copy.deepcopy(self.optimizer).load_state_dict(optimizer)
        if self.schedule is not None:
            copy.deepcopy(self.schedule).load_state_dict(state["schedule"])
        for rng, saved in live:
            restore_generator(copy.deepcopy(rng), saved)

        self.history, self.best_epoch, self.best_value = history, best_epoch, best_value
        self.parameters[...] = self.good[...] = tensors["parameters"]
        self.best[...] = tensors["best"]
        self.optimizer.load_state_dict(optimizer)
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        for rng, saved in live:
            restore_generator(rng, saved)


def _below(prefix: str, tensors: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays whose names begin with the prefix and a dot, without it."""
    return {name.removeprefix(f"{prefix}."): array for name, array in tensors.items() if name.startswith(f"{prefix}.")}
