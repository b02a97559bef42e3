"""Loops of one's own in a shell, as the documentation has them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpnas
from gpnas.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "own-loop.md"
SPACE = """
scale: 2
families:
  mine: {width: [16, 32, 64], depth: {low: 2, high: 8}}
objective: {name: accuracy, unit: "%"}
search: {strategy: random}
"""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run whose first candidate is handed out."""
    (tmp_path / "mine.yaml").write_text(SPACE)
    run = tmp_path / "run"
    assert main(["ask", str(run), "--space", str(tmp_path / "mine.yaml"), "--trials", "4"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["candidate"], first["attempt"]) == ("c0000", 1)
    assert set(first["architecture"]["axes"]) == {"width", "depth"}
    return run


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main([str(each) for each in arguments]) == code
    captured = capsys.readouterr()
    return captured.out or captured.err


def test_a_shell_asks_and_tells(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal leaves columns out
    assert said(capsys, "tell", run, "c0000", "--progress", 10, "27.5") == "continue\n"
    assert "observed" in said(capsys, "tell", run, "c0000", "28.5", "--metric", "loss=0.25", "--seconds", 60)
    assert json.loads(said(capsys, "tell", run, "c0000", "29", "--json")) == {
        "candidate": "c0000", "counted": False
    }  # fmt: skip
    assert "eval" not in said(capsys, "ask", run, "--shell")
    said(capsys, "tell", run, "c0001", "--failed", "out of memory")
    said(capsys, "tell", run, "--architecture", "mine:width=64,depth=3", "29.5")
    wanted = said(capsys, "ask", run, "--architecture", "mine:width=64,depth=5")
    assert wanted.startswith("c0003: whoever asks next is given mine:width=64,depth=5")
    said(capsys, "veto", run, "mine:width=16,depth=2")
    asked = json.loads(said(capsys, "ask", run, "--worker", "ann", "--json"))
    assert (asked["candidate"], asked["name"]) == ("c0003", "mine:width=64,depth=5")
    again = json.loads(said(capsys, "ask", run, "--worker", "ann", "--json"))
    assert (again["candidate"], again["attempt"]) == ("c0003", 2)
    said(capsys, "tell", run, "c0003", "--give-back")
    third = json.loads(said(capsys, "ask", run, "--json"))
    assert (third["candidate"], third["attempt"]) == ("c0003", 3)
    status = json.loads(said(capsys, "status", run, "--json"))
    assert [row["accuracy"] for row in status["candidates"]] == [28.5, None, 29.5, None]
    assert [row["state"] for row in status["candidates"]] == ["observed", "failed", "observed", "running"]
    explained = json.loads(said(capsys, "explain", run, "--json"))["candidates"]
    assert [row["phase"] for row in explained] == [
        "random", "random", "a training made elsewhere", "a person's wish"
    ]  # fmt: skip
    assert all(row["agrees"] for row in explained)
    assert "accuracy %" in said(capsys, "status", run)
    assert "predicted %" in said(capsys, "explain", run)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["c0000", "nan"], "the accuracy of c0000 must be a finite number, but got nan; tell a failed"),
        (["c0000", "much"], "a value must be a number, but got 'much'"),
        (["c0000"], "takes CANDIDATE VALUE here, but got 'c0000'"),
        (["c0099", "1"], "a candidate must be one of the run's 1, but there is no 'c0099'"),
        (["c0000", "1", "--lease", "x"], "a lease must be one of this run's, but there is no 'x'"),
        (["c0000", "1", "--metric", "loss"], "--metric must be like loss=0.25, but got 'loss'"),
        (["c0000", "--progress", "-1", "2"], "a step must be a whole number of at least 0"),
        (["c0000", "--failed", "x", "--give-back"], "one thing is told at a time"),
        (["--architecture", "mine:width=1,depth=2", "3"], "must be an architecture of the space"),
        (["--architecture", "mine:width", "3"], "'width' is not `axis=value`, once"),
    ],
)
def test_mistakes_are_told_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    told = said(capsys, "tell", run, *arguments, code=1)
    assert line in told
    assert len(told.splitlines()) == 1


def test_a_run_of_ones_own_has_no_networks_of_gpnas(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "portfolio", run, code=1)
    assert "gpnas must have trained the networks of this run itself" in told


def test_asking_ends_where_all_is_observed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        if number:
            said(capsys, "ask", run)
        if number == 3:
            assert json.loads(said(capsys, "ask", run, code=75))["state"] == "waiting"
        said(capsys, "tell", run, f"c{number:04d}", number)
    assert json.loads(said(capsys, "ask", run, code=3))["state"] == "finished"
    assert json.loads(said(capsys, "status", run, "--json"))["state"] == "finished"


def test_the_array_of_the_page_runs_as_a_plain_shell(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of its tasks, one of whose trainings fails."""
    jobs = re.findall(r"```sbatch\n(.*?)```", PAGE.with_name("slurm.md").read_text(), re.S)
    (array,) = (each.replace(" --space widths.yaml", "") for each in jobs if "--array" in each)
    folder = run.parent
    (folder / "job.sh").write_text(array)
    train = folder / "train.sh"
    train.write_text(
        "#!/bin/sh\n"
        'for each; do case "$each" in --width=*) width=${each#*=};; esac; done\n'
        'mkdir failed 2>/dev/null && exit 7\necho "$width.5"\n'
    )
    train.chmod(0o755)
    bin = str(Path(sys.executable).parent)
    tasks = [
        subprocess.Popen(
            ["bash", "job.sh", str(run)],
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{bin}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "SLURM_ARRAY_JOB_ID": "1",
                "SLURM_ARRAY_TASK_ID": str(number),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(2)
    ]
    said(capsys, "tell", run, "c0000", "--give-back")  # which this test was handed
    assert [task.wait(timeout=300) for task in tasks] == [0, 0]
    with gpnas.open_search(run) as search:
        told = search.journal.observations()
        holders = {each.holder.name for name in range(4) for each in search.journal.leases.of(f"c{name:04d}")}
    assert len(told) == 4
    assert [each.failure for each in told if each.failed] == ["train.sh ended with 7"]
    for each in told:
        assert each.failed or each.value == int(each.candidate.architecture.axes["width"]) + 0.5
    assert holders <= {"slurm 1.0", "slurm 1.1", f"process {os.getpid()}"}


def test_the_loop_of_the_page_runs_and_minimises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    names: dict[str, object] = {}
    exec(compile(found[1], "own-loop.md", "exec"), names)
    with gpnas.open_search("runs/widths") as search:
        values = [each.value for each in search.journal.observations()]
    best = names["best"]
    assert isinstance(best, gpnas.Observation)
    assert len(values) == 10
    assert best.value == min(value for value in values if value is not None)
