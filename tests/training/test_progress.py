"""What a person sees of a run."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest

import matbackprop as mb

X = np.linspace(-1, 1, 40).reshape(20, 2)
Y = X.sum(axis=1, keepdims=True)


def run(epochs: int, **options) -> mb.History:
    model = mb.Sequential(mb.Linear(2, 1), rng=0)
    return mb.fit(model, X, Y, mb.MSE(), mb.Adam(0.1), epochs=epochs, rng=0, **options)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_elsewhere(capsys):
    run(3, validation=0.2)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 4
    assert re.fullmatch(r"epoch 1/3  loss [\d.]+  val [\d.]+  \d+\.\d\d s", lines[0])
    assert lines[-1] == "fit: all 3 epochs done"


def test_a_long_run_prints_some_twenty_lines(capsys):
    run(1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 22
    assert lines[1].startswith("epoch   50/1000")
    assert lines[-2].startswith("epoch 1000/1000")


def test_silence(capsys):
    run(3, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(3, schedule=mb.StepLR(1, 0.5))
    shown = terminal.getvalue()
    assert "epoch 3/3 100%" in shown
    assert "3/3" in shown
    assert "lr 0.025" in shown
    assert "fit: all 3 epochs done" in shown


def test_lines_on_a_terminal_without_tqdm(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    run(2)
    assert terminal.getvalue().splitlines()[-1] == "fit: all 2 epochs done"


def test_no_stderr_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert run(2).epochs == 2
