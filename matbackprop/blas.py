"""BLAS, as NumPy and SciPy have loaded it: how many threads it uses, and y ← y + a x."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

__all__ = ["Axpy", "axpy", "blas_libraries", "one_blas_thread", "one_scipy_blas_thread"]

#: y ← y + a x in one pass, for two vectors and a number: ``axpy(x, y, None, a)``.
Axpy = Callable[..., object]


@lru_cache(maxsize=1)
def blas_libraries() -> list[Any]:
    """Return threadpoolctl's controllers, looked for once: that takes a millisecond.

    SciPy's wheels bring a library of their own, which no product of ours uses; telling it too would take as long again.
    """
    return [library for library in _all_libraries() if not _is_scipys(library)] or _all_libraries()


@lru_cache(maxsize=1)
def _scipy_blas_libraries() -> list[Any]:
    """Return the controllers of what `axpy` uses, which SciPy has loaded by then."""
    return [library for library in _all_libraries() if _is_scipys(library)] or _all_libraries()


def _all_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    controllers: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return controllers


def _is_scipys(library: Any) -> bool:
    return "scipy.libs" in library.filepath


def axpy(dtype: np.dtype[Any]) -> Axpy | None:
    """Return BLAS's function for vectors of this type, if it has one. To import it takes 0.2 s, the first time."""
    from scipy.linalg import blas

    return {"f": blas.saxpy, "d": blas.daxpy}.get(dtype.char if dtype.isnative else "")


class _OneThread:
    """A context in which BLAS stays on one thread; when the last thread has left it, BLAS is as it was before.

    Two calls into the library cost about 2 µs; threadpoolctl's own context manager does the same in 7, and is not
    made for several threads that come and go.
    """

    def __init__(self, libraries: Callable[[], list[Any]]) -> None:
        self.libraries = libraries
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.lock = Lock()
        self.inside = 0
        self.before: list[int] | None = None  # while they are lowered

    def __enter__(self) -> None:
        with self.lock:
            now = [library.get_num_threads() for library in self.libraries()]
            if self.before is None:
                self.before = now
            for library, threads in zip(self.libraries(), now, strict=True):
                if threads != 1:  # each time: what another thread set need not hold in this one
                    library.set_num_threads(1)
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.before is not None:
                for library, threads in zip(self.libraries(), self.before, strict=True):
                    if threads != 1:
                        library.set_num_threads(threads)
                self.before = None


one_blas_thread = _OneThread(blas_libraries)
one_scipy_blas_thread = _OneThread(_scipy_blas_libraries)

if hasattr(os, "register_at_fork"):  # a child process has none of the threads that may have been inside
    os.register_at_fork(after_in_child=one_blas_thread.forget)
    os.register_at_fork(after_in_child=one_scipy_blas_thread.forget)
