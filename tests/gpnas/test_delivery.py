"""What a run delivers, and what it does with networks and files that cannot be used; without Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpnas.bundle import read_bundle
from gpnas.ensemble import Levels, load_networks
from gpnas.errors import TrialError
from gpnas.journal import Journal
from gpnas.results.delivery import Delivery, deliver
from gpnas.results.exporting import export
from gpnas.run.products import FILE, products_of
from gpnas.run.residuals import ERRORS_FILE, write_errors
from gpnas.run.setup import Data, OwnSetup
from gpnas.run.storage import Folder
from gpnas_trainers import build
from gpnas_trainers.infer import upscale
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import PairSet, open_pairs, prepare_photographs
from tests.builders import TRAINED as SIZES
from tests.builders import run_of_networks
from tests.gpnas.searched import searched


@pytest.fixture(scope="module")
def pairs(home: Path) -> PairSet:
    return open_pairs(prepare_photographs(home / "cache", 2), "validation").head(2)


@pytest.fixture(scope="module")
def made(home: Path, pairs: PairSet) -> Path:
    """A run of three networks, almost the bicubic image each, not yet delivered."""
    return run_of_networks(home / "run", pairs, Data("0", pairs.fingerprint, "mine", None))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def delivered(run: Path, pairs: PairSet, most: int = 3, **options: Any) -> Delivery:
    with Journal.read(run) as journal:
        header = journal.header
    with Journal.create_or_open(run, header) as journal:
        return deliver(run, journal, pairs, most, time.monotonic(), **options)


def test_what_is_fused_is_told_and_stands_in_the_bundle(
    run: Path, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = delivered(run, pairs).to_json()["fusion"]
    assert (few["kind"], few["tried"], few["images"]) == ("convex", [], 2)
    assert "2 validation images are too few to learn more" in few["why"]
    for module in ("delivery", "fusing"):
        monkeypatch.setattr(f"gpnas.results.{module}.FEWEST", 2)
    monkeypatch.setattr("gpnas.results.fusing.STEPS", 3)
    delivery = delivered(run, pairs)
    document, bundle = delivery.to_json()["fusion"], read_bundle(run)
    if len(bundle.members) == 1:
        assert document["kind"] == "convex"
        return
    assert [each["kind"] for each in document["tried"]] == ["table", "gate"]
    assert (bundle.fusion is None) == (document["kind"] == "convex")
    again = export(run, 3, run.parent / "again.zip", picture=False)
    assert again["fusion"] == document
    assert (read_bundle(run.parent / "again.zip").fusion is None) == (bundle.fusion is None)


def test_the_numbers_are_those_of_the_networks_in_the_bundle(run: Path, pairs: PairSet) -> None:
    """The networks are run anew, with self-ensemble; no single network is better, whatever was chosen."""
    delivery = delivered(run, pairs)
    bundle = read_bundle(run)
    networks, weights = load_networks(bundle), [member.weight for member in bundle.members]

    def scored(used: list[torch.nn.Module], shares: list[float], levels: Levels) -> float:
        values = []
        for index in range(len(pairs)):
            lr, hr = pairs.tensors(index)
            values.append(psnr(upscale(used, lr, 2, levels, weights=shares), hr))
        return sum(values) / len(values)

    document = delivery.to_json()
    plain = Levels(0, self_ensemble=False)
    assert document["psnr"]["average"] == pytest.approx(scored(networks, weights, plain), abs=1e-4)
    assert document["psnr"]["ensemble"] == pytest.approx(scored(networks, weights, Levels(0)), abs=1e-4)
    for number in range(3):
        state = load_file(run / f"candidates/c{number:04d}/network.safetensors")
        network = build("drn", 2, features=SIZES[number][0], blocks=SIZES[number][1], stages=1)
        network.load_state_dict(state)
        assert document["psnr"]["ensemble"] >= scored([network], [1.0], Levels(0)) - 1e-4
    for each in document["selection"]["compared"]:
        assert each["accepted"] == (
            each["eligible"]
            and each["gain"] > each["error"]
            and set(each["networks"]) <= set(document["shares"]) | set(each["networks"])
        )
    added = {name for each in document["selection"]["compared"] for name in each["networks"]}
    assert bool(added - set(document["shares"])) == bool(document["selection"]["left_out"])


@pytest.mark.parametrize("damage", ["not finite", "torn", "missing", "a pipe", "of another size"])
def test_a_network_that_cannot_be_used_is_named_and_left_out(run: Path, pairs: PairSet, damage: str) -> None:
    before = delivered(Path(shutil.copytree(run, run.parent / "whole")), pairs)
    best = before.portfolio.members[0].id
    folder = run / "candidates" / best
    file = folder / "network.safetensors"
    state = load_file(file)
    match damage:
        case "not finite":
            next(iter(state.values())).view(-1)[0] = float("nan")
            save_file(state, file)
        case "torn":
            file.write_bytes(file.read_bytes()[:-7])
        case "missing":
            file.unlink()
        case "a pipe":
            file.unlink()
            os.mkfifo(file)
        case _:
            save_file({name: value[:1] for name, value in state.items()}, file)
    (folder / ERRORS_FILE).unlink()  # made anew from the weights, if these can be used
    delivery = delivered(run, pairs)
    assert set(delivery.unusable) == {best}
    line = delivery.unusable[best]
    assert line.startswith(f"{run}/candidates/{best}/network.safetensors: a trained network's weights must")
    assert "train it again, as with `gpnas train --architecture drn:" in line
    assert len(line.splitlines()) == 1
    assert best not in {member.id for member in delivery.portfolio.members}
    assert read_bundle(run).members


def test_where_no_network_can_be_used_each_is_named(run: Path, pairs: PairSet) -> None:
    for file in run.glob("candidates/*/network.safetensors"):
        file.write_bytes(b"")
        (file.parent / ERRORS_FILE).unlink()
    with pytest.raises(TrialError, match=r"one network must be usable, but (.*c000[0-2].*){3}"):
        delivered(run, pairs)


def test_damaged_residuals_are_made_anew_from_the_weights(run: Path, pairs: PairSet) -> None:
    files = sorted(run.glob(f"candidates/*/{ERRORS_FILE}"))
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(b"torn")
    files[2].unlink()
    delivery = delivered(run, pairs)
    assert not delivery.unusable
    assert [file.read_bytes() for file in files] == contents


@pytest.mark.parametrize("damage", ["torn", "changed", "of other images", "a pipe", "a link"])
def test_damaged_products_are_made_anew_and_that_is_said(
    run: Path, pairs: PairSet, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Journal.read(run) as journal:
        candidates = journal.candidates()
    expected = products_of(run, candidates)
    file = run / FILE
    content = bytearray(file.read_bytes())
    match damage:
        case "torn":
            file.write_bytes(content[:-9])
        case "changed":
            content[-20] ^= 1
            file.write_bytes(content)
        case "of other images":
            file.unlink()
            other = Path(shutil.copytree(run, run.parent / "other"))
            for each in candidates[:2]:
                storage = Folder(other)
                network = build("drn", 2, **each.architecture.axes)
                write_errors(storage, f"candidates/{each.id}", network, pairs.head(1))
            products_of(other, candidates[:2])
            shutil.copy(other / FILE, file)
        case "a pipe":
            file.unlink()
            os.mkfifo(file)
        case _:
            outside = file.rename(run.parent / "outside")
            file.symlink_to(outside)
    np.testing.assert_allclose(products_of(run, candidates), expected, rtol=1e-12)
    if damage != "of other images":
        assert str(file) in caplog.text
        assert "made anew" in caplog.text
    assert file.is_file()
    assert not file.is_symlink()


def loaded(*commands: list[str]) -> list[set[str]]:
    """Which of some packages are loaded once commands have run well, one after the other in a process."""
    program = (
        "import json, sys, gpnas.cli\n"
        "wanted = {'torch', 'ray', 'rich', 'numpy', 'pydantic', 'altair', 'pandas', 'gpnas.dispatch'}\n"
        "for command in json.loads(sys.argv.pop()):\n"
        "    try: code = gpnas.cli.main(command)\n"
        "    except SystemExit as end: code = end.code\n"
        "    assert code == 0, command\n"
        "    print(json.dumps([*(wanted & set(sys.modules))]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [set(json.loads(line)) for line in done.stderr.splitlines() if line.startswith("[")]


def test_commands_load_what_they_need_alone(run: Path, pairs: PairSet, tmp_path: Path) -> None:
    """Help and completion load no library, `status` no NumPy; what reads a run loads no Ray, and PyTorch
    only where the surrogate is asked."""
    search = searched(tmp_path / "search", 9, setup=OwnSetup("a person's own loop", {}).to_json())
    delivered(run, pairs)
    helps = loaded(["--help"], ["search", "--help"], ["--version"], ["completion", "bash"])
    assert helps == [set()] * 3 + [{"rich"}]
    assert loaded(["status", str(search)]) == [{"pydantic", "rich"}]
    space, exported, explained, chosen = loaded(
        ["space", "drn.yaml"],
        ["export", str(run), "-o", str(tmp_path / "bundle")],
        ["explain", str(search), "best"],
        ["portfolio", str(run), "--top", "2"],
    )
    for each in (space, exported):
        assert not each & {"torch", "ray", "gpnas.dispatch", "pandas", "altair"}
    for each in (explained, chosen):
        assert not each & {"ray", "gpnas.dispatch", "pandas", "altair"}
    own, exported_bundle = read_bundle(run), read_bundle(tmp_path / "bundle")
    assert [each.candidate for each in exported_bundle.members] == [each.candidate for each in own.members]
