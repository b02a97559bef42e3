"""A candidate's trial, as a worker runs it, ended and begun again over what breaks in between."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpnas import Architecture, Candidate, Fidelity
from gpnas.ask_tell import AskTell
from gpnas.dispatch import trial as trials
from gpnas.dispatch.conductor import Conductor, Event
from gpnas.dispatch.final import Settled
from gpnas.dispatch.halt import Halt
from gpnas.dispatch.report import TrialReport, to_result
from gpnas.dispatch.trial import Task, Trial
from gpnas.journal import Header, Journal
from gpnas.run.setup import PSNR
from gpnas.run.sharing import fingerprint_of
from gpnas_trainers import build
from gpnas_trainers.pairs import open_pairs, prepare
from gpnas_trainers.train import Progress, Recipe, train

RECIPE = Recipe(steps=9, batch_size=2, hr_patch=48, evaluate_every=3, warmup_steps=2)
CANDIDATE = Candidate("c0000", Architecture("drn", {"features": 4, "blocks": 1, "stages": 1}), Fidelity(9), 3)


@pytest.fixture(scope="module")
def pairs(home: Path) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as trials have it
    yield prepare(None, 2)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain(pairs: Path) -> dict[str, Any]:
    """The same training in one go."""
    torch.manual_seed(CANDIDATE.seed)
    network = build("drn", 2, **CANDIDATE.architecture.axes)
    found: list[Progress] = []
    validation = open_pairs(pairs, "validation").head(1)
    watchers = [lambda _, progress: found.append(progress)]
    train(network, open_pairs(pairs, "train"), validation, RECIPE, seed=3, watchers=watchers)
    return {
        "curve": {each.step: each.psnr for each in found if each.psnr is not None},
        "weights": network.state_dict(),
    }


def config(run: Path, pairs: Path) -> dict[str, Any]:
    task = Task(
        id=CANDIDATE.id,
        family=CANDIDATE.architecture.family,
        axes=dict(CANDIDATE.architecture.axes),
        seed=CANDIDATE.seed,
        run="run",
        storage=str(run),
        folder="candidates/c0000",
        pairs=str(pairs),
        fingerprint=fingerprint_of(open_pairs(pairs, "train"), open_pairs(pairs, "validation")),
        scale=2,
        recipe=RECIPE.to_json(),
        validation_images=1,
    )
    return asdict(task)


def step_of(report: TrialReport) -> int:
    assert report.progress is not None, report
    return report.progress.step


def attempt(settings: dict[str, Any], steps: int) -> list[TrialReport]:
    """What a worker reports until so many steps are done; then it ends and leaves its checkpoint."""
    trial = Trial(settings)
    reports: list[TrialReport] = []
    while not reports or not (reports[-1].last or step_of(reports[-1]) >= steps):
        reports.append(trial.advance())
    trial.cleanup()
    return reports


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """A bit of a weight: it can be read, but is another one."""
    content, generator = bytearray(path.read_bytes()), random.Random(1)
    for place in generator.sample(range(len(content)), 8):
        content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, emptied, flipped])
@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(
    pairs: Path,
    plain: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    damaged: int,
) -> None:
    """The newest, or both: it says so, and the journal and the weights are those of the whole training."""
    monkeypatch.setattr(trials, "REPORT_SECONDS", 0.0)  # a step between two reports
    settings = config(tmp_path, pairs)
    reports = attempt(settings, 2) + attempt(settings, 5)
    files = [tmp_path / f"candidates/c0000/attempt-{number}/checkpoint.pt" for number in (2, 1)]
    for file in files[:damaged]:
        moment = file.stat().st_mtime_ns
        damage(file)
        os.utime(file, ns=(moment, moment))
    last = attempt(settings, 9)
    reports += last
    assert [step_of(each) for each in last] == list(range(3 if damaged == 1 else 1, 10))
    notes = list(last[0].notes)
    assert len(notes) == damaged
    for note, file in zip(notes, files, strict=False):
        assert note.startswith(f"{file}: a checkpoint must be whole, but ")
        assert len(note.splitlines()) == 1
        how = "; gone on from candidates/c0000/attempt-1/checkpoint.pt, step 2"
        assert note.endswith(how if damaged == 1 else "; begun again")
    assert not any(each.notes for each in [*reports[:5], *last[1:]])

    events: list[Event] = []
    with Journal.create_or_open(tmp_path, Header(1, PSNR)) as journal:
        journal.commit_candidates([CANDIDATE])
        search = AskTell(Settled(), journal, trials=1)
        conductor = Conductor(search, Halt(), trial_config=lambda _: {}, listen=events.append)
        assert conductor.suggest("one") == {}
        for report in reports[:-1]:
            conductor.on_trial_result("one", to_result(report))
        conductor.on_trial_complete("one", to_result(reports[-1]))
        search.close()
        (observation,) = journal.observations()
        rows = journal.progress("c0000")
        outcomes = [each.outcome for each in journal.attempts("c0000")]
    assert observation.value == plain["curve"][9]
    assert {row.step: row.value for row in rows if row.value is not None} == plain["curve"]
    assert outcomes == ["killed", "killed", "observed"]
    assert [each.note for each in events if each.kind == "note"] == notes
    weights = load_file(tmp_path / "candidates/c0000/network.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in plain["weights"].items())


def test_a_full_disk_is_told_as_such_and_keeps_what_is_there(
    pairs: Path, plain: dict[str, Any], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a checkpoint it ends the search with one line; at the end of a process it does not count."""
    monkeypatch.setattr(trials, "REPORT_SECONDS", 0.0)
    settings = config(small_disk, pairs)
    attempt(settings, 2)
    kept = (small_disk / "candidates/c0000/attempt-1/checkpoint.pt").read_bytes()
    trial = Trial(settings)
    assert step_of(trial.advance()) == 3
    with open(small_disk / "other", "wb", buffering=0) as file, suppress(OSError):
        file.write(bytes(2**20))
    assert trial.reset_config(settings)  # it cannot keep step 3
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    assert trial.advance() == TrialReport(
        "aborted",
        3,
        reason=f"{small_disk}: trials must be able to read and write here, but the disk is full; "
        "mend that and run the same command again",
    )
    trial.cleanup()
    assert (small_disk / "candidates/c0000/attempt-1/checkpoint.pt").read_bytes() == kept
    (small_disk / "other").unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    last = attempt(settings, 9)
    assert [step_of(each) for each in last] == list(range(3, 10))
    assert not last[0].notes
    assert last[-1].progress is not None
    assert last[-1].progress.value == plain["curve"][9]


