"""Formulas as blocks of characters: matrices stand beside each other, in brackets as tall as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from matbackprop.validation import Array
from matbackprop.worked.digits import number
from matbackprop.worked.notation import Formula, Frac, Group, Matrix, Name, Node, Op, Row, Sup, Term
from matbackprop.worked.steps import as_matrix, flat

__all__ = ["Block", "beside", "columns", "formula", "heat", "matrix", "wrapped"]

#: Lines of equal length, and which of them stands on the line of the text.
Block = tuple[list[str], int]

BRACKETS = {"(": ("⎛⎜⎝", "⎞⎟⎠", "()"), "[": ("⎡⎢⎣", "⎤⎥⎦", "[]")}
SUPERSCRIPT = str.maketrans("0123456789-+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺")
#: What has no superscript.
PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,()[]/⊙ "

#: From next to nothing to the largest absolute value.
SHADES = "·░▒▓█"


def word(text: str) -> Block:
    """Return one line."""
    return [text], 0


def beside(blocks: Iterable[Block], gap: str = "") -> Block:
    """Put blocks beside each other, their lines of text on one line."""
    parts = list(blocks)
    if not parts:
        return word("")
    above = max(line for _, line in parts)
    below = max(len(lines) - line for lines, line in parts)
    padded = []
    for lines, line in parts:
        blank = " " * len(lines[0])
        padded.append([blank] * (above - line) + lines + [blank] * (below - (len(lines) - line)))
    return [gap.join(row) for row in zip(*padded, strict=True)], above


def bracketed(block: Block, kind: str) -> Block:
    """Put a block in brackets as tall as it is."""
    lines, line = block
    left, right, single = BRACKETS[kind]
    if len(lines) == 1:
        return [f"{single[0]}{lines[0]}{single[1]}"], 0

    def side(pieces: str) -> list[str]:
        return [pieces[0], *pieces[1] * (len(lines) - 2), pieces[2]]

    return [f"{a}{text}{b}" for a, text, b in zip(side(left), lines, side(right), strict=True)], line


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align numbers in columns, at their decimal points."""
    columns_ = []
    for column in zip(*rows, strict=True):
        cut = [_halves(text) for text in column]
        left, right = (max(len(half[side]) for half in cut) for side in (0, 1))
        columns_.append([f"{a:>{left}}{b:<{right}}" for a, b in cut])
    return [" ".join(cells) for cells in zip(*columns_, strict=True)]


def _halves(text: str) -> tuple[str, str]:
    """Cut a number before its decimal point."""
    whole, point, rest = text.partition(".")
    return whole, point + rest


