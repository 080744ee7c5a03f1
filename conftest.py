"""How the examples in the package's docstrings run: with ``np`` and ``mb`` given, and every number compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy_doctest.conftest import dt_config

import matbackprop as mb

# Numbers are compared as numbers, whatever NumPy's printing looks like, to what an array prints; no output goes
# unchecked because of a word in the example. Each example imports what it uses, as its reader will have to.
dt_config.rtol = 1e-6
dt_config.stopwords = set()
dt_config.strict_check = True


@pytest.fixture(autouse=True)
def _docstring_names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["np"] = np
    doctest_namespace["mb"] = mb
