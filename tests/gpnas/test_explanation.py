"""Explanations equal what an engine that lived through the search said at the time."""

import json
import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gpnas import Architecture, Engine, Observation, SearchSpace
from gpnas.cli import main
from gpnas.engine import VERSION, Weighing
from gpnas.errors import JournalError
from gpnas.explanation import Explanation, History, explain, explain_all, standing
from gpnas.journal import Header, Journal, Moment, Search
from gpnas.learned import learned, relevance
from gpnas.records import STRATEGIES, Candidate, Source
from gpnas.regret import sampled
from gpnas.results.recall import explain_candidate, explain_search
from gpnas.run.pricing import priced
from gpnas.run.provenance import versions
from gpnas.run.setup import PSNR, Data, Setup
from gpnas.space import CategoricalAxis, Column, Family, IntegerAxis
from gpnas.surrogate import Surrogate

SPACE = SearchSpace(
    [
        Family(
            "drn",
            (
                IntegerAxis("features", tuple(range(8, 33, 4))),
                IntegerAxis("blocks", (1, 2, 3, 4)),
                IntegerAxis("stages", (1, 2, 3)),
            ),
        )
    ]
)
SMALL = SPACE.where("features * blocks <= 64")
TRIALS = 10


def objective(architecture: Architecture) -> float:
    features, blocks, stages = (float(architecture.axes[name]) for name in ("features", "blocks", "stages"))
    return 28 + math.log(features) / 4 - 0.05 * (blocks - 3) ** 2 - 0.02 * stages


def observed(candidate: Candidate) -> Observation:
    """Every fifth training fails."""
    if candidate.id.endswith(("4", "9")):
        return Observation(candidate, None, "out of memory", 1.0)
    return Observation(candidate, objective(candidate.architecture), None, 2.0, {"ssim": 0.8})


@dataclass
class Lived:
    """What an engine said when it chose."""

    candidate: Candidate
    known: list[str]
    pending: list[str]
    weighing: Weighing
    mean: Tensor | None
    stddev: Tensor | None
    success: Tensor


def live(
    engine: Engine, trials: int, journal: Journal | None = None
) -> tuple[list[Lived], list[Observation]]:
    """A search with two trainings at a time, whose outcomes may come while the engine thinks.

    Such a one is committed before the candidate that is being thought of, and known only after it.
    """
    lived: list[Lived] = []
    told: list[Observation] = []
    running: list[Candidate] = []
    while len(lived) < trials or running:
        late = None
        if len(lived) < trials:
            weighing = engine.weigh()
            assert weighing is not None
            belief = engine.belief() if len(engine.surrogate) else None
            mean, stddev = (belief.mean, belief.stddev) if belief else (None, None)
            success, _ = engine.prospects(weighing.indices)
            (candidate,) = engine.suggest(1)
            known = [each.candidate.id for each in told]
            pending = [each.candidate.id for each in lived if each.candidate.id not in known]
            lived.append(Lived(candidate, known, pending, weighing, mean, stddev, success))
            if len(running) == 2:
                late = observed(running.pop(len(lived) % 2))
                if journal:
                    journal.commit_observation(late)
            if journal:
                journal.commit_candidates([candidate])
            running.append(candidate)
        else:
            late = observed(running.pop(0))
            if journal:
                journal.commit_observation(late)
        if late is not None:
            told.append(late)
            engine.observe(late)
    return lived, told


def choices(lived: Sequence[Lived]) -> list[Moment]:
    return [Moment(each.candidate, "2026-01-01T00:00:00.000+00:00", 1, len(each.known)) for each in lived]


