"""NumPy's .npz: a zip archive with a .npy file for each tensor, stored uncompressed, as np.savez writes it.

zipfile and np.lib.format do the work. Before they allocate anything, the sizes that the file states are checked: of
the list of members, of all of them together, and of every array in them. What is compressed is not read, so that no
file unpacks to more than its own size; nothing is ever unpickled.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy

from matbackprop.files.limits import MAX_BYTES, MAX_TENSORS
from matbackprop.files.safetensors_format import DTYPES as REAL
from matbackprop.files.strict_json import decode
from matbackprop.validation import DTYPES as COMPUTED
from matbackprop.validation import Array

__all__ = ["DTYPES", "pack", "unpack"]

#: The types that a file can hold. The bits of a longdouble are those of the machine.
DTYPES = tuple(dict.fromkeys(REAL + COMPUTED))
_CODES = {dtype.str[1:]: dtype for dtype in DTYPES}

#: The member that holds the metadata, as the UTF-8 bytes of a JSON text in an array of uint8.
_METADATA = "__metadata__"

#: The header of a .npy file as NumPy writes it; whatever else its dictionary might hold never reaches a parser.
_HEADER = re.compile(
    rb"\{'descr': '([<>|])([biufc]\d{1,2})', 'fortran_order': (?:False|True), "
    rb"'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \} *\n"
)
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")

#: What zipfile raises for a broken archive, apart from ValueError.
_BROKEN = (zipfile.BadZipFile, EOFError, LookupError, OSError, OverflowError, RuntimeError, struct.error)


def pack(tensors: dict[str, Array], text: str) -> memoryview:
    """Return the file's bytes, without a copy."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {**tensors, _METADATA: np.frombuffer(text.encode("ascii"), np.uint8)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)
    data = buffer.getbuffer()
    _check_directory(data)
    return data


def unpack(data: bytes) -> tuple[dict[str, Array], Any]:
    """Return the tensors and the metadata."""
    _check_directory(memoryview(data))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive, len(data))
            tensors = {info.filename[:-4]: _read(archive, info) for info in archive.infolist()}
    except _BROKEN as error:
        raise ValueError(f"not a sound .npz file: {error}") from None
    text = tensors.pop(_METADATA, None)
    if text is None:
        return tensors, {}
    if text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError(f"{_METADATA}: expected a vector of uint8, got shape {text.shape} and dtype {text.dtype}")
    return tensors, decode(text.tobytes(), "metadata")


def _check_directory(data: memoryview) -> None:
    """Check that the list of members is short enough to be read: each takes 500 bytes or more."""
    end = data[-_END.size :]
    if len(end) < _END.size or bytes(end[:4]) != b"PK\5\6" or bytes(end[-2:]) != b"\0\0":
        raise ValueError("truncated, or not a .npz file: a zip archive's last record is not where it belongs")
    sizes = [_END.unpack(end)[5]]
    behind = bytes(data[-_END.size - 20 :][:4]) == b"PK\6\7"  # the pointer to the record of an archive beyond 2 GiB
    if behind and len(data) >= _END.size + 20 + _END_64.size:
        sizes = [_END_64.unpack(data[-_END.size - 20 - _END_64.size :][: _END_64.size])[8]]
    if max(sizes) > MAX_BYTES:
        raise ValueError(f"the list of members takes {max(sizes):,} bytes, expected at most {MAX_BYTES:,}")


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Check that the members are arrays, stored as they are, one behind the other, and each of its own name."""
    count = len(archive.infolist())
    if count > MAX_TENSORS + 1:  # and the metadata
        raise ValueError(f"expected at most {MAX_TENSORS:,} tensors, got {count:,}")
    seen: set[str] = set()
    free = 0  # where the next member may start
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        name = f"member {info.filename[:60]!r}"
        if not info.filename.endswith(".npy"):
            raise ValueError(f"{name}: expected a .npy file")
        if info.filename in seen:
            raise ValueError(f"{name} stands twice")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise ValueError(f"{name} is compressed or encrypted; write it with np.savez, not np.savez_compressed")
        if info.header_offset < free or info.header_offset + info.file_size > size:
            raise ValueError(f"{name} overlaps another, or the end of the file")
        seen.add(info.filename)
        free = info.header_offset + info.file_size


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Return the array in a member whose header agrees with its size."""
    name = f"member {info.filename[:60]!r}"
    with archive.open(info) as member:
        major, _ = npy.read_magic(member)
        width = 2 if major == 1 else 4
        length = int.from_bytes(member.read(width), "little")
        header = _HEADER.fullmatch(member.read(min(length, 4096)))
    if header is None:
        raise ValueError(f"{name}: expected the header of an array of numbers")
    dtype, shape = _CODES.get(header[2].decode()), [int(n) for n in header[3].split(b",") if n.strip()]
    if dtype is None:
        raise ValueError(f"{name}: expected a dtype among {', '.join(map(str, DTYPES))}, got {header[2].decode()!r}")
    expected = 8 + width + length + prod(shape) * dtype.itemsize
    if info.file_size != expected:
        raise ValueError(f"{name}: an array of shape {tuple(shape)} takes {expected:,} bytes, got {info.file_size:,}")
    with archive.open(info) as member:  # reading to the end checks the checksum
        array: Array = npy.read_array(member, allow_pickle=False)
    return np.asarray(array, dtype, order="C")
