"""Worked examples as Markdown, with LaTeX between dollar signs."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from matbackprop.worked.digits import span
from matbackprop.worked.latex import sides
from matbackprop.worked.steps import Step, is_small

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["markdown"]


def markdown(example: WorkedExample) -> str:
    """Return the example as Markdown."""
    parts = [f"# Worked example\n\n{code(example.title)}", *map(_escaped, example.notes)]
    for phase, steps in groupby(example, lambda step: step.phase):
        parts.append(f"## {phase.capitalize()}")
        layer = ""
        for step in steps:
            if step.layer != layer:
                layer = step.layer
                parts.append(code(layer))
            parts += _step(step)
    return "\n\n".join(parts) + "\n"


def _step(step: Step) -> list[str]:
    first, *rest = sides(step)
    parts = ["$$\n" + "\n= ".join([first, *rest]) + "\n$$"]
    if not is_small(step.value):
        parts.append(f"shape {step.shape}, {span(step.value)}")
    if step.note:
        parts.append(_escaped(step.note))
    return parts


def code(text: str) -> str:
    """Return text as code, whatever backticks are in it."""
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|$" else c for c in text)
