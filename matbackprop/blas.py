"""BLAS, as NumPy and SciPy have loaded it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

__all__ = ["blas_libraries"]


@lru_cache(maxsize=1)
def blas_libraries() -> list[Any]:
    """Return threadpoolctl's controllers of the libraries, looked for once: that takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    controllers: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return controllers
