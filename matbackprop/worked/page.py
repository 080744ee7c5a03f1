"""Worked examples as HTML: one page, or one element of a page, that needs no network, no font and no script."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.worked.digits import number, span
from matbackprop.worked.mathml import math, matrix
from matbackprop.worked.steps import Step, flat, grouped, is_small

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["page"]

#: So many rows and columns of a heat map are drawn at most.
ROWS, COLUMNS = 24, 48

#: Colours are mixed from the page's own, so that the element is legible on whatever ground a notebook has.
STYLE = """
.mbp { color: inherit; font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; container-type: inline-size; }
.mbp h2 { font-size: 1.15em; margin: 0 0 .2em; }
.mbp h3 { font-size: .8em; letter-spacing: .08em; text-transform: uppercase; margin: 1.6em 0 .2em; padding-bottom: .2em;
  border-bottom: 2px solid color-mix(in srgb, currentColor 30%, transparent); }
.mbp p { margin: .2em 0; }
.mbp .layer { font: .85em ui-monospace, monospace; opacity: .75; margin: .9em 0 .1em; }
.mbp .step { display: grid; grid-template-columns: 4.5em minmax(0, 1fr); gap: 0 1em; align-items: center;
  padding: .45em .3em; border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent); }
.mbp .step:hover { background: color-mix(in srgb, currentColor 4%, transparent); }
.mbp .shape { font: .8em ui-monospace, monospace; opacity: .65; white-space: nowrap; }
.mbp .board { display: flex; flex-wrap: wrap; align-items: center; gap: .4em .5em; overflow: auto hidden;
  padding-block: .25em; }
.mbp math { font-size: 1.08em; }
.mbp mfrac { padding-inline: .12em; }
.mbp mtd { padding: .18em .4em; }
.mbp mn.one { font-weight: bold; }
.mbp .result { background: color-mix(in srgb, #2a8f5a 16%, transparent); border-radius: .35em;
  padding: .15em .35em .15em .15em; }
.mbp .part { display: inline-flex; align-items: center; gap: .5em; }
.mbp .note { grid-column: 2; font-size: .85em; opacity: .8; }
.mbp .range { font-size: .85em; opacity: .8; }
.mbp svg { display: block; max-width: 100%; height: auto; margin: .3em 0; }
@container (max-width: 30rem) { .mbp .step { grid-template-columns: minmax(0, 1fr); } .mbp .note { grid-column: 1; } }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 2rem auto; padding: 0 1rem; max-width: 62rem; background: Canvas; color: CanvasText; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(example: WorkedExample, *, standalone: bool) -> str:
    """Return the example as a page, or as one element."""
    parts = ["<h2>Worked example</h2>", f"<p><code>{escape(example.title)}</code></p>"]
    parts += [f"<p>{escape(note)}</p>" for note in example.notes]
    for phase, layers in grouped(example):
        parts.append(f"<h3>{phase}</h3>")
        for layer, steps in layers:
            parts += [f'<div class="layer">{escape(layer)}</div>'] if layer else []
            parts += map(_step, steps)
    body = f'<div class="mbp"><style>{STYLE}</style>\n{chr(10).join(parts)}\n</div>'
    return PAGE.format(title=escape(example.title), body=body) if standalone else body


def _math(content: str, kind: str = "") -> str:
    return f'<math{kind} display="block" style="display: inline math">{content}</math>'


def _step(step: Step) -> str:
    """Return one step: its shape, and symbols, numbers, result."""
    first, *rest = (math(side) for side in step.sides)
    pieces = [_math("<mo>=</mo>".join([first, *rest]))]
    shape = escape(str(step.shape)) if step.shape else "number"
    if is_small(step.value):
        pieces += [_math(f"<mo>=</mo>{math(board)}") for board in step.boards]
        result = _math("<mo>=</mo>") + _math(matrix(step.value), ' class="result"')
        pieces.append(f'<span class="part">{result}</span>')
        board = f'<div class="board">{"".join(pieces)}</div>'
    else:
        text = f'<div class="range">{escape(span(step.value))}</div>'
        board = f'<div><div class="board">{"".join(pieces)}</div>{text}{_heat(step)}</div>'
    note = f'<div class="note">{escape(step.note)}</div>' if step.note else ""
    return f'<div class="step"><div class="shape">{shape}</div>{board}{note}</div>'


def _heat(step: Step) -> str:
    """Return a large matrix as coloured cells: blue below zero, red above, hatched where not finite."""
    value = flat(step.value)
    if not value.size:
        return ""
    real = np.abs(value) if np.iscomplexobj(value) else value
    with np.errstate(all="ignore"):
        finite = np.abs(real[np.isfinite(real)])
    top = float(finite.max()) if finite.size else 0.0
    shown = real[:ROWS, :COLUMNS]
    cell = 14
    cells = []
    for i, row in enumerate(shown):
        for j, entry in enumerate(row):
            label = f"{step.name}[{f'{i},' if step.value.ndim != 1 else ''}{j}] = {number(value[i, j])}"
            cells.append(
                f'<rect x="{j * cell}" y="{i * cell}" width="{cell}" height="{cell}" {_colour(entry, top)}>'
                f"<title>{escape(label)}</title></rect>"
            )
    height, width = (size * cell for size in shown.shape)
    cut = ""
    if shown.shape != value.shape:
        cut = f'<div class="range">the first {shown.shape[0]} rows and {shown.shape[1]} columns of {value.shape}</div>'
    label = escape(f"heat map of {step.name}")
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'stroke="currentColor" stroke-opacity=".15">{"".join(cells)}</svg>{cut}'
    )


def _colour(entry: Any, top: float) -> str:
    """Return the fill of a cell."""
    if not np.isfinite(entry):
        return 'fill="currentColor"'
    share = abs(float(entry)) / top if top else 0.0
    return f'fill="{"#d1495b" if entry > 0 else "#2e6f9e"}" fill-opacity="{share:.2f}"'
