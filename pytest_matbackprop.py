"""The pytest plugin of matbackprop: ``def test_it(gradcheck): gradcheck(fun, grad, x0)``.

The test fails with the report, unless the verdict is PASS. ``gradcheck.layer(layer, x)`` and
``gradcheck.model(model, loss, x, y)`` check those. Nothing is imported before a test asks for the fixture.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from matbackprop.gradcheck.pytest_plugin import GradCheck

__all__ = ["gradcheck"]


@pytest.fixture(scope="session")
def gradcheck() -> "GradCheck":
    """Check a gradient and fail with the report."""
    from matbackprop.gradcheck.pytest_plugin import GradCheck

    return GradCheck()
