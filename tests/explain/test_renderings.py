"""The same example as text, Markdown, LaTeX and HTML: whole, escaped, and as wide as was asked for."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import matbackprop as mb
from explain.test_record import Leak, Scale
from matbackprop.notebooks import NETWORKS, load
from matbackprop.worked import canvas, digits, latex, mathml
from matbackprop.worked.notation import Formula, Symbol, Term
from matbackprop.worked.text import lines, with_rich


def explained(name, lr=0.5):
    given = load(name)
    return mb.explain(given.model, given.x, given.y, given.loss, lr=lr)


def large(rng, rows=30):
    model = mb.Sequential(mb.Linear(20, 9), mb.Tanh(), mb.Linear(9, 2), rng=rng)
    return mb.explain(model, rng.normal(size=(rows, 20)), rng.normal(size=(rows, 2)), mb.MSE())


def wide(rng):
    """Matrices as large as they are written out, of numbers as wide as they are printed."""
    model = mb.Sequential(mb.Linear(4, 4), mb.Tanh(), mb.Linear(4, 4), mb.Sigmoid(), rng=rng)
    model.parameters *= 1e-3
    return mb.explain(model, -1e-5 * rng.uniform(size=(4, 4)), rng.uniform(size=(4, 4)), mb.BCE(), lr=0.1)


def odd(rng):
    """A model with a name that every format has to escape, and values that every format has to print."""
    Odd = type("Odd_Layer", (Leak,), {"__repr__": lambda self: "<Odd & 100% $x_1$ `{}` \\ ~^#\n\n---\nnext>"})
    model = mb.Sequential(Scale(3), mb.Linear(3, 2), Odd(), mb.Linear(2, 1), rng=rng)
    model.parameters[:5] = [-0.0, 1e-300, 1e300, -1e20, 123456]
    with np.errstate(all="ignore"):
        return mb.explain(model, [[1.0, -0.0, 1e-8]], [[1e9]], mb.MSE(), lr=1e-30)


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (np.float32(-0.0), "0"), (1.0, "1"), (-2.5, "-2.5"), (1 / 3, "0.33333"),
        (np.float32(0.1), "0.1"), (123456.0, "123460"), (1234567.0, "1.2346e6"), (1e300, "1e300"), (0.0001, "0.0001"),
        (0.00001234567, "1.2346e-5"), (5e-324, "5e-324"), (np.nan, "NaN"), (np.inf, "∞"), (-np.inf, "-∞"),
        (7, "7"), (True, "1"), (12345678, "12345678"), (99999.99, "100000"), (9.999999, "10"), (-1e-300, "-1e-300"),
        (1 - 2j, "1-2i"), (complex(0.5, np.nan), "0.5+NaNi"), (np.longdouble("1e4000"), "1e4000"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert digits.number(value) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0], "1 to 2"),
        ([3.0, 3.0], "all 3"),
        ([], "empty"),
        ([np.nan], "nothing finite"),
        ([np.nan, 1.0, np.inf, 2.0], "1 to 2, 2 not finite"),
        ([3 + 4j, 0j], "absolute values 0 to 5"),
    ],
)
def test_spans(values, text):
    assert digits.span(np.array(values)) == text


def test_numbers_in_every_format():
    value = np.array([[-1.5e-300, np.nan], [np.inf, -2.0]])
    assert canvas.matrix(value)[0] == ["⎡-1.5e-300 NaN⎤", "⎣ ∞         -2⎦"]
    assert latex.matrix(value) == (r"\begin{bmatrix} -1.5 \cdot 10^{-300} & \mathrm{NaN} \\ \infty & -2 \end{bmatrix}")
    text = "".join(ET.fromstring(mathml.matrix(value)).itertext())
    assert text == "[−1.5·10−300NaN∞−2]"


# Formulas


@pytest.mark.parametrize(
    ("template", "plain", "tex"),
    [
        ("{w} ⊙ {v}ᵀ", "W1 ⊙ ∂L/∂b1", r"W_{1} \odot \left( \frac{\partial L}{\partial b_{1}} \right)^{\top}"),
        ("1 / (1 + e^-{w})", "1 / (1 + e^-W1)", r"\frac{1}{1 + e^{-W_{1}}}"),
        ("log(1 - {w})²", "log(1 - W1)²", r"\log \left( 1 - W_{1} \right)^{2}"),
        ("α_1 relu6({w}) ≤ Σ {w}³", "α_1 relu6(W1) ≤ Σ W1³", None),
        ("-{w} · 2", "-W1 · 2", r"-W_{1} \cdot 2"),
    ],
)
def test_formulas(template, plain, tex):
    terms = {"w": Term(Symbol("W", "1")), "v": Term(Symbol("b", "1", over=Symbol("L")))}
    formula = Formula(template, terms)
    assert str(formula).replace("(∂L/∂b1)ᵀ", "∂L/∂b1") == plain
    assert latex.math(formula).isascii()
    if tex is not None:
        assert latex.math(formula) == tex
    ET.fromstring(f"<math>{mathml.math(formula)}</math>")
    assert formula.numbers is None  # there is none to put in


def test_two_numbers_beside_each_other_are_a_product():
    terms = {"a": Term(Symbol("a"), np.array(1.5)), "b": Term(Symbol("b"), np.array(3.0))}
    terms["c"] = Term(Symbol("c"), np.array([[4.0]]))
    for template, text in [("{a} {b} {c}", "1.5 · 3 [4]"), ("2 {a} - {b}", "2 · 1.5 - 3"), ("2 {c}", "2 [4]")]:
        assert "\n".join(canvas.formula(Formula(template, terms).numbers)[0]) == text


def test_numbers_are_put_in_place():
    terms = {"w": Term(Symbol("W"), np.array([[1.0, 2.0], [3.0, 4.0]])), "c": Term(Symbol("c"), np.array(-0.5))}
    block, line = canvas.formula(Formula("{w}ᵀ - {c} (1 + {w})²", terms).numbers)
    assert block == ["⎡1 3⎤ - (-0.5) ⎛1 + ⎡1 2⎤⎞²", "⎣2 4⎦          ⎝    ⎣3 4⎦⎠ "]
    assert line == 0


# Text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("make", [*(lambda rng, n=n: explained(n) for n in NETWORKS), large], ids=[*NETWORKS, "large"])
def test_text_keeps_to_its_width(make, width, rng):
    ex = make(rng)
    text = ex.to_text(width)
    widest = max(map(len, text.splitlines()))
    assert widest <= max(width, 60)  # one matrix is never broken, which matters below that alone
    for step in ex:
        assert f"{step.name} = " in text or f"{step.name}\n" in text


def numbers(block):
    """Return the numbers of some lines, without what is between them."""
    return sorted(re.findall(r"\d[\d.e-]*", block))


@pytest.mark.parametrize("loss", [mb.MSE(), mb.BCE()], ids=["MSE", "BCE"])
@pytest.mark.parametrize("width", [64, 80, 100])
def test_numbers_too_long_for_a_line_are_on_several(width, loss, rng):
    """None is dropped: all lines together have every number, or it is said that they have not."""
    model = mb.Sequential(mb.Linear(4, 4), mb.Tanh(), mb.Linear(4, 4), mb.Sigmoid(), rng=rng)
    ex = mb.explain(model, rng.uniform(size=(4, 4)), rng.uniform(size=(4, 4)), loss, lr=0.5)
    wrapped = 0
    for step in ex:
        rows = lines(step, width)
        board = "\n".join(rows)
        assert max(map(len, rows)) <= width
        left_out = board.count("(the numbers are too wide")
        whole = ["\n".join(canvas.formula(board)[0]) for board in step.boards]
        if not left_out:
            for one in whole:
                assert set(numbers(one)) <= set(numbers(board)), step.name
            wrapped += any(len(line) > width for one in whole for line in one.splitlines())
    assert wrapped or width == 100


def test_a_formula_on_several_lines():
    w = Term(Symbol("W"), np.array([[1.0, 2.0], [3.0, 4.0]]))
    numbers = Formula("1/{n} Σ ({w} - {w} + log({w}))²", {"w": w, "n": Term(Symbol("n"), np.array(4))}).numbers
    blocks = canvas.wrapped(numbers, 18)
    assert [line.rstrip() for block, _ in blocks for line in block] == [
        "1/4 Σ ( ⎡1 2⎤",
        "        ⎣3 4⎦",
        "- ⎡1 2⎤",
        "  ⎣3 4⎦",
        "+ log⎛⎡1 2⎤⎞ )²",
        "     ⎝⎣3 4⎦⎠",
    ]
    assert canvas.wrapped(numbers, 4) is None


def test_numbers_that_fit_on_no_line_are_said_to_be_left_out(rng):
    ex = wide(rng)
    rows = lines(ex["∂L/∂A2"], 60)
    assert "(the numbers are too wide for this; to_text with" in rows[1] + rows[2]
    assert "too wide" not in "".join(lines(ex["∂L/∂A2"], 120))


def test_text_on_the_blackboard():
    text = explained("relu-bce-2-2-3-1").to_text(80)
    assert (
        """
    (1, 2)  Z1 = A0 W1ᵀ + 1 b1ᵀ
               = [1 -1] ⎡1 0⎤ + [1] [0 0] = [1 -1]
                        ⎣0 1⎦
