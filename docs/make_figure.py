"""Draw ``_static/algebra.svg``, the picture of the README and the landing page: `python docs/make_figure.py`.

A network of two Linear layers with its algebra, forward and backward, and the calls in the code that make it. It is
plain text: the same on every machine, bit for bit, and `tests/test_docs.py` holds the committed file to this script.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

TARGET = Path(__file__).parent / "_static" / "algebra.svg"

INK, FAINT, FORWARD, BACKWARD = "#1f2933", "#66707a", "#0b6e8a", "#b3541e"
SANS = "DejaVu Sans, Noto Sans, Segoe UI, Helvetica, Arial, sans-serif"
MONO = "DejaVu Sans Mono, Noto Sans Mono, Menlo, Consolas, monospace"
TOP, HEIGHT, GAP, LEFT = 52, 262, 62, 60

#: Width, title, and the lines of both passes: what is computed, and the call that computes it.
BOXES = [
    (
        204,
        "Linear(2, 3)",
        [("Z₁ = X W₁ᵀ + 1 b₁ᵀ", "dot(x, W.T, out)")],
        [("∂L/∂W₁ = Δ₁ᵀ X", "dot(delta.T, x, W_grad)"), ("∂L/∂b₁ = Δ₁ᵀ 1", "dot(ones, delta, b_grad)")],
    ),
    (
        226,
        "Tanh()",
        [("A₁ = tanh Z₁", "tanh(x, out)")],
        [("Δ₁ = ∂L/∂A₁ ⊙ (1 − A₁)(1 + A₁)", "multiply(delta, factor, out)")],
    ),
    (
        204,
        "Linear(3, 1)",
        [("Ŷ = A₁ W₂ᵀ + 1 b₂ᵀ", "dot(x, W.T, out)")],
        [("∂L/∂W₂ = Δ₂ᵀ A₁", "dot(delta.T, x, W_grad)"), ("∂L/∂A₁ = Δ₂ W₂", "dot(delta, W, out)")],
    ),
    (
        180,
        "MSE()",
        [("L = mean (Ŷ − Y)²", "multiply(error, error)")],
        [("Δ₂ = (2/n) (Ŷ − Y)", "add(error, error)")],
    ),
]
#: What goes up and what comes down between the boxes, and at both ends.
UP, DOWN = ["X", "Z₁", "A₁", "Ŷ", "L"], ["", "Δ₁", "∂L/∂A₁", "Δ₂", ""]


def text(x: float, y: float, words: str, size: int, color: str = INK, font: str = SANS, anchor: str = "middle") -> str:
    """Return one line of text."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{font}" font-size="{size}" fill="{color}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def arrow(x0: float, x1: float, y: float, color: str) -> str:
    """Return a horizontal arrow from `x0` to `x1`."""
    back = -7 if x1 > x0 else 7
    return (
        f'<path d="M{x0:g} {y:g}H{x1:g}m{back} -4.5l{-back} 4.5l{back} 4.5" '
        f'fill="none" stroke="{color}" stroke-width="1.8"/>'
    )


def draw() -> str:
    """Return the picture."""
    up, down = TOP + 74, TOP + 178
    x, parts, edges = LEFT, [], [LEFT]
    for width, title, forward, backward in BOXES:
        middle = x + width / 2
        parts += [
            f'<rect x="{x}" y="{TOP}" width="{width}" height="{HEIGHT}" rx="10" fill="#ffffff" stroke="#c5ccd3"/>',
            text(middle, TOP + 28, title, 16),
            f'<path d="M{x} {TOP + 42}h{width}M{x} {TOP + 120}h{width}" stroke="#e3e7eb"/>',
        ]
        for lines, color, y in ((forward, FORWARD, TOP + 74), (backward, BACKWARD, TOP + 152)):
            for index, (formula, call) in enumerate(lines):
                parts.append(text(middle, y + 56 * index, formula, 14, color))
                parts.append(text(middle, y + 22 + 56 * index, call, 12, FAINT, MONO))
        x += width + GAP
        edges += [x - GAP, x]
    starts, ends = [LEFT - 56, *edges[1::2]], [*edges[0:-1:2], edges[-2] + 48]
    for start, end, above, below in zip(starts, ends, UP, DOWN, strict=True):
        parts += [arrow(start + 6, end - 6, up, FORWARD), text((start + end) / 2, up - 10, above, 14, FORWARD)]
        if below:
            parts += [
                arrow(end - 6, start + 6, down, BACKWARD),
                text((start + end) / 2, down - 10, below, 14, BACKWARD),
            ]
    width, height = int(ends[-1] + 12), TOP + HEIGHT + 20
    heading = [
        text(LEFT, 30, "forward →", 15, FORWARD, anchor="start"),
        text(LEFT + 104, 30, "← backward", 15, BACKWARD, anchor="start"),
        text(edges[-2], 30, "grey: the call in matbackprop/layers.py and losses.py", 12, FAINT, anchor="end"),
    ]
    size = f'width="{width}" height="{height}"'
    label = "A network of two linear layers with tanh between them: its algebra forward and backward, and its code"
    role = f'role="img" aria-label="{label}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} {role}>',
            f"<title>{label}</title>",
            f'<rect width="{width}" height="{height}" rx="12" fill="#f6f8fa"/>',
            *heading,
            *parts,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(draw(), "utf-8")
