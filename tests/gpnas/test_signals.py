"""How a search ends, in one run folder from first to last: by signals, its budget, its space."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpnas.bundle import read_bundle
from gpnas.dispatch.trial import CHECKPOINT_SECONDS, REPORT_SECONDS
from gpnas.journal import Journal, status
from gpnas_trainers.pairs import MINIMUM_NCC, Rules, open_pairs, prepare_folder

pytestmark = pytest.mark.ray

SPACE = """\
scale: 2
families:
  drn:
    features: [4, 6, 8]
    blocks: 1
    stages: 1
search: {trials: 3, concurrent: 2, validation_images: 1, early_stopping: false, portfolio: 2}
recipe: {steps: 600, batch_size: 2, hr_patch: 48, evaluate_every: 300, warmup_steps: 5}
"""


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    (home / "space.yaml").write_text(SPACE)
    return home / "run"


ENDED_AT = """
import os, signal, sys
from gpnas.cli import main
path, ended = sys.argv.pop(1), []
def end(event, arguments):
    if not ended and event == "open" and str(arguments[0]) == path:
        ended.append(event)
        os.kill(os.getpid(), signal.SIGTERM)
sys.addaudithook(end)
sys.exit(main(sys.argv[1:]))
"""


def begun(run: Path, *options: str, ended_at: Path | None = None) -> subprocess.Popen[str]:
    """A search in a session of its own, by which its processes are told from others'.

    With `ended_at` it sends itself a SIGTERM as soon as it opens that file.
    """
    program = ["-m", "gpnas.cli"] if ended_at is None else ["-c", ENDED_AT, str(ended_at)]
    command = [sys.executable, *program, "search", "--space", str(run.parent / "space.yaml")]
    command += ["--run", str(run), "--json", *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_training(run: Path, process: subprocess.Popen[str]) -> None:
    """Until this command's own trials train."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (run / "journal.sqlite").exists():
            report = status(run)
            if report["state"] == "running" and "running" in [row["state"] for row in report["candidates"]]:
                return
        time.sleep(0.05)
    raise AssertionError("no trial has begun in 5 minutes")


def ended(process: subprocess.Popen[str], *, code: int) -> tuple[str, list[str]]:
    """Its output and what it said; nothing of it is left, and what it said has no traceback."""
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "***" not in err
    deadline = time.monotonic() + 30
    while left := subprocess.run(
        ["pgrep", "--session", str(process.pid), "--list-full"], capture_output=True, text=True
    ).stdout:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    return out, err.strip().splitlines()


def summary(run: Path, lines: list[str], reason: str, *, after: float = 0.0) -> int:
    """How many are observed, as the one line of an end in good order says; the journal is closed.

    What has trained for so many seconds has a checkpoint.
    """
    assert not (run / "journal.sqlite-wal").exists()  # readers make one again
    with Journal.read(run) as journal:
        observed = len(journal.observations())
        pending = journal.pending()
        seconds = {
            each.id: max((row.seconds for row in journal.progress(each.id)), default=0.0) for each in pending
        }
    rest = f"{observed} of 3 trials observed in {run}; the same command goes on"
    assert [line for line in lines if "the same command goes on" in line] == [f"{reason}: {rest}"]
    assert not (run / "tune").exists()
    assert status(run)["state"] == "interrupted"
    for each in pending:
        if status_row(run, each.id)["attempts"] and seconds[each.id] >= after:
            assert list((run / "candidates" / each.id).glob("attempt-*/checkpoint.pt"))
    return observed


def status_row(run: Path, name: str) -> dict[str, Any]:
    (row,) = [row for row in status(run)["candidates"] if row["id"] == name]
    return dict(row)


@pytest.fixture(scope="module")
def interrupted(run: Path) -> Path:
    """Ctrl-C, which a terminal sends to the whole group, while trials train."""
    process = begun(run)
    wait_for_training(run, process)
    os.killpg(process.pid, signal.SIGINT)
    out, lines = ended(process, code=130)
    assert out == ""
    summary(run, lines, "interrupted")
    return run


@pytest.fixture(scope="module")
def out_of_time(interrupted: Path) -> Path:
    """A budget that is used up while Ray still starts."""
    out, lines = ended(begun(interrupted, "--budget-hours", "1e-9"), code=0)
    assert out == ""
    summary(interrupted, lines, "the time budget is used up")
    return interrupted


