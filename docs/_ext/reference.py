"""The reference: a page for each of `matbackprop.__all__`, grouped by the module that defines it.

Writes ``reference/api.rst`` before autosummary reads it, so that a new public name needs no edit here.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import matbackprop as mb

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: The groups with a title of their own and their modules, in order. Other modules come after them, by their names.
GROUPS = {
    "Models": ("sequential", "chain", "files"),
    "Layers": ("layers", "dropout", "layer", "parameter"),
    "Losses": ("losses", "cross_entropy", "loss"),
    "Initial weights": ("initializers",),
    "Training": ("training", "optimizers", "optimizer", "schedules", "schedule", "clipping", "penalties"),
    "Worked examples": ("worked",),
    "Checking a gradient": ("gradcheck",),
    "Other libraries": ("interop",),
}


#: The modules whose names are not among the package's own.
MODULES = ("matbackprop.datasets", "matbackprop.files", "matbackprop.interop.sklearn")


def groups() -> dict[str, list[str]]:
    """Return the public names under the title of their group."""
    found: dict[str, list[str]] = {title: [] for title in GROUPS}
    for name in mb.__all__:
        value = getattr(mb, name)
        module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "matbackprop")
        room = (*module.split("."), "matbackprop")[1]
        title = next((title for title, rooms in GROUPS.items() if room in rooms), room.replace("_", " ").capitalize())
        found.setdefault(title, []).append(name)
    return {title: names for title, names in found.items() if names}


def write(app: Sphinx, config: object) -> None:
    """Write ``reference/api.rst`` where it has changed."""
    lines = [
        "Python",
        "======",
        "",
        "``mb.NAME`` after ``import matbackprop as mb``, but for the modules at the end.",
        "",
    ]
    for title, names in groups().items():
        lines += [title, "-" * len(title), "", ".. currentmodule:: matbackprop", "", ".. autosummary::"]
        lines += ["   :toctree: generated", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
    for module in MODULES:
        names = importlib.import_module(module).__all__
        lines += [module, "-" * len(module), "", f".. currentmodule:: {module}", "", ".. autosummary::"]
        lines += ["   :toctree: generated", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
    target, text = Path(app.srcdir) / "reference" / "api.rst", "\n".join(lines)
    if not target.exists() or target.read_text("utf-8") != text:
        target.write_text(text, "utf-8")


def escape_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let ``|z|`` in a docstring be the absolute value that it is: to reStructuredText it is a substitution."""
    for index, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        lines[index] = "".join(
            part if part.startswith("``") else re.sub(r"(?<!\\)\|(?=\S)([^|`]*[^|\s`])\|", r"\\|\1\\|", part)
            for part in parts
        )


def own_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Show what ``__init__`` takes: a layer's ``__new__``, which Sphinx would show, takes anything."""
    if what != "class" or not isinstance(obj, type) or obj.__new__ is object.__new__:
        return None
    if obj.__init__ is object.__init__:  # type: ignore[misc]
        return "()", None
    taken = inspect.signature(obj.__init__)  # type: ignore[misc]
    parameters = [p.replace(annotation=p.empty) for p in list(taken.parameters.values())[1:]]
    return str(inspect.Signature(parameters)), None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect them."""
    app.connect("config-inited", write)  # before the sources are looked for
    app.connect("autodoc-process-signature", own_signature)
    app.connect("autodoc-process-docstring", escape_bars, priority=900)  # after numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}
