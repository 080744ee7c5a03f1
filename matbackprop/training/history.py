"""History: what a training run went through, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from matbackprop.validation import Array

__all__ = ["History"]


class History(Mapping[str, Array]):
    """The course of a training run: one array a quantity, one entry an epoch.

    What `fit` returns. ``history["loss"]`` is an array, and so is every other column:

    - ``loss``: the mean of the batches' losses, each taken before its update, penalty included;
    - ``validation_loss`` and the metrics by name, where there is validation;
    - ``lr``: the learning rate;
    - ``seconds``: the time that the epoch took.

    Attributes
    ----------
    epochs : int
        The epochs that were finished.
    stopped : str
        Why the run ended.
    completed : bool
        Whether all epochs were done before anything else ended the run.
    interrupted : bool
        Whether Ctrl-C was pressed, be it in the last epoch.
    best_epoch : int or None
        The epoch, from 0, whose parameters the model has, where early stopping put them back.

    Examples
    --------
    >>> import matbackprop as mb
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> model = mb.Sequential(mb.Linear(1, 1), rng=0)
    >>> history = mb.fit(model, x, 3 * x + 2, mb.MSE(), mb.SGD(0.1), epochs=20, rng=0, progress=False)
    >>> history.epochs, history.stopped
    (20, 'all 20 epochs done')
    >>> bool(history["loss"][-1] < 0.1 * history["loss"][0])
    True
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[float]] = {}
        self.stopped, self.completed, self.interrupted = "unfinished", False, False
        self.best_epoch: int | None = None

    def append(self, entries: Mapping[str, float]) -> None:
        """Add an epoch."""
        for name, value in entries.items():
            self._columns.setdefault(name, []).append(value)

    @property
    def epochs(self) -> int:
        """The number of epochs that were finished."""
        return len(next(iter(self._columns.values()), []))

    def __getitem__(self, name: str) -> Array:
        if name not in self._columns:
            raise KeyError(f"History: expected one of {list(self._columns)}, got {name!r}")
        return np.array(self._columns[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as lists, numbers and text, which JSON can hold.

        Examples
        --------
        >>> import matbackprop as mb
        >>> mb.History().to_dict()
        {'columns': {}, 'epochs': 0, 'stopped': 'unfinished', 'best_epoch': None}
        """
        columns = {name: list(values) for name, values in self._columns.items()}
        return {"columns": columns, "epochs": self.epochs, "stopped": self.stopped, "best_epoch": self.best_epoch}

    @classmethod
    def of(cls, columns: Mapping[str, Array]) -> History:
        """Return the history that has these columns."""
        history = cls()
        history._columns = {name: column.tolist() for name, column in columns.items()}
        return history

    def plot(self, ax: Any = None) -> Any:
        """Draw the training loss over the epochs, and the validation loss where there is one; needs matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. By default on the axes of a new figure, of which pyplot knows nothing.

        Returns
        -------
        matplotlib.axes.Axes
        """
        if ax is None:
            try:
                from matplotlib.figure import Figure
            except ImportError:
                raise ImportError("History.plot: matplotlib is not installed; pip install matbackprop[viz]") from None
            ax = Figure(layout="constrained").add_subplot()
        epochs = np.arange(1, self.epochs + 1)
        positive = True
        for name, style in (("loss", "-"), ("validation_loss", "--")):
            if name in self._columns:
                ax.plot(epochs, self[name], style, label=name.replace("_", " "))
                positive = positive and bool((self[name] > 0).all())
        if self.best_epoch is not None:
            ax.axvline(self.best_epoch + 1, color="0.7", linewidth=1, label="best epoch")
        if positive and self.epochs:
            ax.set_yscale("log")
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        if self.epochs:
            ax.legend()
        return ax

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [
            f"{name} {values[0]:.4g} → {values[-1]:.4g}"
            for name, values in self._columns.items()
            if name not in ("lr", "seconds")
        ]
        return f"<History of {self.epochs} epochs: {', '.join([*parts, self.stopped])}>"
