"""Formulas as MathML, which every browser of today sets by itself."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from matbackprop.validation import Array
from matbackprop.worked.digits import digits
from matbackprop.worked.notation import SIGNS, Formula, Frac, Group, Matrix, Name, Node, Op, Row, Sup, Symbol, Term
from matbackprop.worked.steps import as_matrix

__all__ = ["math", "matrix"]

#: Between two factors that no sign separates.
SPACE = '<mspace width="0.25em"></mspace>'


def math(node: Symbol | Formula | Node) -> str:
    """Return a symbol or formula as MathML, without the enclosing ``<math>``.

    Examples
    --------
    >>> from matbackprop.worked.mathml import math
    >>> from matbackprop.worked.notation import Symbol
    >>> math(Symbol("W", "1"))
    '<msub><mi>W</mi><mn>1</mn></msub>'
    """
    match node:
        case Symbol():
            return _symbol(node)
        case Formula(tree=tree):
            return math(tree)
        case Term(symbol=symbol):
            return _symbol(symbol)
        case Name(text=text):
            return f"<mn>{text}</mn>" if text[0].isdigit() else _letter(text)
        case Op(text=text):
            return f"<mo>{escape({'-': '−', 'ᵀ': '⊤', 'Σ': '∑'}.get(text, text))}</mo>"
        case Matrix(value=value):
            return matrix(value)
        case Group(bracket=bracket, body=body):
            return _fenced(bracket, math(body))
        case Frac(top=top, bottom=bottom):
            return f"<mfrac><mrow>{math(top)}</mrow><mrow>{math(bottom)}</mrow></mfrac>"
        case Sup(base=base, above=above):
            below = math(base)
            if below.startswith("<mfrac"):
                below = _fenced("(", below)
            return f"<msup><mrow>{below}</mrow><mrow>{math(above)}</mrow></msup>"
        case Row(parts=parts):
            return _row(parts)


def _symbol(symbol: Symbol) -> str:
    if symbol.over is not None:
        below = math(Symbol(symbol.letter, symbol.index, symbol.mark))
        return f"<mfrac><mrow><mo>∂</mo>{math(symbol.over)}</mrow><mrow><mo>∂</mo>{below}</mrow></mfrac>"
    letter = '<mn class="one">1</mn>' if symbol.letter == "1" else _letter(symbol.letter)
    index = f"<mn>{escape(symbol.index)}</mn>"
    if symbol.mark:
        mark = "<mo>+</mo>"
        return f"<msubsup>{letter}{index}{mark}</msubsup>" if symbol.index else f"<msup>{letter}{mark}</msup>"
    return f"<msub>{letter}{index}</msub>" if symbol.index else letter


def _letter(text: str) -> str:
    """Return one letter in italics, or a word upright."""
    if text == "Ŷ":
        return '<mover accent="true"><mi>Y</mi><mo stretchy="false">^</mo></mover>'
    return f"<mi>{escape(text)}</mi>"


def _fenced(bracket: str, body: str) -> str:
    closing = {"(": ")", "[": "]"}[bracket]
    return f"<mrow><mo>{bracket}</mo>{body}<mo>{closing}</mo></mrow>"


def _row(parts: tuple[Node, ...]) -> str:
    result: list[str] = []
    for before, part in zip((None, *parts), parts, strict=False):
        call = isinstance(before, Name) and isinstance(part, Group)
        factors = not isinstance(before, Op | None) and not isinstance(part, Op) and not call
        if factors or (isinstance(before, Op) and before.text in SIGNS):
            result.append(SPACE)
        result.append(math(part))
    return "".join(result)


def number(value: Any) -> str:
    """Return a number as MathML."""
    if np.iscomplexobj(value):
        imaginary = number(value.imag)
        plus = "" if imaginary.startswith("<mrow><mo>−") else "<mo>+</mo>"
        return f"<mrow>{number(value.real)}{plus}{imaginary}<mi>i</mi></mrow>"
    mantissa, exponent = digits(value)
    sign, size = ('<mo form="prefix">−</mo>', mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    text = f"<mi>{size}</mi>" if size in ("∞", "NaN") else f"<mn>{size}</mn>"
    if exponent is not None:
        power = f"<mn>{exponent}</mn>".replace("<mn>-", "<mo>−</mo><mn>")
        text += f"<mo>·</mo><msup><mn>10</mn><mrow>{power}</mrow></msup>"
    return f"<mrow>{sign}{text}</mrow>" if sign or exponent is not None else text


def matrix(value: Array) -> str:
    """Return numbers in brackets; a single number of no dimensions stands for itself."""
    if value.ndim == 0:
        return number(value[()])
    rows = "".join(f"<mtr>{''.join(f'<mtd>{number(entry)}</mtd>' for entry in row)}</mtr>" for row in as_matrix(value))
    return f"<mrow><mo>[</mo><mtable>{rows}</mtable><mo>]</mo></mrow>"
