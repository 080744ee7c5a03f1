"""The small real data that comes with the library, and a reader of larger data that does not.

Sources and licences: README.md beside this file.
"""

from __future__ import annotations

import gzip
from importlib import resources

import numpy as np

from matbackprop.datasets.dataset import Dataset
from matbackprop.datasets.fashion_mnist import load_fashion_mnist

__all__ = ["Dataset", "load_breast_cancer", "load_fashion_mnist"]


def load_breast_cancer() -> Dataset:
    """Return the Breast Cancer Wisconsin (Diagnostic) data: 569 tumours, 212 of them malignant.

    Each row holds the mean, the standard error and the worst value (the mean of the three largest) of ten
    measurements of the cell nuclei in one image of a fine needle aspirate.

    Returns
    -------
    Dataset
        With ``x`` of shape (569, 30), in the data's own units, and ``y`` of shape (569, 1): 1 is malignant, what one
        looks for, and 0 benign. (scikit-learn's copy has it the other way round.) Both are fresh at each call.

    References
    ----------
    W. Wolberg, O. Mangasarian, N. Street and W. Street, "Breast Cancer Wisconsin (Diagnostic)", UCI Machine Learning
    Repository, 1995, doi:10.24432/C5DW2B. Licence: CC BY 4.0.

    Examples
    --------
    >>> from matbackprop.datasets import load_breast_cancer
    >>> data = load_breast_cancer()
    >>> data.x.shape, data.y.shape, int(data.y.sum())
    ((569, 30), (569, 1), 212)
    >>> data.feature_names[0], float(data.x[0, 0])
    ('mean radius', 17.99)
    """
    with resources.files(__name__).joinpath("breast_cancer.csv.gz").open("rb") as packed:
        lines = gzip.decompress(packed.read()).decode("ascii").splitlines()
    table = np.loadtxt(lines[1:], delimiter=",")
    return Dataset(
        x=np.ascontiguousarray(table[:, :-1]),
        y=np.ascontiguousarray(table[:, -1:]),
        feature_names=tuple(lines[0].split(",")[:-1]),
        name="Breast Cancer Wisconsin (Diagnostic)",
        source="Wolberg, Mangasarian, Street, Street (1995), UCI Machine Learning Repository, doi:10.24432/C5DW2B",
        licence="CC BY 4.0",
    )
