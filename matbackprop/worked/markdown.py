"""Worked examples as Markdown, with LaTeX between dollar signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matbackprop.worked.digits import span
from matbackprop.worked.latex import sides
from matbackprop.worked.steps import Step, grouped, is_small

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["markdown"]


def markdown(example: WorkedExample) -> str:
    """Return the example as Markdown."""
    parts = [f"# Worked example\n\n{code(example.title)}", *map(_escaped, example.notes)]
    for phase, layers in grouped(example):
        parts.append(f"## {phase.capitalize()}")
        for layer, steps in layers:
            parts += [code(layer)] if layer else []
            parts += [part for step in steps for part in _step(step)]
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
    """Return text as code, whatever backticks are in it; on one line, since a line of its own may end a paragraph."""
    text, fence = " ".join(text.split()), "`"
    while fence in text:
        fence += "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|$&~" else c for c in " ".join(text.split()))