def check(explanation: Explanation, then: Lived, space: SearchSpace) -> None:
    """Everything is as it was."""
    candidate, index = then.candidate, space.index(then.candidate.architecture)
    assert explanation.candidate == candidate
    assert explanation.differences == ()
    assert explanation.phase == candidate.decision["phase"]
    assert list(explanation.observed) == then.known
    assert list(explanation.pending) == then.pending
    assert explanation.weighed == len(then.weighing.indices)
    chosen = explanation.chosen
    if then.mean is None or then.stddev is None:
        assert chosen.prediction is None
        assert explanation.mean_rank is None
    else:
        assert chosen.prediction is not None
        assert chosen.prediction.mean == pytest.approx(float(then.mean[index]))
        assert chosen.prediction.stddev == pytest.approx(float(then.stddev[index]))
        assert chosen.prediction.low < chosen.prediction.mean < chosen.prediction.high
        above = sum(float(mean) > float(then.mean[index]) + 1e-9 for mean in then.mean)
        assert explanation.mean_rank == 1 + above
        assert explanation.ranked == len(space)
    assert chosen.success == pytest.approx(float(then.success[then.weighing.place]))
    assert chosen.replicate == bool(candidate.decision.get("replicate"))
    if then.weighing.scores is None:
        assert explanation.alternatives == ()
        return
    pairs = zip(then.weighing.scores.tolist(), then.weighing.indices.tolist(), strict=True)
    order = sorted(((-score, i) for score, i in pairs if i != index))
    own = float(then.weighing.scores[then.weighing.place])
    assert explanation.rank == 1 + sum(-score > own + 1e-9 for score, _ in order)
    assert chosen.score == pytest.approx(candidate.decision["score"])
    assert [each.score for each in explanation.alternatives] == pytest.approx([-s for s, _ in order[:5]])
    assert len({each.architecture for each in explanation.alternatives} | {candidate.architecture}) == 6


@pytest.mark.parametrize("strategy", [*STRATEGIES, "warm"])
def test_every_choice_is_recomputed_as_it_was_made(strategy: str) -> None:
    """Also where another search was learned from, and gains count per second."""
    space = SPACE.with_costs(lambda a: {"parameters": float(a.axes["features"]) ** 2})
    other = Source("other", tuple(space)[::4], tuple(2 * objective(a) for a in tuple(space)[::4]))

    def engine(_: int = 0) -> Engine:
        if strategy == "warm":
            return Engine(space, seed=5, trials=TRIALS, sources=[other], cost_aware=True)
        return Engine(space, seed=5, strategy=strategy, trials=TRIALS)

    lived, told = live(engine(), TRIALS)
    history = History(choices(lived), told, engine)
    explained = list(explain_all(history))
    for explanation, then in zip(explained, lived, strict=True):
        check(explanation, then, space)
        outcome = explanation.outcome
        assert outcome is not None
        value = observed(then.candidate).value
        assert (outcome.value, outcome.failure is None) == (value, value is not None)
        prediction = explanation.chosen.prediction
        if value is None or prediction is None:
            assert outcome.inside is None
        else:
            assert outcome.inside == (prediction.low <= value <= prediction.high)
            assert outcome.surprise is not None
            assert outcome.inside == (abs(outcome.surprise) <= 1.6448536269514722)
        json.dumps(explanation.to_json(), allow_nan=False)
    if strategy == "warm":
        last = explain(history, lived[-1].candidate.id)
        assert last.learned is not None
        assert last.learned.sources["other"] > 0.3  # the same, twice as large
        assert {column.kind for column in last.learned.columns} == {"ordered", "cost"}
        by_gain = [each for each in explained if each.score_meaning.endswith("per expected second")]
        assert by_gain[-1].chosen.seconds == pytest.approx(2.0)
    best = max((each for each in told if each.value is not None), key=lambda each: each.value or 0)
    assert explain(history, "best").candidate == best.candidate


def test_a_decision_that_cannot_be_recomputed_is_told() -> None:
    def engine(_: int = 0) -> Engine:
        return Engine(SPACE, trials=TRIALS)

    lived, told = live(engine(), TRIALS)
    given = choices(lived)
    decision = dict(lived[7].candidate.decision) | {"mean": 99.0, "phase": "guess"}
    other = next(each for each in SPACE if each not in {then.candidate.architecture for then in lived})
    given[7] = replace(given[7], candidate=replace(lived[7].candidate, architecture=other, decision=decision))
    explanation = explain(History(given, told, engine), "c0007")
    assert len(explanation.differences) == 5  # the architecture, its phase, mean, stddev and score
    assert explanation.differences[0] == f"chosen was {other}, recomputed {lived[7].candidate.architecture}"
    assert explanation.differences[1].startswith("phase was guess, recomputed ")
    assert explanation.differences[2].startswith("mean was 99, recomputed ")
    assert explanation.rank is not None
    assert explanation.rank > 1


