"""``python -m matbackprop check``: check what a module or a file names, or the library's own gradients."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from matbackprop.gradcheck.api import check_gradient
from matbackprop.gradcheck.points import check_layer, check_model
from matbackprop.gradcheck.report import GradientReport, Verdict
from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.notebooks import NETWORKS
from matbackprop.sequential import Sequential
from matbackprop.validation import describe

__all__ = ["add_arguments", "run"]

DESCRIPTION = "Check a gradient. Exit status: 0 pass, 1 fail or precision loss, 2 inconclusive or unusable."

STATUS = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.PRECISION_LOSS: 1, Verdict.INCONCLUSIVE: 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``check``."""
    parser.add_argument(
        "target",
        nargs="?",
        help="package.module:name or path/to/file.py:name, of (fun, grad, x0), (model, loss, x, y) or (layer, x), or "
        "a callable that returns one. Without it, the library's own layers and the notebooks' networks",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the random directions (default 0)")
    parser.add_argument("--tolerance", type=float, help="the relative error to let pass, in place of the derived one")


def run(args: argparse.Namespace) -> int:
    """Run ``check`` and return the exit status."""
    try:
        reports = [*_own(args.seed)] if args.target is None else [_check(_load(args.target), args)]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's module raises, the status says unusable
        message = f"{type(error).__name__}: {error}"
        if args.json:
            sys.stdout.write(json.dumps({"error": message}) + "\n")
        else:
            sys.stderr.write(f"check: {message}\n")
        return 2
    found = [report.to_dict() for report in reports]
    text = json.dumps(found[0] if args.target else found, indent=2) if args.json else "\n\n".join(map(str, reports))
    sys.stdout.write(text + "\n")
    found_statuses = {STATUS[report.verdict] for report in reports}
    return next(status for status in (1, 2, 0) if status in found_statuses)  # a failure outweighs what is unclear


def _load(target: str) -> Any:
    """Return what ``module:name`` or ``file.py:name`` names."""
    place, _, name = (target, "", "") if target.endswith(".py") else target.rpartition(":")
    wanted = f"expected package.module:name or file.py:name, got {target!r}"
    if not place or not (name or place.endswith(".py")):
        raise ValueError(wanted)
    module: Any = _module(place)
    if not name:
        raise ValueError(f"{wanted}; {_cases(module, place)}")
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise AttributeError(f"{place} has no {name}; {_cases(module, place)}")
        found = getattr(found, part)
    return found


def _module(place: str) -> ModuleType:
    """Return the module of that name, or made of that file."""
    if not (place.endswith(".py") or "/" in place or "\\" in place):
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {place}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _cases(module: ModuleType, place: str) -> str:
    """Return a sentence on what can be checked in a module."""
    names = [name for name, value in vars(module).items() if name[0] != "_" and _checker(value) is not None]
    if names:
        return f"the cases in it: {', '.join(f'{place}:{name}' for name in names)}"
    return "write a line such as case = (fun, grad, x0) into it, and name that"


def _checker(case: Any) -> Callable[..., GradientReport] | None:
    """Return what checks it, if it is a tuple or list that can be checked."""
    if isinstance(case, (tuple, list)):
        if len(case) == 4 and isinstance(case[0], Sequential):
            return check_model
        if len(case) == 2 and isinstance(case[0], Layer):
            return check_layer
        if len(case) in (2, 3) and callable(case[0]):
            return check_gradient
    return None


def _check(target: Any, args: argparse.Namespace) -> GradientReport:
    """Check what a target is."""
    if callable(target) and not isinstance(target, (tuple, list)):
        try:
            inspect.signature(target).bind()
        except TypeError:
            raise TypeError(
                f"{describe(target)} takes arguments; name a tuple such as case = (fun, grad, x0), or a function "
                "without arguments that returns one"
            ) from None
        except ValueError:  # no signature to be had
            pass
        target = target()
    checker = _checker(target)
    if checker is None:
        raise TypeError(
            "expected (fun, grad, x0), (model, loss, x, y) or (layer, x), or a callable that returns one, "
            f"got {describe(target)}"
        )
    return checker(*target, rng=args.seed, tolerance=args.tolerance)


def _own(seed: int) -> Iterator[GradientReport]:
    """Check the library's layers, and the networks of the notebooks that it finishes."""
    rng = np.random.default_rng(seed)
    for layer in (Linear(3, 2, rng=rng), Tanh(), ReLU(), Sigmoid()):
        yield check_layer(layer, rng.standard_normal((4, 3)), rng=rng)
    for name, make in NETWORKS.items():
        example = make()
        report = check_model(example.model, example.loss, example.x, example.y, rng=rng)
        report.name = f'{name} of "{example.title}", {report.name}'
        yield report
