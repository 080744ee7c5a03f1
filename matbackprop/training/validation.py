"""Validation: the loss and the metrics on rows that training does not see."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.layer import read_only
from matbackprop.loss import Loss
from matbackprop.training.examples import Examples, as_examples
from matbackprop.validation import Array, as_numbers, check_finite, describe

if TYPE_CHECKING:
    from matbackprop.sequential import Sequential

__all__ = ["Metric", "Validation", "accuracy", "check_metrics", "split"]

Metric = Callable[[Array, Array], float]

#: Rows of x that are converted and predicted at a time.
ROWS = 8192


def accuracy(y_pred: Array, y_true: Array) -> float:
    """Return the share of rows whose largest prediction is at the true class.

    Parameters
    ----------
    y_pred : array_like, shape (N, C)
        Logits or probabilities of at least two classes. A row with NaN has no largest: it counts as wrong.
    y_true : array_like, shape (N,) or (N, C)
        Classes 0...C-1, or a row of targets for each example, of which the largest counts.

    Returns
    -------
    float
        NaN for no rows.

    Raises
    ------
    TypeError, ValueError
        If something is not numbers, the shapes do not fit, or a target is no class; or if there is one column only:
        logits change sides at 0 and probabilities at 0.5, which the numbers do not tell.

    Examples
    --------
    >>> import matbackprop as mb
    >>> mb.accuracy([[2.0, 1.0], [0.0, 3.0]], [0, 0])
    0.5
    """
    pred, true = as_numbers(y_pred, "accuracy: y_pred"), as_numbers(y_true, "accuracy: y_true")
    if pred.ndim != 2 or pred.shape[1] < 2:
        raise ValueError(
            f"accuracy: expected predictions of at least two classes, shape (N, C), got shape {pred.shape}; for one "
            "column say where the sides meet: lambda y_pred, y_true: np.mean((y_pred > 0.5) == y_true)"
        )
    if true.shape == pred.shape:
        check_finite("accuracy: y_true", true)
        true = true.argmax(axis=1)
    if true.shape != pred.shape[:1]:
        raise ValueError(
            f"accuracy: expected targets of shape {pred.shape[:1]} (classes) or {pred.shape}, got shape {true.shape}"
        )
    classes = pred.shape[1]
    bad = ~((true >= 0) & (true < classes) & (true % 1 == 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"accuracy: y_true: expected classes 0...{classes - 1}, got {true[row]} at row {row}")
    hits = (pred.argmax(axis=1) == true) & ~np.isnan(pred).any(axis=1)
    return float(np.mean(hits)) if len(pred) else float("nan")


def check_metrics(metrics: object) -> dict[str, Metric]:
    """Return `metrics` as a dict of functions by name.

    Raises
    ------
    TypeError, ValueError
        If it is none, or a name is taken by a column of the `History`.
    """
    if metrics is None:
        return {}
    if callable(metrics):
        metrics = {getattr(metrics, "__name__", "metric"): metrics}
    if not isinstance(metrics, Mapping):
        raise TypeError(f'fit: metrics: expected a dict such as {{"accuracy": mb.accuracy}}, got {describe(metrics)}')
    for name, metric in metrics.items():
        if not isinstance(name, str) or not callable(metric):
            raise TypeError(f"fit: metrics: expected functions by name, got {name!r}: {describe(metric)}")
        if name in ("loss", "validation_loss", "lr", "seconds"):
            raise ValueError(f"fit: metrics: {name!r} is a column of the history already; name it otherwise")
    return dict(metrics)


def split(count: int, fraction: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw which rows to train on and which to keep for validation.

    Raises
    ------
    ValueError
        If either would be none.

    Examples
    --------
    >>> from matbackprop.training.validation import split
    >>> train, kept = split(10, 0.3, np.random.default_rng(0))
    >>> len(train), len(kept)
    (7, 3)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fit: validation: a fraction lies between 0 and 1, got {fraction}")
    kept = round(count * fraction)
    if not 0 < kept < count:
        raise ValueError(
            f"fit: validation={fraction} of {count} examples is {kept}, which leaves {count - kept} to train on; there "
            "must be at least one of each"
        )
    order = rng.permutation(count)
    return np.sort(order[kept:]), np.sort(order[:kept])


class Validation:
    """The data that a model is judged on.

    Parameters
    ----------
    model : Sequential
    loss : Loss
    examples : Examples
    rows : numpy.ndarray of int or None
        Which of them; None for all.
    metrics : dict of str to callable
    """

    def __init__(
        self, model: Sequential, loss: Loss, examples: Examples, rows: Array | None, metrics: Mapping[str, Metric]
    ) -> None:
        x, y, weight, _ = examples
        self.model, self.loss, self.metrics = model, copy.copy(loss), metrics
        self.x, self.rows = x, rows
        self.count = len(x) if rows is None else len(rows)
        self.y = y if rows is None else y[rows]
        self.weight = weight[rows] if isinstance(weight, np.ndarray) and rows is not None else weight

    @classmethod
    def of(cls, model: Sequential, loss: Loss, data: object, metrics: Mapping[str, Metric]) -> Validation:
        """Return the validation on ``data = (x, y)`` or ``(x, y, sample_weight)``.

        Raises
        ------
        TypeError, ValueError
            If it is something else, or does not fit the model and the loss.
        """
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise TypeError(
                "fit: validation: expected None, a fraction such as 0.2, (x, y) or (x, y, sample_weight), got "
                f"{describe(data)}"
            )
        weight = data[2] if len(data) == 3 else None
        return cls(model, loss, as_examples(model, loss, data[0], data[1], weight, "fit: validation"), None, metrics)

    def measure(self, workers: int | None) -> dict[str, float]:
        """Return ``validation_loss`` and the metrics by name."""
        parts = []
        for start in range(0, self.count, ROWS):
            where = slice(start, start + ROWS)
            parts.append(self.model.predict(self.x[where if self.rows is None else self.rows[where]], workers=workers))
        y_pred = np.concatenate(parts)
        results = {"validation_loss": self.loss(y_pred, self.y, self.weight)}
        for name, metric in self.metrics.items():
            value: Any = metric(y_pred, read_only(self.y))
            try:
                results[name] = float(value)
            except (TypeError, ValueError):
                raise TypeError(f"fit: metrics: {name!r} must return a number, got {describe(value)}") from None
        return results