def test_a_decision_of_an_older_engine_is_one() -> None:
    """The first engine did not note its version."""
    lived, told = live(Engine(SPACE, trials=TRIALS), 5)
    candidate, given = lived[3].candidate, choices(lived)
    assert candidate.decision["engine"] == VERSION
    assert not explain(History(given, told, lambda _: Engine(SPACE, trials=TRIALS)), "c0003").older
    former = {key: value for key, value in candidate.decision.items() if key != "engine"}
    given[3] = replace(given[3], candidate=replace(candidate, decision=former))
    explained = explain(History(given, told, lambda _: Engine(SPACE, trials=TRIALS)), "c0003")
    assert explained.to_json()["older_engine"]
    assert not explained.differences


def test_unknown_candidates_are_named() -> None:
    lived, told = live(Engine(SPACE, trials=3), 3)
    history = History(choices(lived), told, lambda _: Engine(SPACE, trials=3))
    with pytest.raises(ValueError, match=r"\(c0000 … c0002\) or `best`, but got 'c0003'"):
        explain(history, "c0003")
    with pytest.raises(ValueError, match=r"\(none yet\) or `best`, but got 'c0000'"):
        explain(History([], [], lambda _: Engine(SPACE)), "c0000")
    with pytest.raises(ValueError, match="best candidate must have an observed value"):
        explain(History(choices(lived), [], lambda _: Engine(SPACE)), "best")
    empty, diagnostics = standing(History([], [], lambda _: Engine(SPACE)))
    assert empty is None
    assert diagnostics.observations == 0


# -- from a journal


def header(space: SearchSpace, trials: int) -> Header:
    document = {"fingerprint": space.fingerprint, **space.to_document()}
    return Header(
        trials=trials,
        objective=PSNR,
        search=Search(document, "mi+kg", steps=40, portfolio=3),
        setup=Setup(2, {"steps": 40}, Data("", "", "photographs", None), 1).to_json(),
        seed=3,
        versions=versions(),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchSpace, list[Lived]]:
    """A search of a limited space; its second session is granted more trials."""
    folder = tmp_path_factory.mktemp("run")
    space = priced(SMALL, 2, {"parameters": 1e5})
    assert len(space) < len(SPACE)
    lived: list[Lived] = []
    for trials in (6, 80):
        with Journal.create_or_open(folder, header(space, trials)) as journal:
            engine = Engine(space, seed=3, trials=trials, steps=40)
            before = journal.candidates(), journal.observations()
            engine.replay(*before)
            more, _ = live(engine, 6, journal)
            names = [each.candidate.id for each in before[1]]
            for each in more:  # the second session began with what the first one had learned
                each.known = names + each.known
            lived += more
    return folder, space, lived


def test_a_journal_tells_all_that_an_explanation_needs(run: tuple[Path, SearchSpace, list[Lived]]) -> None:
    """Space with its limits, costs, seed, and what was granted and known at each choice."""
    folder, space, lived = run
    with Journal.read(folder) as journal:
        observations = {each.candidate.id: each for each in journal.observations()}
    document = explain_search(folder, lambda done, total: None)
    assert [row["agrees"] for row in document["candidates"]] == [True] * 12
    assert [row["phase"] for row in document["candidates"]] == [
        each.candidate.decision["phase"] for each in lived
    ]
    assert document["candidates"][0]["phase"] == "mutual information"
    assert document["candidates"][7]["phase"] == "knowledge gradient"
    assert [row["value"] for row in document["candidates"]] == [
        observations[each.candidate.id].value for each in lived
    ]
    judged = [row["inside"] for row in document["candidates"] if row["inside"] is not None]
    assert document["intervals"] == {"held": sum(judged), "of": len(judged)}
    for number in (4, 5, 11):
        found = explain_candidate(folder, f"c{number:04d}")
        then = lived[number]
        assert found["observed"] == then.known
        assert found["pending"] == then.pending
        assert found["agrees"]
        assert found["prediction"]["mean"] == pytest.approx(then.candidate.decision["mean"])
        index = space.index(then.candidate.architecture)
        assert found["costs"] == {name: float(values[index]) for name, values in space.costs.items()}
        assert found["versions"] == {}