def matrix(value: Array) -> Block:
    r"""Return numbers in brackets; a single number of no dimensions stands for itself.

    Examples
    --------
    >>> from matbackprop.worked.canvas import matrix
    >>> print("\n".join(matrix(np.array([[1.5, -2], [10, 0.25]]))[0]))
    ⎡ 1.5 -2   ⎤
    ⎣10    0.25⎦
    """
    if value.ndim == 0:
        return word(number(value[()]))
    lines = columns([[number(entry) for entry in row] for row in as_matrix(value)])
    return bracketed((lines, (len(lines) - 1) // 2), "[")


def formula(node: Node | Formula) -> Block:
    """Return a formula, with whatever numbers stand in it."""
    match node:
        case Formula(tree=tree):
            return formula(tree)
        case Term(symbol=symbol):
            return word(str(symbol))
        case Name(text=text) | Op(text=text):
            return word(text)
        case Matrix(value=value):
            return matrix(value)
        case Group(bracket=bracket, body=body):
            return bracketed(formula(body), bracket)
        case Frac(top=top, bottom=bottom):
            return beside([_closed(top), word("/"), _closed(bottom)])
        case Sup(base=base, above=above):
            return _raised(formula(base), above)
        case Row(parts=parts):
            return _row(parts)


def _row(parts: Sequence[Node]) -> Block:
    """Put parts in a row, with spaces where a reader wants them."""
    blocks: list[Block] = []
    before = "("
    for index, part in enumerate(parts):
        text = part.text if isinstance(part, (Op, Name)) else ""
        unary = text == "-" and index == 0
        call = isinstance(part, Group) and part.bracket == "(" and before.isalpha() and before != "Σ"
        if index and not call and text != "," and before not in ("∂", "unary"):
            blocks.append(word(" "))
        blocks.append(formula(part))
        before = "unary" if unary else text or "x)"
    return beside(blocks)


def wrapped(row: Row, width: int) -> list[Block] | None:
    """Return a formula cut into lines no wider than that, before a sign if it can be; None if a part is wider.

    A bracket is as high as the text where what is in it does not fit on one line.
    """
    parts = list(row.parts)
    blocks: list[Block] = []
    while parts:
        count = 0
        while count < len(parts) and _wide(_line(parts[: count + 1], blocks)) <= width:
            count += 1
        if count < len(parts):
            opened = _opened(parts[count]) if _wide(formula(parts[count])) > width else None
            if opened is not None:
                parts[count : count + 1] = opened
                continue
            whole = count
            while count and _leads(parts[count - 1]):
                count -= 1
            count = count or whole
        if not count:
            return None
        blocks.append(_line(parts[:count], blocks))
        parts = parts[count:]
    return blocks


def _wide(block: Block) -> int:
    return len(block[0][0])


def _line(parts: Sequence[Node], above: Sequence[Block]) -> Block:
    """Return parts on one line, below others: a sign that it starts with is no mere sign of what follows."""
    if above and parts[0] == Op("-") and len(parts) > 1:
        return beside([word("-"), formula(Row(tuple(parts[1:])))], " ")
    return formula(Row(tuple(parts)))


def _leads(node: Node) -> bool:
    """Return whether it belongs to what follows: a sign, an opening bracket or a function."""
    match node:
        case Op(text=text):
            return text not in ")]"
        case Name(text=text):
            return text[0].isalpha()
    return False


def _opened(node: Node) -> list[Node] | None:
    """Return the parts of a bracket with its two signs; None if it is something else."""
    match node:
        case Group(bracket=bracket, body=body):
            left, right = tuple(BRACKETS[bracket][2])
            return [Op(left), *body.parts, Op(right)]
        case Sup(base=Group(bracket=bracket, body=body), above=above):
            left, right = tuple(BRACKETS[bracket][2])
            return [Op(left), *body.parts, Sup(Op(right), above)]
        case Row(parts=parts):
            return list(parts)
    return None


def _closed(node: Node) -> Block:
    """Bracket what is to be one side of a slash, where it is more than one thing."""
    several = isinstance(node, Row) and len(node.parts) > 1 and node.parts[0] != Op("∂")
    return bracketed(formula(node), "(") if several else formula(node)


def _raised(base: Block, above: Node) -> Block:
    """Set an exponent: as superscripts beside the first line, or else on lines of its own."""
    lines, line = base
    exponents, _ = formula(above)
    text = exponents[0].translate(SUPERSCRIPT)
    if len(exponents) == 1 and not set(text) & set(PLAIN):
        return [lines[0] + text, *(row + " " * len(text) for row in lines[1:])], line
    blank, wide = " " * len(lines[0]), " " * len(exponents[0])
    return [blank + row for row in exponents] + [row + wide for row in lines], line + len(exponents)


def heat(value: Array, width: int, height: int = 8) -> list[str]:
    """Return a large matrix as shades of its absolute values, cut to so many columns and rows.

    Examples
    --------
    >>> from matbackprop.worked.canvas import heat
    >>> heat(np.array([[0.0, 1.0, 2.0, 4.0, np.nan]]), 20)
    ['·░▒█?']
    """
    value = flat(value)
    if not value.size or value.ndim == 0:
        return []
    with np.errstate(all="ignore"):
        size = np.abs(value)
    finite = size[np.isfinite(size)]
    top = finite.max() if finite.size else 1
    lines = []
    for row in size[:height]:
        cells = row[: width - 1] if len(row) > width else row
        text = "".join(_shade(entry, top) for entry in cells)
        lines.append(text + ("…" if len(row) > width else ""))
    if len(size) > height:
        lines.append("⋮")
    return lines


def _shade(entry: float, top: float) -> str:
    if not np.isfinite(entry):
        return "?"
    return SHADES[int(np.ceil(entry / top * (len(SHADES) - 1) - 1e-9))] if top and entry else SHADES[0]
