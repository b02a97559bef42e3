"""Loops of one's own: asked and told from Python, by one process or several, that may die."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpnas
from gpnas import Architecture, Engine, SearchSpace
from gpnas.asked import Asked
from gpnas.errors import JournalError, SpaceError, TrialError
from gpnas.own_search import OwnSearch
from gpnas.records import Observation
from gpnas.space import Family, IntegerAxis

SPACE = SearchSpace([Family("net", (IntegerAxis("size", tuple(range(1, 21))),))])
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


def value(architecture: Architecture) -> float:
    return 30.0 - (int(architecture.axes["size"]) - 7) ** 2 / 10


def asked(search: OwnSearch) -> Asked:
    candidate = search.ask()
    assert candidate is not None
    return candidate


def net(size: int) -> Architecture:
    return Architecture("net", {"size": size})


def test_a_loop_trains_what_the_engine_alone_would(tmp_path: Path) -> None:
    engine = Engine(SPACE, seed=3, trials=6, common_seeds=True)
    for _ in range(2):  # opened again, in the middle
        with gpnas.open_search(tmp_path, SPACE, trials=6, seed=3) as search:
            for _ in range(3):
                (expected,) = engine.suggest(1)
                candidate = asked(search)
                assert candidate.candidate == expected
                assert search.tell(candidate, value(candidate.architecture))
                engine.observe(Observation(expected, value(expected.architecture)))
    with gpnas.open_search(tmp_path) as search:
        assert search.ask() is None
        assert search.state == "finished"
        best = search.best()
    assert best is not None
    assert best.value == max(value(net(int(each["size"]))) for each in [best.candidate.architecture.axes])


def test_a_wished_training_has_the_seed_that_the_engine_would_give_it(tmp_path: Path) -> None:
    """One seed for the first training of every architecture, another for the second ones."""
    with gpnas.open_search(tmp_path, SPACE, trials=8) as search:
        first = asked(search)
        others = [size for size in (1, 2, 20) if net(size) != first.architecture]
        wished = [search.wanted(net(size)) for size in others]
        again = [search.wanted(each.architecture) for each in wished]
    assert {each.seed for each in wished} == {first.seed}
    assert len({each.seed for each in again}) == 1
    assert again[0].seed != first.seed


KILLED = """
import os, signal, sys, gpnas
search = gpnas.open_search(sys.argv[1])
print(search.ask().id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_is_given_again(tmp_path: Path) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=3) as search:
        first = asked(search)
        died = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert died.stdout.split() == ["c0001"]
        again = asked(search)
        assert (first.id, again.id, again.attempt) == ("c0000", "c0001", 2)
        assert search.ask() is not None
        assert search.state == "waiting"
        assert [each.outcome for each in search.journal.attempts("c0001")] == ["lost", None]


def test_who_closes_without_a_word_gives_back_what_it_had(tmp_path: Path) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=3) as search:
        name = asked(search).id
    with gpnas.open_search(tmp_path) as search:
        candidate = asked(search)
        assert (candidate.id, candidate.attempt) == (name, 2)


def test_a_worker_is_known_again_by_its_name(tmp_path: Path) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=9, worker="array-3", bound=False) as search:
        first = asked(search)
        assert search.progress(first, 5, checkpoint="/scratch/c0000").word == "continue"
    with gpnas.open_search(tmp_path, worker="array-4", bound=False) as other:
        assert asked(other).id == "c0001"
    with gpnas.open_search(tmp_path, worker="array-3", bound=False) as search:
        again = asked(search)
    assert (again.id, again.attempt, again.checkpoint) == ("c0000", 2, "/scratch/c0000")


def test_a_failed_training_is_an_observation_that_the_engine_learns(tmp_path: Path) -> None:
    engine = Engine(SPACE, seed=0, trials=4, common_seeds=True)
    with gpnas.open_search(tmp_path, SPACE, trials=4) as search:
        for number in range(4):
            (expected,) = engine.suggest(1)
            candidate = asked(search)
            assert candidate.candidate == expected
            if number == 1:
                assert search.failed(candidate, "out of\nmemory")
                engine.observe(Observation(expected, None, "out of memory"))
            else:
                assert search.tell(candidate, float(number), seconds=2.5, loss=0.5)
                engine.observe(Observation(expected, float(number), None, 2.5))
        told = search.journal.observations()
    assert told[1].failure == "out of memory"
    assert (told[2].seconds, dict(told[2].metrics)) == (2.5, {"loss": 0.5})


