"""``matbackprop explain``: every format, whole files or none, and an exit status."""

from __future__ import annotations

import io
import sys

import pytest

from matbackprop.cli import main
from matbackprop.notebooks import NETWORKS


def test_list(capsys):
    assert main(["explain", "--list"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[: len(NETWORKS)]] == list(NETWORKS)
    assert out.endswith("matbackprop explain --example NAME\n")
    assert "A2 - Neural Nets: Backprop" in out


def test_default(capsys):
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert "Linear(2, 3)" in out
    assert "Δ3 = ∂L/∂Z3 = ∂L/∂A3 ⊙ ∂A3/∂Z3 = 1/n (Ŷ - Y)" in out


@pytest.mark.parametrize("start", ["A2", "a2 - neural nets: backprop"])
def test_by_the_title_of_its_notebook(start, capsys):
    assert main(["explain", "--example", "relu-bce-2-2-3-1"]) == 0
    expected = capsys.readouterr().out
    assert main(["explain", "--example", start]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("kind", "start"), [("text", "Sequential("), ("markdown", "# "), ("latex", "\\doc"), ("html", "<!DOCTYPE")]
)
def test_formats(kind, start, name, capsys):
    assert main(["explain", "--example", name, "--format", kind, "--lr", "0.5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(start)
    assert out.endswith("\n")


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.txt", b"Sequential("), ("a.md", b"# "), ("a.TEX", b"\\doc"), ("a.html", b"<!DOC"), ("a.png", b"\x89PNG")],
)
def test_files_by_their_names(name, start, tmp_path, capsys):
    if name.endswith("png"):
        pytest.importorskip("matplotlib")
    file = tmp_path / name
    file.write_bytes(b"old")
    assert main(["explain", "-o", str(file)]) == 0
    assert file.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [file]  # nothing is left over
    assert capsys.readouterr().out == ""


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real.md").write_text("old")
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    assert main(["explain", "-o", str(tmp_path / "link.md")]) == 0
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "real.md").read_text("utf-8").startswith("# ")


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, capsys):
    file = tmp_path / "a.md"
    file.write_text("old")

    def fail(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    assert main(["explain", "-o", str(file)]) == 2
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    assert "no space left on device; nothing was written" in capsys.readouterr().err


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def test_a_png_is_not_for_a_terminal(monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO()))
    assert main(["explain", "--format", "png"]) == 2
    assert sys.stdout.buffer.getvalue() == b""
    assert "a PNG is not for a terminal; name a file with -o FILE" in capsys.readouterr().err


def test_a_png_down_a_pipe(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    assert main(["explain", "--format", "png"]) == 0
    assert sys.stdout.buffer.getvalue().startswith(b"\x89PNG")


def test_an_encoding_without_the_letters(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["explain"]) == 2
    assert "explain: ascii has no '\\" in capsys.readouterr().err
    assert sys.stdout.buffer.getvalue() == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--example", "nope"], "expected one of"),
        (["--example", ""], "expected one of"),
        (["--example", "Deep dive"], "start of several networks' titles: linear-1-1, tanh-2-2-2-1\n"),
        (["--format", "pdf"], "invalid choice"),
        (["--lr", "-1"], "--lr: expected a positive number"),
        (["--lr", "nan"], "--lr: expected a positive number"),
        (["--lr", "fast"], "invalid float value"),
        (["-o", "/nowhere/to/be/found.md"], "No such file or directory: '/nowhere/to/be"),
        (["-o", "."], "Expected a file, got a directory"),
        (["-o", ""], "--output: expected the name of a file"),
        (["surplus"], "unrecognized arguments"),
    ],
)
def test_bad_input(arguments, message, capsys):
    assert main(["explain", *arguments]) == 2
    assert message in capsys.readouterr().err
