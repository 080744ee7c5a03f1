"""Fashion-MNIST, read from the four files in which it is published; they do not come with the library."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np

from matbackprop.datasets.dataset import Dataset
from matbackprop.validation import Array

__all__ = ["load_fashion_mnist"]

#: Where Debian's package dataset-fashion-mnist puts them.
DEBIAN = "/usr/share/datasets/fashion-mnist"

CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def load_fashion_mnist(folder: str | PathLike[str] = DEBIAN) -> tuple[Dataset, Dataset]:
    """Return the Fashion-MNIST data: 70,000 grey pictures of clothes, 28 x 28 pixels, in ten classes.

    Parameters
    ----------
    folder : path
        Where train-images-idx3-ubyte.gz and the other three files are. By default where
        ``apt install dataset-fashion-mnist`` puts them, on Debian and Ubuntu.

    Returns
    -------
    train, test : Dataset
        With ``x`` of float32, shapes (60000, 784) and (10000, 784), in [0, 1], and ``y`` the classes 0 ... 9 of int64,
        shapes (60000,) and (10000,): T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle
        boot.

    Raises
    ------
    FileNotFoundError
        If a file is not there, with where to get them.
    ValueError
        If a file is not what it should be. No more is read or allocated than the right file needs.

    References
    ----------
    H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017, arXiv:1708.07747. Licence: MIT.
    """
    folder = Path(folder)
    parts = []
    for name, count in (("train", 60000), ("t10k", 10000)):
        images = _read(folder / f"{name}-images-idx3-ubyte.gz", (count, 28, 28))
        classes = _read(folder / f"{name}-labels-idx1-ubyte.gz", (count,))
        if classes.max() >= len(CLASSES):
            raise ValueError(f"{folder}/{name}-labels-idx1-ubyte.gz: expected classes 0 ... 9, got {classes.max()}")
        x = images.reshape(count, -1).astype(np.float32)
        x /= 255
        names = tuple(f"pixel {row},{column}" for row in range(28) for column in range(28))
        source = "Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747"
        parts.append(Dataset(x, classes.astype(np.int64), names, f"Fashion-MNIST, {name}", source, "MIT"))
    return parts[0], parts[1]


def _read(path: Path, shape: tuple[int, ...]) -> Array:
    """Return the bytes of a gzipped IDX file, which must have this shape.

    IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a big-endian 32-bit integer,
    the elements in C order.
    """
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    wanted = len(header) + prod(shape)
    try:
        with gzip.open(path) as packed:
            content = packed.read(wanted + 1)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is not there; `apt install dataset-fashion-mnist` puts it into {DEBIAN}, or get it from "
            "github.com/zalandoresearch/fashion-mnist and pass its folder"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file, got {error}; get it anew") from None
    if content[: len(header)] != header:
        raise ValueError(f"{path}: expected an IDX file of unsigned bytes of shape {shape}, it begins otherwise")
    if len(content) != wanted:
        found = "more" if len(content) > wanted else len(content)
        raise ValueError(f"{path}: expected {wanted} bytes when unpacked, got {found}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
