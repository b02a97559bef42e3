"""`gpnas data`: what it prints, what it writes, and that a search takes it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from gpnas.cli import main
from gpnas.dispatch.request import Request
from gpnas.dispatch.search import plan
from gpnas_trainers.pairs import open_pairs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight parts of one photograph with their means of cells; pair 5 is shifted, 6 torn, 7 is 1 again."""
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    for side in ("HR", "LRx2"):
        (tmp_path / "photos" / side).mkdir(parents=True)
    for number in range(8):
        top, left = divmod(1 if number == 7 else number, 4)
        hr = astronaut()[200 * top : 200 * top + 120, 120 * left : 120 * left + 120]
        lr = np.rint(hr.reshape(60, 2, 60, 2, 3).mean(axis=(1, 3))).astype(np.uint8)
        if number == 5:
            lr = np.roll(lr, 4, axis=0)
        Image.fromarray(hr).save(tmp_path / "photos" / "HR" / f"{number}.png")
        Image.fromarray(lr).save(tmp_path / "photos" / "LRx2" / f"{number}.png")
    torn = tmp_path / "photos" / "LRx2" / "6.png"
    torn.write_bytes(torn.read_bytes()[:500])
    return tmp_path / "photos"


def test_check_says_what_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(folder), "--scale", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["pairs"], document["usable"], document["problem"]) == (8, 5, None)
    assert document["split"] == {"train": 4, "validation": 1}
    rules = {row["file"]: row["rule"] for row in document["excluded"]}
    assert rules == {"LRx2/5.png": "ncc", "LRx2/6.png": "readable", "HR/7.png": "duplicate"}
    assert document["ncc"]["kept_at"] == {"0.9": 5, "0.95": 5, "0.98": 5, "0.99": 5, "0.995": 5}
    assert document["shift"]["largest"] < 0.1
    assert {tuple(image["lr"]) for image in document["images"]} == {(60, 60)}
    assert main(["data", "check", str(folder), "--scale", "2"]) == 0
    printed = capsys.readouterr().out
    for row in document["excluded"]:
        assert printed.count(row["line"]) == 1
    assert "usable: 5 pairs, 4 to train and 1 to validate" in printed
    assert not (folder.parent / "cache").exists()


def test_check_of_nothing_usable_fails_with_its_reasons(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "HR").iterdir():
        path.write_bytes(b"")
    assert main(["data", "check", str(folder), "--scale", "2", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["usable"], len(document["excluded"])) == (0, 8)
    assert "8 files were excluded" in document["problem"]
    assert main(["data", "check", str(folder), "--scale", "2"]) == 1
    assert "nothing can be prepared" in capsys.readouterr().out
    assert main(["data", "prepare", str(folder), "--scale", "2"]) == 1
    assert "8 files were excluded" in capsys.readouterr().err
    assert main(["data", "check", str(folder), "--scale", "3"]) == 1
    assert "must hold HR and LRx3" in capsys.readouterr().err


def test_prepared_sets_are_what_a_search_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the cache a search of the folder finds it; elsewhere it is named; both are the same set."""
    assert main(["data", "prepare", str(folder), "--scale", "2", "--json"]) == 0
    cached = json.loads(capsys.readouterr().out)
    assert len(cached["excluded"]) == 3
    sides = {side: open_pairs(cached["prepared"], side, verify=True) for side in ("train", "validation")}
    assert cached["split"] == {side: len(pairs) for side, pairs in sides.items()}
    assert cached["fingerprint"] == {side: pairs.fingerprint for side, pairs in sides.items()}
    assert cached["bytes"] == sum(path.stat().st_size for path in Path(cached["prepared"]).glob("*.bin"))
    lines: list[str] = []
    found = plan(Request("drn", folder.parent / "run", folder), lines.append)
    assert str(found.pairs.folder) == cached["prepared"]
    assert lines == [row["line"] for row in cached["excluded"]]
    sets = folder.parent / "sets"
    assert main(["data", "prepare", str(folder), "--scale", "2", "-o", str(sets), "--json"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert Path(named["prepared"]).parent == sets
    assert named["fingerprint"] == cached["fingerprint"]
    shutil.rmtree(folder)
    for given in (sets, Path(named["prepared"])):
        again = plan(Request("drn", folder.parent / "run", given), print)
        assert str(again.pairs.folder) == named["prepared"]
    assert main(["data", "prepare", str(sets), "--scale", "2"]) == 1


def test_thresholds_and_validation_are_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "prepare", str(folder), "--scale", "2", "--ncc", "0", "--validation", "3", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["split"] == {"train": 3, "validation": 3}
    assert {row["rule"] for row in document["excluded"]} == {"readable", "duplicate"}
    assert main([*command, "--max-shift", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["rule"] for row in document["excluded"]} == {"readable", "duplicate", "shift"}


def test_hr_alone_is_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "LRx2")
    command = ["data", "prepare", str(folder), "--scale", "3", "--synthetic", "--json"]
    assert main([*command, "--noise-sigma", "0", "0", "--kernel-sigma", "0", "0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in document["excluded"]] == ["duplicate"]
    pairs = open_pairs(document["prepared"], "train")
    lr, hr = pairs.image(0)
    np.testing.assert_array_equal(lr, np.rint(hr.reshape(3, 40, 3, 40, 3).mean(axis=(2, 4))))
    assert main(["data", "check", str(folder), "--scale", "3", "--synthetic"]) == 0
    assert "usable: 7 pairs" in capsys.readouterr().out
    assert (
        main(["data", "prepare", str(folder), "--scale", "3", "--synthetic", "--noise-sigma", "2", "1"]) == 1
    )
    assert "`0 <= low <= high <= 128` must hold for `noise_sigma`" in capsys.readouterr().err


def test_names_of_any_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pairs whose names are no text are pairs; what says so is one line of text."""
    for side in ("HR", "LRx2"):
        raw = os.fsencode(folder / side)
        os.rename(raw + b"/0.png", raw + b"/\xff[red]\x1b[31m\n.png")
    odd = Path(os.fsdecode(os.fsencode(folder) + b"\xfe\xff" + b"x" * 200))
    folder.rename(odd)
    assert main(["data", "prepare", str(odd), "--scale", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = (
        open_pairs(document["prepared"], "train").names + open_pairs(document["prepared"], "validation").names
    )
    assert r"\xff[red]\x1b[31m\n" in names
    assert main(["data", "check", str(odd), "--scale", "2"]) == 0
    assert main(["data", "check", str(odd), "--scale", "3"]) == 1
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err


def test_printed_names_cannot_be_markup(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (60, 60)).save(folder / "HR" / "[bold]odd.png")
    assert main(["data", "check", str(folder), "--scale", "2"]) == 0
    assert "HR/[bold]odd.png: excluded, an HR image must have" in capsys.readouterr().out
