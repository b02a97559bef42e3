"""Ask and tell, by hand: what the journal and the engine hold after every turn that trainings can take."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpnas import Architecture, Candidate, Engine, SearchSpace
from gpnas.ask_tell import AskTell
from gpnas.journal import Header, Journal
from gpnas.records import Observation, Progress
from gpnas.run.setup import PSNR
from gpnas.space import Family, IntegerAxis

SPACE = SearchSpace([Family("net", (IntegerAxis("size", tuple(range(1, 21))),))])
STEPS = 40


def value(architecture: Architecture, step: int) -> float:
    """Sizes differ by 1 dB each and all rise alike."""
    return float(architecture.axes["size"]) + step / 10


def opened(
    journal: Journal,
    *,
    trials: int = 12,
    best: int | None = None,
    strategy: str = "mi+kg",
    stop_below: float | None = None,
) -> AskTell:
    engine = Engine(SPACE, seed=0, strategy=strategy, trials=trials, steps=STEPS)
    engine.replay(journal.candidates(), journal.observations())
    return AskTell(engine, journal, trials=trials, best=best, stop_below=stop_below)


def asked(search: AskTell) -> Candidate:
    candidate = search.ask()
    assert candidate is not None
    return candidate


def evaluated(candidate: Candidate, step: int, attempt: int = 1) -> Progress:
    measured = value(candidate.architecture, step)
    return Progress(attempt, step, measured, {"accuracy": measured / 100}, step / 10)


def told(search: AskTell, candidate: Candidate) -> bool:
    search.progress(candidate, evaluated(candidate, STEPS))
    return search.tell(Observation(candidate, value(candidate.architecture, STEPS), None, 4.0))


def test_a_loop_suggests_what_the_engine_alone_would(tmp_path: Path) -> None:
    """Beside the same engine, driven by hand; the journal has each candidate before it is handed out."""
    engine = Engine(SPACE, seed=0, trials=6, steps=STEPS)
    with Journal.create_or_open(tmp_path, Header(6, PSNR)) as journal, opened(journal, trials=6) as search:
        for number in range(6):
            candidate = asked(search)
            assert journal.pending() == [candidate]
            (expected,) = engine.suggest(1)
            assert candidate == expected
            assert told(search, candidate)
            engine.observe(journal.observations()[number])
        assert search.ask() is None
        assert [each.outcome for each in journal.attempts()] == ["observed"] * 6
        rows = journal.progress("c0000")
    assert [(row.step, row.value) for row in rows] == [(40, value(asked_first(tmp_path), 40))]


def asked_first(run: Path) -> Architecture:
    with Journal.read(run) as journal:
        return journal.candidates()[0].architecture


def test_candidates_without_an_observation_are_handed_out_first_over_a_restart(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, Header(12, PSNR)) as journal:
        with opened(journal) as search:
            first, second, third = (asked(search) for _ in range(3))
            assert told(search, second)
            search.progress(first, evaluated(first, 10))
        # whoever ends without a word, as after kill -9, has ended nothing
        assert [each.ended for each in journal.attempts(first.id)] == [None]
    with Journal.create_or_open(tmp_path, Header(12, PSNR)) as journal, opened(journal) as search:
        assert [each.outcome for each in journal.attempts(first.id)] == ["interrupted"]
        assert [asked(search), asked(search)] == [first, third]
        assert search.knows(first, 10)
        assert not search.knows(first, 20)
        assert search.start(first) == 2
        assert asked(search).id == "c0003"


def test_of_several_observers_the_first_counts(tmp_path: Path) -> None:
    """One that was cut off may tell later what another has told; the engine learns it once."""
    with Journal.create_or_open(tmp_path, Header(2, PSNR)) as journal, opened(journal, trials=2) as search:
        candidate = asked(search)
        assert search.start(candidate) == 1
        assert search.start(candidate) == 2  # it was given to someone else
        assert search.tell(Observation(candidate, 30.0, None, 1.0))
        assert not search.tell(Observation(candidate, 31.0, None, 1.0))
        assert not search.tell(Observation(candidate, None, "diverged"))
        assert [each.value for each in journal.observations()] == [30.0]
        assert [each.outcome for each in journal.attempts()] == ["killed", "observed"]
        assert asked(search).decision["observations"] == 1


def test_a_lost_training_is_given_again_and_a_failed_one_is_not(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, Header(2, PSNR)) as journal, opened(journal, trials=2) as search:
        first, second = asked(search), asked(search)
        search.start(first, 1)
        search.end(first, "killed")
        search.end(first, "killed")  # there is none to end any more
        search.give_again(first)
        search.progress(second, Progress(1, 5, None, {"loss": 0.5}, 2.5))
        assert search.tell(Observation(second, None, "out of memory", search.seconds(second)))
        assert search.ask() == first
        assert search.ask() is None
        search.start(first, 2)
        (failed,) = journal.observations()
        assert (failed.failure, failed.seconds) == ("out of memory", 2.5)
        assert [each.outcome for each in journal.attempts(first.id)] == ["killed", None]


def test_a_training_that_will_not_matter_is_told_so_and_observed_by_its_forecast(tmp_path: Path) -> None:
    """All rise alike, so a training's end follows from its first evaluation."""
    with Journal.create_or_open(tmp_path, Header(12, PSNR)) as journal:
        with opened(journal, best=2, strategy="random") as search:
            stopped = []
            for _ in range(12):
                candidate = asked(search)
                for step in range(10, STEPS + 1, 10):
                    search.progress(candidate, evaluated(candidate, step))
                    if search.verdict(candidate, wait=True):
                        observation = search.stopped(candidate, 1.0, {"accuracy": 0.1})
                        assert observation.value == pytest.approx(
                            value(candidate.architecture, STEPS), abs=1e-6
                        )
                        assert search.tell(observation)
                        stopped.append(candidate.id)
                        break
                else:
                    assert told(search, candidate)
        assert len(stopped) >= 3
        finished = [each for each in journal.observations() if each.finished]
        best = sorted((each.value or 0.0 for each in journal.observations()), reverse=True)[:2]
        assert sorted((each.value or 0.0 for each in finished), reverse=True)[:2] == best
        outcomes = [journal.attempts(name)[0].outcome for name in stopped]
    assert set(outcomes) == {"stopped"}


