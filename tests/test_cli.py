"""The command line finds its commands, and `check` says with its exit status what it found."""

from __future__ import annotations

import json

import pytest

from matbackprop.cli import COMMANDS, main

RIGHT = """
import numpy as np

def fun(x):
    return np.sum(x**3)

def target():
    return fun, lambda x: 3 * x**2, np.array([1.0, -2.0, 0.5])

wrong = fun, lambda x: 2 * x**2, np.array([1.0, -2.0, 0.5])
blind = lambda x: float(np.random.default_rng().random()), lambda x: x, np.array([1.0])
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys) -> None:
    assert main([command, "--help"]) == 0
    assert "usage: matbackprop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "status", "verdict"),
    [("target", 0, "PASS"), ("wrong", 1, "FAIL"), ("blind", 2, None), ("absent", 2, None)],
)
def test_check_a_file(name, status, verdict, tmp_path, capsys) -> None:
    file = tmp_path / "mine.py"
    file.write_text(RIGHT)
    assert main(["check", f"{file}:{name}", "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    if verdict is not None:
        assert found["verdict"] == verdict


def test_check_ourselves(capsys) -> None:
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    for name in ("Linear(3, 2)", "linear-1-1", "relu-1-2-2-1", "tanh-2-2-2-1", "relu-bce-2-2-3-1"):
        assert f"PASS  {name}" in out
    assert "FAIL" not in out
