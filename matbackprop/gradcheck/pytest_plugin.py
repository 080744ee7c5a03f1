"""What the pytest fixture ``gradcheck`` gives: checks that fail a test with their report.

The fixture itself is in the module `pytest_matbackprop`, outside of the package, so that pytest, which imports every
plugin that is installed, imports neither the library nor NumPy before a test asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from matbackprop.gradcheck.report import GradientReport

__all__ = ["GradCheck"]


class GradCheck:
    """What the fixture gives: call it as `check_gradient`, or use `layer` and `model`."""

    def __call__(self, *args: Any, allow: str | tuple[str, ...] = (), **kwargs: Any) -> GradientReport:
        """Check a gradient; a verdict other than PASS and those of `allow` fails the test."""
        __tracebackhide__ = True
        from matbackprop.gradcheck import check_gradient

        return self._conclude(check_gradient(*args, **_seeded(kwargs)), allow)

    def layer(self, *args: Any, allow: str | tuple[str, ...] = (), **kwargs: Any) -> GradientReport:
        """Check a layer, as `check_layer` does."""
        __tracebackhide__ = True
        from matbackprop.gradcheck import check_layer

        return self._conclude(check_layer(*args, **_seeded(kwargs)), allow)

    def model(self, *args: Any, allow: str | tuple[str, ...] = (), **kwargs: Any) -> GradientReport:
        """Check a model, as `check_model` does."""
        __tracebackhide__ = True
        from matbackprop.gradcheck import check_model

        return self._conclude(check_model(*args, **_seeded(kwargs)), allow)

    @staticmethod
    def _conclude(report: GradientReport, allow: str | tuple[str, ...]) -> GradientReport:
        __tracebackhide__ = True
        from matbackprop.gradcheck import GradientCheckError

        try:
            return report.raise_for_verdict(*((allow,) if isinstance(allow, str) else allow))
        except GradientCheckError:
            raise pytest.fail.Exception(str(report), pytrace=False) from None


def _seeded(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A test is the same in every run, unless it says otherwise."""
    return {"rng": 0, **kwargs}