def test_an_exhausted_space_and_an_engine_that_fails(tmp_path: Path) -> None:
    class Failing(Engine):
        def observe(self, observation: Observation) -> None:
            raise RuntimeError("the engine is broken")

    space = SearchSpace.from_table([{"size": size} for size in (1, 2)])
    with Journal.create_or_open(tmp_path, Header(5, PSNR)) as journal:
        search = AskTell(Failing(space, strategy="random", trials=5), journal, trials=5)
        first, second = asked(search), asked(search)
        assert search.ask() is None
        assert {first.architecture.axes["size"], second.architecture.axes["size"]} == {1, 2}
        search.tell(Observation(first, 1.0))
        with pytest.raises(RuntimeError, match="the engine is broken"):
            search.close()
        assert len(journal.observations()) == 1  # committed before the engine learned of it


def test_without_waiting_the_engine_thinks_on(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, Header(3, PSNR)) as journal, opened(journal, trials=3) as search:
        found: list[Candidate] = []
        while len(found) < 3:
            candidate = search.ask(patience=0.0)
            assert candidate is not None or search.thinking
            found += [candidate] if candidate else []
        assert not search.thinking
        assert search.ask(patience=0.0) is None
        assert not search.thinking
        assert [each.id for each in journal.pending()] == ["c0000", "c0001", "c0002"]


def test_it_loads_neither_ray_nor_the_engine() -> None:
    script = "import sys, gpnas.ask_tell; assert not {'ray', 'gpnas.engine', 'gpytorch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_search_ends_where_stopping_hardly_loses_anything_and_goes_on_where_it_must_not(
    tmp_path: Path,
) -> None:
    """The best of all is trained within eight; each observation has a row of what was left to gain then."""
    with Journal.create_or_open(tmp_path, Header(12, PSNR)) as journal:
        with opened(journal, stop_below=100.0) as search:
            while (candidate := search.ask()) is not None:
                told(search, candidate)
        prospects = journal.prospects()
        assert [each.observations for each in prospects] == list(range(1, 9))
        assert prospects[-1].bound < 100.0
        best = max(journal.observations(), key=lambda each: each.value or 0.0)
        assert prospects[-1].leader == best.candidate.id
        with opened(journal, stop_below=100.0) as search:  # as it stood
            assert search.ask() is None
        with opened(journal) as search:
            assert search.ask() is not None
        assert len(journal.prospects()) == 8