@pytest.mark.parametrize("told", [float("nan"), float("inf"), None, "28", True, np.zeros(2)])
def test_what_is_no_number_is_refused_and_the_candidate_stays(tmp_path: Path, told: float) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=2) as search:
        candidate = asked(search)
        with pytest.raises(TrialError, match=r"the value of c0000 must be a finite number, but got"):
            search.tell(candidate, told)
        assert search.journal.observations() == []
        assert search.tell(candidate, np.float32(1.5))
        assert search.journal.observations()[0].value == 1.5


def test_a_hopeless_training_is_told_to_stop_and_is_observed_by_that(tmp_path: Path) -> None:
    """Curves that rise alike: after as many finished ones as it takes, a bad one will not matter."""
    space = SearchSpace([Family("net", (IntegerAxis("size", tuple(range(1, 21))),))])
    with gpnas.open_search(tmp_path, space, trials=12, steps=40, strategy="random") as search:
        for number in range(8):
            candidate = asked(search)
            for step in (10, 20, 30):
                assert not search.progress(candidate, step, 30 + number / 10 + step / 100).stop
            search.tell(candidate, 30 + number / 10 + 0.4)
        bad = asked(search)
        verdict = search.progress(bad, 10, 5.1)
        assert verdict.stop
        assert verdict.chance is not None
        assert verdict.chance < 0.05
        told = search.journal.observation(bad.id)
        assert told is not None
        assert told.stopped is not None
        assert told.stopped.step == 10
        assert not search.tell(bad, 5.4)  # what is observed counts once
        assert search.progress(bad, 20, 5.2).stop


def test_people_add_what_they_know(tmp_path: Path) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=4) as search:
        entered = search.enter(net(9), 29.0, loss=0.25)
        wanted = search.wanted(net(7))
        search.veto(net(8))
        first = asked(search)
        assert first.candidate == wanted
        assert first.seed == entered.seed  # each is the first of its architecture
        search.tell(first, 30.0)
        sizes = []
        while (candidate := search.ask()) is not None:
            sizes.append(candidate.axes["size"])
            search.tell(candidate, value(candidate.architecture))
        assert len(sizes) == 3  # what is entered takes nothing from the trials, what is wanted does
        assert 8 not in sizes
        observed = [(each.candidate.id, each.value) for each in search.journal.observations()]
        assert observed[:2] == [("c0000", 29.0), ("c0001", 30.0)]
        with pytest.raises(SpaceError, match="must be an architecture of the space"):
            search.wanted(net(99))
        with pytest.raises(TrialError, match="must be a finite number"):
            search.enter(net(1), float("nan"))


def test_a_vetoed_candidate_is_not_handed_out_until_it_is_wanted(tmp_path: Path) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=1) as search:
        candidate = asked(search)
        search.give_back(candidate)
        search.veto(candidate.architecture)
        assert search.ask() is None
        assert search.state == "finished"
        search.wanted(candidate.architecture)
        assert asked(search).architecture == candidate.architecture


def test_a_suggestion_that_was_overtaken_is_thought_anew(tmp_path: Path) -> None:
    """Another process commits a candidate while the first one thinks."""
    with gpnas.open_search(tmp_path, SPACE, trials=4) as one, gpnas.open_search(tmp_path) as other:
        suggest = one.engine.suggest

        def slow(n: int = 1) -> list[gpnas.Candidate]:
            found = suggest(n)
            other.wanted(net(20))
            return found

        one.engine.suggest = slow  # type: ignore[method-assign]
        first = asked(one)
        assert (first.id, first.axes["size"]) == ("c0000", 20)
        assert asked(one).id == "c0001"


def test_known_costs_are_kept_with_the_run(tmp_path: Path) -> None:
    space = SearchSpace.from_table(
        [{"width": w, "seconds": float(w * 2)} for w in (1, 2, 4, 8)], costs=["seconds"]
    )
    with gpnas.open_search(tmp_path, space, trials=2) as search:
        asked(search)
    with gpnas.open_search(tmp_path) as search:
        assert search.space.fingerprint == space.fingerprint


def test_a_run_that_is_another_is_refused(tmp_path: Path) -> None:
    gpnas.open_search(tmp_path, SPACE, trials=2).close()
    with pytest.raises(JournalError, match="a run goes on only as it was begun"):
        gpnas.open_search(tmp_path, SPACE, trials=2, seed=1)
    with pytest.raises(JournalError, match=r"must hold journal.sqlite"):
        gpnas.open_search(tmp_path / "nothing")
    with pytest.raises(SpaceError, match="an objective has a `name`"):
        gpnas.open_search(tmp_path / "new", SPACE, objective={"name": "x", "gaol": "minimise"})