"""
        in text
    )
    assert (
        """
    (3, 2)  ∂L/∂W2 = Δ2ᵀ A1
                     ⎡0.73106⎤         ⎡0.73106 0⎤
                   = ⎢0      ⎥ [1 0] = ⎢0       0⎥
                     ⎣0      ⎦         ⎣0       0⎦
"""
        in text
    )
    assert "Δ3 = ∂L/∂Z3 = ∂L/∂A3 ⊙ ∂A3/∂Z3 = 1/n (Ŷ - Y)\n" in text
    assert "= [3.7183] ⊙ [0.19661] = 1/1 ([0.73106] - [0]) = [0.73106]\n" in text


@pytest.mark.parametrize(
    ("loss", "y", "count"), [(mb.MSE(), np.zeros((2, 3)), 6), (mb.CrossEntropy(), [0, 1], 2)], ids=["MSE", "CE"]
)
def test_what_the_mean_divides_by(loss, y, count):
    ex = mb.explain(mb.Sequential(mb.Linear(2, 3), rng=0), np.ones((2, 2)), y, loss)
    assert "= 1/n " in ex["Δ1"].formula
    delta = ex["Δ1"].right
    assert canvas.formula(delta.tree.parts[0])[0] == ["1/n"]
    assert float(delta.terms["n"].value) == count


def test_large_arrays_are_shape_range_and_shades(rng):
    ex = large(rng)
    text = ex.to_text(80)
    assert "(30, 20)  A0 = X\n" in text
    assert digits.span(ex["A0"].value) in text
    assert "█" in text
    assert "⋮" in text  # 30 rows are not all shown


@pytest.mark.parametrize("width", [0, -1, 1.5, "80", True])
def test_a_width_that_is_none(width, rng):
    with pytest.raises((TypeError, ValueError), match="to_text: width: expected a positive integer"):
        large(rng).to_text(width)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def words(text):
    """Return what is to be read, without colours and rules."""
    return set(re.sub(r"\x1b\[[0-9;]*m|─+", " ", text).split())


@pytest.mark.parametrize("width", [60, 80])
def test_rich_says_the_same(width, monkeypatch, rng):
    pytest.importorskip("rich")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for ex in (explained("relu-bce-2-2-3-1"), large(rng)):
        text = with_rich(ex, width)
        assert "\x1b[" in text
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert max(map(len, plain.splitlines())) <= width
        assert words(text) - {"shape"} == words(ex.to_text(width))


def test_printing(monkeypatch):
    ex = explained("relu-1-1")
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert str(ex) == ex.to_text(70)  # a pipe
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in str(ex)
    monkeypatch.setenv("TERM", "dumb")
    assert str(ex) == ex.to_text(70)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich.box", None)  # as if it were not installed
    assert str(ex) == ex.to_text(70)
    monkeypatch.setattr(sys, "stdout", None)
    assert str(ex) == ex.to_text(70)


# Markdown


def test_markdown(rng):
    text = explained("tanh-2-2-2-1").to_markdown()
    assert text.startswith("# Worked example\n\n`Sequential(")
    assert "$$\nZ_{1}\n= A_{0} W_{1}^{\\top}\n= \\begin{bmatrix}" in text
    assert text.count("$$") % 2 == 0
    text = odd(rng).to_markdown()
    assert "\n`` layer 2, <Odd & 100% $x_1$ `{}` \\ ~^# --- next> ``\n" in text  # on one line, or it would be a heading
    assert "\n``\n" not in text  # where no layer computed a step, there is none to name


# LaTeX


def balanced(text):
    depth = 0
    for char in re.sub(r"\\[{}\\]", "", text):
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    return depth == 0


@pytest.mark.parametrize("make", [*(lambda rng, n=n: explained(n) for n in NETWORKS), large, odd, wide])
def test_latex_is_sound(make, rng):
    ex = make(rng)
    text = ex.to_latex()
    assert text.isascii()
    assert balanced(text)
    for name in set(re.findall(r"\\begin\{(\w+\*?)\}", text)):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}")
    part = ex.to_latex(standalone=False)
    assert part in text
    assert "documentclass" not in part


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a TeX")
@pytest.mark.parametrize("make", [lambda rng: explained("relu-bce-2-2-3-1"), large, odd, wide])
def test_latex_compiles(make, rng, tmp_path):
    (tmp_path / "example.tex").write_text(make(rng).to_latex(), "ascii")
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "example.tex"],
        cwd=tmp_path, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    log = run.stdout.decode("utf-8", "replace")
    assert run.returncode == 0, log[-2000:]
    assert "Overfull" not in log
    assert (tmp_path / "example.pdf").stat().st_size > 10_000


# HTML


@pytest.mark.parametrize("make", [*(lambda rng, n=n: explained(n) for n in NETWORKS), large, odd, wide])
def test_html_is_sound_and_self_contained(make, rng):
    ex = make(rng)
    part = ex._repr_html_()
    tree = ET.fromstring(part)
    assert tree.tag == "div"
    tags = {element.tag for element in tree.iter()}
    assert tags <= {
        "div", "style", "h2", "h3", "p", "code", "span", "math", "mrow", "mi", "mn", "mo", "mfrac", "msub", "msup",
        "msubsup", "mover", "mtable", "mtr", "mtd", "mspace", "svg", "rect", "title",
    }  # fmt: skip
    page = ex.to_html()
    assert page.startswith("<!DOCTYPE html>")
    assert part in page
    for outside in ("http", "src=", "href=", "url(", "@import", "<script", "<link"):
        assert outside not in page
    assert "prefers-color-scheme" in page or "color-scheme: light dark" in page


def test_html_has_real_matrices(rng):
    ex = explained("relu-bce-2-2-3-1")
    tree = ET.fromstring(ex._repr_html_())
    results = [math for math in tree.iter("math") if math.get("class") == "result"]
    assert len(results) == len(ex)
    for step, math in zip(ex, results, strict=True):
        rows = [["".join(cell.itertext()) for cell in row] for row in math.iter("mtr")]
        shown = np.array(
            [[float(cell.replace("−", "-")) for cell in row] for row in rows] or float("".join(math.itertext()))
        )
        expected = step.value[:, None] if step.value.ndim == 1 else step.value
        np.testing.assert_allclose(shown, expected, rtol=1e-4)


def test_wide_formulas_scroll_sideways_only():
    assert re.search(r"\.board \{[^}]*overflow: auto hidden;", explained("relu-1-1").to_html())


def test_html_heat_map_names_its_entries(rng):
    ex = large(rng, rows=30)
    text = ex.to_html()
    assert f"A0[2,3] = {digits.number(ex['A0'].value[2, 3])}" in text
    assert "the first 24 rows and 20 columns of (30, 20)" in text
    assert "b1[8] = 0" in text
