"""``python -m matbackprop explain``: a notebook's network as a worked example, on the terminal or in a file."""

from __future__ import annotations

import argparse
import sys
from io import BytesIO
from pathlib import Path

from matbackprop.files.disk import replace_file
from matbackprop.notebooks import NETWORKS, load
from matbackprop.validation import as_tolerance
from matbackprop.worked.example import WorkedExample
from matbackprop.worked.record import explain

__all__ = ["add_arguments", "run"]

DEFAULT = "relu-bce-2-2-3-1"

FORMATS = ("text", "markdown", "latex", "html", "png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``explain``."""
    parser.add_argument(
        "--example", default=DEFAULT, metavar="NAME", help=f"which network, or its notebook's title (default {DEFAULT})"
    )
    parser.add_argument("--list", action="store_true", help="list the networks and the notebooks that they are from")
    parser.add_argument("--format", choices=FORMATS, help="default text, or what the name of the file says")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file, whole or not at all")
    parser.add_argument("--lr", type=float, metavar="RATE", help="add one update with this learning rate")


def run(args: argparse.Namespace) -> int:
    """Run ``explain`` and return the exit status: 0, or 2 if an argument does not fit or the file cannot be written."""
    try:
        if args.list:
            content: str | bytes = _listing()
        else:
            content = _content(args)
        _deliver(content, args.output)
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        sys.stderr.write(
            f"explain: {error.encoding} has no {error.object[error.start]!a}; set PYTHONUTF8=1, or -o FILE\n"
        )
        return 2
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"explain: {error}\n")
        return 2
    return 0


def _listing() -> str:
    width = max(map(len, NETWORKS))
    lines = [f"{name:<{width}}  {load(name).title}" for name in NETWORKS]
    return "\n".join([*lines, "", "Show one with: matbackprop explain --example NAME", ""])


def _content(args: argparse.Namespace) -> str | bytes:
    """Return what is to be written."""
    kind = args.format or _by_suffix(args.output)
    if kind == "png" and args.output is None and (sys.stdout is None or sys.stdout.isatty()):
        raise ValueError("a PNG is not for a terminal; name a file with -o FILE, or redirect the output")
    given = load(_by_title(args.example))
    rate = None if args.lr is None else as_tolerance(args.lr, "--lr")
    example = explain(given.model, given.x, given.y, given.loss, lr=rate)
    if kind == "text":
        # To a file, as wide as it needs to be; the terminal has its own way.
        return f"{example if args.output is None else example.to_text(100)}\n"
    writers = {"markdown": example.to_markdown, "latex": example.to_latex, "html": example.to_html}
    return _png(example) if kind == "png" else writers[kind]()


def _by_title(name: str) -> str:
    """Return the name of the network of the notebook whose title starts like that, if there is one, else the name.

    Raises
    ------
    ValueError
        If several networks are from notebooks whose titles start like that.
    """
    titles = {known: load(known).title for known in NETWORKS}
    found = [known for known, title in titles.items() if name and title.casefold().startswith(name.casefold())]
    if name in NETWORKS or not found:
        return name
    if len(found) > 1:
        raise ValueError(f"--example: {name!r} is the start of several networks' titles: {', '.join(found)}")
    return found[0]


def _by_suffix(output: str | None) -> str:
    """Return the format that a file's name asks for."""
    suffixes = {".md": "markdown", ".tex": "latex", ".html": "html", ".htm": "html", ".png": "png"}
    return suffixes.get(Path(output).suffix.lower(), "text") if output else "text"


def _png(example: WorkedExample) -> bytes:
    buffer = BytesIO()
    example.plot(values=True, deltas=True).figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _deliver(content: str | bytes, output: str | None) -> None:
    """Write to standard output, or to a file that is never seen half written."""
    data = content.encode() if isinstance(content, str) else content
    if output is None:
        if isinstance(content, str):
            sys.stdout.write(content)
        else:
            sys.stdout.buffer.write(data)
        return
    if not output:
        raise ValueError("--output: expected the name of a file, got nothing")
    path = Path(output)
    if path.exists() and not (path.is_file() or path.is_dir()):
        path.write_bytes(data)  # /dev/stdout and the like cannot be replaced
    else:
        replace_file(path, data)
