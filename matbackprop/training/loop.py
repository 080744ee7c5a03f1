"""fit: what a training run is made of, checked and put together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from matbackprop.loss import Loss, check_loss
from matbackprop.optimizer import Optimizer
from matbackprop.parallel import as_workers
from matbackprop.penalties import Penalty
from matbackprop.schedule import Schedule
from matbackprop.schedules import as_schedule
from matbackprop.sequential import Sequential
from matbackprop.training.batches import Batches, Streamed, as_batches
from matbackprop.training.checkpoint import Checkpoint, check_same, generator_state, restore_generator
from matbackprop.training.examples import as_examples
from matbackprop.training.history import History
from matbackprop.training.progress import progress_display
from matbackprop.training.run import Epoch, Run
from matbackprop.training.stopping import EarlyStopping, interruptible
from matbackprop.training.validation import Metric, Validation, check_metrics, split
from matbackprop.validation import as_flag, as_rng, as_size, as_tolerance, check_finite, describe

__all__ = ["fit"]


def fit(
    model: Sequential,
    x: Any,
    y: Any,
    loss: Loss,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    validation: float | tuple[Any, ...] | None = None,
    metrics: Mapping[str, Metric] | Metric | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Iterable[Callable[[Epoch], object]] | Callable[[Epoch], object] = (),
    sample_weight: Any = None,
    schedule: Schedule | Callable[[int], float] | None = None,
    clip_norm: float | None = None,
    penalty: Penalty | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    rng: Any = None,
    workers: int | None = None,
) -> History:
    """Train a model on mini-batches, and return what the run went through.

    In each epoch the rows are drawn in a fresh random order, without replacement, `batch_size` at a time; each batch is
    one `backprop` and one step of the optimiser.

    Parameters
    ----------
    model : Sequential
        Its parameters are trained in place.
    x, y : array_like, shapes (N, ...)
        Examples and targets; memory maps are read batch by batch. Or `x` is an iterable of batches ``(x, y)`` or
        ``(x, y, sample_weight)``, or a function that returns one, and `y` None: so the data may exceed memory.
    loss : Loss
    optimizer : Optimizer
        Goes on from the state that it has; its `lr` is the same afterwards.
    epochs : int, keyword-only
    batch_size : int, keyword-only, optional
        Rows a step; 32 by default, or all where there are fewer. Not for an iterable.
    shuffle : bool, keyword-only, default True
        Whether the rows come in a random order. Not for an iterable.
    validation : float or tuple, keyword-only, optional
        What the model is judged on after each epoch: a fraction of the rows, drawn once and not trained on, or
        ``(x, y)`` or ``(x, y, sample_weight)``.
    metrics : dict of str to callable, or callable, keyword-only, optional
        ``metric(y_pred, y_true) -> float`` by name, for the validation data: ``{"accuracy": mb.accuracy}``, or
        ``mb.accuracy``, which has that name.
    early_stopping : EarlyStopping or int, keyword-only, optional
        When to stop before the last epoch; a number is a patience.
    callbacks : iterable of callable, or callable, keyword-only, optional
        Each is shown the `Epoch` that has ended; if it returns True, the run ends.
    sample_weight : array_like, shape (N, ...), or float, keyword-only, optional
        As in `Sequential.backprop`, row by row: what has the length of `x` goes with its rows, and one weight a row is
        ``sample_weight[:, None]`` but for `CrossEntropy`.
    schedule : Schedule or callable, keyword-only, optional
        The learning rate over the epochs; a function of the epoch's number is a factor. At each epoch's end it is told
        the validation loss, or without validation the loss.
    clip_norm : float, keyword-only, optional
        The Euclidean norm that a gradient is scaled down to, where it is larger.
    penalty : L1 or L2, keyword-only, optional
        Added to each batch's loss.
    checkpoint : Checkpoint or path, keyword-only, optional
        Where the run is kept, after every epoch unless the `Checkpoint` says otherwise.
    resume : bool, keyword-only, default False
        Whether to go on from the checkpoint, if its file is there. The arguments must be the same, but for `epochs`.
    progress : bool, keyword-only, default True
        Whether to show a bar (on a terminal or in a notebook, if tqdm is installed) or plain lines, on stderr.
    rng : int, numpy.random.Generator or None, keyword-only
        Where the order of the rows and the fraction come from. The same seed gives the same bits.
    workers : int, keyword-only, optional
        How many threads share a batch. See `Sequential.backprop`.

    Returns
    -------
    History
        Ctrl-C ends the run after the step that is running, or the epoch where all its steps are done, and returns the
        history so far.

    Raises
    ------
    Diverged
        If the loss, the parameters or the optimiser's state became NaN or infinite: with the epoch, the step, the layer
        where that began, and what to try. The model has the parameters of the last good epoch.
    TypeError, ValueError
        If an argument does not fit, or the optimiser has the state of another model's training. Before the first step
        this leaves everything as it was.
    FileExistsError, FileNotFoundError
        If the checkpoint is there already, and `resume` is False; if its directory is not there.
    Exception
        Whatever a callback, a metric or an iterable raises. Like a `Diverged`, it has the `history` of the epochs
        before as an attribute.

    Examples
    --------
    >>> import matbackprop as mb
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-1, 1, (200, 2))
    >>> y = (x[:, :1] * x[:, 1:] > 0).astype(float)
    >>> model = mb.Sequential(mb.Linear(2, 8), mb.Tanh(), mb.Linear(8, 1), rng=0)
    >>> history = mb.fit(
    ...     model, x, y, mb.BCEWithLogits(), mb.Adam(0.05), epochs=100, validation=0.2, early_stopping=20, rng=0,
    ...     progress=False,
    ... )
    >>> bool(history["validation_loss"].min() < 0.1)
    True
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"fit: model: expected a Sequential, got {describe(model)}")
    if model.dtype.kind == "c":
        raise TypeError(f"fit: model: expected a real model, got one of {model.dtype}, whose loss has no minimum")
    check_finite(f"fit: model: the parameters of {model!r}", model.parameters)
    check_loss(loss)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit: optimizer: expected an Optimizer such as mb.Adam(), got {describe(optimizer)}")
    epochs, workers = as_size(epochs, "fit: epochs"), as_workers(workers)
    shuffle = as_flag(shuffle, "fit: shuffle", "pass False to keep the rows' own order")
    progress = as_flag(progress, "fit: progress", "pass False for silence")
    clip = as_tolerance(clip_norm, "fit: clip_norm")
    schedule = None if schedule is None else as_schedule(schedule)
    if penalty is not None and not isinstance(penalty, Penalty):
        raise TypeError(f"fit: penalty: expected an L1 or L2, got {describe(penalty)}")
    callbacks = _as_callbacks(callbacks)
    rng = as_rng(rng, "fit: rng")

    keeper = checkpoint if checkpoint is None or isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    resume = as_flag(resume, "fit: resume", "pass True to go on from the checkpoint")
    if resume and keeper is None:
        raise ValueError("fit: resume: there is nothing to go on from; pass checkpoint= too")
    saved = None if keeper is None else keeper.open(resume)
    if saved is None and not optimizer.belongs_to(model.parameters):
        raise ValueError(
            f"fit: optimizer: its state is of another model's training, {optimizer.steps} steps; make an optimiser for "
            "each model, or call reset() to start anew (where the model's vectors moved, go on with a copy.copy of it)"
        )
    rate, reason = optimizer.lr, None
    with _undone_by_errors(rng, optimizer):
        if saved is not None:
            with _named(keeper):
                restore_generator(rng, saved[1]["settings"]["rng"])  # it draws the rows that are kept for validation
        started = generator_state(rng)
        batches, judge = _data(model, x, y, loss, sample_weight, batch_size, shuffle, validation, metrics, rng)
        rule = _as_rule(early_stopping, judge)
        run = Run(
            model, batches, loss, optimizer,
            validation=judge, early_stopping=rule, callbacks=callbacks, schedule=schedule, clip=clip, penalty=penalty,
            rng=rng, workers=workers,
        )  # fmt: skip
        settings = {**run.settings(), "rng": started}
        if keeper is not None and saved is not None:
            check_same(keeper.path, saved[1]["settings"], settings)
        if schedule is not None:
            optimizer.lr = schedule.start(rate)
        if saved is not None:
            with _named(keeper):
                run.restore(*saved)
            reason = saved[1]["finished"]

    display = progress_display(progress, epochs, run.number, batches.steps)
    try:
        with interruptible() as interrupt:
            while reason is None and run.number < epochs:
                before = run.number
                reason = run.epoch(interrupt, display)
                last = reason is not None or interrupt.pressed or run.number == epochs
                if keeper is not None and run.number > before and (last or run.number % keeper.every == 0):
                    run.save(keeper, settings, reason)
                if reason is None and interrupt.pressed and run.number < epochs:
                    reason = f"interrupted after epoch {run.number}"
        run.end(reason)
        run.history.interrupted = interrupt.pressed
    except BaseException as error:
        error.history = run.history  # type: ignore[attr-defined]  # as Diverged has it
        raise
    finally:
        optimizer.lr = rate
        display.close(f"fit: {run.history.stopped}")
    return run.history


