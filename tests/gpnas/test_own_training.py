"""Trainings of one's own: whatever a function does, the search knows what came of it and goes on."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpnas import Architecture, Candidate, open_search
from gpnas.cli import main
from gpnas.config import read_space_file
from gpnas.dispatch.own_trial import OwnTrial, OwnTrialTask
from gpnas.dispatch.own_work import OwnWork, plan_own
from gpnas.dispatch.report import TrialReport
from gpnas.dispatch.request import Request
from gpnas.dispatch.search import run_own
from gpnas.engine import engine_for
from gpnas.errors import JournalError, SpaceError
from gpnas.journal import Journal
from gpnas.own_process import KilledError
from gpnas.records import Fidelity, Objective
from gpnas.results.own_delivery import _portfolio, own_portfolio
from gpnas.run.own_errors import keep_errors, products
from gpnas.run.setup import OwnSetup
from gpnas.run.storage import Folder
from gpnas_trainers.own import Code
from tests.gpnas.searched import searched

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-training.md").read_text()
SOURCE, DIGITS = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, re.S)[:2]
"""The example of the page and its space."""


LOOK = """\
    import os
    started_with = open(f"/proc/{os.getppid()}/environ").read()
    seen = [os.getcwd(), os.environ["PL_DISABLE_FORK"], started_with]
    (trial.folder / "seen").write_text("\\n".join(seen))
"""


VARIABLE = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
"""One of those that Tune by itself starts processes anew for."""


def trial_of(folder: Path, body: str, hours: float | None = None, storage: str | None = None) -> OwnTrial:
    """A trial of `def train(trial)` with this body, as a worker has it before its first step."""
    lines = [
        "import os, sys, time",
        "",
        "",
        "def train(trial):",
        *(f"    {line}" for line in body.splitlines()),
    ]
    code = Code("train.py:train", "\n".join(lines) + "\n")
    trial: OwnTrial = OwnTrial.__new__(OwnTrial)  # without the parts of Tune's that a cluster needs
    task = OwnTrialTask(
        id="c0000",
        family="net",
        axes={"size": 3},
        seed=7,
        steps=20,
        run="run",
        storage=storage or str(folder.parent),
        folder=f"{folder.name}/c0000",
        code=asdict(code),
        objective="accuracy",
        hours=hours,
    )
    trial.reset_config(asdict(task))
    return trial


def ended(trial: OwnTrial) -> TrialReport:
    while not (report := trial.advance()).last:
        pass
    return report


def test_a_training_is_told_what_it_needs_and_heard(tmp_path: Path) -> None:
    body = """
print(trial.architecture, trial.axes["size"], trial.device)
(trial.folder / "kept").write_text("here")
trial.report(10, 50, loss=0.5)
trial.report(20, 60.5, errors=[[1.0, 2.0], [3.0, 4.0]])
return trial.seed + trial.steps"""
    report = ended(trial_of(tmp_path, body))
    assert (report.kind, report.attempt) == ("done", 1)
    assert report.progress is not None
    assert (report.progress.step, report.progress.value) == (20, 27.0)
    assert "net:size=3 3 cpu" in (tmp_path / "c0000" / "trial.log").read_text()
    assert (tmp_path / "c0000" / "own" / "kept").read_text() == "here"
    assert np.load(tmp_path / "c0000" / "errors.npy").tolist() == [[1, 2], [3, 4]]


RETURNS = "train.py:4: what train(trial) returns"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return None", f"{RETURNS} must be a finite number, but got None"),
        ("return float('nan')", f"{RETURNS} must be a finite number, but got nan"),
        ("import torch\nreturn torch.tensor(1.0)", f"{RETURNS} must be a finite number, but is a Tensor"),
        ("pass\nraise ValueError('no\\nluck')", "train.py:6: ValueError: no luck"),
        ("trial.report(1, float('inf'))", "train.py:5: the accuracy at step 1 must be a finite number"),
        ("trial.report(1, 2, errors=[float('nan')])", "train.py:5: errors must be 1 to"),
        ("sys.exit(3)", "train.py:5: it called sys.exit(3)"),
        ("os._exit(5)", "train.py: it ended its process with exit code 5"),
        ("raise MemoryError", "out of memory; a smaller batch fits"),
        ("import nowhere", "train.py:5: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)  # fmt: skip
def test_what_a_function_does_wrong_is_told_with_its_line(tmp_path: Path, body: str, reason: str) -> None:
    report = ended(trial_of(tmp_path, body))
    assert report.kind == "failed"
    assert report.reason.startswith(reason)
    assert "\n" not in report.reason
    assert report.reason.endswith(f"; more in {tmp_path / 'c0000' / 'trial.log'}")
    if "Error" in report.reason:
        assert "Traceback" in (tmp_path / "c0000" / "trial.log").read_text()


def test_a_function_that_hangs_is_ended_and_told_where(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, "trial.report(1, 2)\nwhile True:\n    time.sleep(0.01)", hours=5 / 3600)
    report = ended(trial)
    assert re.match(
        r"train.py:[67]: a training must end within --trial-hours 0.001\d+, but went on", report.reason
    )


def test_a_killed_process_is_no_fault_of_the_candidate(tmp_path: Path) -> None:
    with pytest.raises(KilledError, match="its process was ended by signal 9"):
        ended(trial_of(tmp_path, "os.kill(os.getpid(), 9)"))
    report = ended(trial_of(tmp_path, "return len(os.listdir(trial.folder.parent))"))
    assert report.attempt == 2


def test_a_function_that_forks_tells_once_and_leaves_nothing(tmp_path: Path) -> None:
    body = """
