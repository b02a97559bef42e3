"""Searches and trainings whose disk gets full, on real small disks: one line, and then they go on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpnas.journal import Journal
from gpnas.results.recall import explain_search

SPACE = """\
scale: 2
families:
  drn:
    features: [4, 6, 8]
    blocks: [1, 2]
    stages: 1
search: {trials: 4, concurrent: 2, validation_images: 2, early_stopping: false, portfolio: 2}
recipe: {steps: 40, batch_size: 4, hr_patch: 48, evaluate_every: 20, warmup_steps: 5}
"""
NETWORK = ["--architecture", "drn:features=4,blocks=1,stages=1", "--steps", "20", "--batch-size", "2"]


@pytest.fixture(scope="module")
def home(home: Path) -> Path:
    (home / "space.yaml").write_text(SPACE)
    return home


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.fixture
def disk(small_disk: Path) -> Path:
    resize(small_disk, "400k")
    return small_disk


def ended(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpnas.cli", *arguments, "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def full(arguments: list[str]) -> list[str]:
    """What it says until the one line of its end, and that."""
    done = ended(arguments)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines


def gone_on(disk: Path, arguments: list[str]) -> dict[str, Any]:
    resize(disk, "64m")
    done = ended(arguments)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("where", ["run", "storage"])
def test_a_search_whose_trials_find_no_room(home: Path, disk: Path, tmp_path: Path, where: str) -> None:
    """Errors of the validation images alone need more than there is, in whichever folder trials write to."""
    run = (disk if where == "run" else tmp_path) / "run"
    arguments = ["search", "--space", str(home / "space.yaml"), "--run", str(run)]
    if where == "storage":
        arguments += ["--storage", str(disk / "storage")]
    assert full(arguments)[-1] == (
        f"error: {disk / where}: trials must be able to read and write here, but the disk is full; "
        "mend that and run the same command again"
    )
    with Journal.read(run) as journal:
        candidates = journal.candidates()
        assert journal.observations() == []
    assert gone_on(disk, arguments)["trials"] == {"observed": 4, "failed": 0, "stopped": 0}
    with Journal.read(run) as journal:
        assert journal.candidates()[: len(candidates)] == candidates


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_whose_journal_finds_no_room(home: Path, disk: Path, tmp_path: Path) -> None:
    """No observation gets lost between the journal and the engine: a new one would choose the same."""
    run = disk / "run"
    arguments = ["search", "--space", str(home / "space.yaml"), "--run", str(run)]
    arguments += ["--storage", str(tmp_path / "storage")]
    lines = full(arguments)
    assert lines[-1] == (
        f"error: {run}/journal.sqlite: the disk must have room for the journal, but it is full; what was "
        "committed is safe: free some space and run the same command again"
    )
    assert not (run / "products.safetensors").exists()  # nothing is delivered of half a search
    with Journal.read(run) as journal:
        before = journal.observations()
    told = {line.split()[0] for line in lines if line.startswith("c0")}
    assert told <= {each.candidate.id for each in before}
    assert gone_on(disk, arguments)["trials"]["observed"] == 4
    with Journal.read(run) as journal:
        assert journal.observations()[: len(before)] == before
    document = explain_search(run, lambda done, total: None)
    assert [row["differences"] for row in document["candidates"]] == [[]] * 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_training_on_two_devices_that_finds_no_room(home: Path, disk: Path) -> None:
    """The first process alone writes; what it cannot write ends all, once."""
    run = disk / "run"
    arguments = ["train", *NETWORK, "--evaluate-every", "10", "--run", str(run), "--devices", "2"]
    assert full(arguments)[-1] == (
        f"error: {run}: trials must be able to read and write here, but the disk is full; "
        "mend that and run the same command again"
    )
    with Journal.read(run) as journal:
        assert [each.outcome for each in journal.attempts("c0000")] == ["aborted"]
        assert len(journal.pending()) == 1
    assert gone_on(disk, arguments)["trials"] == {"observed": 1, "failed": 0, "stopped": 0}
    with Journal.read(run) as journal:
        assert [each.outcome for each in journal.attempts("c0000")] == ["aborted", "observed"]
