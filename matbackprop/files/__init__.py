"""Files: a model in one, and below that named tensors with metadata, for checkpoints and whatever else.

Writing replaces a file at once or not at all; reading takes any file without harm. See `write_tensors`.
"""

from __future__ import annotations

from matbackprop.files.container import read_tensors, write_tensors
from matbackprop.files.description import architecture, build
from matbackprop.files.models import load, save

__all__ = ["architecture", "build", "load", "read_tensors", "save", "write_tensors"]
