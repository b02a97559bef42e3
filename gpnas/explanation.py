"""Why a candidate was chosen: what the engine believed at that moment, recomputed.

An engine is a pure function of what was suggested and observed, so one that is given what was known
when a candidate was chosen stands where the search stood then, and can be asked anything. What it
says is compared with the decision that was written down at the time.

Glossary: n architectures of the space, q of them weighed for a suggestion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gpnas.diagnostics import Diagnostics, diagnose
from gpnas.engine import LOGARITHMIC, SCORED, VERSION, Engine, Weighing
from gpnas.files import did_you_mean
from gpnas.journal import Moment
from gpnas.learned import Learned, learned
from gpnas.records import ENTERED, WANTED, Architecture, Candidate, Observation
from gpnas.regret import sampled

ALTERNATIVES = 5
"""Runners-up that are told."""
TOLERANCE = 1e-4
"""Difference between recomputed and noted numbers, in standard deviations, that rounding may make: on
another processor a fit ends elsewhere within its tolerance."""

SCORES = {
    "mutual information": "nats that its outcome tells of all architectures left",
    "knowledge gradient": "log of what it is expected to add to the best posterior mean, in standardised "
    "units, times its probability of success",
    "noisy expected improvement": "log of its expected improvement over the best so far, in standardised "
    "units, times its probability of success",
    "optimism": "latent mean plus two standard deviations, plus the log probability of success",
    "sources": "latent mean from what other searches observed, plus the log probability of success",
    "portfolio improvement": "log of the dB that it is expected to add to the best portfolio's average, "
    "times its probability of success",
    "posterior mean": "posterior mean in the objective's unit, less where success is unlikely",
    "random": "none: chance decided",
    "default": "none: the first trial of a family is its default",
}
"""Phase to what its score is."""


@dataclass(frozen=True)
class History:
    """A whole search, in order."""

    choices: Sequence[Moment]
    """One for each candidate, in the order of proposal."""
    observations: Sequence[Observation]
    """All of them, in the order they came."""
    engine: Callable[[int], Engine]
    """An engine that knows nothing yet, as the search had it when it proposed candidate number i."""
    words: Sequence[tuple[str, Architecture]] = ()
    """What people wanted to be trained (`wanted`), or not (`vetoed`), in order."""

    def number(self, name: str) -> int:
        """The place of a candidate among the choices.

        Args:
            name: of a candidate; `best` is the one with the best observed value.

        Raises:
            ValueError: there is none of that name.
        """
        names = [choice.candidate.id for choice in self.choices]
        if name == "best":
            finished = [each for each in self.observations if each.finished]
            if not finished:
                raise ValueError("the best candidate must have an observed value, but no candidate has one")
            sign = self.engine(0).sign if self.choices else 1
            name = max(finished, key=lambda each: sign * (each.value or 0.0)).candidate.id
        if name not in names:
            known = f"{names[0]} … {names[-1]}" if names else "none yet"
            raise ValueError(
                f"a candidate must be one of the search's ({known}) or `best`, but got {name!r}"
                + did_you_mean(name, [*names, "best"])
            )
        return names.index(name)


@dataclass(frozen=True)
class Prediction:
    """What is believed of one architecture, in the objective's unit."""

    mean: float
    stddev: float
    """Standard deviation of the mean of many trainings."""
    low: float
    high: float
    """Bounds that hold one training with a probability of 90 %."""


