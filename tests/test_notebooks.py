"""The notebooks: each runs from its first cell to its last, and git has none of its output."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ipykernel.kernelspec import install
from nbclient import NotebookClient

import gpnas

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
ORDER = ("published-networks", "own-loop", "look-at-a-run")
"""The last looks at what the one before has made."""


def test_every_notebook_is_run_here() -> None:
    assert sorted(each.stem for each in FOLDER.glob("*.ipynb")) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_outputs_are_cleared(name: str) -> None:
    for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_they_run_one_after_another(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPNAS_CACHE", str(cache))
    install(prefix=str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter" / "share" / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    outputs: dict[str, list[Any]] = {}
    for name in ORDER:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()
        outputs[name] = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(each.get("text", "") for each in outputs["published-networks"])
    chosen = [float(each) for each in re.findall(r"^([\d.]+) dB \[", printed, re.MULTILINE)]
    assert len(chosen) == 3
    assert chosen == sorted(chosen), "a larger choice was counted to be worse than the best member"
    ((measured, counted),) = re.findall(r"^([\d.]+) dB, as was counted: ([\d.]+) dB$", printed, re.MULTILINE)
    assert float(counted) == chosen[-1]
    assert float(measured) == pytest.approx(float(counted), abs=0.01)  # dB
    assert float(measured) >= chosen[0]
    drawn = [
        each for each in outputs["look-at-a-run"] if "vegaEmbed" in each.get("data", {}).get("text/html", "")
    ]
    assert len(drawn) == 3
    table = gpnas.open_run(tmp_path / "runs" / "digits").table()
    assert len(table) == 10
    assert table["value"].between(10, 100).all()