child = os.fork()
print("pid", child or os.getpid(), flush=True)
if not child:
    time.sleep(600)
return 1"""
    assert ended(trial_of(tmp_path, body)).kind == "done"
    found = re.search(r"pid (\d+)", (tmp_path / "c0000" / "trial.log").read_text())
    assert found is not None
    for _ in range(100):
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{found[1]}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            return
        time.sleep(0.1)
    pytest.fail("what it forked lives on")


def test_an_order_to_stop_is_raised_at_the_next_report(tmp_path: Path) -> None:
    body = """
try:
    for step in range(10_000):
        trial.report(step, 1)
        time.sleep(0.01)
except Exception:
    pass
finally:
    (trial.folder / "left").write_text("in order")"""
    trial = trial_of(tmp_path, body)
    while trial.advance().progress is None:  # until it has begun
        pass
    trial.cleanup()
    assert (tmp_path / "c0000" / "own" / "left").read_text() == "in order"
    assert float((tmp_path / "c0000" / "seconds").read_text()) > 0


def test_a_child_ends_with_its_worker(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, "trial.report(1, 2)\ntime.sleep(600)")
    trial.advance()
    assert trial._process is not None
    process = trial._process.process
    assert process.stdin is not None
    process.stdin.close()  # as where the worker dies
    assert process.wait(30) == -signal.SIGKILL


def test_the_best_averages_are_those_of_all_subsets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside a search over all pairs and weights on a grid."""
    code = {"network": "train.py:train", "text": "def train(trial): ..."}
    setup = OwnSetup("a person's own training", {}, code)
    run = searched(tmp_path / "run", 4, objective=Objective("error", "", "minimise"), setup=setup.to_json())
    with Journal.read(run) as journal:
        names = [each.candidate.id for each in journal.observations() if each.finished]
    errors = np.random.default_rng(0).normal(0.3, size=(len(names), 50, 2)).astype(np.float32)
    for name, each in zip(names, errors, strict=True):
        (run / "candidates" / name).mkdir(parents=True, exist_ok=True)
        np.save(run / "candidates" / name / "errors.npy", each)
    document = own_portfolio(run, 2)
    flat = errors.reshape(len(names), -1).astype(float)
    alone = document["correlation"]["mean_square_error"]
    assert alone[0] == pytest.approx(np.square(flat).mean(axis=1).min())
    grid = np.linspace(0.05, 0.95, 901)[:, None]
    least = min(
        np.square(grid * one + (1 - grid) * other).mean(axis=1).min()
        for one, other in itertools.combinations(flat, 2)
    )
    pair = document["frontier"][1]["mean_square_error"]
    assert pair == pytest.approx(least, rel=1e-5)
    assert main(["portfolio", str(run), "--top", "2"]) == 0
    assert "The best averages of" in capsys.readouterr().out
    assert main(["portfolio", str(run), "--max-gmacs", "1"]) == 1
    assert "can have --top alone" in capsys.readouterr().err