@dataclass(frozen=True)
class Weighed:
    """One of the architectures among which the engine chose."""

    architecture: Architecture
    score: float | None
    """None where chance decided."""
    share: float | None
    """What it was expected to gain, per second where that counted, as a share of the explained
    candidate's; None where scores are no gains."""
    prediction: Prediction | None
    """None while nothing was observed."""
    success: float
    """Probability that its training succeeds."""
    seconds: float | None
    """That its training was expected to take; None where that did not count."""
    replicate: bool
    """Whether it had been proposed before."""
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate."""

    value: float | None
    failure: str | None
    seconds: float
    inside: bool | None
    """Whether the value is within the 90 % interval of the time; None where either is missing."""
    surprise: float | None
    """How many standard deviations of one training the value lies above the prediction."""
    stopped: str | None = None
    """Why the training was ended early; the value is then what its curve predicted."""


@dataclass(frozen=True)
class Explanation:
    """A candidate, at the moment it was chosen."""

    candidate: Candidate
    time: str
    phase: str
    score_meaning: str
    chosen: Weighed
    rank: int | None
    """Place by score among `weighed` architectures, 1 is the highest; None where it was not among them or
    chance decided."""
    weighed: int
    mean_rank: int | None
    """Place by posterior mean among `ranked` architectures; None while nothing was observed."""
    ranked: int
    alternatives: tuple[Weighed, ...]
    """The runners-up by score."""
    observed: tuple[str, ...]
    """Names of the candidates whose outcome was known, in the order it came."""
    pending: tuple[str, ...]
    """Names of those proposed whose outcome was not."""
    differences: tuple[str, ...]
    """Where the recomputed decision is not the noted one; empty where they agree."""
    older: bool
    """Whether an engine of an older version chose, so that differences are no fault."""
    learned: Learned | None
    """None while nothing was observed."""
    diagnostics: Diagnostics
    """How far the surrogate could be trusted at that moment."""
    outcome: Outcome | None
    """What came of it afterwards; None while it is pending."""

    def to_json(self) -> dict[str, Any]:
        document = {
            "id": self.candidate.id,
            "architecture": self.candidate.architecture.to_json(),
            "time": self.time,
            "phase": self.phase,
            "score_meaning": self.score_meaning,
            **_weighed_json(self.chosen),
            "rank": self.rank,
            "weighed": self.weighed,
            "mean_rank": self.mean_rank,
            "ranked": self.ranked,
            "alternatives": [_weighed_json(each) for each in self.alternatives],
            "observed": list(self.observed),
            "pending": list(self.pending),
            "learned": None if self.learned is None else asdict(self.learned),
            "diagnostics": self.diagnostics.to_json(),
            "decision": dict(self.candidate.decision),
            "agrees": not self.differences,
            "differences": list(self.differences),
            "older_engine": self.older,
            "outcome": None if self.outcome is None else asdict(self.outcome),
        }
        return _finite(document)


def explain(history: History, name: str) -> Explanation:
    """Why a candidate was chosen.

    Args:
        history: of its search.
        name: of the candidate, or `best`.

    Raises:
        ValueError: there is none of that name.
    """
    return _explanation(history, history.number(name))


def explain_all(history: History) -> Iterator[Explanation]:
    """Every candidate's explanation, in the order of proposal."""
    return (_explanation(history, number) for number in range(len(history.choices)))


def standing(history: History) -> tuple[Learned | None, Diagnostics]:
    """What the surrogate has learned from all observations, and how far it can be trusted."""
    engine = history.engine(max(0, len(history.choices) - 1))
    engine.replay([choice.candidate for choice in history.choices], history.observations)
    return taught(engine)


def taught(engine: Engine) -> tuple[Learned | None, Diagnostics]:
    """What an engine has learned from its observations, and how far it can be trusted."""
    pool, mean = _pool(engine, torch.zeros(0, dtype=torch.long))
    return _learned(engine, pool, mean), diagnose(engine.surrogate)


PEOPLE = {
    WANTED: "a person asked for it; no score decided",
    ENTERED: "a person told of a training made elsewhere; no score decided",
}
"""Phases in which no engine chose, and what decided."""