def test_a_journal_that_says_too_little_is_named(
    run: tuple[Path, SearchSpace, list[Lived]], tmp_path: Path
) -> None:
    whole = header(run[1], 6)
    assert whole.search is not None
    space = {name: value for name, value in whole.search.space.items() if name != "kept"}
    given = replace(whole, search=replace(whole.search, space=space))
    with Journal.create_or_open(tmp_path, given):
        pass
    with pytest.raises(JournalError, match="must describe its space") as error:
        explain_search(tmp_path, lambda done, total: None)
    assert len(str(error.value).splitlines()) == 1


def test_the_command_shows_it(
    run: tuple[Path, SearchSpace, list[Lived]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, lived = run
    assert main(["explain", str(folder), "c0005", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["architecture"] == lived[5].candidate.architecture.to_json()
    assert main(["explain", str(folder), "c0005"]) == 0
    shown = capsys.readouterr().out
    assert f"{document['prediction']['mean']:.3f}" in shown
    assert str(lived[5].candidate.architecture) in shown
    assert "agrees with the decision" in shown
    assert main(["explain", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert all(each.candidate.id in shown for each in lived)
    assert "leave-one-out over" in shown
    assert main(["explain", str(folder), "c0077"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert "must be one of the search's (c0000 … c0011) or `best`, but got 'c0077'; did you mean" in lines[0]


def test_moments_are_in_order_though_clocks_are_not(
    run: tuple[Path, SearchSpace, list[Lived]], tmp_path: Path
) -> None:
    with Journal.read(run[0]) as journal:
        moments = journal.moments()
        assert [moment.session for moment in moments] == [1] * 6 + [2] * 6
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as copy:
            journal._connection.backup(copy)
            copy.execute("UPDATE candidates SET time = '1999-01-01T00:00:00.000+00:00'")
            copy.commit()
    with Journal.read(tmp_path) as journal:
        back = journal.moments()
    assert [replace(moment, time="") for moment in back] == [replace(moment, time="") for moment in moments]


# -- what was learned


def test_relevance_is_the_share_of_the_semivariance() -> None:
    """Without a local term that bends, a linear term's is that of the squared steps along each column."""
    columns = (Column("a", "ordered"), Column("b", "ordered"))
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(4000, 2, generator=generator, dtype=torch.float64)
    x[:, 1] *= 0.5  # half as wide: a quarter of the variance
    y = x.sum(dim=1)[:4]
    flat = torch.tensor([[50.0, 50.0, 1e-9, 1.0, 0.1]], dtype=torch.float64).log()
    shares = relevance(Surrogate(x[:4], y, columns, flat), x)
    assert shares.tolist() == pytest.approx([0.8, 0.2], abs=0.06)
    steep = torch.tensor([[0.2, 50.0, 1.0, 1e-9, 0.1]], dtype=torch.float64).log()
    shares = relevance(Surrogate(x[:4], y, columns, steep), x)
    assert float(shares[0]) > 0.99


def test_effects_are_averages_over_all_other_axes() -> None:
    space = SearchSpace(
        [Family("net", (IntegerAxis("width", (1, 2, 4)), CategoricalAxis("norm", ("none", "batch"))))]
    )
    y = torch.tensor([float(a.axes["width"]) + (a.axes["norm"] == "batch") * 0.5 for a in space]).double()
    theta = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1e-5]], dtype=torch.float64).log()
    posterior = Surrogate(space.features, y, space.columns, theta)
    found = learned(posterior, space, space.features, torch.arange(6), y)
    assert [(name, each.worst, each.best) for name, each in found.effects.items()] == [
        ("width", 1, 4),
        ("norm", "none", "batch"),
    ]
    assert [each.gain for each in found.effects.values()] == pytest.approx([3.0, 0.5])
    assert sum(column.relevance for column in found.columns) == pytest.approx(1)
    unit = float(y.std())
    assert found.noise == pytest.approx(math.sqrt(1e-5) * unit)


def test_a_part_of_a_large_space_is_out_of_step_with_its_axes() -> None:
    """Every k-th of 100 values by 400 would hold one value of the last axis; each has its share here."""
    part = sampled(torch.arange(40_000), 4_000)
    assert len(part.unique()) == 4_000
    assert bool((part.diff() > 0).all())
    counts = (part % 100).bincount(minlength=100)
    assert 10 < int(counts.min()) <= int(counts.max()) < 80  # 40 on average, with a deviation of 6
    assert torch.equal(sampled(torch.arange(10), 10), torch.arange(10))
