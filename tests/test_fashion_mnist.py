"""The reader of Fashion-MNIST: on small files of its format made here, and on the real ones where they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from matbackprop.datasets import fashion_mnist, load_fashion_mnist

SMALL = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 3, 2)


def idx(array: np.ndarray) -> bytes:
    """IDX as yann.lecun.com/exdb/mnist describes it."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1))
    return path


def test_what_was_written_is_read(tmp_path) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 60000, np.uint8)
    for name, count in (("train", 60000), ("t10k", 10000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[-1] = np.arange(784).reshape(28, 28) % 256
        write(tmp_path / f"{name}-images-idx3-ubyte.gz", idx(images))
        write(tmp_path / f"{name}-labels-idx1-ubyte.gz", idx(labels[:count]))
    for part, count in zip(load_fashion_mnist(str(tmp_path)), (60000, 10000), strict=True):
        assert part.x.shape == (count, 784)
        assert part.x.dtype == np.float32
        assert_array_equal(part.x[-1], (np.arange(784) % 256).astype(np.float32) / np.float32(255))
        assert not part.x[:-1].any()
        assert_array_equal(part.y, labels[:count])
        assert part.y.dtype == np.int64
        assert len(part.feature_names) == 784
    labels[7] = 10
    write(tmp_path / "train-labels-idx1-ubyte.gz", idx(labels))
    with pytest.raises(ValueError, match=r"expected classes 0 \.\.\. 9, got 10"):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda whole: whole[:-1], "expected 46 bytes when unpacked, got 45"),
        (lambda whole: whole + b"0", "expected 46 bytes when unpacked, got more"),
        (lambda whole: whole + bytes(10**7), "got more"),
        (lambda whole: b"", "begins otherwise"),
        (lambda whole: whole[:4] + (2**31).to_bytes(4, "big") + whole[8:], "begins otherwise"),
        (lambda whole: whole[:2] + bytes([13]) + whole[3:], "begins otherwise"),
    ],
)
def test_other_content_is_refused(tmp_path, damage, match) -> None:
    path = write(tmp_path / "some.gz", idx(SMALL))
    assert_array_equal(fashion_mnist._read(path, SMALL.shape), SMALL)
    write(path, damage(idx(SMALL)))
    with pytest.raises(ValueError, match=match):
        fashion_mnist._read(path, SMALL.shape)


@pytest.mark.parametrize(
    "damage", [lambda packed: packed[:-9], lambda packed: b"no archive", lambda packed: b"\x1f\x8b"]
)
def test_damaged_archives_are_refused(tmp_path, damage) -> None:
    path = write(tmp_path / "some.gz", idx(SMALL))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"some.gz: expected a whole gzip file"):
        fashion_mnist._read(path, SMALL.shape)


def test_a_missing_file_says_where_it_comes_from(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="apt install dataset-fashion-mnist"):
        load_fashion_mnist(tmp_path)


@pytest.mark.skipif(not Path(fashion_mnist.DEBIAN).is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_real_data() -> None:
    train, test = load_fashion_mnist()
    # Xiao et al., section 2: each class has 7,000 pictures, 1,000 of them in the test.
    assert (np.bincount(train.y) == 6000).all()
    assert (np.bincount(test.y) == 1000).all()
    assert (train.x.min(), train.x.max()) == (0.0, 1.0)