def _moment(history: History, number: int) -> tuple[Engine, Weighing, tuple[str, ...]]:
    """An engine as it stood when a candidate was chosen, what it weighs, and where it differs from the
    decision."""
    engine, choice = history.engine(number), history.choices[number]
    candidate = choice.candidate
    earlier = [each.candidate for each in history.choices[:number]]
    engine.replay(earlier, history.observations[: choice.observations])
    for word, architecture in history.words[: int(candidate.decision.get("words", 0))]:
        engine.allow(architecture, word == "wanted")
    weighing = engine.weigh()
    index = engine.space.index(candidate.architecture)
    if weighing is None:  # an exhausted space suggests nothing: another version did
        weighing = Weighing("none: every architecture was taken", torch.tensor([index]), None, 0)
    phase = str(candidate.decision.get("phase"))
    if phase in PEOPLE:  # nothing of it is the engine's decision
        return engine, Weighing(phase, torch.tensor([index]), None, 0), ()
    return engine, weighing, tuple(_differences(engine, weighing, candidate, index))


def _differences(engine: Engine, weighing: Weighing, candidate: Candidate, index: int) -> Iterator[str]:
    """What a decision says otherwise than the engine that is to have made it."""
    decision = candidate.decision
    chosen = engine.space[int(weighing.indices[weighing.place])]
    if chosen != candidate.architecture:
        yield f"chosen was {candidate.architecture}, recomputed {chosen}"
    if decision.get("phase") != weighing.phase:
        yield f"phase was {decision.get('phase', 'not noted')}, recomputed {weighing.phase}"
    if "mean" in decision and len(engine.surrogate):
        belief = engine.belief(torch.tensor([index]))
        stddev = float(belief.stddev)
        yield from _difference("mean", decision["mean"], float(belief.mean), stddev)
        yield from _difference("stddev", decision.get("stddev"), stddev, stddev)
    score = _score(weighing, index)
    if decision.get("score") is not None and score is not None:
        yield from _difference("score", decision["score"], score, 1.0)


def _difference(name: str, noted: Any, found: float, scale: float) -> Iterator[str]:
    if not isinstance(noted, int | float):
        yield f"{name} was not noted, recomputed {found:.6g}"
    elif abs(noted - found) > TOLERANCE * scale:
        yield f"{name} was {noted:.6g}, recomputed {found:.6g}"


def _explanation(history: History, number: int) -> Explanation:
    engine, weighing, differences = _moment(history, number)
    choice, candidate = history.choices[number], history.choices[number].candidate
    index = engine.space.index(candidate.architecture)
    score = _score(weighing, index)
    pool, mean = _pool(engine, torch.cat([weighing.indices, torch.tensor([index])]))
    own = None if mean is None else float(mean[int((pool == index).nonzero()[0])])
    earlier = [each.candidate for each in history.choices[:number]]
    taken = {engine.space.index(each.architecture) for each in earlier}
    chosen, *others = _weighed(engine, weighing, [index, *_runners_up(weighing, index)], score, taken)
    observed = dict.fromkeys(each.candidate.id for each in history.observations[: choice.observations])
    version = candidate.decision.get("engine")  # the first one did not note its own
    return Explanation(
        candidate=candidate,
        time=choice.time,
        phase=weighing.phase,
        score_meaning=_meaning(weighing.phase, engine.cost_aware),
        chosen=chosen,
        rank=_rank(weighing.scores, score),
        weighed=len(weighing.indices),
        mean_rank=_rank(mean, own),
        ranked=len(pool),
        alternatives=tuple(others),
        observed=tuple(observed),
        pending=tuple(each.id for each in earlier if each.id not in observed),
        differences=differences,
        older=not isinstance(version, int) or version < VERSION,
        learned=_learned(engine, pool, mean),
        diagnostics=diagnose(engine.surrogate),
        outcome=_outcome(engine, index, chosen.prediction, candidate, history.observations),
    )


def _meaning(phase: str, cost_aware: bool) -> str:
    meaning = PEOPLE.get(phase) or SCORES.get(phase, "the larger, the better")
    return f"{meaning}, per expected second" if cost_aware and phase in LOGARITHMIC else meaning


