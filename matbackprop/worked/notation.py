"""Formulas as trees: read once from a line of Unicode, then written as LaTeX, MathML or numbers on a blackboard.

The language is what the library's formulas use: names, numbers, functions, ⊙, ᵀ, ², ∂a/∂b, a / b, e^-x, brackets, and
quantities in braces, ``{x}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from matbackprop.validation import Array

__all__ = ["SIGNS", "Formula", "Frac", "Group", "Matrix", "Name", "Node", "Op", "Row", "Sup", "Symbol", "Term", "parse"]


@dataclass(frozen=True)
class Symbol:
    """The name of a quantity: a letter or word, the number of its layer, and for a derivative what is derived.

    Examples
    --------
    >>> from matbackprop.worked.notation import Symbol
    >>> str(Symbol("W", "1", over=Symbol("L")))
    '∂L/∂W1'
    """

    letter: str
    index: str = ""
    mark: str = ""  # "⁺" after the update
    over: Symbol | None = None

    def __str__(self) -> str:
        own = f"{self.letter}{self.index}{self.mark}"
        return own if self.over is None else f"∂{self.over}/∂{own}"


@dataclass(frozen=True)
class Term:
    """A quantity of a formula: its symbol, and its value as the formula has it, a matrix or a number.

    Attributes
    ----------
    symbol : Symbol
    value : numpy.ndarray or None
        None where there is none to substitute.
    """

    symbol: Symbol
    value: Array | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Name:
    """A number, a variable or a function."""

    text: str


@dataclass(frozen=True)
class Op:
    """A sign."""

    text: str


@dataclass(frozen=True)
class Matrix:
    """Numbers in place of a term."""

    value: Array = field(compare=False)


@dataclass(frozen=True)
class Row:
    """One thing after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Group:
    """Something in brackets."""

    bracket: str  # "(" or "["
    body: Row


@dataclass(frozen=True)
class Sup:
    """A base and what is written above it."""

    base: Node
    above: Node


@dataclass(frozen=True)
class Frac:
    """A fraction."""

    top: Node
    bottom: Node


Node = Term | Name | Op | Matrix | Row | Group | Sup | Frac

TOKEN = re.compile(r"\{[^{}]*\}|\d+(?:\.\d+)?|[A-Za-z][A-Za-z0-9_.]*|\S")
SUPERSCRIPTS: dict[str, Node] = {"ᵀ": Op("ᵀ"), "²": Name("2"), "³": Name("3")}
SIGNS = {"Σ", "∑", "∏"}  # letters to Python
CLOSING = {"(": ")", "[": "]"}


def parse(template: str, terms: Mapping[str, Term], who: str = "formula") -> Row:
    """Return the tree of a line of Unicode.

    Parameters
    ----------
    template : str
    terms : mapping of str to Term
        What the names in braces stand for.
    who : str
        What an error message calls the formula.

    Raises
    ------
    ValueError
        If a name in braces is none of `terms`, or a bracket has no partner.

    Examples
    --------
    >>> from matbackprop.worked.notation import parse
    >>> parse("e^-2", {})
    Row(parts=(Sup(base=Name(text='e'), above=Row(parts=(Op(text='-'), Name(text='2')))),))
    """
    return _Parser(template, terms, who).all()


