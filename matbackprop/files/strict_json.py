"""JSON that means one thing only, and comes back as it went out."""

from __future__ import annotations

import json
import math
from typing import Any

from matbackprop.files.limits import MAX_BYTES
from matbackprop.validation import describe

__all__ = ["Json", "check_json", "decode", "encode"]

#: None, bool, int, float, str, and lists and string-keyed dicts of them.
Json = Any

_MAX_DEPTH = 100  # a format may add one
_MAX_BITS = 4096


def encode(value: Json, name: str) -> str:
    """Return the value as ASCII text.

    Raises
    ------
    TypeError, ValueError
        If `decode` would not give it back, or refuse it. (A tuple comes back as a list.)
    """
    check_json(value, name)
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > MAX_BYTES:
        raise ValueError(
            f"{name}: {len(text):,} bytes as text, expected at most {MAX_BYTES:,}; keep numbers as tensors"
        )
    return text


def decode(data: bytes | str, name: str) -> Json:
    """Return the value of a text that may come from anywhere.

    Raises
    ------
    ValueError
        If it is too long or too deep, is not JSON, has a key twice, a NaN, or a number out of range.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: {len(data):,} bytes of text, expected at most {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
        check_json(value, name, depth=-1)
    except RecursionError:
        raise ValueError(f"{name}: nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
    return value


def check_json(value: Json, name: str, depth: int = 0) -> None:
    """Check that the value can be written as JSON and comes back equal.

    Raises
    ------
    TypeError
        For what is no JSON: a NumPy integer, an array, a key that is not text.
    ValueError
        For a NaN or infinity, an integer of more than 4096 bits, or more than 100 levels.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"{name}: nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{name}: expected keys that are text, got {describe(key)}")
            check_json(part, key, depth + 1)
    elif isinstance(value, (list, tuple)):
        for part in value:
            check_json(part, name, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name}: JSON has no {float(value)}; use None, or a tensor")
    elif isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise ValueError(f"{name}: an integer of more than {_MAX_BITS} bits")
    elif value is not None and not isinstance(value, str):
        raise TypeError(
            f"{name}: expected what JSON has (None, bool, int, float, str, list, dict), got {describe(value)}"
        )


def _integer(digits: str) -> int:
    if len(digits) > _MAX_BITS // 3:  # parsing takes quadratic time
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return result
