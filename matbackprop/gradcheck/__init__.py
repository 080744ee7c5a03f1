"""A gradient checker for any gradient: a hand-written one, the library's own, or torch's.

>>> import numpy as np
>>> from matbackprop.gradcheck import check_gradient
>>> report = check_gradient(lambda x: np.sum(x**2), lambda x: 2 * x, np.array([1.0, 2.0]), rng=0)
>>> bool(report)
True
"""

from __future__ import annotations

from matbackprop.gradcheck.api import check_gradient, check_hessian_product
from matbackprop.gradcheck.models import model_values
from matbackprop.gradcheck.numerical import NumericalGradient, numerical_gradient
from matbackprop.gradcheck.points import check_layer, check_model
from matbackprop.gradcheck.report import Finding, GradientCheckError, GradientReport, Reason, Verdict

__all__ = [
    "Finding",
    "GradientCheckError",
    "GradientReport",
    "NumericalGradient",
    "Reason",
    "Verdict",
    "check_gradient",
    "check_hessian_product",
    "check_layer",
    "check_model",
    "model_values",
    "numerical_gradient",
]
