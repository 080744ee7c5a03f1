"""The site's sources, without building it: names, tests, links and figures that they point to are there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import matbackprop as mb

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the tests stand alone, without the checkout")

PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "generated"} & set(path.parts))
#: A page's fenced blocks, and inline code: in neither is a link one.
FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
EQUATION = re.compile(r"\$\$[ \t]*\(([\w-]+)\)")


def module(path: Path) -> ModuleType:
    """Import a script of the site by its path."""
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def blocks(page: Path, kind: str) -> list[str]:
    """Return the contents of the fenced blocks of that kind."""
    return [body for _, info, body in FENCE.findall(page.read_text("utf-8")) if info.strip() == kind]


def named(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def held(page: Path) -> list:
    evidence = module(DOCS / "_ext" / "evidence.py")
    return [row for block in blocks(page, "{held}") for row in evidence.parse(block)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "{held}")], ids=named)
def test_code_and_tests_that_hold_an_equation_exist(page: Path) -> None:
    evidence = module(DOCS / "_ext" / "evidence.py")
    for row in held(page):
        for place in (*row.code, *row.tests):
            evidence.find(ROOT, place)
        assert all(place.name.rpartition(".")[2].startswith("test_") for place in row.tests)


@pytest.mark.parametrize("page", sorted(DOCS.glob("derivation/*.md")), ids=named)
def test_every_numbered_equation_is_held(page: Path) -> None:
    equations = EQUATION.findall(page.read_text("utf-8"))
    assert len(set(equations)) == len(equations)
    assert sorted(label for row in held(page) for label in row.equations) == sorted(equations)


@pytest.mark.parametrize("page", [page for page in PAGES if "::test_" in page.read_text("utf-8")], ids=named)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    evidence = module(DOCS / "_ext" / "evidence.py")
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text("utf-8")):
        evidence.find(ROOT, evidence.Place(path, name))


def test_labels_of_equations_are_unique_and_known() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    labels = EQUATION.findall(text)
    assert len(set(labels)) == len(labels)
    assert len(labels) > 20
    assert set(re.findall(r"\{eq\}`([\w-]+)`", text)) <= set(labels)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("eq: a\ncode: matbackprop/layers.py :: Linear\n", "name the code and a test"),
        ("eq: a\nfile: matbackprop/layers.py :: Linear\n", "expected"),
        ("code: matbackprop/layers.py :: Linear\n", "expected"),
    ],
)
def test_a_bad_row_is_refused(rows: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        module(DOCS / "_ext" / "evidence.py").parse(rows)


@pytest.mark.parametrize(
    "place",
    [
        ("matbackprop/layer_s.py", "Linear"),
        ("matbackprop/layers.py", "Linear.sideways"),
        ("matbackprop/layers.py", "Linear.backward_steps", "times(x, delta"),
    ],
)
def test_a_place_that_is_gone_is_seen(place: tuple[str, ...]) -> None:
    evidence = module(DOCS / "_ext" / "evidence.py")
    with pytest.raises(LookupError, match=re.escape(place[0])):
        evidence.find(ROOT, evidence.Place(*place))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as MyST makes them."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text("utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links(page: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text("utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_a_table_of_contents() -> None:
    found = {DOCS / "index.md"}
    for page in PAGES:
        for block in blocks(page, "{toctree}"):
            entries = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith(":")]
            found |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    assert set(PAGES) | {DOCS / "reference" / "api.md"} == found  # the last is written at the build


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_cells_are_in_pages_that_are_run(page: Path) -> None:
    run = page.read_text("utf-8").startswith("---\nfile_format: mystnb\n")
    assert bool(blocks(page, "{code-cell} python")) == run
    assert not re.search(r"https?://(?!mpmath\.org)", "\n".join(blocks(page, "{code-cell} python")))


def test_code_in_pages_that_are_not_run() -> None:
    names = {"X": np.random.default_rng(0).normal(size=(9, 2)), "y": np.arange(9.0)}
    for block in blocks(DOCS / "gradient-checker.md", "python"):
        exec(block, names)
    assert mb.check_gradient(names["loss"], names["gradient"], {"w": np.array([0.3, -1.2]), "b": np.array(0.1)})


def test_every_public_name_has_a_place_in_the_reference() -> None:
    groups = module(DOCS / "_ext" / "reference.py").groups()
    assert sorted(name for names in groups.values() for name in names) == sorted(mb.__all__)


def test_the_figure_is_what_its_script_draws() -> None:
    script = module(DOCS / "make_figure.py")
    assert script.TARGET.read_text("utf-8") == script.draw()
