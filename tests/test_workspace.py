"""Workspace: buffers that grow, never shrink, and are handed out again."""

from __future__ import annotations

import numpy as np
import pytest

from matbackprop.workspace import Workspace


def test_the_same_memory_again() -> None:
    workspace = Workspace()
    full = workspace.take("a", (8, 3), np.float64)
    for rows in (8, 5, 1, 0):
        part = workspace.take("a", (rows, 3), np.float64)
        assert part.shape == (rows, 3)
        assert part.flags.c_contiguous
        assert rows == 0 or part.ctypes.data == full.ctypes.data
    assert workspace.grown == 1
    assert workspace.nbytes == full.nbytes


@pytest.mark.parametrize("other", [("b", np.float64), ("a", np.float32), (("a", 0), np.float64), ("a", np.bool_)])
def test_other_names_and_types_are_other_memory(other) -> None:
    workspace = Workspace()
    first, second = workspace.take("a", (4, 4), np.float64), workspace.take(other[0], (4, 4), other[1])
    assert not np.shares_memory(first, second)
    assert second.dtype == other[1]


def test_growing() -> None:
    workspace = Workspace()
    old = workspace.take("a", (2, 3), np.float64)
    old[:] = 1
    new = workspace.take("a", (3, 3), np.float64)
    assert workspace.grown == 2
    new[:] = 2
    assert (old == 1).all()  # whoever still holds the old memory is not disturbed
    assert workspace.take("a", (2, 3), np.float64).ctypes.data == new.ctypes.data
    assert workspace.nbytes == 9 * 8


def test_scratch_by_the_order_of_asking() -> None:
    workspace = Workspace()
    first, second = workspace.scratch("s"), workspace.scratch("s")
    a, b = first((2, 2), np.float64), first((2, 2), np.float64)
    assert not np.shares_memory(a, b)
    assert np.shares_memory(a, second((4,), np.float64))
    assert np.shares_memory(b, second((1,), np.float64))


def test_poison() -> None:
    workspace = Workspace()
    arrays = [workspace.take("a", (3,), dtype) for dtype in (np.float32, np.float64, np.complex128, np.bool_)]
    workspace.poison()
    for array in arrays[:-1]:
        assert np.isnan(array).all()
    assert arrays[-1].all()
