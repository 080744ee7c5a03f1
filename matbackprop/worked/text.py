"""Worked examples as text: a table for a terminal, drawn by rich where that is at hand."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from matbackprop.validation import as_size
from matbackprop.worked.canvas import Block, beside, formula, heat, matrix, wrapped
from matbackprop.worked.digits import span
from matbackprop.worked.notation import Row
from matbackprop.worked.steps import Step, grouped, is_small

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["lines", "plain", "terminal"]

#: Below that nothing is legible.
NARROWEST = 40

EQUALS: Block = [" = "], 0


def lines(step: Step, width: int) -> list[str]:
    """Return a step as on a blackboard: symbols, numbers, result. A large value is its range and a heat map.

    Parameters
    ----------
    step : Step
    width : int
        No line is longer, unless one matrix is.
    """
    head = textwrap.wrap(step.formula, width, subsequent_indent="    ", break_long_words=False) or [""]
    if is_small(step.value):
        text = _blackboard(step, head, width)
    else:
        text = [*head, f"  {span(step.value)}", *(f"  {row}" for row in heat(step.value, width - 2))]
    text = [line.rstrip() for line in text]
    if step.note:
        text += textwrap.wrap(step.note, width - 2, initial_indent="  ", subsequent_indent="  ")
    return text


def _blackboard(step: Step, head: list[str], width: int) -> list[str]:
    """Return the formula, then numbers and result on one line, or where that is too long on one each."""
    result = matrix(step.value)
    if step.right is None and len(head) == 1:
        line = _fit([(head, 0), EQUALS, result], width)
        if line is not None:
            return line
    indent: Block = [" " * len(step.name)], 0
    pieces = [*(formula(board) for board in step.boards), result]
    line = _fit([indent, *(block for piece in pieces for block in (EQUALS, piece))], width)
    if line is not None:
        return [*head, *line]
    rows = [row for board in step.boards for row in _wrapped(board, indent, width)]
    return [*head, *rows, *beside([indent, EQUALS, result])[0]]


def _wrapped(board: Row, indent: Block, width: int) -> list[str]:
    """Return numbers on as many lines as they need, or where a part of them is wider than that, say so."""
    first = beside([indent, EQUALS])
    space = " " * len(first[0][0])
    blocks = wrapped(board, width - len(space))
    if blocks is None:
        note = "(the numbers are too wide for this; to_text with more columns or to_html has them)"
        start = f"{indent[0][0]} = "
        return textwrap.wrap(note, max(width, len(start) + 20), initial_indent=start, subsequent_indent=space)
    rows = [beside([first if index == 0 else ([space], 0), block])[0] for index, block in enumerate(blocks)]
    return [line for row in rows for line in row]


def _fit(blocks: list[Block], width: int) -> list[str] | None:
    """Return the blocks beside each other, if that is narrow enough."""
    block, _ = beside(blocks)
    return block if len(block[0]) <= width else None


def plain(example: WorkedExample, width: int | None = None) -> str:
    """Return the example as plain text."""
    width = shutil.get_terminal_size().columns if width is None else as_size(width, "to_text: width")
    width = max(width, NARROWEST)
    shapes = max(len(_shape(step)) for step in example)
    text = [*textwrap.wrap(example.title, width, subsequent_indent="    "), *_notes(example, width)]
    for phase, layers in grouped(example):
        text += ["", f"── {phase} ".ljust(width, "─")]
        for layer, steps in layers:
            text += textwrap.wrap(layer, width, initial_indent="  ", subsequent_indent="  ")
            for step in steps:
                rows = lines(step, width - shapes - 6)
                text += [f"    {_shape(step) if row == 0 else '':<{shapes}}  {line}" for row, line in enumerate(rows)]
    return "\n".join(line.rstrip() for line in text)


def _shape(step: Step) -> str:
    return str(step.shape) if step.shape else ""


def _notes(example: WorkedExample, width: int) -> list[str]:
    return [line for note in example.notes for line in textwrap.wrap(note, width)]


def terminal(example: WorkedExample) -> str:
    """Return the example for standard output: with rich if that is a terminal and rich is installed, else plain."""
    if not (sys.stdout is not None and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        return plain(example)
    try:
        return with_rich(example, shutil.get_terminal_size().columns)
    except ImportError:
        return plain(example)


def with_rich(example: WorkedExample, width: int) -> str:
    """Return the same as a table drawn by rich, with colours unless NO_COLOR is set.

    Raises
    ------
    ImportError
        Without rich.
    """
    from io import StringIO

    from rich.box import SIMPLE_HEAD  # type: ignore[import-not-found, unused-ignore]
    from rich.console import Console  # type: ignore[import-not-found, unused-ignore]
    from rich.table import Table  # type: ignore[import-not-found, unused-ignore]
    from rich.text import Text  # type: ignore[import-not-found, unused-ignore]

    width = max(width, NARROWEST)
    shapes = max(len(_shape(step)) for step in example)
    stream = StringIO()
    console = Console(file=stream, force_terminal=True, width=width, legacy_windows=False, highlight=False)
    console.print(Text(example.title, "bold"), *(Text(f"\n{note}") for note in example.notes), sep="")
    for phase, layers in grouped(example):
        table = Table(box=SIMPLE_HEAD, width=width, header_style="bold cyan", show_edge=False)
        table.add_column("shape", width=shapes, no_wrap=True, style="dim")
        table.add_column(phase, no_wrap=True, ratio=1)
        for layer, steps in layers:
            if layer:
                table.add_row("", Text(layer, "italic dim", no_wrap=False))
            for step in steps:
                head, *rest = lines(step, width - shapes - 6)
                text = Text(head + "".join(f"\n{row}" for row in rest))
                start = max(text.plain.find(f"{step.name} = "), 0)
                text.stylize("bold green", start, start + len(step.name))
                table.add_row(_shape(step), text)
        console.print(Text(""), table)
    return stream.getvalue().rstrip("\n")