@pytest.fixture(scope="module")
def cut_off(out_of_time: Path) -> Path:
    """Two signals: the second one waits for nothing."""
    process = begun(out_of_time)
    wait_for_training(out_of_time, process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("stopping: "):
        pass
    process.send_signal(signal.SIGTERM)
    out, lines = ended(process, code=143)
    assert out == ""
    assert not any("the same command goes on" in line for line in lines)
    return out_of_time


@pytest.fixture(scope="module")
def exhausted(cut_off: Path) -> tuple[Path, dict[str, Any]]:
    """Also where the newest checkpoint is damaged, and more trials are granted than there are networks."""
    with Journal.read(cut_off) as journal:
        before = journal.observations()
        (first, *_) = journal.pending()
    files = list((cut_off / "candidates" / first.id).glob("attempt-*/checkpoint.pt"))
    newest = max(files, key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:1000])
    out, lines = ended(begun(cut_off, "--trials", "30"), code=0)
    assert not (cut_off / "journal.sqlite-wal").exists()
    said = [line for line in lines if line.startswith(f"{first.id}  {newest}: a checkpoint must be whole")]
    assert len(said) == 1
    document = json.loads(out)
    assert document["trials"]["failed"] == 0
    assert len({str(row["architecture"]) for row in document["ranking"]}) == 3
    with Journal.read(cut_off) as journal:
        observations = journal.observations()
        assert observations[: len(before)] == before
        names = [each.candidate.id for each in observations]
        assert len(set(names)) == len(names) == document["trials"]["observed"]
        assert journal.pending() == []
        curves = {name: [row.step for row in journal.progress(name) if row.value] for name in names}
    assert all(set(steps) == {300, 600} for steps in curves.values())
    return cut_off, document


def test_a_search_that_was_ended_in_every_way_ends_with_its_space(
    exhausted: tuple[Path, dict[str, Any]],
) -> None:
    run, document = exhausted
    assert document["trials"]["failed"] == 0
    assert len({str(row["architecture"]) for row in document["ranking"]}) == 3
    assert len(read_bundle(run / "bundle").members) in (1, 2)  # at most two, where they help


@pytest.mark.slow
def test_sigterm_while_the_bundle_is_written(exhausted: tuple[Path, dict[str, Any]]) -> None:
    """It comes as soon as the last network's weights are opened; all that was earned is there when the
    command goes on."""
    run, document = exhausted
    observed, before = document["trials"]["observed"], read_bundle(run / "bundle")
    weights = run / "candidates" / str(before.members[-1].candidate) / "network.safetensors"
    process = begun(run, "--trials", str(observed), ended_at=weights)
    out, lines = ended(process, code=143)
    assert out == ""
    rest = f"{observed} of {observed} trials observed in {run}; the same command goes on"
    assert lines[-1] == f"interrupted: {rest}"
    assert not (run / "journal.sqlite-wal").exists()
    assert [path.name for path in run.glob(".*")] == []
    assert read_bundle(run / "bundle").manifest == before.manifest  # the earlier one, untouched
    out, _ = ended(begun(run, "--trials", str(observed)), code=0)
    assert json.loads(out)["ranking"] == document["ranking"]
    assert read_bundle(run / "bundle").manifest.members == before.manifest.members


@pytest.fixture(scope="module")
def photographs(home: Path) -> tuple[Path, str]:
    """A folder of pairs whose preparation takes a second or more, and what undisturbed comes of it."""
    random = np.random.default_rng(0)
    folder = home / "photographs"
    for part in ("HR", "LR"):
        (folder / part).mkdir(parents=True)
    for number in range(24):
        rough = np.cumsum(random.normal(size=(400, 400, 3)), axis=0)
        hr = (rough - rough.min()) * (255 / (rough.max() - rough.min()))
        lr = hr.reshape(200, 2, 200, 2, 3).mean(axis=(1, 3))
        for part, image in (("HR", hr), ("LR", lr)):
            picture = Image.fromarray(np.rint(image).astype(np.uint8))
            picture.save(folder / part / f"{number:02d}.png", compress_level=1)
    undisturbed = prepare_folder(folder, home / "undisturbed", 2, Rules(minimum_ncc=MINIMUM_NCC))
    return folder, open_pairs(undisturbed, "train").fingerprint