@contextmanager
def _undone_by_errors(rng: np.random.Generator, optimizer: Optimizer) -> Iterator[None]:
    """Leave generator and learning rate as they were, if putting the run together fails."""
    state, rate = rng.bit_generator.state, optimizer.lr
    try:
        yield
    except BaseException:
        rng.bit_generator.state, optimizer.lr = state, rate
        raise


@contextmanager
def _named(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Say of an error in what a checkpoint holds that it is the file's, whatever it was."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        path = None if checkpoint is None else checkpoint.path
        raise ValueError(f"fit: resume: {path}: is damaged, or not of this run: {error}") from error


def _data(
    model: Sequential,
    x: Any,
    y: Any,
    loss: Loss,
    weight: Any,
    batch_size: int | None,
    shuffle: bool,
    validation: Any,
    metrics: Any,
    rng: np.random.Generator,
) -> tuple[Batches, Validation | None]:
    """Return where the batches come from, and what the model is judged on."""
    metrics = check_metrics(metrics)
    if metrics and validation is None:
        raise ValueError("fit: metrics: are measured on validation data; pass validation=0.2, or (x, y)")
    fraction = isinstance(validation, (int, float, np.number)) and not isinstance(validation, bool)
    judge = None if validation is None or fraction else Validation.of(model, loss, validation, metrics)
    if y is None:
        for name, given in (("batch_size", batch_size), ("sample_weight", weight)):
            if given is not None:
                raise ValueError(f"fit: {name}: is for arrays; an iterable of batches brings its own")
        if fraction:
            raise ValueError("fit: validation: a fraction is for arrays; with an iterable of batches pass (x, y)")
        if isinstance(x, np.ndarray) or not (callable(x) or isinstance(x, Iterable)):
            raise TypeError(f"fit: y is None, so x must be an iterable of batches (x, y), got {describe(x)}")
        return Streamed(x), judge

    examples, rows = as_examples(model, loss, x, y, weight, "fit:"), None
    if fraction:
        rows, kept = split(len(examples.x), float(validation), rng)
        judge = Validation(model, loss, examples, kept, metrics)
    return as_batches(examples, rows, batch_size, shuffle), judge


def _as_callbacks(callbacks: Any) -> list[Callable[[Epoch], object]]:
    """Return the callbacks as a list of functions."""
    listed = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in listed:
        if not callable(callback):
            raise TypeError(f"fit: callbacks: expected functions of an Epoch, got {describe(callback)}")
    return listed


def _as_rule(rule: EarlyStopping | int | None, judge: Validation | None) -> EarlyStopping | None:
    """Return the rule of early stopping, whose column the history will have."""
    if rule is None:
        return None
    rule = rule if isinstance(rule, EarlyStopping) else EarlyStopping(rule)
    columns = ["loss"] if judge is None else ["loss", "validation_loss", *judge.metrics]
    if rule.monitor not in (None, *columns):
        hint = "" if judge is not None else "; pass validation=0.2, or (x, y)"
        raise ValueError(f"fit: early_stopping: expected to monitor one of {columns}, got {rule.monitor!r}{hint}")
    return rule
