"""The bundled data: what it is known to hold, and that it is what scikit-learn has."""

from __future__ import annotations

import gzip
import hashlib
import runpy
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from matbackprop.datasets import load_breast_cancer

FOLDER = resources.files("matbackprop.datasets")
PACKED = FOLDER.joinpath("breast_cancer.csv.gz").read_bytes()
SCRIPT = Path(__file__).parent / "golden" / "make_breast_cancer.py"


def test_text_is_the_one_that_was_committed() -> None:
    # Taken when the file was made. The bytes of the archive would depend on the version of zlib.
    assert (
        hashlib.sha256(gzip.decompress(PACKED)).hexdigest()
        == "bb27ae0af4bf4751f079b541401f84a335c9a76cf33a4223dbf45a31b81ad38d"
    )


def test_archive_names_no_time_and_no_file() -> None:
    flags, time = PACKED[3], PACKED[4:8]  # RFC 1952, section 2.3
    assert (flags, time) == (0, b"\0\0\0\0")


def test_counts() -> None:
    data = load_breast_cancer()
    assert data.x.shape == (569, 30)
    assert data.y.shape == (569, 1)
    assert data.x.dtype == data.y.dtype == np.float64
    # wdbc.names of the UCI archive: "Class distribution: 357 benign, 212 malignant".
    assert np.unique(data.y, return_counts=True)[1].tolist() == [357, 212]
    assert np.unique(data.y).tolist() == [0.0, 1.0]


def test_rows_of_the_uci_file() -> None:
    # The first and last rows of wdbc.data in the UCI archive: 842302, M, ... and 92751, B, ...
    data = load_breast_cancer()
    assert data.x[0, :5].tolist() == [17.99, 10.38, 122.8, 1001.0, 0.1184]
    assert data.x[0, -2:].tolist() == [0.4601, 0.1189]
    assert data.y[0].tolist() == [1.0]
    assert data.x[-1, :7].tolist() == [7.76, 24.54, 47.92, 181.0, 0.05263, 0.04362, 0.0]
    assert data.x[-1, -2:].tolist() == [0.2871, 0.07039]
    assert data.y[-1].tolist() == [0.0]


def test_names() -> None:
    data = load_breast_cancer()
    assert len(set(data.feature_names)) == 30
    assert [name.split()[-1] for name in data.feature_names].count("error") == 10
    assert data.feature_names[:2] == ("mean radius", "mean texture")
    assert data.feature_names[-1] == "worst fractal dimension"


def test_worst_is_never_less_than_the_mean() -> None:
    # The mean of the three largest values of a tumour, against the mean of all: columns 20-29 against 0-9.
    x = load_breast_cancer().x
    assert (x[:, 20:] >= x[:, :10]).all()


def test_arrays_are_fresh_and_belong_to_the_caller() -> None:
    first, second = load_breast_cancer(), load_breast_cancer()
    first.x[:], first.y[:] = 0, 0
    assert second.x[0, 0] == 17.99
    assert second.y[0, 0] == 1
    assert first.x.flags.c_contiguous


def test_source_and_licence_are_named() -> None:
    data, note = load_breast_cancer(), FOLDER.joinpath("README.md").read_text(encoding="utf-8")
    for text in (data.source, note, load_breast_cancer.__doc__ or ""):
        assert "10.24432/C5DW2B" in text
        assert "Wolberg" in text
    for text in (data.licence, note, load_breast_cancer.__doc__ or ""):
        assert "CC BY 4.0" in text


def test_equals_scikit_learns_copy() -> None:
    peer = pytest.importorskip("sklearn.datasets").load_breast_cancer()
    data = load_breast_cancer()
    np.testing.assert_array_equal(data.x, peer.data)
    np.testing.assert_array_equal(data.y[:, 0], 1 - peer.target)
    assert list(data.feature_names) == list(peer.feature_names)


def test_script_makes_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    make = runpy.run_path(str(SCRIPT))
    make["write"](tmp_path / "again.csv.gz")
    assert gzip.decompress((tmp_path / "again.csv.gz").read_bytes()) == gzip.decompress(PACKED)