@pytest.mark.parametrize("search", [True, False])
def test_sigterm_while_pairs_are_prepared(
    photographs: tuple[Path, str], tmp_path: Path, search: bool
) -> None:
    """To the driver of a search, and to the group of a preparation with workers: whole shards are kept."""
    folder, undisturbed = photographs
    (tmp_path / "space.yaml").write_text(SPACE)
    command = ["search", "--space", "space.yaml", "--run", "run", "--data", str(folder)]
    if not search:
        command = ["data", "prepare", str(folder), "--scale", "2", "--workers", "2", "-o", "."]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpnas.cli", *command],
        cwd=tmp_path, env=os.environ | {"GPNAS_CACHE": str(tmp_path)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (done := list(tmp_path.glob(".*.partial/results-*.json"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (os.kill if search else os.killpg)(process.pid, signal.SIGTERM)
    out, lines = ended(process, code=143)
    assert out == ""
    told = "no trial was begun, what is prepared is kept; the same command goes on"
    assert lines == ([f"interrupted: {told}"] if search else ["interrupted"])
    work = done[0].parent
    kept = {f"pixels-{path.stem.removeprefix('results-')}.bin" for path in work.glob("results-*.json")}
    assert 1 <= len(kept) < 12  # of two pairs each
    # a worker that is ended between its two files leaves pixels that are written anew
    assert {path.name for path in work.glob("*.bin")} >= kept
    assert {path.suffix for path in work.iterdir()} == {".bin", ".json"}
    written = {name: (work / name).stat().st_mtime_ns for name in kept}
    prepared = prepare_folder(folder, tmp_path, 2, Rules(minimum_ncc=MINIMUM_NCC))
    assert not work.exists()
    assert {name: (prepared / name).stat().st_mtime_ns for name in kept} == written
    assert open_pairs(prepared, "train").fingerprint == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False])
def test_sigterm_reaches_the_driver_alone(run: Path, group: bool) -> None:
    """Sent to its group or to it: trials write their checkpoints."""
    folder = run.with_name(f"group-{group}")
    process = begun(folder)
    wait_for_training(folder, process)
    (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
    out, lines = ended(process, code=143)
    assert out == ""
    summary(folder, lines, "interrupted")


@pytest.mark.slow
def test_sigterm_to_every_process_ends_it_all_the_same(run: Path) -> None:
    """As services are stopped: Ray is gone, and the driver does not wait for it."""
    folder = run.with_name("service")
    process = begun(folder)
    wait_for_training(folder, process)
    time.sleep(4)  # the first checkpoint comes after three seconds
    subprocess.run(["pkill", "--session", str(process.pid), "--signal", "TERM"], check=True)
    out, lines = ended(process, code=143)
    assert out == ""
    # its processes had no time for one more
    summary(folder, lines, "interrupted", after=CHECKPOINT_SECONDS + 2 * REPORT_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGTERM, 0.5), (signal.SIGTERM, 4), (signal.SIGINT, 3)]
)
def test_a_signal_while_ray_starts(run: Path, number: int, seconds: float) -> None:
    folder = run.with_name(f"early-{number}-{seconds}")
    process = begun(folder)
    deadline = time.monotonic() + 60
    while not (folder / "journal.backup.sqlite").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(seconds)
    process.send_signal(number)
    out, lines = ended(process, code=128 + number)
    assert out == ""
    summary(folder, lines, "interrupted")


@pytest.mark.slow
@pytest.mark.parametrize("process", ["raylet", "gcs_server"])
def test_a_ray_that_dies_is_started_again(run: Path, process: str) -> None:
    """Within the same command, and nothing but some seconds of the trainings is lost."""
    folder = run.with_name(f"without-{process}")
    search = begun(folder)
    wait_for_training(folder, search)
    subprocess.run(["pkill", "-KILL", "--session", str(search.pid), "-x", process], check=True)
    out, lines = ended(search, code=0)
    again = "Ray's processes on this machine have died, as when memory runs out; it is started again"
    assert lines.count(again) == 1
    assert json.loads(out)["trials"] == {"observed": 3, "failed": 0, "stopped": 0}
