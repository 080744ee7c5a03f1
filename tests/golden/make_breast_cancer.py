"""Remake matbackprop/datasets/breast_cancer.csv.gz from scikit-learn's copy of the UCI file.

Run it as ``python tests/golden/make_breast_cancer.py [FILE]``; it needs scikit-learn. The same input gives the same
text, and with the same zlib the same bytes.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

TARGET = Path(__file__).parents[2] / "matbackprop" / "datasets" / "breast_cancer.csv.gz"


def text() -> str:
    """Return the table as CSV: a line of names, then a line of 30 features and the label for each tumour."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    malignant = 1 - data.target  # scikit-learn: 0 = malignant, 1 = benign
    lines = [",".join([*data.feature_names, "malignant"])]
    for features, label in zip(data.data.tolist(), malignant.tolist(), strict=True):
        lines.append(",".join([*(f"{value!r}".removesuffix(".0") for value in features), str(label)]))
    return "\n".join(lines) + "\n"


def write(path: Path) -> None:
    """Write the table to `path`, with neither a time nor a name in the gzip header."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text().encode("ascii"))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
