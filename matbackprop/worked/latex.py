"""Worked examples as LaTeX: formulas for math mode, and documents that compile as they stand."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from matbackprop.validation import Array
from matbackprop.worked.canvas import formula
from matbackprop.worked.digits import digits, span
from matbackprop.worked.notation import Formula, Frac, Group, Matrix, Name, Node, Op, Row, Sup, Symbol, Term
from matbackprop.worked.steps import Step, as_matrix, flat, grouped, is_small

if TYPE_CHECKING:
    from matbackprop.worked.example import WorkedExample

__all__ = ["document", "math", "matrix", "sides", "text"]

SIGNS = {
    "⊙": r"\odot ", "·": r"\cdot ", "Σ": r"\sum ", "∂": r"\partial ", "ᵀ": r"\top", "∞": r"\infty ", "−": "-",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ", "∈": r"\in ", "→": r"\to ", "√": r"\surd ",
    "∑": r"\sum ", "∏": r"\prod ", "⁺": "+", "…": r"\dots ", "∇": r"\nabla ",
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda",
    "Π": "Pi", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega", "ℓ": "ell",
}  # fmt: skip
#: Functions that LaTeX has a name for.
FUNCTIONS = {"arctan", "cos", "cosh", "det", "exp", "log", "max", "min", "sin", "sinh", "tan", "tanh"}
ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ESCAPES["\\"] = r"\textbackslash{}"

#: What is wider than so many characters may not fit a line of a page.
LINE = 60
SHRUNK = r"\resizebox{\ifdim\width>0.86\linewidth 0.86\linewidth\else\width\fi}{!}{$\displaystyle %s$}"

PREAMBLE = r"""\documentclass[a4paper,fleqn]{article}
\usepackage[T1]{fontenc}
\usepackage[margin=2cm]{geometry}
\usepackage{amsmath}
\usepackage{graphicx}
\usepackage{lmodern}
\usepackage{xcolor}
\setlength{\parindent}{0pt}
\begin{document}
\setlength{\abovedisplayskip}{3pt}
\setlength{\belowdisplayskip}{3pt}
\setlength{\mathindent}{2em}
"""


def text(value: str) -> str:
    r"""Return plain text for LaTeX's text mode, as one paragraph.

    What is not ASCII goes through math mode, or becomes a question mark.

    Examples
    --------
    >>> from matbackprop.worked.latex import text
    >>> text("100% of W_1 → Ŷ")
    '100\\% of W\\_1 $\\to $ $\\hat{Y}$'
    """
    return "".join(ESCAPES.get(c, c) if c.isascii() else f"${_letter(c)}$" for c in " ".join(value.split()))


def _letter(letter: str) -> str:
    """Return one letter, or a word upright."""
    if letter in GREEK:
        return f"\\{GREEK[letter]} "
    if letter in SIGNS:
        return SIGNS[letter]
    if letter in ("Ŷ", "ŷ"):
        return r"\hat{Y}" if letter == "Ŷ" else r"\hat{y}"
    if len(letter) == 1:
        return letter if letter.isascii() else "?"
    word = "".join(ESCAPES.get(c, c if c.isascii() else "?") for c in letter)
    return rf"\mathrm{{{word}}}"


def math(node: Symbol | Formula | Node) -> str:
    r"""Return a symbol or formula for math mode.

    Examples
    --------
    >>> from matbackprop.worked.latex import math
    >>> from matbackprop.worked.notation import Formula, Symbol, Term
    >>> print(math(Formula("{w} ⊙ e^-2", {"w": Term(Symbol("W", "1"))})))
    W_{1} \odot e^{-2}
    """
    match node:
        case Symbol(letter=letter, index=index, mark=mark, over=over):
            if letter == "1":
                return r"\mathbf{1}"
            own = _letter(letter).strip() + (f"_{{{index}}}" if index else "") + ("^{+}" if mark else "")
            return own if over is None else rf"\frac{{\partial {math(over)}}}{{\partial {own}}}"
        case Formula(tree=tree):
            return math(tree)
        case Term(symbol=symbol):
            return math(symbol)
        case Name(text=text):
            return f"\\{text} " if text in FUNCTIONS else _letter(text) if not text[0].isdigit() else text
        case Op(text=sign):
            return _letter(sign) if sign in SIGNS else ESCAPES.get(sign, sign if sign.isascii() else "?")
        case Matrix(value=value):
            return matrix(value)
        case Group(bracket=bracket, body=body):
            return rf"\left{bracket} {math(body)} \right{')' if bracket == '(' else ']'}"
        case Frac(top=top, bottom=bottom):
            return rf"\frac{{{math(top)}}}{{{math(bottom)}}}"
        case Sup(base=base, above=above):
            below = math(base)
            if "\\frac" in below[:5] or "^" in below:
                below = rf"\left( {below} \right)"
            return f"{below}^{{{math(above)}}}"
        case Row(parts=parts):
            return _join([math(part) for part in parts])


def _join(parts: list[str]) -> str:
    """Join parts with spaces, but none before a comma or after a unary minus."""
    result = ""
    for index, part in enumerate(parts):
        tight = not result or part == "," or (index == 1 and parts[0] == "-") or result.endswith(" ")
        result += part if tight else f" {part}"
    return re.sub(r" +", " ", result).strip()


def number(value: Any) -> str:
    """Return a number for math mode."""
    if np.iscomplexobj(value):
        imaginary = number(value.imag)
        return f"{number(value.real)}{'' if imaginary.startswith('-') else '+'}{imaginary}i"
    mantissa, exponent = digits(value)
    mantissa = mantissa.replace("∞", r"\infty").replace("NaN", r"\mathrm{NaN}")
    return mantissa if exponent is None else rf"{mantissa} \cdot 10^{{{exponent}}}"


def matrix(value: Array) -> str:
    """Return numbers in brackets; a single number of no dimensions stands for itself."""
    if value.ndim == 0:
        return number(value[()])
    rows = r" \\ ".join(" & ".join(number(entry) for entry in row) for row in as_matrix(value))
    return rf"\begin{{bmatrix}} {rows} \end{{bmatrix}}"


def sides(step: Step) -> list[str]:
    """Return what stands between the equals signs: symbols, numbers, result."""
    parts = [math(side) for side in step.sides]
    if is_small(step.value):
        parts += [math(board) for board in step.boards]
        parts.append(matrix(step.value))
    return parts


def _display(step: Step) -> str:
    """Return one step as a display: a line for symbols, one for numbers, one for the result."""
    parts = sides(step)
    if step.right is None:
        return "\\[\n" + " = ".join(parts) + "\n\\]"
    named = len(step.sides)
    lines = [f"{parts[0]} &= {' = '.join(parts[1:named])}"]
    for part, board in zip_longest(parts[named:], step.boards):
        wide = board is not None and len(formula(board)[0][0]) > LINE
        lines.append(f"&= {SHRUNK % part if wide else part}")
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"


def _heat(value: Array) -> str:
    """Return a large matrix as a grid of grey cells, in TeX's own rules."""
    value = flat(value)[:24, :40]
    with np.errstate(all="ignore"):
        size = np.abs(value).astype(np.float64)
    finite = size[np.isfinite(size)]
    top = finite.max() if finite.size and finite.max() > 0 else 1.0
    rows = []
    for row in size:
        cells = (entry / top if np.isfinite(entry) else 1.0 for entry in row)
        rows.append("".join(rf"{{\color[gray]{{{1 - 0.9 * cell:.2f}}}\rule{{3mm}}{{3mm}}}}" for cell in cells))
    return r"\hspace*{2em}\vbox{\offinterlineskip\hsize=14cm " + "\\par ".join(rows) + "}"


def _step(step: Step) -> list[str]:
    """Return the paragraphs of one step."""
    parts = [_display(step)]
    if not is_small(step.value):
        shape = r" \times ".join(map(str, step.shape))
        parts.append(rf"\hspace*{{2em}}${shape}$, {text(span(step.value))}")
        parts += [_heat(step.value)] if step.value.size else []
    return [*parts, text(step.note)] if step.note else parts


def document(example: WorkedExample, *, standalone: bool) -> str:
    """Return the example as a LaTeX document, or as what goes into one."""
    parts = [r"\section*{Worked example}", text(example.title), *map(text, example.notes)]
    for phase, layers in grouped(example):
        parts.append(rf"\subsection*{{{phase.capitalize()}}}")
        for layer, steps in layers:
            parts += [rf"\medskip\noindent\textit{{{text(layer)}}}"] if layer else []
            parts += [part for step in steps for part in _step(step)]
    body = "\n\n".join(parts) + "\n"
    return PREAMBLE + body + "\\end{document}\n" if standalone else body
