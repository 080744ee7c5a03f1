"""Worked examples: one forward and backward pass of a model as formulas and numbers, ready to be read.

>>> import matbackprop as mb
>>> model = mb.Sequential(mb.Linear(2, 1), mb.Sigmoid(), rng=0)
>>> ex = mb.explain(model, [[1.0, -1.0]], [[0.0]], mb.BCE())
>>> ex["∂L/∂W1"].formula
'∂L/∂W1 = Δ1ᵀ A0'
"""

from __future__ import annotations

from matbackprop.worked.example import WorkedExample
from matbackprop.worked.paths import Path, Paths
from matbackprop.worked.record import explain
from matbackprop.worked.steps import Step

__all__ = ["Path", "Paths", "Step", "WorkedExample", "explain"]
