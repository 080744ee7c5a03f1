"""scikit-learn estimators: `MLPClassifier` and `MLPRegressor`, with scikit-learn's parameter names where it has them.

They go where estimators go: pipelines, searches over parameters, cross-validation. In what they differ from those of
the same names in scikit-learn stands in the docstring of each. They need ``pip install matbackprop[sklearn]``.
"""

from __future__ import annotations

from matbackprop.interop.sklearn.classifier import MLPClassifier
from matbackprop.interop.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
