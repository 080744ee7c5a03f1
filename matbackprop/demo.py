"""``matbackprop demo``: a small network trained on real data, in a second, with its gradient checked."""

# ruff: noqa: T201 (a command prints)

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, TextIO

import numpy as np

from matbackprop.datasets import Dataset, load_breast_cancer
from matbackprop.layers import Linear, Sigmoid, Tanh
from matbackprop.loss import Loss
from matbackprop.losses import BCE
from matbackprop.sequential import Sequential
from matbackprop.validation import Array, as_array, as_size, describe

__all__ = ["Experiment", "Progress", "Split", "add_arguments", "gradient_error", "run", "split"]

EPOCHS, BATCH_SIZE, LR = 30, 32, 0.1

#: The split decides more than the training. Over the seeds 0 to 199 the accuracy is 0.976 on average, at least 0.96 for
#: 174 of them, and between 0.93 and 1; seed 0 is one of the unlucky ones (0.947), seed 1 (0.982) an ordinary one.
SEED = 1

#: The share of the examples of each class that is held back for the test.
TEST_SHARE = 0.2


class Split(NamedTuple):
    """Data to train on and data to test on, in units in which the former have mean 0 and standard deviation 1."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array
    mean: Array
    std: Array


def split(data: Dataset, rng: np.random.Generator) -> Split:
    """Hold back a fifth of each class for the test, and standardise both parts by the other's mean and deviation.

    Examples
    --------
    >>> from matbackprop.datasets import load_breast_cancer
    >>> from matbackprop.demo import split
    >>> parts = split(load_breast_cancer(), np.random.default_rng(0))
    >>> parts.x.shape, parts.x_test.shape
    ((456, 30), (113, 30))
    >>> round(float(parts.y.mean()), 2), round(float(parts.y_test.mean()), 2)
    (0.37, 0.37)
    """
    held_back = np.zeros(len(data.y), bool)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(data.y[:, 0] == label))
        held_back[rows[: round(TEST_SHARE * len(rows))]] = True
    mean, std = data.x[~held_back].mean(axis=0), data.x[~held_back].std(axis=0)
    x = (data.x - mean) / std
    return Split(x[~held_back], data.y[~held_back], x[held_back], data.y[held_back], mean, std)


def gradient_error(model: Sequential, loss: Loss, x: Array, y: Array) -> float:
    """Return how far the gradient of `backprop` is from finite differences: the worst relative error of an entry.

    The differences are central and of fourth order, (8 (L(h) - L(-h)) - (L(2h) - L(-2h))) / 12h, with the step
    h = ε^(1/5) that balances their truncation against rounding. They take L from `predict` and the loss alone,
    so that they share no code with the backward pass, nor the fusion of Sigmoid and BCE.

    Returns
    -------
    float
        The maximum over all P parameters of |g - d| / max(|g|, |d|). The parameters are as before.

    Examples
    --------
    >>> import matbackprop as mb
    >>> from matbackprop.demo import gradient_error
    >>> model = mb.Sequential(mb.Linear(2, 1), mb.Sigmoid(), rng=0)
    >>> gradient_error(model, mb.BCE(), np.ones((4, 2)), np.ones((4, 1))) < 1e-9
    True
    """
    gradient = model.value_and_grad(x, y, loss)[1]
    differences, step = np.empty_like(gradient), np.finfo(gradient.dtype).eps ** 0.2
    for index, start in enumerate(model.parameters.copy()):
        near, far = 0.0, 0.0
        for sign in (1, -1):
            model.parameters[index] = start + sign * step
            near += sign * loss(model.predict(x), y)
            model.parameters[index] = start + sign * 2 * step
            far += sign * loss(model.predict(x), y)
        model.parameters[index] = start
        differences[index] = (8 * near - far) / (12 * step)
    size = np.maximum(np.abs(gradient), np.abs(differences))
    return float(np.max(np.abs(gradient - differences) / np.where(size > 0, size, 1)))


class Experiment:
    """The demo's network, 30-16-1 with Tanh, Sigmoid and BCE, and the breast-cancer data.

    Parameters
    ----------
    seed : int, default 1
        Decides the split, the first weights and the order of the examples, through one generator.

    Attributes
    ----------
    data : Dataset
    parts : Split
    model : Sequential
    loss : BCE

    Examples
    --------
    >>> from matbackprop.demo import Experiment
    >>> experiment = Experiment(seed=1).train()
    >>> experiment.accuracy() >= 0.96
    True
    >>> experiment.predict(experiment.data.x[:2]).round()
    array([[1.],
           [1.]])
    """

    def __init__(self, seed: int = SEED) -> None:
        self.rng = np.random.default_rng(seed)
        self.data = load_breast_cancer()
        self.parts = split(self.data, self.rng)
        self.model = Sequential(Linear(30, 16), Tanh(), Linear(16, 1), Sigmoid(), rng=self.rng)
        self.loss = BCE()

    @np.errstate(over="ignore", invalid="ignore")  # overflow is found below
    def train(
        self,
        epochs: int = EPOCHS,
        batch_size: int = BATCH_SIZE,
        lr: float = LR,
        report: Callable[[int], None] | None = None,
    ) -> Experiment:
        """Train by mini-batch gradient descent, and return the experiment.

        Parameters
        ----------
        epochs : int, default 30
            How often to go through the training data, each time in a fresh order.
        batch_size : int, default 32
            How many examples make a step; the last batch of an epoch may be shorter.
        lr : float, default 0.1
            The learning rate: a step is ``parameters -= lr * gradients``.
        report : callable, optional
            Called with the number of the epoch after each.

        Raises
        ------
        TypeError, ValueError
            If an argument is no such number.
        FloatingPointError
            If the parameters do not stay finite.
        """
        epochs, batch_size, lr = as_size(epochs, "epochs"), as_size(batch_size, "batch_size"), as_rate(lr, "lr")
        model, x, y = self.model, self.parts.x, self.parts.y
        for epoch in range(1, epochs + 1):
            order = self.rng.permutation(len(x))
            for start in range(0, len(x), batch_size):
                batch = order[start : start + batch_size]
                model.backprop(x[batch], y[batch], self.loss)
                model.parameters -= lr * model.gradients
            if not np.isfinite(model.parameters @ model.parameters):
                raise FloatingPointError(f"the parameters overflowed in epoch {epoch}; take a smaller lr than {lr:g}")
            if report is not None:
                report(epoch)
        return self

    def training_loss(self) -> float:
        """Return the loss over all the training data."""
        return self.loss(self.model.predict(self.parts.x), self.parts.y)

    def accuracy(self) -> float:
        """Return the share of the test examples that the model gets right, at a threshold of one half."""
        return float(np.mean((self.model.predict(self.parts.x_test) > 0.5) == (self.parts.y_test > 0.5)))

    def predict(self, x: Array) -> Array:
        """Return the probability that each tumour is malignant, (N, 1), from measurements in the data's own units."""
        x = as_array(x, "Experiment: x", np.dtype(np.float64))
        return self.model.predict((x - self.parts.mean) / self.parts.std)


