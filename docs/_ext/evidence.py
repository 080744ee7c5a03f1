"""The rows that say which code computes an equation, and which tests hold it: how they are read, and looked up.

A row names the labels of equations, then code and tests::

    eq: linear-weight
    code: matbackprop/layers.py :: Linear.backward_steps :: transposed_times(delta, x
    test: tests/test_torch.py :: test_layer

The third part of ``code`` is optional: the line, or lines, that hold the equation contain it. The site's build and
`tests/test_docs.py` both use this, so it needs the standard library only.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["Place", "Row", "Source", "find", "parse"]


@dataclass
class Place:
    """Where something is said to be."""

    path: str
    name: str
    snippet: str = ""


@dataclass
class Row:
    """Equations with the code and the tests that hold them."""

    equations: list[str]
    code: list[Place] = field(default_factory=list)
    tests: list[Place] = field(default_factory=list)


@dataclass
class Source:
    """A definition in a file: its first line's number, its lines, and those (counted from 1) with the snippet."""

    first: int
    lines: list[str]
    marked: list[int]


def parse(text: str) -> list[Row]:
    """Return the rows.

    Raises
    ------
    ValueError
        If a line is none of ``eq:``, ``code:`` and ``test:``, or a row lacks one of them.
    """
    rows: list[Row] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        key, _, rest = line.partition(":")
        if key == "eq":
            rows.append(Row([label.strip() for label in rest.split(",")]))
            continue
        parts = [part.strip() for part in rest.split(" :: ")]
        if key not in ("code", "test") or not rows or not 2 <= len(parts) <= 3:
            raise ValueError(f"expected 'eq: LABELS', 'code: FILE :: NAME' or 'test: FILE :: NAME', got {line!r}")
        (rows[-1].code if key == "code" else rows[-1].tests).append(Place(*parts))
    for row in rows:
        if not (row.code and row.tests):
            raise ValueError(f"{', '.join(row.equations)}: name the code and a test")
    return rows


@cache
def _module(path: Path) -> tuple[ast.Module, list[str]]:
    text = path.read_text("utf-8")
    return ast.parse(text), text.splitlines()


def find(root: Path, place: Place) -> Source:
    """Return the definition that `place` names.

    Raises
    ------
    LookupError
        If there is no such file, name or snippet.
    """
    path = root / place.path
    if not path.is_file():
        raise LookupError(f"there is no {place.path}")
    node: ast.AST
    node, lines = _module(path)
    for part in place.name.split("."):
        found = [child for child in getattr(node, "body", []) if _defines(child, part)]
        if not found:
            raise LookupError(f"{place.path} has no {place.name}")
        node = found[-1]
    assert isinstance(node, ast.stmt)
    chosen = lines[node.lineno - 1 : node.end_lineno]
    marked = [number for number, line in enumerate(chosen, 1) if place.snippet and place.snippet in line]
    if place.snippet and not marked:
        raise LookupError(f"{place.path}: {place.name} has no {place.snippet!r}")
    return Source(node.lineno, chosen, marked)


def _defines(node: ast.AST, name: str) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name == name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
