"""Files: named tensors with metadata. Writing replaces a file at once or not at all; reading takes any without harm."""

from __future__ import annotations

from matbackprop.files.container import read_tensors, write_tensors

__all__ = ["read_tensors", "write_tensors"]
