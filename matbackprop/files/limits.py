"""How much a file may say of itself, whatever its size."""

from __future__ import annotations

__all__ = ["MAX_BYTES", "MAX_LAYERS", "MAX_TENSORS"]

#: The longest text that is parsed, and the longest list of tensors in bytes. A hostile text of this length takes up to
#: 45 times as much memory, and two seconds.
MAX_BYTES = 1 << 22

MAX_TENSORS = 20_000
MAX_LAYERS = 10_000
