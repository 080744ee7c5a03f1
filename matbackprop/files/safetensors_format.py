"""The safetensors format, through its own library: 8 bytes of length, a JSON header, the tensors' bytes.

The library refuses what is truncated, overlapping, left over or oversized. Left to do here: a header that has a key
twice (it takes the last), types that NumPy lacks (a KeyError), and a bound on the header (its own is 100 MB).
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np

from matbackprop.files.limits import MAX_BYTES, MAX_TENSORS
from matbackprop.files.strict_json import decode
from matbackprop.validation import Array

__all__ = ["DTYPES", "pack", "unpack"]

_CODES = {
    "BOOL": "?",
    **{f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"f{size}" for size in (2, 4, 8)},
}

#: The types that a file can hold. (The format's own complex64 is younger than the oldest library that we take.)
DTYPES: tuple[np.dtype[Any], ...] = tuple(np.dtype(code) for code in _CODES.values())

#: Where in the format's string-to-string metadata ours stands: as the text of {"order": [names], "metadata": {...}},
#: since the format has an order of its own. (Two keys would come in any order, and the same content give two files.)
_KEY = "matbackprop"


def pack(tensors: dict[str, Array], text: str) -> bytes:
    """Return the file's bytes."""
    ours = f'{{"order":{json.dumps(list(tensors))},"metadata":{text}}}'
    data: bytes = _library().save(tensors, metadata={_KEY: ours})
    length = int.from_bytes(data[:8], "little")
    if length > MAX_BYTES:
        raise ValueError(f"names and metadata take {length:,} bytes, expected at most {MAX_BYTES:,}; use fewer tensors")
    return data


def unpack(data: bytes) -> tuple[dict[str, Array], Any]:
    """Return the tensors, and the metadata: what ours says, or else the format's own strings."""
    library = _library()
    from safetensors import SafetensorError

    metadata = _check_header(data)
    try:
        tensors: dict[str, Array] = library.load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if _KEY not in metadata:
        return tensors, metadata
    ours = decode(metadata[_KEY], "metadata")
    if not isinstance(ours, dict) or ours.keys() != {"order", "metadata"}:
        raise ValueError("metadata: expected an object with order and metadata")
    order = ours["order"]
    if not isinstance(order, list) or sorted(map(repr, order)) != sorted(map(repr, tensors)):
        raise ValueError("metadata: the order is not that of the tensors in the file")
    return {name: tensors[name] for name in order}, ours["metadata"]


def _check_header(data: bytes) -> dict[str, str]:
    """Check what the library does not, and return the format's metadata."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("truncated, or not a safetensors file: the header is longer than the file")
    if length > MAX_BYTES:
        raise ValueError(f"the header says that it takes {length:,} bytes, expected at most {MAX_BYTES:,}")
    header = decode(data[8 : 8 + length], "header")
    if not isinstance(header, dict):
        raise ValueError("header: expected an object of tensors")
    metadata = header.pop("__metadata__", {})
    if len(header) > MAX_TENSORS:
        raise ValueError(f"header: expected at most {MAX_TENSORS:,} tensors, got {len(header):,}")
    for name, entry in header.items():
        code = entry.get("dtype") if isinstance(entry, dict) else None
        if not isinstance(code, str) or code not in _CODES:
            raise ValueError(f"{name[:60]!r}: expected a dtype among {', '.join(_CODES)}, got {str(code)[:60]!r}")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("header: expected metadata that maps text to text")
    return metadata


def _library() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "a .safetensors file needs the safetensors package: pip install 'matbackprop[io]'; a .npz file does not"
        ) from error
    return safetensors.numpy
