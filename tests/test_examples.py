"""The examples in docs/examples: does each run, and come to what it says?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"

#: What each needs, and a pattern of what it prints last.
TABLE = {
    "digits": (["sklearn"], r"test accuracy: 0\.9\d\d\nloaded model predicts the same: True"),
    "regression": (["sklearn"], r"network: root mean square error +5\d\.\d"),
    "lbfgs": ([], r"trust-ncg: .* gradient \de-(09|1\d).*\n.*\nleast squares: mean square error 0\.000"),
    "own_layer_and_loss": ([], r"PASS  SlopedSiLU[\s\S]*PASS  Sequential[\s\S]*LogCosh\(\): mean distance .* 0\.0"),
    "larger_than_memory": ([], r"memory map: loss 0\.\d+.*\nstream: +loss \d\.\d+"),
}


def test_every_example_is_in_the_table():
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not here")
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*TABLE, "fashion_mnist"}


@pytest.mark.parametrize("name", TABLE)
def test_an_example_runs(name, tmp_path):
    path, (needed, pattern) = EXAMPLES / f"{name}.py", TABLE[name]
    if not path.exists():
        pytest.skip("the examples are not here")
    for package in needed:
        pytest.importorskip(package)
    arguments = ["16"] if name == "larger_than_memory" else []
    done = subprocess.run([sys.executable, path, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(pattern, done.stdout), done.stdout