class Progress:
    """Lines that stay and, on a terminal, a bar below them.

    Parameters
    ----------
    stream : text stream
        Where to write. The bar is drawn if this is a terminal that can go back to the start of a line.
    total : int
        How many steps there are.
    """

    #: Seconds between two drawings of the bar: 25 a second look smooth.
    INTERVAL = 0.04

    def __init__(self, stream: TextIO, total: int) -> None:
        self.stream, self.total = stream, total
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.full, self.empty = "█░" if _can_write(stream, "█░") else "#."
        self._shown = ""
        self._drawn = 0.0

    def line(self, text: str) -> None:
        """Write a line, in place of the bar if there is one."""
        lead = f"\r{' ' * len(self._shown)}\r" if self._shown else ""
        self._write(f"{lead}{text}\n", "")

    def bar(self, done: int, note: str) -> None:
        """Draw the bar on a terminal, but not more often than the eye can see."""
        now = time.monotonic()
        if not self.live or (self._shown and done < self.total and now - self._drawn < self.INTERVAL):
            return
        self._drawn = now
        room = shutil.get_terminal_size().columns - 1  # a full line would wrap
        text = f"{done:>{len(str(self.total))}}/{self.total}  {note}"
        length = min(40, room - len(text) - 2)
        if length >= 5:
            filled = length * done // self.total
            text = f"{self.full * filled}{self.empty * (length - filled)}  {text}"
        text = text[:room]
        self._write(f"\r{text:<{min(len(self._shown), room)}}", text)

    def close(self) -> None:
        """Leave the bar as it is, and go on below it."""
        if self._shown:
            self._write("\n", "")

    def _write(self, text: str, shown: str) -> None:
        self.stream.write(text)
        self.stream.flush()
        self._shown = shown


