"""Print how far ours and torch's results are from exact in the tails, in ulps, side by side.

    python benchmarks/tails.py

The table of ``tests/test_tails.py``: every function that saturates, at z = 0, ±1e-300, ±1e-8, ±1, ±20, ±40, ±88.7,
±709, ±745, ±1000 and ±inf, against mpmath at 50 digits. The first pair of columns is the worst over the points where
the result has digits left, the second over all. For BCE, z stands for ŷ = σ(z).
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from test_tails import CASES, DTYPES, measure, points

COLUMNS = f"{'ours':>9} {'at z':<8}{'torch':>9} {'at z':<8}"


def worst(errors: np.ndarray, z: np.ndarray) -> str:
    """Return the largest error and the point where it is."""
    at = int(np.argmax(errors))
    return f"{errors[at]:>9.3g} {f'{z[at]:.3g}' if errors[at] else '':<8}"


def main() -> None:
    """Print the table, and at how many points which of the two is nearer."""
    print(f"{'':<35}{'where digits are left':<38}everywhere")
    print(f"{'function':<27}{'dtype':<8}{COLUMNS}|{COLUMNS}")
    nearer, further, total = 0, 0, 0
    for case in CASES:
        for which, dtype in product((0, 1), DTYPES):
            ours, theirs = (measure(case, dtype, other)[which] for other in (None, torch))
            z, holds = points(dtype), np.array([case.holds[which](x) for x in ours.x])
            cells = [worst(e.ulps[at], z[at]) for at in (holds, holds | True) for e in (ours, theirs)]
            name, *settings = case.name.split(" ", 1)
            label = " ".join([name + "'" * which, *settings])
            print(f"{label:<27}{dtype.__name__:<8}{cells[0]}{cells[1]}|{cells[2]}{cells[3]}")
            nearer += int((ours.ulps < theirs.ulps).sum())
            further += int((ours.ulps > theirs.ulps).sum())
            total += z.size
    print(f"\nOf {total} results, {nearer} are nearer to exact than torch's, {further} further, the others equal.")


if __name__ == "__main__":
    main()
