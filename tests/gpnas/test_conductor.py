"""The conductor and early stopping: driven by hand as Tune would, and on real Ray."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gpnas import Architecture, Candidate, Engine, SearchSpace
from gpnas.ask_tell import AskTell
from gpnas.dispatch.conductor import Conductor, Event, Stopper
from gpnas.dispatch.halt import Halt
from gpnas.dispatch.report import TrialReport, to_result
from gpnas.early_stopping import outlook
from gpnas.journal import Header, Journal, status
from gpnas.records import Progress
from gpnas.run.setup import PSNR
from gpnas.space import Family, IntegerAxis
from tests.gpnas.driven import driver, ended, states, until

SPACE = SearchSpace([Family("net", (IntegerAxis("size", tuple(range(1, 21))),))])
STEPS = 40
HEADER = Header(12, PSNR)


def value(architecture: Architecture, step: int) -> float:
    """Sizes differ by 1 dB each and all rise alike."""
    return float(architecture.axes["size"]) + step / 10


class Tune:
    """What Tune does with one worker: it asks, reports at every fifth step, evaluated at every tenth,
    and heeds the stopper."""

    def __init__(
        self, journal: Journal, *, trials: int, best: int | None, listen: Any = None, begun: Any = None
    ) -> None:
        self.engine = Engine(SPACE, seed=0, strategy="random", trials=trials, steps=STEPS)
        self.engine.replay(journal.candidates(), journal.observations())
        self.search = AskTell(self.engine, journal, trials=trials, best=best)
        self.halt = Halt()
        self.conductor = Conductor(
            self.search,
            self.halt,
            trial_config=lambda candidate: {"candidate": candidate},
            listen=listen or (lambda event: None),
            begun=begun,
        )
        self.stopper = Stopper(self.halt, self.conductor)
        self.trained: list[tuple[str, int]] = []

    def run(self, session: str, *, until: int = 1000) -> None:
        """Trials until the conductor has finished, or so many reports came."""
        for number in range(100):
            name = f"{session}-{number}"
            while (config := self.conductor.suggest(name)) is None:
                time.sleep(0.01)
            if not isinstance(config, dict):
                return
            candidate: Candidate = config["candidate"]
            for step in range(5, STEPS + 1, 5):
                if len(self.trained) == until:
                    return
                self.trained.append((candidate.id, step))
                result = report(step, value(candidate.architecture, step) if step % 10 == 0 else None)
                if self.stopper(name, result):
                    result["done"] = True  # as Tune has it, which then tells of the end alone
                if result["done"]:
                    self.conductor.on_trial_complete(name, result)
                    break
                self.conductor.on_trial_result(name, result)
                self.search.verdict(candidate, wait=True)

    def close(self) -> None:
        self.conductor.close()
        self.search.close()


def report(step: int, evaluated: float | None) -> dict[str, Any]:
    metrics = {"loss": 0.1} if evaluated is None else {"loss": 0.1, "ssim": 0.8}
    progress = Progress(1, step, evaluated, metrics, step / 10)
    return to_result(TrialReport("done" if step == STEPS else "progress", 1, progress))


def test_hopeless_trials_are_stopped_and_no_other(tmp_path: Path) -> None:
    """Against what `outlook` says of the same curves, in the same order."""
    events: list[Event] = []
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        tune = Tune(journal, trials=12, best=2, listen=events.append)
        tune.run("one")
        tune.close()
        observations = journal.observations()
        assert len(observations) == 12
        finished: list[dict[int, float]] = []
        stopped = 0
        for observation in observations:
            size = observation.candidate.architecture.axes["size"]
            curve = {step: value(observation.candidate.architecture, step) for step in range(10, 41, 10)}
            rank = sum(other[40] > curve[40] for other in finished)
            attempt = journal.attempts(observation.candidate.id)[0]
            if observation.stopped is None:
                assert attempt.outcome == "observed"
                assert observation.value == curve[STEPS]
                finished.append(curve)
                continue
            stopped += 1
            assert attempt.outcome == "stopped"
            assert rank >= 2, size  # all rise alike, so ranks are known from the first evaluation
            judged = outlook(finished, {10: curve[10]}, last=STEPS, best=2)
            assert judged is not None
            assert observation.stopped.step == 10
            assert observation.stopped.value == curve[10]
            assert observation.value == pytest.approx(judged.forecast.mean)
            assert observation.stopped.chance < 0.05
            # heard at the next report, and not trained further
            assert max(step for name, step in tune.trained if name == observation.candidate.id) == 15
        assert stopped >= 3
        assert max(tune.engine.recommend(), key=lambda c: c.architecture.axes["size"]) in [
            observation.candidate for observation in observations if observation.finished
        ]
    told = [event.observation for event in events if event.kind == "observed"]
    assert told == observations
    rows = {row["id"]: row for row in status(tmp_path)["candidates"]}
    for observation in observations:
        if observation.stopped is not None:
            assert rows[observation.candidate.id]["stopped"]["reason"] == str(observation.stopped)


def test_without_it_none_is_stopped(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        tune = Tune(journal, trials=12, best=None)
        tune.run("one")
        tune.close()
        assert all(observation.finished for observation in journal.observations())


def test_a_candidate_that_no_worker_began_is_given_again_and_at_last_left(tmp_path: Path) -> None:
    """Tune counts starts that found no node among a trial's own; a candidate is at fault for those alone
    that began."""
    begun = {"c0000": 0}
    with Journal.create_or_open(tmp_path, Header(1, PSNR)) as journal:
        tune = Tune(journal, trials=1, best=None, begun=lambda candidate: begun[candidate.id])
        conductor = tune.conductor

        def given(name: str) -> bool:
            while (config := conductor.suggest(name)) is None:
                time.sleep(0.01)
            return isinstance(config, dict)

        assert given("one")
        assert conductor.suggest("other") is None  # it may have to be given again
        begun["c0000"] += 3
        conductor.on_trial_complete("one", error=True)  # three starts of four were its own
        assert not journal.observations()
        assert given("two")
        begun["c0000"] += 4
        conductor.on_trial_complete("two", error=True)
        (observation,) = journal.observations()
        assert observation.failure == "its worker died 4 times; see Ray's logs for why"
        assert [each.number for each in journal.attempts("c0000")] == [1, 2, 3, 4, 5, 6, 7]
        assert not given("three")
        assert tune.halt.error is None
    with Journal.create_or_open(tmp_path / "away", Header(1, PSNR)) as journal:
        tune = Tune(journal, trials=1, best=None)
        conductor = tune.conductor
        number = 0
        while given(str(number)):
            conductor.on_trial_complete(str(number), error=True)
            number += 1
        assert 1 < number < 10
        assert "Ray must be able to start workers, but time and again has not" in str(tune.halt.error)
        assert not journal.observations()
        assert [candidate.id for candidate in journal.pending()] == ["c0000"]


def test_an_attempt_begins_when_its_worker_says_that_it_trains(tmp_path: Path) -> None:
    """Though it says only in the end how far it came."""
    with Journal.create_or_open(tmp_path, Header(1, PSNR)) as journal:
        tune = Tune(journal, trials=1, best=None)
        while not isinstance(tune.conductor.suggest("one"), dict):
            time.sleep(0.01)
        for _ in range(2):
            tune.conductor.on_trial_result("one", to_result(TrialReport("progress", 1)))
        (begun,) = journal.attempts("c0000")
        time.sleep(0.05)
        progress = Progress(1, 1, 20.0, {"loss": 0.0}, 0.0)
        tune.conductor.on_trial_complete("one", to_result(TrialReport("done", 1, progress)))
        (ended,) = journal.attempts("c0000")
        assert ended.ended is not None
        assert (begun.started, begun.ended) == (ended.started, None)
        assert ended.started < ended.ended
        tune.close()


@pytest.mark.parametrize("reports", [6, 35, 42, 51])
def test_a_resumed_search_stops_as_the_uninterrupted_one(tmp_path: Path, reports: int) -> None:
    """Curves come back from the journal, and an orphan is judged by them at its first report."""
    with Journal.create_or_open(tmp_path / "whole", HEADER) as journal:
        tune = Tune(journal, trials=12, best=2)
        tune.run("one")
        tune.close()
        whole = journal.observations()
    with Journal.create_or_open(tmp_path / "cut", HEADER) as journal:
        tune = Tune(journal, trials=12, best=2)
        tune.run("one", until=reports)
        tune.close()
        before = journal.observations()
    with Journal.create_or_open(tmp_path / "cut", HEADER) as journal:
        orphans = journal.pending()
        tune = Tune(journal, trials=12, best=2)
        tune.run("two")
        tune.close()
        assert tune.trained[0][0] == orphans[0].id
        again = {name for name, _ in tune.trained}
        assert not again & {observation.candidate.id for observation in before}
        assert [(o.candidate, o.value, o.stopped) for o in journal.observations()] == [
            (o.candidate, o.value, o.stopped) for o in whole
        ]


def test_an_order_to_end_the_search_stops_no_trial_for_good(tmp_path: Path) -> None:
    """Tune then tells the last report once more, without `done`: the trial stays pending."""
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        tune = Tune(journal, trials=12, best=2)
        while (config := tune.conductor.suggest("one")) is None:
            time.sleep(0.01)
        assert isinstance(config, dict)
        result = report(10, 20.0)
        tune.conductor.on_trial_result("one", result)
        tune.halt.signal = signal.SIGINT
        assert tune.stopper.stop_all()
        tune.conductor.on_trial_complete("one", result)
        tune.close()
        assert [candidate.id for candidate in journal.pending()] == [config["candidate"].id]


RAY = """\
scale: 2
families:
  drn:
    features: [4, 6, 8]
    blocks: [1, 2]
    stages: 1
    image_skip: [true, false]     # without it a few steps reach nothing
