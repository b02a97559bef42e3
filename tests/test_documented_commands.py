"""Commands of README and docs are run: those that only look at what is there, and those that use a bundle."""

import io
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from gpnas import Architecture, load_space
from gpnas.bundle import Member, write_bundle
from gpnas.cli import main
from gpnas.run.pricing import priced
from gpnas.run.setup import Data, Setup
from gpnas_trainers import build
from tests.builders import description, folder_of_pairs
from tests.gpnas.searched import STEPS, searched
from tests.test_documentation import PAGES, ROOT, commands

USING = ("upscale", "convert", "evaluate", "doctor", "token")
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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What commands that use a bundle name: bundles, photographs, pairs; the second network is an RCAN."""
    monkeypatch.chdir(tmp_path)
    architectures = [
        Architecture("drn", {"features": 8, "blocks": 1, "stages": 1}),
        Architecture("rcan", {"features": 8, "groups": 1, "blocks": 1, "reduction": 4}),
        Architecture("drn", {"features": 4, "blocks": 1, "stages": 1}),
    ]
    members = [
        Member(each, build(each.family, 2, **each.axes).state_dict(), 1 / 3, {"psnr": 20.0}, f"c{number:04d}")
        for number, each in enumerate(architectures)
    ]
    for name in ("BUNDLE", "runs/drn/bundle", "runs/mine/bundle", "runs/final/bundle", "runs/first/bundle"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_bundle(Path(name), members, description())
    for name in ("pairs", "Set5"):
        folder_of_pairs(Path(name))
    shutil.copytree("pairs/LRx2", "photos")
    for name in ("photo.png", "photo.jpg"):
        Image.open("pairs/LRx2/0.png").save(name)
    return tmp_path


def test_commands_that_use_a_bundle_do_what_the_pages_say(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but those that need a run's pairs, a network of one's own or a token's name."""
    shown = {command for page in [*PAGES, *(ROOT / "docs").glob("*/*.md")] for command in commands(page)}
    left_out = ("--networks", "token revoke", "doctor runs/mine")
    using = sorted(
        each
        for each in shown
        if each.split()[1] in USING
        and not any(text in each for text in left_out)
        and ("evaluate" not in each or "--data" in each)
    )
    assert len(using) >= 15
    for command in using:
        arguments = shlex.split(command)[1:]
        if "evaluate" in command:
            arguments.append("--no-tiles")
        assert main(arguments) == 0, (command, capsys.readouterr().err)
        if "-o" in arguments:
            assert Path(arguments[arguments.index("-o") + 1]).exists(), command
    assert sorted(path.name for path in Path("sr").iterdir()) == [f"{number}.png" for number in range(5)]
