"""Checkpoints: everything that a run needs to go on, bit for bit, as if it had never been stopped."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.settings import Configured, Setting
from matbackprop.validation import Array, as_size

if TYPE_CHECKING:
    from matbackprop.sequential import Sequential

__all__ = ["Checkpoint", "check_same", "generator_state", "generators", "identity", "restore_generator"]

KIND, VERSION = "matbackprop training run", 1


def _as_path(value: object, name: str) -> Path:
    from matbackprop.files.container import as_file

    return as_file(value, name.removesuffix(": path"))[0]


class Checkpoint(Configured):
    """Keep a training run in a file, so that it can go on after it was killed.

    The file is replaced in one step: whenever the process dies, what is on disk is the old one or the new one, whole.
    It holds the parameters, the best ones, the state of the optimiser, the schedule and all random generators, and the
    history. ``fit(..., checkpoint=..., resume=True)`` goes on from it, and comes to the same bits as a run that was
    never stopped. (What else a layer of your own keeps from step to step, a running mean for one, is not in it.)

    Parameters
    ----------
    path : str or path
        A file name that ends in ``.safetensors`` (which needs safetensors) or ``.npz``.
    every : int, keyword-only, default 1
        How many epochs pass between two writes; the last epoch that was finished is always written, unless Ctrl-C or
        an error ends the run within the next one.

    Raises
    ------
    TypeError, ValueError
        If `path` is no path, or ends otherwise, or `every` is no positive integer.

    Examples
    --------
    >>> import matbackprop as mb
    >>> checkpoint = mb.Checkpoint("run.npz", every=10)
    """

    path = Setting(_as_path)
    every = Setting(as_size)

    _known: tuple[int, int] | None = None

    def __init__(self, path: str | os.PathLike[str], *, every: int = 1) -> None:
        self.path, self.every = path, every

    def open(self, resume: bool) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """Return what the file holds, or None where there is none yet.

        Raises
        ------
        FileNotFoundError
            If its directory is not there.
        FileExistsError
            If it is there, and not to be gone on from.
        """
        self._known = None
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"fit: checkpoint: there is no directory {self.path.parent}; make it first")
        if not self.path.exists():
            return None
        if not resume:
            raise FileExistsError(
                f"fit: checkpoint: {self.path} is there already; pass resume=True to go on from it, or delete it"
            )
        return self.read()

    def write(self, tensors: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Replace the file.

        Raises
        ------
        FileExistsError
            If it is not the one that this object has read or written last: another run has written to it.
        """
        from matbackprop.files import write_tensors

        if self._mark() != self._known:
            raise FileExistsError(
                f"fit: checkpoint: another run has written to {self.path} since this one has; give each run a file"
            )
        write_tensors(self.path, dict(tensors), {"kind": KIND, "version": VERSION, **state})
        self._known = self._mark()

    def _mark(self) -> tuple[int, int] | None:
        """Return what tells the file from the ones before and after it, or None where there is none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def read(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return what was written.

        Raises
        ------
        ValueError
            If the file holds something else, or was written in another version of the format.
        """
        from matbackprop.files import read_tensors

        self._known = self._mark()
        tensors, state = read_tensors(self.path)
        if state.get("kind") != KIND:
            raise ValueError(f"{self.path}: expected the checkpoint of a training run; for a model use mb.load")
        if state.get("version") != VERSION:
            raise ValueError(
                f"{self.path}: was written by another version of matbackprop, in version {state.get('version')} of the "
                f"format; this one reads {VERSION}: use that one to go on"
            )
        return tensors, state


def check_same(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise a ValueError that says where two runs' settings differ, if they do."""
    names = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if names:
        listed = "; ".join(f"{name} was {saved.get(name)!r} and is {now.get(name)!r}" for name in names)
        hint = "to begin anew, remove the file or name another"
        raise ValueError(f"fit: resume: {path} is of a run with other settings: {listed}; {hint}")


def identity(part: object) -> str:
    """Return a part of a run as text that is the same in the next process: its repr, and a user's plain attributes.

    Examples
    --------
    >>> import matbackprop as mb
    >>> from matbackprop.training.checkpoint import identity
    >>> class Scale(mb.Layer):
    ...     def __init__(self, by):
    ...         self.by = by
    ...     def forward(self, x, out=None):
    ...         return x * self.by
    ...     def backward(self, delta, out=None):
    ...         return delta * self.by
    >>> identity(Scale(0.5))
    'Scale() by=0.5'
    """
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))
    if isinstance(part, Configured) or type(part).__module__.startswith("matbackprop."):
        return text  # which has all settings
    attributes = getattr(part, "__dict__", {}).items()
    plain = [f"{k}={v!r}" for k, v in attributes if k[0] != "_" and isinstance(v, (bool, int, float, str))]
    return " ".join([text, *plain])


def generators(model: Sequential) -> Iterator[np.random.Generator]:
    """Yield the generators that layers have of their own, as attributes or in lists and the like, in order."""

    def within(value: object) -> Iterator[np.random.Generator]:
        if isinstance(value, np.random.Generator):
            yield value
        elif isinstance(value, (list, tuple)):
            for part in value:
                yield from within(part)
        elif isinstance(value, dict):
            yield from within(list(value.values()))

    for _, layer in model.walk():
        yield from within(list(vars(layer).values()))


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator as JSON can hold it."""
    return {name: _plain(part) for name, part in rng.bit_generator.state.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.name}
    return int(value) if isinstance(value, np.integer) else value


def restore_generator(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put a generator into the state that `generator_state` returned.

    Raises
    ------
    ValueError
        If it is of another kind.
    """
    kind = type(rng.bit_generator).__name__
    if state["bit_generator"] != kind:
        raise ValueError(f"fit: resume: the run's generator was a {state['bit_generator']}, and this one is a {kind}")
    rng.bit_generator.state = _arrays(state)


def _arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"array", "dtype"}:
            return np.array(value["array"], dtype=value["dtype"])
        return {name: _arrays(part) for name, part in value.items()}
    return value
