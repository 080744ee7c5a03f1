"""Print how often a training step asks for array memory: ``python benchmarks/allocations.py``.

The counters and the networks are those of tests/test_allocations.py: requests to NumPy's data allocator, temporary
arrays included, and the arrays that tracemalloc finds left over, in 100 calls of `backprop` after a few to warm up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import matbackprop as mb

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from test_allocations import CALLS, LOSSES, SIZES, network, remaining, requests, steps


def row(*cells: object) -> None:
    print("| " + " | ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)) + " |")


WIDTHS = (10, 13, 8, 9, 6, 8, 7, 5)


def main() -> None:
    print(f"{CALLS} calls of backprop a batch size, 30-16-8-1 (small x) or 600-16-8-1 (large x)\n")
    row("network", "loss", "weighted", "rows", "x", "0-d", "arrays", "left")
    row(*("-" * width for width in WIDTHS))
    cells = [
        (activation, dtype, features, loss, weighted, sizes)
        for activation, dtype in ((mb.Tanh, np.float64), (mb.ReLU, np.float32), (mb.Sigmoid, np.float64))
        for features in (30, 600)
        for loss in LOSSES
        for weighted in (False, True)
        for sizes in SIZES
    ]
    for activation, dtype, features, name, weighted, rows in cells:
        loss, end, _ = LOSSES[name]
        model = network(activation, *(layer() for layer in end), features=features, dtype=dtype)
        step = steps(model, loss, SIZES[rows], weighted)
        every, arrays = requests(step), requests(step, least=17)
        kind = f"{activation.__name__} f{model.dtype.itemsize * 8}"
        size = "small" if features == 30 else "large"
        row(kind, name, "yes" if weighted else "no", rows, size, every - arrays, arrays, remaining(step))
    planted = requests(lambda: np.empty((64, 16)))
    print(f"\n0-d: results of reductions, of 16 bytes at most. A planted np.empty((64, 16)) counts {planted}.")


if __name__ == "__main__":
    main()