def _score(weighing: Weighing, index: int) -> float | None:
    """The score of an architecture; None where it was not weighed, or chance decided."""
    found = None if weighing.scores is None else weighing.scores[weighing.indices == index]
    return None if found is None or not len(found) else float(found[0])


def _rank(values: Tensor | None, own: float | None) -> int | None:
    """1 for the largest; what is within rounding of it shares its rank."""
    if values is None or own is None:
        return None
    return 1 + int((values > own + 1e-9 * max(1.0, abs(own))).sum())


def _runners_up(weighing: Weighing, index: int) -> list[int]:
    if weighing.scores is None:
        return []
    order = weighing.scores.argsort(descending=True, stable=True)
    best = [int(weighing.indices[place]) for place in order[: ALTERNATIVES + 1]]
    return [each for each in best if each != index][:ALTERNATIVES]


def _pool(engine: Engine, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
    """Architectures that stand for the space, the wanted ones among them, and their posterior means, in
    the sign in which larger is better.

    All of it where it is small enough for the engine to score, else a random part.
    """
    pool = torch.cat([sampled(torch.arange(len(engine.space)), SCORED), wanted]).unique()
    if not len(engine.surrogate):
        return pool, None
    return pool, engine.surrogate.mean_and_variance(engine.features(pool))[0]


def _weighed(
    engine: Engine, weighing: Weighing, indices: list[int], score: float | None, taken: Container[int]
) -> list[Weighed]:
    """The architectures of some indices, with shares of the gain of this score."""
    places = torch.tensor(indices)
    success, seconds = engine.prospects(places)
    predictions: list[Prediction | None] = [None] * len(indices)
    if len(engine.surrogate):
        belief = engine.belief(places)
        columns = (each.tolist() for each in (belief.mean, belief.stddev, belief.low, belief.high))
        predictions = [Prediction(*row) for row in zip(*columns, strict=True)]
    found = []
    for row, index in enumerate(indices):
        own, share = _score(weighing, index), None
        if own is not None and score is not None and math.isfinite(score):
            if weighing.phase in LOGARITHMIC:
                share = math.exp(min(own - score, 700.0))
            elif weighing.phase == "mutual information" and score > 0:
                share = own / score
        found.append(
            Weighed(
                architecture=engine.space[index],
                score=own,
                share=share,
                prediction=predictions[row],
                success=float(success[row]),
                seconds=None if seconds is None else float(seconds[row]),
                replicate=index in taken,
                costs={name: float(values[index]) for name, values in engine.space.costs.items()},
            )
        )
    return found


def _learned(engine: Engine, pool: Tensor, mean: Tensor | None) -> Learned | None:
    if mean is None:
        return None
    return learned(engine.surrogate, engine.space, engine.features(), pool, mean, engine.sign)


def _outcome(
    engine: Engine,
    index: int,
    prediction: Prediction | None,
    candidate: Candidate,
    observations: Sequence[Observation],
) -> Outcome | None:
    told = next((each for each in observations if each.candidate.id == candidate.id), None)
    if told is None:
        return None
    inside = surprise = None
    if told.value is not None and prediction is not None:
        inside = prediction.low <= told.value <= prediction.high
        posterior = engine.surrogate
        mean, variance = posterior.latent(engine.features(torch.tensor([index])))
        merit = torch.tensor([engine.sign * told.value], dtype=torch.float64)
        above = float(posterior.warp.latent(merit)) - float(mean)
        surprise = engine.sign * above / math.sqrt(float(variance) + posterior.noise)
    stopped = None if told.stopped is None else str(told.stopped)
    return Outcome(told.value, told.failure, told.seconds, inside, surprise, stopped)


def _weighed_json(weighed: Weighed) -> dict[str, Any]:
    return asdict(weighed) | {"architecture": weighed.architecture.to_json()}


def _finite(value: Any) -> Any:
    """A document without the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