def test_none_is_averaged_that_makes_the_average_worse(tmp_path: Path) -> None:
    """One that is far better than others that err alike is left alone."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=200)
    candidates = [Candidate(f"c000{n}", Architecture("net", {"size": n}), Fidelity(1), 0) for n in range(3)]
    for candidate, size in zip(candidates, (3.0, 0.1, 4.0), strict=True):
        (tmp_path / "candidates" / candidate.id).mkdir(parents=True)
        errors = size * (common + 0.01 * generator.normal(size=200))
        keep_errors(tmp_path / "candidates" / candidate.id / "errors.npy", errors)
    portfolio, note = _portfolio(Folder(tmp_path), candidates, 3)
    assert portfolio is not None
    assert (portfolio.members, portfolio.weights, note) == ((candidates[1],), (1.0,), "")
    assert portfolio.error == portfolio.best


def test_products_of_errors_say_what_averages_miss() -> None:
    generator = np.random.default_rng(0)
    errors = [generator.normal(size=(30, 4)).astype(np.float32) for _ in range(3)]
    (gram,) = products(errors)
    weights = np.array([0.5, 0.3, 0.2])
    average = sum(weight * each.astype(np.float64) for weight, each in zip(weights, errors, strict=True))
    assert weights @ gram @ weights == pytest.approx(float(np.mean(np.square(average))), rel=1e-12)


def written(folder: Path, space: str, source: str = "def train(trial):\n    return 1\n") -> Path:
    (folder / "train.py").write_text(source)
    (folder / "space.yaml").write_text(space)
    return folder / "space.yaml"


SPACE = "families: {net: {size: [1, 2, 3]}}\n"


@pytest.mark.parametrize(
    ("space", "source", "line"),
    [
        ("trainer: ../train.py:train\n", "", "a trainer's file must lie in the folder"),
        ("trainer: train.py\n", "", "a trainer must be like train.py:train"),
        ("trainer: nothing.py:train\n", "", "nothing.py: a trainer's file must be readable"),
        ("trainer: train.py:fit\n", "", "train.py: must have a class or function `fit`, but has none"),
        ("trainer: train.py:train\n", "def train(:\n", "train.py:1: must be Python"),
        ("trainer: train.py:train\n", "1 / 0\n", "train.py:1: must be importable, but ZeroDivisionError"),
        ("trainer: train.py:train\nlimits: {parameters: 1e6}\n", "", "`limits` need networks"),
        ("trainer: train.py:train\nobjective: {name: x, goal: best}\n", "", "`objective.goal` must be"),
        ("objective: {name: x}\nscale: 2\n", "", "unknown key `families.net`"),
    ],
)
def test_mistakes_in_a_space_file_are_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], space: str, source: str, line: str
) -> None:
    path = written(tmp_path, space + SPACE, *([source] if source else []))
    assert main(["search", "--space", str(path), "--run", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert line in told
    assert len(told.splitlines()) == 1


@pytest.mark.ray
def test_the_example_of_the_page_is_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    """Digits, by a small network: the journal, the words of the objective, and the average by its errors."""
    assert len(SOURCE.splitlines()) < 30
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "2")
    head, line, rest = SOURCE.partition("def train(trial):\n")
    written(tmp_path, DIGITS, source := head + line + LOOK + rest)
    command = ["search", "--space", "space.yaml", "--run", "run", "--trials", "3", "--json"]
    command += ["--concurrent", "1", "--address", cluster]
    assert main(command) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["objective"] == {"name": "accuracy", "unit": "%", "goal": "maximise"}
    assert document["trials"]["observed"] == 3
    # it runs in no folder of Tune's, in a process that Ray had not to start anew for variables of Tune's
    folder, no_fork, started_with = Path("run/candidates/c0000/own/seen").read_text().split("\n", 2)
    assert "c0000" not in folder
    assert no_fork == "1"
    assert VARIABLE not in started_with
    ranking = document["ranking"]
    assert all(0 < row["accuracy"] <= 100 for row in ranking)
    chosen = document["portfolio"]
    loaded = [np.load(f"run/candidates/{row['id']}/errors.npy").astype(float) for row in chosen]
    average = sum(row["weight"] * errors for row, errors in zip(chosen, loaded, strict=True))
    assert document["mean_square_error"]["average"] == pytest.approx(float(np.mean(np.square(average))))
    assert document["mean_square_error"]["average"] <= document["mean_square_error"]["best"] + 1e-9
    # the same command goes on with the source that it began with, and says so
    (tmp_path / "train.py").write_text(source + "# changed\n")
    assert main(command) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ranking"] == ranking
    assert "train.py has changed since" in captured.err
    assert main(["status", "run"]) == 0
    assert "accuracy %" in capsys.readouterr().out
    assert main(["explain", "run", "best", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agrees"]
    assert main(["report", "run", "-o", "report.html"]) == 0
    assert "accuracy" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    assert main(["portfolio", "run", "--json"]) == 0
    together = json.loads(capsys.readouterr().out)["frontier"][len(chosen) - 1]
    assert together["members"] == [row["id"] for row in chosen]
    assert together["mean_square_error"] == pytest.approx(document["mean_square_error"]["average"])
    assert main(["export", "run", "-o", "bundle"]) == 1
    assert "a person's own training" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ray
def test_the_example_ends_where_little_is_left_to_gain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No accuracy lies 100 % above another, so the search ends where eight observations let it."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, DIGITS.replace("search: {", "search: {stop_below: 100, "), SOURCE)
    assert main(["search", "--space", "space.yaml", "--run", "run", "--trials", "14", "--json"]) == 0
    captured = capsys.readouterr()
    assert 8 <= json.loads(captured.out)["trials"]["observed"] < 14
    assert "of 14 trials, since that is below `search.stop_below`, 100" in captured.err


def test_a_trainer_takes_no_option_of_images(tmp_path: Path) -> None:
    path = written(tmp_path, "trainer: train.py:train\n" + SPACE)
    with pytest.raises(SpaceError, match="so --scale says nothing; leave it out"):
        run_own(Request(str(path), tmp_path / "run", scale=2), Silent())


@pytest.mark.parametrize("goal", ["maximise", "minimise"])
def test_a_search_is_warmed_up_by_one_of_the_same_objective(tmp_path: Path, goal: str) -> None:
    """What was best there is trained first here."""
    objective = f"objective: {{name: loss, goal: {goal}}}\n"
    path = written(
        tmp_path, f"trainer: train.py:train\n{objective}families: {{net: {{size: [1, 2, 3, 4, 5]}}}}\n"
    )
    with open_search(tmp_path / "before", path.with_name("space.yaml"), trials=4) as search:
        for size, loss in ((1, 5.0), (2, 4.0), (4, 2.0), (5, 1.0)):
            search.enter(Architecture("net", {"size": size}), loss)

    def planned(**asked: Any) -> OwnWork:
        return plan_own(
            path, read_space_file(path), Request(str(path), tmp_path / "run", **asked), pytest.fail
        )

    work = planned(warm_start=(tmp_path / "before",))
    (first,) = engine_for(work.space, work.header).suggest(1)
    assert first.architecture.axes["size"] == (1 if goal == "maximise" else 5)
    with pytest.raises(SpaceError, match="--warm-start shipped is of trainings that maximise PSNR"):
        planned(warm_start=(Path("shipped"),))
    path.write_text(path.read_text().replace("loss", "accuracy"))
    with pytest.raises(JournalError, match=f"must have its objective, to {goal} accuracy, but .* loss"):
        planned(warm_start=(tmp_path / "before",))


def test_a_search_is_aware_of_the_portfolio_where_errors_make_its_objective(tmp_path: Path) -> None:
    """Correlations of errors against NumPy's own cosines."""
    path = written(tmp_path, "trainer: train.py:train\nobjective: {name: accuracy, unit: '%'}\n" + SPACE)
    request = Request(str(path), tmp_path / "run", portfolio_aware=True)
    with pytest.raises(SpaceError, match="`portfolio_aware` needs an objective in dB to maximise"):
        plan_own(path, read_space_file(path), request, pytest.fail)
    path.write_text(path.read_text().replace("'%'", "dB"))
    work = plan_own(path, read_space_file(path), request, pytest.fail)
    candidate = Candidate("c0000", Architecture("net", {"size": 1}), Fidelity(1), 0, {})
    assert work.task(candidate).correlations
    errors = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    for name, own in zip(("c0001", "c0002"), errors[1:], strict=True):
        (tmp_path / name).mkdir()
        keep_errors(tmp_path / name / "errors.npy", own)
    (tmp_path / "c0003").mkdir()
    (tmp_path / "c0003" / "errors.npy").write_bytes(b"torn")
    trial = trial_of(tmp_path, f"trial.report(1, 2.0, errors={errors[0].tolist()})\nreturn 2.0")
    trial._task = replace(trial._task, correlations=True)
    size = np.linalg.norm(errors, axis=1)
    expected = {
        name: float(errors[0] @ errors[number] / size[0] / size[number])
        for number, name in ((1, "c0001"), (2, "c0002"))
    }
    assert ended(trial).correlations == pytest.approx(expected, rel=1e-5)


class Silent:
    """A listener that hears nothing."""

    def say(self, line: str) -> None: ...
    def preparing(self, what: str, done: int, total: int) -> None: ...
    def started(self, run: Path, trials: int, observed: int, cluster: object) -> None: ...
    def event(self, event: object) -> None: ...


def test_a_space_with_a_trainer_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "trainer: train.py:train\n" + SPACE)
    assert main(["space", str(path)]) == 0
    assert f"{path}: 3 architectures" in capsys.readouterr().out
    assert main(["space", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["feasible"], document["cheapest"]) == (3, None)
