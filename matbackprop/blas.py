"""BLAS, as NumPy and SciPy have loaded it: held to one thread, and y ← y + a x."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from threading import Lock, get_ident
from typing import Any

import numpy as np

__all__ = ["Axpy", "axpy", "blas_libraries", "one_blas_thread", "one_scipy_blas_thread", "scipy_blas_libraries"]

#: y ← y + a x in one pass, for two vectors and a number: ``axpy(x, y, None, a)``.
Axpy = Callable[..., object]


@lru_cache(maxsize=1)
def blas_libraries() -> list[Any]:
    """Return threadpoolctl's controllers, looked for once: that takes a millisecond.

    SciPy's wheels bring a library of their own, which no product of ours uses; telling it too would take as long again.
    """
    return [library for library in _all_libraries() if not _is_scipys(library)] or _all_libraries()


@lru_cache(maxsize=1)
def scipy_blas_libraries() -> list[Any]:
    """Return the controllers of what `axpy` uses: SciPy's own library, or the one that it shares with NumPy."""
    axpy(np.dtype(np.float64))  # which loads it
    return [library for library in _all_libraries() if _is_scipys(library)] or blas_libraries()


def _all_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    controllers: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return controllers


def _is_scipys(library: Any) -> bool:
    """Return whether a library is part of SciPy's wheel: of Linux and Windows, or of macOS."""
    return any(folder in library.filepath for folder in ("scipy.libs", "scipy/.dylibs"))


def axpy(dtype: np.dtype[Any]) -> Axpy | None:
    """Return BLAS's function for vectors of this type, if it has one. To import it takes 0.2 s, the first time.

    The vectors must be contiguous and aligned, or it works on copies.
    """
    from scipy.linalg import blas

    return {"f": blas.saxpy, "d": blas.daxpy}.get(dtype.char)


class _Held:
    """A library that is held to one thread."""

    def __init__(self, before: int) -> None:
        self.before = before  # its threads
        self.inside = 0  # how many contexts


_held: dict[tuple[str, int], _Held] = {}
_lock = Lock()


class _OneThread:
    """A context in which libraries stay on one thread; when the last has left it, they are as they were before.

    Two calls into a library cost about 2 µs; threadpoolctl's own context manager does the same in 7, and is not made
    for several threads that come and go.
    """

    def __init__(self, libraries: Callable[[], list[Any]]) -> None:
        self.libraries = libraries

    def __enter__(self) -> None:
        with _lock:
            for library in self.libraries():
                threads, key = library.get_num_threads(), _key(library)
                held = _held.get(key)
                if held is None:
                    held = _held[key] = _Held(threads)
                held.inside += 1
                if threads != 1:  # each time: somebody else may have set it
                    _set_threads(library, 1)

    def __exit__(self, *error: object) -> None:
        with _lock:
            for library in self.libraries():
                key = _key(library)
                held = _held.get(key)
                if held is None:  # in a child that was forked inside
                    continue
                held.inside -= 1
                if not held.inside:
                    del _held[key]
                    if held.before != 1:
                        _set_threads(library, held.before)


def _key(library: Any) -> tuple[str, int]:
    """Return the library's path and, where each thread has a number of its own, which thread this is."""
    return library.filepath, get_ident() if getattr(library, "threading_layer", None) == "openmp" else 0


def _set_threads(library: Any, threads: int) -> None:
    """Set the number of threads, from whichever thread this is.

    Later versions of threadpoolctl let nobody set OpenBLAS's but the thread that did first, lest threads undo each
    other's work. Contexts of ours do not, and they come from any thread.
    """
    anybody = getattr(library, "clear_controlling_thread", lambda force: None)
    anybody(force=True)
    library.set_num_threads(threads)
    anybody(force=True)


one_blas_thread = _OneThread(blas_libraries)
one_scipy_blas_thread = _OneThread(scipy_blas_libraries)


def _after_fork() -> None:
    """Forget the contexts: a child process has none of the threads that may have been inside."""
    global _lock  # noqa: PLW0603
    _lock = Lock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
