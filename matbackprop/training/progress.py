"""Progress: a bar on a terminal and in a notebook, plain lines elsewhere."""

# ruff: noqa: T201 (it prints)

from __future__ import annotations

import sys
import warnings
from typing import Any

__all__ = ["Bar", "Lines", "Progress", "progress_display"]

#: About how many lines a run prints where it cannot draw a bar.
LINES = 20

#: What a bar shows: without the speed, which leaves room for the numbers.
FORM = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Progress:
    """What shows how far a run is. This one shows nothing."""

    def step(self) -> None:
        """Take note of a step."""

    def epoch(self, number: int, entries: dict[str, float]) -> None:
        """Take note of the end of epoch `number`, from 1."""

    def close(self, message: str) -> None:
        """Show why the run ended."""


class Lines(Progress):
    """Some twenty lines a run, on stderr."""

    def __init__(self, epochs: int, done: int) -> None:
        self.epochs, self.shown = epochs, done

    def epoch(self, number: int, entries: dict[str, float]) -> None:
        """Print a line, if it is time for one."""
        if number in (1, self.epochs) or number * LINES // self.epochs > self.shown * LINES // self.epochs:
            self.shown = number
            width = len(str(self.epochs))
            print(f"epoch {number:{width}}/{self.epochs}  {_text(entries, '  ')}", file=sys.stderr, flush=True)

    def close(self, message: str) -> None:
        """Print the reason."""
        print(message, file=sys.stderr, flush=True)


class Bar(Progress):
    """A tqdm bar that counts steps, with the last epoch's numbers behind it."""

    def __init__(self, tqdm: Any, epochs: int, done: int, steps: int | None) -> None:
        self.epochs, self.done = epochs, done
        total = None if steps is None else epochs * steps
        initial = 0 if steps is None else done * steps
        form = FORM if steps is not None else None
        self.bar = tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True, bar_format=form)
        self._describe(done + 1)

    def step(self) -> None:
        """Move the bar."""
        self.bar.update()

    def epoch(self, number: int, entries: dict[str, float]) -> None:
        """Write the numbers behind the bar."""
        self.done = number
        self.bar.set_postfix_str(_text(entries, ", "), refresh=False)
        self._describe(number + 1)

    def _describe(self, number: int) -> None:
        self.bar.set_description_str(f"epoch {min(number, self.epochs)}/{self.epochs}", refresh=False)

    def close(self, message: str) -> None:
        """Leave the bar as it is, and print the reason below it."""
        self._describe(self.done)
        self.bar.close()
        self.bar.write(message, file=sys.stderr)


def progress_display(wanted: bool, epochs: int, done: int, steps: int | None) -> Progress:
    """Return what fits the place where the output goes.

    Parameters
    ----------
    wanted : bool
        Whether anything is to be shown.
    epochs, done : int
        How many there will be, and were already.
    steps : int or None
        How many an epoch has, if that is known.
    """
    if not wanted or sys.stderr is None:
        return Progress()
    if _notebook() or sys.stderr.isatty():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a notebook lacks a widget, say
                from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            return Bar(tqdm, epochs, done, steps)
    return Lines(epochs, done)


def _notebook() -> bool:
    """Return whether this runs in a notebook's kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _text(entries: dict[str, float], between: str) -> str:
    """Write the numbers in one line."""
    kinds = {"validation_loss": "val {:.4g}", "lr": "lr {:.3g}", "seconds": "{:.2f} s"}
    return between.join(kinds.get(name, name + " {:.4g}").format(value) for name, value in entries.items())
