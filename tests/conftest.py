"""Fixtures that every test may use.

``MATBACKPROP_REQUIRE`` is a comma-separated list of the optional packages that this run must not go without.
``MATBACKPROP_REQUIRE=torch pytest`` stops at once with an error where torch cannot be imported; without it, the tests
that compare against torch are skipped there.
"""

from __future__ import annotations

import importlib
import os
import signal
from types import ModuleType

import hypothesis
import numpy as np
import pytest

# The scripts there make the golden values; they import more than the tests may.
collect_ignore = ["golden"]

# A slow machine is not a failure, and two runs on the same commit try the same examples.
hypothesis.settings.register_profile("matbackprop", deadline=None, derandomize=True)
hypothesis.settings.load_profile("matbackprop")

# A shell's background jobs ignore Ctrl-C, and so do their children; some tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Stop the run when a package named in ``MATBACKPROP_REQUIRE`` is missing, however a test would have skipped."""
    for name in filter(None, (part.strip() for part in os.environ.get("MATBACKPROP_REQUIRE", "").split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise pytest.UsageError(f"MATBACKPROP_REQUIRE asks for {name}, which cannot be imported: {error}") from None


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch: deterministic, one thread, default dtype untouched. The test is skipped where it is not installed."""
    module: ModuleType = pytest.importorskip("torch", reason="needs torch: pip install matbackprop[torch]")
    module.set_num_threads(1)
    module.use_deterministic_algorithms(True)
    return module


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a freshly seeded generator, the same in every test."""
    return np.random.default_rng(20250101)
