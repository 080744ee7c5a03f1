"""The directive ``held``: under a section's equations, the lines of code and the tests that hold them.

What it names is looked up at every build: a name that is gone is a warning, and warnings are errors. The code is shown
as it stands, folded, with the lines marked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from evidence import Place, Row, find, parse
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


class Held(SphinxDirective):
    """``held``: rows as `evidence.parse` reads them."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a box with a line a row, and the code below it, folded."""
        try:
            rows = parse("\n".join(self.content))
            box = nodes.container(classes=["held"])
            box += [self._row(row) for row in rows]
            places = [place for row in rows for place in row.code]
            for name in dict.fromkeys((place.path, place.name) for place in places):
                box += self._listing([place for place in places if (place.path, place.name) == name])
        except (LookupError, ValueError) as error:
            raise self.error(str(error)) from None
        for place in places:
            self.env.note_dependency(str(ROOT / place.path))
        return [box]

    def _row(self, row: Row) -> nodes.paragraph:
        for place in row.tests:
            find(ROOT, place)
        labels = ", ".join(f"{{eq}}`{label}`" for label in row.equations)
        code = " and ".join(f"`{place.path}`, {self._lines(place)}" for place in row.code)
        tests = ", ".join(f"`{place.path}::{place.name}`" for place in row.tests)
        paragraph = nodes.paragraph()
        inline, messages = self.parse_inline(f"{labels} is {code}. Held by {tests}.")
        paragraph += [*inline, *messages]
        return paragraph

    @staticmethod
    def _lines(place: Place) -> str:
        source = find(ROOT, place)
        marked = source.marked or [1, len(source.lines)]
        first, last = (source.first + marked[index] - 1 for index in (0, -1))
        return f"line {first}" if first == last else f"lines {first} to {last}"

    @staticmethod
    def _listing(places: list[Place]) -> list[nodes.Node]:
        source = find(ROOT, places[0])
        marked = sorted({number for place in places for number in find(ROOT, place).marked})
        indent = min(len(line) - len(line.lstrip()) for line in source.lines if line)
        text = "\n".join(line[indent:] for line in source.lines)
        options: dict[str, Any] = {"hl_lines": marked, "linenostart": source.first}
        listing = nodes.literal_block(text, text, language="python", linenos=True, highlight_args=options)
        summary = f"<details><summary><code>{places[0].name}</code></summary>"
        return [nodes.raw("", summary, format="html"), listing, nodes.raw("", "</details>", format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("held", Held)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
