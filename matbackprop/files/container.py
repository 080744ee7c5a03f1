"""Named tensors and JSON metadata in one file: what models and checkpoints are written with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from matbackprop.files import npz_format, safetensors_format
from matbackprop.files.disk import as_path, read_file, replace_file
from matbackprop.files.limits import MAX_TENSORS
from matbackprop.files.strict_json import Json, encode
from matbackprop.validation import Array, describe

__all__ = ["as_file", "read_tensors", "write_tensors"]

_FORMATS = {".safetensors": safetensors_format, ".npz": npz_format}


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, Json] | None = None
) -> None:
    """Write tensors, and what there is to say about them, into one file: whole, or not at all.

    The content goes into a temporary file ``.NAME-XXXXXXXXXXXXXXXX.tmp`` beside it, is flushed to the disk, and takes
    the file's name in one step: whatever happens, there is the old file or the new one. Of several writers the last one
    wins. A symbolic link stays and the file it points to is replaced. Only a process that was killed leaves its
    temporary file behind, which can be deleted once nobody is writing.

    Parameters
    ----------
    path : str or os.PathLike
        The suffix chooses the format: ``.safetensors`` (needs ``pip install 'matbackprop[io]'``) or ``.npz``, which
        ``np.load`` reads.
    tensors : mapping of str to numpy.ndarray
        Of any shape, and of type bool, int8 to int64, uint8 to uint64, float16, float32 or float64; a .npz file also
        holds longdouble (for machines of the same kind), complex64 and complex128. Every bit is kept: NaNs, signs of
        zeros, all.
    metadata : mapping of str to JSON, optional
        None, bool, int (of up to 4096 bits, so that a generator's state fits), float, str, and lists and string-keyed
        dicts of them, up to 100 levels deep. Floats and ints come back exactly, tuples as lists; NaN and infinity,
        which JSON lacks, are refused. All of it, with the tensors' names, is to fit into 4 MiB of text: long rows of
        numbers are better kept as tensors, of which a file holds up to 20,000.

    Raises
    ------
    ImportError
        If the format is safetensors and its package is not installed.
    OSError
        If the file cannot be written: a directory that is missing or read-only, a full disk. The old file is in place.
    TypeError, ValueError
        If the path, a name, a tensor or the metadata does not fit.

    See Also
    --------
    read_tensors : The way back.
    matbackprop.save : A model's architecture and parameters, by this function.

    Examples
    --------
    A generator that goes on where it was:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from matbackprop.files import read_tensors, write_tensors
    >>> rng = np.random.default_rng(0)
    >>> path = Path(tempfile.mkdtemp(), "run.npz")
    >>> write_tensors(path, {"velocity": np.zeros(3)}, {"epoch": 7, "rng": rng.bit_generator.state})
    >>> tensors, metadata = read_tensors(path)
    >>> metadata["epoch"], tensors["velocity"]
    (7, array([0., 0., 0.]))
    >>> again = np.random.default_rng()
    >>> again.bit_generator.state = metadata["rng"]
    >>> bool(again.random() == rng.random())
    True
    """
    where, form = as_file(path, "write_tensors")
    metadata = {} if metadata is None else metadata
    for name, value in (("tensors", tensors), ("metadata", metadata)):
        if not isinstance(value, Mapping):
            raise TypeError(f"write_tensors: {name}: expected a mapping, got {describe(value)}")
    if len(tensors) > MAX_TENSORS:
        raise ValueError(f"write_tensors: tensors: expected at most {MAX_TENSORS:,}, got {len(tensors):,}")
    text = encode(dict(metadata), "write_tensors: metadata")
    checked = {_as_name(name): _as_tensor(array, name, where, form) for name, array in tensors.items()}
    try:
        data = form.pack(checked, text)
    except ValueError as error:
        raise ValueError(f"write_tensors: {where}: {error}") from error
    replace_file(where, data)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Json]]:
    """Return the tensors and the metadata of a file, which may come from anywhere.

    Nothing in it is executed or unpickled, and what it says about sizes is checked before anything is allocated: at
    most three times the file's own size is, and 256 MiB for what is said in it. It may also be a plain safetensors
    file, such as torch users write, or one by ``np.savez``.

    Parameters
    ----------
    path : str or os.PathLike
        A .safetensors or .npz file.

    Returns
    -------
    tensors : dict of str to numpy.ndarray
        Fresh arrays in C order; they themselves in the order in which they were written.
    metadata : dict
        As it was given to `write_tensors`; for a safetensors file by others its own metadata, text to text.

    Raises
    ------
    ImportError
        If the format is safetensors and its package is not installed.
    OSError
        If the file is missing or a directory, or may not be read.
    ValueError
        If it is truncated, oversized, compressed or malformed in any other way, or not a regular file.
    TypeError
        If `path` is not a path.

    Examples
    --------
    The weights of a torch Sequential of the same layers, which wrote them with safetensors.torch's ``save_file``::

        tensors, _ = read_tensors("theirs.safetensors")
        model.load_state_dict(tensors)
    """
    where, form = as_file(path, "read_tensors")
    data = read_file(where)
    try:
        tensors, metadata = form.unpack(data)
        if not isinstance(metadata, dict):
            raise ValueError("metadata: expected an object")
        for name, array in tensors.items():
            if array.dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
                raise ValueError(f"{name[:60]!r}: a bool that is neither 0 nor 1")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return tensors, metadata


def as_file(path: object, name: str) -> tuple[Path, ModuleType]:
    """Return the path and the module of its format, which its suffix says.

    Raises
    ------
    TypeError, ValueError
        If it is no path, or the suffix is another.
    """
    where = as_path(path, f"{name}: path")
    try:
        return where, _FORMATS[where.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"{name}: {where}: expected a name that ends in {' or '.join(_FORMATS)}, got {where.suffix!r}"
        ) from None


def _as_name(name: Any) -> str:
    """Return a tensor's name if each format can hold it."""
    if not isinstance(name, str):
        raise TypeError(f"write_tensors: expected names that are text, got {describe(name)}")
    if not 0 < len(name) <= 1000 or "\0" in name or name == "__metadata__" or not name.isprintable():
        raise ValueError(
            f"write_tensors: expected names of 1 to 1000 printable characters, '__metadata__' not among them, "
            f"got {describe(name)}"
        )
    return name


def _as_tensor(value: Any, name: str, where: Path, form: ModuleType) -> Array:
    """Return an array as the format wants it, in C order and little-endian."""
    who = f"write_tensors: {name!r}"
    if not isinstance(value, (np.ndarray, np.generic)) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{who}: expected a NumPy array, got {describe(value)}")
    array = np.asarray(value)
    if array.dtype.newbyteorder("=") not in form.DTYPES:
        hint = "; a .npz file can hold it" if array.dtype.newbyteorder("=") in npz_format.DTYPES else ""
        raise TypeError(f"{who}: a {where.suffix} file cannot hold dtype {array.dtype}{hint}")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")