WORKER = """
import sys, gpnas
with gpnas.open_search(sys.argv[1]) as search:
    while (candidate := search.ask()) is not None:
        search.tell(candidate, 30.0 - (candidate.axes["size"] - 7) ** 2 / 10)
"""


def test_several_processes_share_one_run(tmp_path: Path) -> None:
    gpnas.open_search(tmp_path, SPACE, trials=12, strategy="random").close()
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], env=QUIET) for _ in range(3)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0, 0]
    with gpnas.open_search(tmp_path) as search:
        journal = search.journal
        assert [each.id for each in journal.candidates()] == [f"c{number:04d}" for number in range(12)]
        assert len(journal.observations()) == 12
        assert [each.number for each in journal.attempts()] == [1] * 12


def test_what_is_undone_is_forgotten(tmp_path: Path) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=6, strategy="random") as search:
        first = asked(search)

        def fails() -> None:
            search.tell(asked(search), 1.0)
            search.wanted(net(20))
            search.veto(net(19))
            assert search.state == "open"  # all of it is known here
            raise ZeroDivisionError

        for _ in range(2):
            with pytest.raises(ZeroDivisionError), search.journal.writing():
                fails()
        assert [each.id for each in search.journal.candidates()] == [first.id]
        again = asked(search)
        assert (again.id, again.attempt) == ("c0001", 1)
        assert search.tell(again, 30.0)
        best = search.best()
        assert best is not None
        assert best.candidate == again.candidate
        assert net(20) not in {each.architecture for each in search.journal.candidates()}
        assert not search.memory.vetoed


def test_a_part_of_a_transaction_fails_alone(tmp_path: Path) -> None:
    with gpnas.open_search(tmp_path, SPACE, trials=6, strategy="random") as search:
        journal = search.journal

        def fails() -> None:
            asked(search)
            raise ZeroDivisionError

        with journal.writing():
            with journal.apart():
                kept = asked(search)
            with pytest.raises(ZeroDivisionError), journal.apart():
                fails()
            with journal.apart():
                more = asked(search)
        assert [kept.id, more.id] == [each.id for each in journal.candidates()] == ["c0000", "c0001"]
        assert [each.number for each in journal.attempts()] == [1, 1]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda search, candidate: search.tell(candidate, 10**400), "must be a finite number"),
        (lambda search, candidate: search.tell(candidate, None), "must be a finite number, but got None"),
        (
            lambda search, candidate: search.tell(candidate, torch.tensor(1.0)),
            r"is a Tensor; take its `.item\(\)`",
        ),
        (
            lambda search, candidate: search.progress(candidate, 1.5, 2.0),
            "a whole number of at least 0, but got 1.5",
        ),
        (
            lambda search, candidate: search.progress(candidate, -1, 2.0),
            "a whole number of at least 0, but got -1",
        ),
        (lambda search, candidate: search.wanted({"width": 1}), "must be a gpnas.Architecture"),
        (lambda search, candidate: search.veto("net:a=1"), "must be a gpnas.Architecture"),
        (lambda search, candidate: search.enter(None, 1.0), "must be a gpnas.Architecture"),
    ],
)
def test_what_a_loop_tells_wrongly_is_one_line_and_nothing_is_entered(
    tmp_path: Path, wrong: Callable[[Any, Any], object], line: str
) -> None:
    step: Any = np.int64(1)
    with gpnas.open_search(tmp_path / "run", SPACE, trials=3, strategy="random") as search:
        candidate = asked(search)
        with pytest.raises((TrialError, SpaceError), match=line) as caught:
            wrong(search, candidate)
        assert "\n" not in str(caught.value)
        assert search.journal.observations() == []
        assert search.progress(candidate, step, np.float32(2.5)).word == "continue"


@pytest.mark.parametrize(
    "wish", [{"trials": 0}, {"trials": "x"}, {"strategy": "best"}, {"seed": -1}, {"steps": 1.5}]
)
def test_wishes_that_cannot_be_are_told_by_name(tmp_path: Path, wish: dict[str, Any]) -> None:
    with pytest.raises(SpaceError, match=next(iter(wish))):
        gpnas.open_search(tmp_path / "run", SPACE, **wish)
    assert not (tmp_path / "run").exists()
