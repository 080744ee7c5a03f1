"""The command line: ``matbackprop COMMAND``, or ``python -m matbackprop COMMAND``.

A command is a module with ``add_arguments(parser)`` and ``run(args) -> int``, the exit code; it is imported only when
it is asked for. A new one is one line in `COMMANDS`.
"""

# ruff: noqa: T201 (a command prints)

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import matbackprop

__all__ = ["COMMANDS", "main"]

#: The commands: the module of each, and what it does.
COMMANDS = {
    "demo": ("matbackprop.demo", "train a small network on real data and check its gradient"),
    "explain": ("matbackprop.worked.command", "show a network's algebra: symbols, numbers, results"),
    "check": ("matbackprop.gradcheck.command", "check a gradient: yours, or without a target the library's own"),
}

DEFAULT = "demo"

#: Exit codes, as shells have them: 128 and the number of the signal.
INTERRUPTED, CLOSED_PIPE = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process. Without a command it is the demo.

    Returns
    -------
    int
        0, what the command says, 2 for wrong arguments, 130 after Ctrl-C, 141 where the reader of the output has
        gone, or 1 where it cannot be written for another reason.

    Examples
    --------
    >>> from matbackprop.cli import main
    >>> main(["--version"])
    matbackprop 0.1.0
    0
    """
    if sys.stdout is None:  # closed by the caller
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nmatbackprop: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return CLOSED_PIPE
    except OSError as error:
        _drop_output()
        print(f"matbackprop: {error}", file=sys.stderr)
        return 1
    return status


def _run(argv: list[str]) -> int:
    """Parse the arguments and run the command."""
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = [DEFAULT, *argv]
    try:
        args = _parser(argv[0]).parse_args(argv)
    except SystemExit as stop:  # argparse, after --help, --version or an error
        return stop.code if isinstance(stop.code, int) else 0
    status: int = import_module(COMMANDS[args.command][0]).run(args)
    return status


def _parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser of all commands; only the chosen one is imported for its options."""
    parser = argparse.ArgumentParser(
        prog="matbackprop",
        description="Backpropagation as plain, fast, checked matrix algebra on NumPy.",
        epilog=f"Without a command: {DEFAULT}. 'matbackprop COMMAND --help' shows a command's options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"matbackprop {matbackprop.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
        )
        if name == chosen:
            import_module(module).add_arguments(command)
    return parser


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that Python does not fail on it again when it ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