def test_what_the_machine_does_wrong_is_not_the_candidates_fault(
    pairs: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little room a checkpoint finds, and wherever in it, the candidate has not failed: it can be
    trained once there is room, by the same command."""
    monkeypatch.setattr(trials, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    settings = config(small_disk, pairs)
    trial = Trial(settings)
    assert trial.advance().kind == "progress"
    size = (small_disk / "candidates/c0000/attempt-1/checkpoint.pt").stat().st_size
    kinds = set()
    for room in range(0, size, size // 12):
        (small_disk / "other").unlink(missing_ok=True)
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        (small_disk / "other").write_bytes(bytes(max(0, free - room)))
        report = trial.advance()
        kinds.add(report.kind)
        assert report.kind == "progress" or "but the disk is full" in report.reason
    assert "aborted" in kinds
    (small_disk / "other").unlink()
    assert trial.advance().kind == "progress"
    trial.cleanup()


def test_a_storage_that_is_none_ends_the_search_and_no_candidate(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "candidates").write_text("")
    report = Trial(config(tmp_path, pairs)).advance()
    assert report.kind == "aborted"
    assert report.reason.startswith(f"{tmp_path}: trials must be able to read and write here, but ")
    (tmp_path / "candidates").unlink()
    folder = tmp_path / "candidates/c0000"
    folder.mkdir(parents=True)
    (folder / "initial.safetensors").write_bytes(b"damaged")
    assert Trial(config(tmp_path, pairs)).advance().kind == "aborted"


def test_damaged_files_of_another_candidate_spoil_no_training(pairs: Path, tmp_path: Path) -> None:
    other = tmp_path / "candidates/c0001"
    other.mkdir(parents=True)
    (other / "errors.safetensors").write_bytes(b"damaged")
    trial = Trial(config(tmp_path, pairs) | {"correlations": True})
    while not (report := trial.advance()).last:
        pass
    assert report.kind == "done"
    assert report.correlations == {}


def test_what_is_the_candidates_own_fault_ends_no_other(pairs: Path, tmp_path: Path) -> None:
    """A network of which there is none, as when driver and worker have other trainers."""
    trial = Trial(config(tmp_path, pairs) | {"axes": {"features": 4, "blocks": 1, "turns": 2}})
    report = trial.advance()
    assert report.kind == "failed"
    assert report.reason
    assert trial.reset_config(config(tmp_path, pairs))
    assert trial.advance().kind == "progress"
    trial.cleanup()
