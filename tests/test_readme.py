"""The README's Python runs as it stands, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.skipif(not README.exists(), reason="the tests stand alone, without the checkout")
@pytest.mark.usefixtures("torch")  # which it imports
def test_readme(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)  # where it keeps its checkpoint
    text = README.read_text("utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
    printed = re.search(r"prints `([^`]+)`", text)
    assert printed is not None
    assert capsys.readouterr().out.strip() == printed[1]
    report = re.search(r"```text\n(.*?)```", text, flags=re.DOTALL)
    assert report is not None
    assert re.sub(r", [\d.]+ m?s$", "", str(names["report"]), flags=re.MULTILINE) == report[1].strip()
    assert names["dx"].shape == names["x"].shape
    assert names["paths"].total == pytest.approx(names["example"]["∂L/∂W1"].value[0, 1], rel=1e-12)
    assert names["Scale"](3).scale.shape == (3,)