def _can_write(stream: TextIO, text: str) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def as_rate(value: object, name: str) -> float:
    """Return `value` as a positive, finite float.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is not positive and finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a positive number, got {describe(value)}")
    if not (0 < value < math.inf):
        raise ValueError(f"{name}: expected a positive, finite number, got {value}")
    return float(value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser the options of this command."""
    add = parser.add_argument
    add("--epochs", type=_positive, default=EPOCHS, metavar="N", help="times through the training data (%(default)s)")
    add("--batch-size", type=_positive, default=BATCH_SIZE, metavar="N", help="examples a step (%(default)s)")
    add("--lr", type=_rate, default=LR, metavar="RATE", help="learning rate (%(default)s)")
    add("--seed", type=_seed, default=SEED, metavar="N", help="of the split, weights and order (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo and return its exit code: 0, or 1 if the training diverged."""
    began = time.perf_counter()
    experiment = Experiment(args.seed)
    _introduce(experiment, args.seed)
    batch_size = min(args.batch_size, len(experiment.parts.x))
    print(f"\nTraining: {args.epochs} epochs in batches of {batch_size}, learning rate {args.lr:g}\n")
    try:
        seconds = _train(experiment, args)
    except FloatingPointError as error:
        sys.stdout.flush()
        print(f"matbackprop demo: {error}", file=sys.stderr)
        return 1
    accuracy, count = experiment.accuracy(), len(experiment.parts.y_test)
    print(f"\nTest accuracy: {accuracy:.4f} ({round(accuracy * count)} of {count} right)")
    print(f"Time: {seconds:.2f} s of training, {time.perf_counter() - began:.2f} s in all\n")
    _point_on(args)
    return 0


def _introduce(experiment: Experiment, seed: int) -> None:
    """Print what data and what network this is, and whether its gradient is right."""
    data, parts, model = experiment.data, experiment.parts, experiment.model
    authors, _, repository = data.source.partition(", UCI")
    malignant = int(data.y.sum())
    print(f"Data: {data.name}, {data.licence}")
    print(f"  {authors},\n  UCI{repository}")
    print(f"  {len(data.x)} tumours, {data.x.shape[1]} measurements of each: {malignant} malignant (1), ", end="")
    print(f"{len(data.x) - malignant} benign (0)")
    print(f"  {len(parts.x)} to train on, {len(parts.x_test)} held back for the test (seed {seed})\n")
    print("Network, with the loss BCE:")
    print("".join(f"  {line}\n" for line in model.summary().splitlines()))
    error = gradient_error(model, experiment.loss, parts.x, parts.y)
    print(f"Gradient: all {model.parameters.size} entries against finite differences, before training")
    print(f"  worst relative error of an entry {error:.1e}: they agree to {_digits(error)} digits or more")


def _train(experiment: Experiment, args: argparse.Namespace) -> float:
    """Train with the loss shown as it falls; return the seconds that the steps took."""
    progress, every = Progress(sys.stdout, args.epochs), -(-args.epochs // 10)
    places = max(5, len(str(args.epochs)))
    progress.line(f"  {'epoch':>{places}}  training loss")
    showing = 0.0

    def report(epoch: int) -> None:
        nonlocal showing
        began = time.perf_counter()
        loss = f"{experiment.training_loss():.4f}"
        if epoch % every == 0 or epoch == args.epochs:
            progress.line(f"  {epoch:>{places}}  {loss:>13}")
        progress.bar(epoch, f"epochs  loss {loss}")
        showing += time.perf_counter() - began

    report(0)
    showing, began = 0.0, time.perf_counter()
    experiment.train(args.epochs, args.batch_size, args.lr, report)
    seconds = time.perf_counter() - began - showing
    progress.close()
    return seconds


def _digits(error: float) -> int:
    """Return how many decimal digits agree where the relative error is this."""
    return max(0, math.floor(-math.log10(error))) if error > 0 else 15


def _point_on(args: argparse.Namespace) -> None:
    """Print where to go next."""
    seed = f"seed={args.seed}"
    options = f"epochs={args.epochs}, batch_size={args.batch_size}, lr={args.lr!r}"
    print("Next: the same network in Python, asked about three tumours")
    print("  from matbackprop.demo import Experiment")
    print(f"  trained = Experiment({seed}).train({options})")
    print("  print(trained.predict(trained.data.x[:3]))  # the probability of malignant")
    print("README.md is the tour, help(matbackprop.Sequential) the reference, and")
    print("matbackprop --help lists the commands.")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def _seed(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _rate(text: str) -> float:
    try:
        return as_rate(float(text), "lr")
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a positive, finite number, got {text!r}") from None