class _Parser:
    def __init__(self, template: str, terms: Mapping[str, Term], who: str) -> None:
        self.template, self.terms, self.who = template, terms, who
        self.tokens = TOKEN.findall(template)
        self.place = 0

    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        self.place += 1
        return str(self.tokens[self.place - 1])

    def fail(self, why: str) -> ValueError:
        return ValueError(f"{self.who}: {self.template!r}: {why}")

    def all(self) -> Row:
        row = self.row("")
        if self.next():
            raise self.fail(f"{self.next()!r} closes nothing")
        return row

    def row(self, closing: str) -> Row:
        """Read up to a closing bracket."""
        parts: list[Node] = []
        while self.next() and self.next() not in CLOSING.values():
            part = self.atom()
            if self.next() == "/":
                self.take()
                if not self.next():
                    raise self.fail("nothing follows the /")
                part = Frac(_bare(part), _bare(self.atom()))
            parts.append(part)
        if closing and self.next() != closing:
            raise self.fail(f"a {closing!r} is missing")
        return Row(tuple(parts))

    def atom(self) -> Node:
        """Read one thing with what is written above it."""
        token = self.take()
        node: Node
        if token in CLOSING:
            node = Group(token, self.row(CLOSING[token]))
            self.take()
        elif token.startswith("{") and token.endswith("}"):
            if token[1:-1] not in self.terms:
                raise self.fail(f"{token} is none of {', '.join('{' + name + '}' for name in self.terms)}")
            node = self.terms[token[1:-1]]
        elif token in ("{", "}"):
            raise self.fail(f"a {token!r} has no partner")
        elif token == "∂" and self.next():
            return Row((Op("∂"), self.atom()))
        elif token[0].isalnum() and token not in SIGNS:
            node = Name(token)
        else:
            return Op(token)
        while self.next() in SUPERSCRIPTS or self.next() == "^":
            sign = self.take()
            if sign != "^":
                node = Sup(node, SUPERSCRIPTS[sign])
                continue
            parts: list[Node] = []
            while self.next() in ("-", "+"):
                parts.append(Op(self.take()))
            if not self.next():
                raise self.fail("nothing follows the ^")
            node = Sup(node, Row((*parts, self.atom())))
        return node


def _bare(node: Node) -> Node:
    """Drop round brackets, which a fraction's bar makes needless."""
    return node.body if isinstance(node, Group) and node.bracket == "(" else node


class Formula:
    """One line of algebra with its quantities.

    Parameters
    ----------
    template : str
        In Unicode, with the quantities' names in braces.
    terms : mapping of str to Term
    who : str
        What an error message calls it.

    Raises
    ------
    ValueError
        If the template cannot be read.
    """

    def __init__(self, template: str, terms: Mapping[str, Term], who: str = "formula") -> None:
        self.template = template
        self.tree = parse(template, terms, who)
        self.terms = terms

    def __str__(self) -> str:
        def name(match: re.Match[str]) -> str:
            text = str(self.terms[match[1]].symbol)
            return f"({text}){match[2]}" if match[2] and "/" in text else text + match[2]

        return re.sub(r"\{([^{}]*)\}([ᵀ²³^]?)", name, self.template)

    @cached_property
    def numbers(self) -> Row | None:
        """The tree with numbers in place of its quantities; None if one has no value, or there is none."""
        found = [0]
        result = _substitute(self.tree, found)
        return result if found[0] and isinstance(result, Row) else None

    @property
    def has_sum(self) -> bool:
        """Whether it is a sum or a difference, and needs brackets in a product."""
        return any(isinstance(part, Op) and part.text in "+-" for part in self.tree.parts)


def _substitute(node: Node, found: list[int]) -> Node | None:
    """Return the node with numbers, None where one is missing; count the matrices in ``found[0]``."""
    match node:
        case Term(value=value):
            found[0] += 1
            bare = value is None or value.ndim or np.iscomplexobj(value) or not value < 0
            return None if value is None else Matrix(value) if bare else Group("(", Row((Matrix(value),)))
        case Sup(base=Term(value=value), above=Op("ᵀ")):
            found[0] += 1
            return None if value is None else Matrix(value.T)
        case Row(parts=(Op("∂"), *_)):
            return None  # no number stands for both ends of a derivative
        case Row(parts=parts):
            new: list[Node] = []
            for part in parts:
                number = _substitute(part, found)
                if number is None:
                    return None
                new += [Op("·"), number] if new and _bare_number(new[-1]) and _bare_number(number) else [number]
            return Row(tuple(new))
        case Group(bracket=bracket, body=body):
            inner = _substitute(body, found)
            return Group(bracket, inner) if isinstance(inner, Row) else None
        case Sup(base=base, above=above) | Frac(top=base, bottom=above):
            first, second = _substitute(base, found), _substitute(above, found)
            return None if first is None or second is None else type(node)(first, second)
    return node


def _bare_number(node: Node) -> bool:
    """Return whether two of these beside each other would read as one number."""
    return (isinstance(node, Matrix) and node.value.ndim == 0) or (isinstance(node, Name) and node.text[0].isdigit())
