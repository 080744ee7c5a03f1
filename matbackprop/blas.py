"""BLAS, as NumPy has loaded it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

__all__ = ["blas_libraries"]


@lru_cache(maxsize=1)
def blas_libraries() -> list[Any]:
    """Return threadpoolctl's controllers, looked for once: that takes a millisecond.

    SciPy's wheels bring a library of their own, which no product of ours uses; telling it too would take as long again.
    """
    from threadpoolctl import ThreadpoolController

    controllers: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return [controller for controller in controllers if "scipy.libs" not in controller.filepath] or controllers
