"""Commands of README and docs that only look at what is there are run."""

import io
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from gpnas import load_space
from gpnas.cli import main
from gpnas.run.pricing import priced
from gpnas.run.setup import Data, Setup
from tests.builders import folder_of_pairs
from tests.gpnas.searched import STEPS, searched
from tests.test_documentation import PAGES, ROOT, commands

READING = ("space", "status", "explain", "report", "data")


def test_commands_that_read_do_what_the_pages_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder has what they name: runs, pairs, photos, space files. The terminal knows ASCII alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    space = priced(load_space("drn.yaml"), 2)
    setup = Setup(2, {"steps": STEPS}, Data("a", "b", "photographs", None), 1).to_json()
    run = tmp_path / "runs/drn"
    searched(run, space=space, value=lambda each: float(each.axes["features"]) / 10, setup=setup)
    for name in ("mine", "first", "digits"):
        shutil.copytree(run, run.with_name(name))
        shutil.copy(ROOT / "search_spaces/drn.yaml", tmp_path / f"{name}.yaml")
    folder_of_pairs(tmp_path / "pairs")
    shutil.copytree(tmp_path / "pairs/HR", tmp_path / "photos")
    shown = {command for page in [*PAGES, *(ROOT / "docs").glob("*/*.md")] for command in commands(page)}
    reading = sorted(each for each in shown if each.split()[1] in READING and "--watch" not in each)
    assert len(reading) >= 10
    for command in reading:
        written = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
            assert main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)
            sys.stdout.flush()
            assert written.getvalue().isascii()
            assert written.getvalue().strip() or "report" in command
