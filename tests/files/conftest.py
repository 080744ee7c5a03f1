"""The formats that the tests of files run in."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[".safetensors", ".npz"])
def suffix(request) -> str:
    """Each format; safetensors where it is installed."""
    if request.param == ".safetensors":
        pytest.importorskip("safetensors", reason="needs safetensors: pip install 'matbackprop[io]'")
    return request.param
