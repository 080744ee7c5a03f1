"""WorkedExample: the steps of one forward and backward pass, by order and by name."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.layer import Layer
from matbackprop.worked.steps import Step

if TYPE_CHECKING:
    from matbackprop.worked.paths import Paths

__all__ = ["Stage", "WorkedExample"]

#: What people type for want of a key, and what it stands for.
SPELLINGS = (
    (r"\bd([A-ZŶ]\w*)/d(?=\w)", r"∂\1/∂"),
    (r"\bY_?hat\b|\by_?hat\b|ŷ", "Ŷ"),
    (r"\bDelta_?|∆", "Δ"),
    (r"\^?\+$", "⁺"),
)


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer of the example: a private copy that has made its passes, and the names of what went in and out.

    Attributes
    ----------
    layer : Layer
    label : str
    input, output : str
        The names of those steps.
    parameters : dict of str to str
        The name on the layer ("weight") of each parameter's step ("W1").
    derivative : str
        The name of the step ∂output/∂input, for an elementwise layer.
    """

    layer: Layer
    label: str
    input: str
    output: str
    parameters: dict[str, str] = field(default_factory=dict)
    derivative: str = ""


class WorkedExample:
    """What `explain` returns: every quantity of one forward and backward pass, with its formula, shape and value.

    It prints itself, shows itself in a notebook, and is a sequence of steps in their order. ``ex["Δ2"]`` is a step by
    name; X, Ŷ, "∂L/∂Z2" and the spellings "dL/dW1", "Delta2" and "Yhat" are understood too.

    Attributes
    ----------
    title : str
    steps : tuple of Step
    names : list of str
    notes : tuple of str
        What holds for the example as a whole.
    stages : tuple of Stage
        The layers.
    start : tuple of (str, str)
        Where the backward pass begins: the step that the loss is computed from, and the one that is its gradient.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(1, 1), mb.ReLU())
    >>> model.parameters = [0.3, 0.4]
    >>> ex = mb.explain(model, [0.5], [0.95], mb.MSE())
    >>> ex["∂L/∂W1"].formula
    '∂L/∂W1 = Δ1ᵀ A0'
    >>> ex["∂L/∂W1"].value.round(4)
    array([[-0.4]])
    """

    def __init__(
        self,
        title: str,
        steps: tuple[Step, ...],
        stages: tuple[Stage, ...],
        aliases: dict[str, str],
        start: tuple[str, str],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.title, self.steps, self.notes = title, steps, notes
        self.stages, self.start = stages, start
        self._by_name = {step.name: step for step in steps}
        self._aliases = aliases

    @property
    def names(self) -> list[str]:
        """The names of the steps, in order."""
        return list(self._by_name)

    def __getitem__(self, name: str) -> Step:
        """Return the step of that name.

        Raises
        ------
        KeyError
            If there is none; it lists those that there are.
        """
        if not isinstance(name, str):
            raise TypeError(f"expected the name of a step, such as {self.names[0]!r}, got {name!r}; .steps is in order")
        if name in self._by_name:
            return self._by_name[name]
        known = unicodedata.normalize("NFC", name.strip())
        for pattern, spelling in SPELLINGS:
            known = re.sub(pattern, spelling, known)
        known = self._aliases.get(known, known)
        if known in self._by_name:
            return self._by_name[known]
        if re.fullmatch(r"[d∂][A-ZŶ]\w*", known) and f"∂L/∂{known[1:]}" in self:
            raise KeyError(f"no step {name!r}; did you mean {f'dL/d{known[1:]}'!r}? there are {', '.join(self.names)}")
        near = difflib.get_close_matches(known, self.names, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise KeyError(f"no step {name!r}; {hint}there are {', '.join(self.names)}")

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self[name])
        except KeyError:
            return False

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"<WorkedExample: {self.title}, {len(self)} steps; print it, or ask for one by name>"

    # Ways to look at it, each in a module of its own.

    def paths(self, name: str, *index: int) -> Paths:
        """Return ∂L/∂ one weight as the chain rule has it: a product along each path from the weight to the loss.

        Parameters
        ----------
        name : str
            Of a parameter: "W1", "b2".
        *index : int
            Which entry; for a weight matrix the unit that it leads to, and the one that it comes from.

        Returns
        -------
        Paths
            Its `total`, the sum over all paths and examples, is the entry of the matrix ``ex["∂L/∂W1"]``.

        Raises
        ------
        KeyError, IndexError, TypeError
            If there is no such parameter or entry.
        ValueError
            If the paths are too many to list, or lead through a layer that says neither `elementwise` nor `mixes`.

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(1, 2), mb.Tanh(), mb.Linear(2, 1), rng=0)
        >>> ex = mb.explain(model, [[0.5]], [[1.0]], mb.MSE())
        >>> paths = ex.paths("W1", 0, 0)
        >>> paths[0].symbols
        'Δ2[0,0] · W2[0,0] · ∂A1/∂Z1[0,0] · A0[0,0]'
        >>> abs(paths.total - ex["∂L/∂W1"].value[0, 0]) < 1e-15
        True
        """
        from matbackprop.worked.paths import trace

        return trace(self, name, index)

    def plot(
        self,
        highlight: tuple[Any, ...] | None = None,
        *,
        direction: str = "forward",
        ax: Any = None,
        values: bool = False,
        deltas: bool = False,
        row: int = 0,
    ) -> Any:
        """Draw the network with matplotlib: units with Σ and f, weights, and the paths of one weight.

        Parameters
        ----------
        highlight : tuple, optional
            A parameter's name and index, such as ``("W1", 0, 1)``: its paths to the loss are dark, the rest light grey.
        direction : {"forward", "backward", "both"}, keyword-only
            Which way the arrows on those paths point: as a change of the weight travels to the loss, as Δ comes back,
            or both.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a figure of its own. In smaller axes letters are smaller too.
        values, deltas : bool, default False
            Whether to write the numbers of one example at the weights and units, and ∂L/∂ each unit's output under it.
        row : int, default 0
            Which example that is.

        Returns
        -------
        matplotlib.axes.Axes
            Its ``figure.savefig(...)`` writes a file.

        Raises
        ------
        ImportError
            Without matplotlib.
        KeyError, IndexError, TypeError, ValueError
            If an argument does not fit.

        Notes
        -----
        No text covers another: the columns stand as far apart as that needs, and a weight's label that has no room even
        so is left out. Between two columns at most nine weights are labelled, or where there are more, none.
        """
        from matbackprop.worked.figure import draw

        return draw(self, highlight, direction=direction, ax=ax, values=values, deltas=deltas, row=row)

    def to_text(self, width: int | None = None) -> str:
        """Return plain text, at most `width` columns wide; by default as wide as the terminal.

        It is never narrower than 40 columns, and as wide as its widest matrix.
        """
        from matbackprop.worked.text import plain

        return plain(self, width)

    def __str__(self) -> str:
        from matbackprop.worked.text import terminal

        return terminal(self)

    def to_markdown(self) -> str:
        """Return Markdown with LaTeX between dollar signs, as notebooks and most sites render it."""
        from matbackprop.worked.markdown import markdown

        return markdown(self)

    def to_latex(self, *, standalone: bool = True) -> str:
        """Return LaTeX: a whole document, or without `standalone` what goes into one.

        That document loads amsmath, graphicx and xcolor.
        """
        from matbackprop.worked.latex import document

        return document(self, standalone=standalone)

    def to_html(self, *, standalone: bool = True) -> str:
        """Return HTML that needs no network: a whole page, or without `standalone` one element of it."""
        from matbackprop.worked.page import page

        return page(self, standalone=standalone)

    def _repr_html_(self) -> str:
        return self.to_html(standalone=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the steps as plain data, as ``json.dumps`` takes it: numbers that are not finite become None."""
        return {
            "title": self.title,
            "notes": list(self.notes),
            "steps": [
                {
                    "name": step.name,
                    "phase": step.phase,
                    "layer": step.layer,
                    "formula": step.formula,
                    "latex": step.latex,
                    "shape": list(step.shape),
                    "value": _plain(step.value.tolist()),
                    "note": step.note,
                }
                for step in self
            ],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, (complex, np.complexfloating)):
        return [_plain(value.real), _plain(value.imag)]
    if isinstance(value, np.floating):
        value = float(value)  # a long double's tolist() leaves it as it is
    return value if np.isfinite(value) else None
