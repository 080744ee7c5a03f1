"""What the worked examples share: tables of blanks with what belongs there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from IPython.display import Markdown
from matplotlib_inline.backend_inline import set_matplotlib_formats

set_matplotlib_formats("svg")


def tex(value: object, digits: int = 5) -> str:
    """Return a number, or a matrix, as LaTeX."""
    array = np.asarray(value)
    rows = [[f"{entry + 0:.{digits}g}" for entry in row] for row in np.atleast_2d(array)]
    if array.size == 1:
        return f"${rows[0][0]}$"
    return r"$\begin{bmatrix}" + r"\\".join("&".join(row) for row in rows) + r"\end{bmatrix}$"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Markdown:
    """Return a table; what is not text is set by `tex`."""
    lines = [[*header], ["---" for _ in header], *([*row] for row in rows)]
    cells = [[cell if isinstance(cell, str) else tex(cell) for cell in line] for line in lines]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in cells))


def compare(rows: Iterable[tuple[str, object, object]], tolerance: float = 0.5001e-4) -> Markdown:
    """Return a table of what a notebook prints, to so many decimals, beside what is computed here.

    Raises
    ------
    AssertionError
        If they differ by more than the rounding of what was printed.
    """
    checked = []
    for name, printed, computed in rows:
        np.testing.assert_allclose(computed, printed, rtol=0, atol=tolerance)
        checked.append((name, printed, computed))
    return table(["", "printed there", "computed here"], checked)