search: {trials: 12, concurrent: 2, strategy: random, portfolio: 2, validation_images: 1}
recipe: {steps: 60, batch_size: 4, hr_patch: 48, evaluate_every: 10, warmup_steps: 5}
"""


@pytest.fixture(scope="module")
def home(home: Path) -> Path:
    (home / "space.yaml").write_text(RAY)
    return home


@pytest.mark.slow
@pytest.mark.ray
def test_on_ray_hopeless_trials_are_stopped_also_over_a_kill(home: Path) -> None:
    """Their processes go on with the next trial, the same command resumes, and none is trained again."""
    run = home / "run"
    command = ["search", "--space", str(home / "space.yaml"), "--run", str(run), "--json"]
    process = driver(command)
    until(
        process,
        lambda: "stopped" in (each := states(run)) and "running" in each[each.index("stopped") :],
    )
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    with Journal.read(run) as journal:
        before = journal.observations()
        stopped = [each.candidate for each in before if each.stopped is not None]
        attempts = {candidate.id: len(journal.attempts(candidate.id)) for candidate in stopped}
    assert stopped
    code, out, err = ended(command)
    assert code == 0, err
    assert "stopped at step" in err or len(stopped) == 6
    document = json.loads(out)
    assert document["trials"]["observed"] == 12
    with Journal.read(run) as journal:
        observations = journal.observations()
        for candidate in stopped:
            assert len(journal.attempts(candidate.id)) == attempts[candidate.id]
    assert observations[: len(before)] == before
    found = [each for each in observations if each.stopped is not None]
    assert document["trials"]["stopped"] == len(found)
    finished = {each.candidate.id for each in observations if each.finished}
    assert {row["id"] for row in document["ranking"]} == finished
    for each in found:
        assert each.stopped is not None
        assert not (run / "candidates" / each.candidate.id / "network.safetensors").exists()
        assert each.stopped.step < 60
    assert max(each.value or 0.0 for each in found) < document["best"]["psnr"]
