"""The engine: what to train next, and what is believed of the rest.

It is a pure function of (space, seed, what was suggested and observed): it has no clock, disk or
process, and draws suggestion number i from a generator of its own, so resuming is replaying.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from statistics import NormalDist
from typing import Any, TypeVar
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction, OneShotAcquisitionFunction
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.models.model import Model
from botorch.utils.sampling import manual_seed
from botorch.utils.transforms import is_ensemble
from gpytorch.utils.warnings import NumericalWarning
from numpy.typing import NDArray
from torch import Tensor

from gpnas.acquisition import (
    RIVALS,
    LogNoisyExpectedImprovement,
    log_knowledge_gradient,
    log_success_probability,
    success_labels,
)
from gpnas.design import EQUAL, Believed, Places, before_anything, choose, one_of, size_of
from gpnas.errors import JournalError, SpaceError
from gpnas.heterogeneity import (
    Disagreement,
    correlations_from,
    log_portfolio_improvement,
    measured_correlation,
    overlaps,
)
from gpnas.journal import Header
from gpnas.records import (
    STRATEGIES,
    Architecture,
    Candidate,
    Fidelity,
    Observation,
    Prospect,
    Source,
    derived_seed,
)
from gpnas.regret import DRAWS, joint_draws, most_promising, regret_of
from gpnas.space import Column, SearchSpace
from gpnas.surrogate import Believing, Context, Growing, Surrogate, fit, likeliest

LOGARITHMIC = ("knowledge gradient", "noisy expected improvement", "portfolio improvement")
"""Phases whose scores are logarithms of what is gained."""
SOURCE_TRAININGS = 200
"""Largest number of a source's trainings that are learned from; of more, the best half and a part spread
over the rest."""
LEAST_SUCCESS = math.log(0.25)
"""Log probability of success below which nothing is trained while there is anything else."""
COVERAGE = 0.9
"""Probability of the intervals of a belief."""
ROUND = 3
"""Observations after which the published design follows the fitted hyperparameters."""
SCORED = 20_000
"""Largest number of architectures that are scored; of more, a random part and the leaders' likes."""
FINALISTS = 1_000
"""Largest number of new architectures whose knowledge gradient is worked out: the ones of the best
posterior mean plus two standard deviations."""
ROW = 256
"""Suggestions in a row for which what they are chosen from is prepared at once."""
REPLICATES = 200
"""Largest number of trained architectures of which another training is weighed: those of the best
posterior means."""
SCREENING = 2
"""Members of the posterior's mixture that are asked who is a finalist."""
PART = 1_024
"""Architectures that a model or an acquisition function of someone else's is asked about at once."""


VERSION = 6
"""The engine's version, which each decision holds; raised when a journal would be decided otherwise."""


@dataclass(frozen=True)
class Known:
    """What an acquisition function may be made from, besides the model."""

    x: Tensor  # (n, d)
    """Features of what was observed, a row for each training."""
    y: Tensor  # (n,)
    """Values in the objective's unit, larger is better."""
    pending: Tensor  # (r, d)
    """Features of what was suggested and is not observed."""


ModelMaker = Callable[[Tensor, Tensor], Model]
"""Features (n, d) and values (n, 1) to a fitted single-output BoTorch model of the values."""
AcquisitionMaker = Callable[[Model, Known], AcquisitionFunction]
"""A maker of an acquisition function over single points, the larger the better."""


@dataclass(frozen=True)
class Belief:
    """What is believed of q architectures, in the objective's unit."""

    mean: Tensor  # (q,)
    stddev: Tensor  # (q,)
    """The standard deviation of the mean of many trainings."""
    low: Tensor  # (q,)
    high: Tensor  # (q,)
    """Bounds that hold one training with a probability of 90 %."""


@dataclass(frozen=True)
class Weighing:
    """What one suggestion is chosen from."""

    phase: str
    """How it is chosen, such as `mutual information`."""
    indices: Tensor  # (q,)
    """The architectures that may be suggested now; ones that were suggested before are replicates."""
    scores: Tensor | None  # (q,)
    """The larger, the better; None where chance decides."""
    place: int
    """Where the chosen one stands among the indices."""


T = TypeVar("T")


def _once(make: Callable[[Engine], T]) -> Callable[[Engine], T]:
    """A method of an engine, computed once after each observation."""

    @wraps(make)
    def kept(self: Engine) -> T:
        if make.__name__ not in self._since:
            self._since[make.__name__] = make(self)
        return self._since[make.__name__]

    return kept


class Engine:
    """Proposes architectures and learns from what came of them.

    Args:
        space: to choose from.
        seed: of everything random; 0 … 2³¹-1.
        strategy: one of `STRATEGIES`.
        trials: the whole allowance, from which the size of the design derives; None counts on 40.
        steps: optimiser steps granted to each candidate.
        design: how many candidates mutual information chooses; None derives it from `trials`, and is
            none where there are sources.
        sources: what other searches observed. How much they tell of this one is learned.
        portfolio: more than 1 values an architecture by what it would add to the average of so many
            networks, where observations tell the correlation of their errors (`gpnas.heterogeneity`).
        cost_aware: whether what a training is expected to bring is divided by the seconds that it is
            expected to take.
        model: makes the model that takes the surrogate's place; `acquisition` then chooses.
        minimise: whether the smaller of two values is the better one. What is observed, believed and decided
            is in the values' own sign; `model` and what is made from it know their negatives.
        common_seeds: whether the first trainings of all architectures have one seed, the second ones another,
            and so on, rather than each training its own.
        defaults: of families, one each at most: the first trial of such a family is its default.
        acquisition: makes the acquisition function that chooses after the design, in place of the
            strategy's. None leaves the choice to the strategy or, with a model that is not the
            surrogate, to log expected improvement over the best posterior mean of what was observed.

    Raises:
        ValueError: an unknown strategy, or a number out of range.
        SpaceError: a source has no architecture of this space, or a default is none of it.
    """

    def __init__(  # noqa: PLR0913 - the search's face for Python: each but the space may be left out
        self,
        space: SearchSpace,
        seed: int = 0,
        strategy: str = "mi+kg",
        *,
        trials: int | None = None,
        steps: int = 1,
        design: int | None = None,
        sources: Sequence[Source] = (),
        cost_aware: bool = False,
        portfolio: int = 1,
        model: ModelMaker | None = None,
        acquisition: AcquisitionMaker | None = None,
        minimise: bool = False,
        common_seeds: bool = False,
        defaults: Sequence[Architecture] = (),
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"a strategy must be one of {', '.join(STRATEGIES)}, but got {strategy!r}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"`0 <= seed < 2**31` must hold, but got {seed}")
        if trials is not None and trials < 1:
            raise ValueError(f"`trials >= 1` must hold, but got {trials}")
        if design is not None and design < 0:
            raise ValueError(f"`design >= 0` must hold, but got {design}")
        if portfolio < 1:
            raise ValueError(f"`portfolio >= 1` must hold, but got {portfolio}")
        if sources and model is not None:
            raise ValueError("`model` cannot learn from `sources`, but got both; leave one out")
        self.space, self.seed, self.strategy = space, seed, strategy
        self.sign = -1 if minimise else 1
        if strategy == "random" or (sources and design is None):
            self.design = 0
        else:
            self.design = size_of(strategy, trials) if design is None else design
        self.cost_aware, self.portfolio = cost_aware, portfolio
        self._common_seeds = common_seeds
        self._defaults = {each.family: space.index(each) for each in defaults}
        self._fidelity = Fidelity(steps)
        self._suggested: dict[str, int] = {}  # candidate id -> index
        self._observed: dict[str, Observation] = {}
        self._taken = torch.zeros(len(space), dtype=torch.bool)
        self._vetoed = torch.zeros(len(space), dtype=torch.bool)
        self._words = 0  # of people, on what may be suggested
        own = space.columns or (Column("constant", "ordered"),)
        self._columns: tuple[Column, ...] = (*own, *(Column(source.name, "task") for source in sources))
        none_of_them = torch.zeros(len(space), len(sources), dtype=torch.float64)
        self._features = torch.cat([space.features, none_of_them], dim=1) if sources else space.features
        self._context = _context(space, own, sources, self.sign) if sources else None
        self._make_model, self._make_acquisition = model, acquisition
        watched = self._features if len(space) <= SCORED else None
        columns, context = self._columns, self._context
        self._values = Growing(
            lambda x, y, members: fit(x, y, columns, members=members, context=context), watched
        )
        self._labels = Growing(lambda x, y, _: likeliest(x, y, columns))
        self._durations = Growing(lambda x, y, _: fit(x, y, columns, members=1))
        self._since: dict[str, Any] = {}  # what was computed since the last observation, by its method

    def suggest(self, n: int = 1) -> list[Candidate]:
        """The next candidates; they count as pending until they are observed.

        Args:
            n: how many, at least 0.

        Returns:
            n candidates; fewer, or none, when every architecture was suggested. One that was
            suggested before comes again only from `mi+kg`, where training it once more is worth more
            than any other, with another seed.
        """
        if n < 0:
            raise ValueError(f"`n >= 0` must hold, but got {n}")
        candidates = []
        for _ in range(n):
            weighing = self.weigh()
            if weighing is None:
                break
            number, index = len(self._suggested), int(weighing.indices[weighing.place])
            earlier = list(self._suggested.values()).count(index)
            candidate = Candidate(
                id=f"c{number:04d}",
                architecture=self.space[index],
                fidelity=self._fidelity,
                seed=derived_seed(self.seed, "training", earlier if self._common_seeds else number),
                decision=self._decision(weighing, index),
            )
            self._note(candidate)
            candidates.append(candidate)
        return candidates

    def foresee(self, n: int, after: Sequence[Candidate] = ()) -> list[Candidate]:
        """What `suggest` would return now; nothing counts as pending, so it may be asked again and again.

        Args:
            n: how many.
            after: candidates that are suggested first.
        """
        kept = dict(self._suggested), self._taken.clone()
        try:
            self.replay(after, ())
            return self.suggest(n)
        finally:
            self._suggested, self._taken = kept

    def weigh(self) -> Weighing | None:
        """What the next suggestion is chosen from; None when every architecture was suggested.

        A family's default takes the place of whatever else would be the first trial of that family.
        """
        free = (~self._taken & ~self._vetoed).nonzero()[:, 0]
        if not len(free):
            return None
        weighing = self._weighed(free, len(self._suggested))
        family = self.space[int(weighing.indices[weighing.place])].family
        default = self._defaults.get(family)
        if default is None or self._taken[default] or self._vetoed[default]:
            return weighing
        if any(self.space[index].family == family for index in self._suggested.values()):
            return weighing
        return Weighing("default", torch.tensor([default]), None, 0)

    def _weighed(self, free: Tensor, number: int) -> Weighing:
        """What suggestion `number` is chosen from, were there no defaults."""
        if self.strategy == "random":
            return Weighing("random", free, None, self._one_of(torch.ones(len(free)), number))
        blind = self._context is None and not self._succeeded()  # all so far failed or is under way
        return self._by_information(free) if number < self.design or blind else self._by_score(free, number)

    def observe(self, observation: Observation) -> None:
        """Learns what came of a candidate, success or failure.

        Raises:
            SpaceError: the candidate's architecture is not of this space.
            ValueError: the candidate was observed before.
        """
        candidate = observation.candidate
        if candidate.id in self._observed:
            raise ValueError(f"a candidate is observed once, but {candidate.id} was already")
        if candidate.id not in self._suggested:
            self._note(candidate)
        self._observed[candidate.id] = observation
        self._since.clear()

    def allow(self, architecture: Architecture, allowed: bool) -> None:
        """Takes a person's word on whether an architecture may be suggested; the last one counts.

        Raises:
            SpaceError: it is not of this space.
        """
        self._vetoed[self.space.index(architecture)] = not allowed
        self._words += 1
        self._since.pop("prospect", None)

    def knows(self, candidate: Candidate) -> bool:
        """Whether a candidate was suggested, replayed or observed before."""
        return candidate.id in self._suggested

    def replay(self, candidates: Sequence[Candidate], observations: Sequence[Observation]) -> None:
        """Takes up a search where its journal ends: what was suggested, in order, and observed.

        Raises:
            SpaceError: a candidate's architecture is not of this space.
            ValueError: an observation comes twice.
        """
        for candidate in candidates:
            self._note(candidate)
        for observation in observations:
            self.observe(observation)

    def belief(self, indices: Tensor | None = None) -> Belief:
        """What is believed of these architectures, or of all."""
        x, model = self.features(indices), self.model
        mean, variance = _moments(model, x)
        if isinstance(model, Surrogate):
            low, high = model.interval(x, COVERAGE)
        else:
            _, noisy = _moments(model, x, observation_noise=True)
            half = NormalDist().inv_cdf(0.5 + COVERAGE / 2) * noisy.sqrt()
            low, high = mean - half, mean + half
        if self.sign < 0:
            mean, low, high = -mean, -high, -low
        return Belief(mean, variance.sqrt(), low, high)

    def prospects(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """What training each of these architectures promises: the probability of success, (q,), and the
        seconds that it is expected to take, (q,), or None where they do not count."""
        seconds = self._log_seconds(indices).exp() if self.cost_aware else None
        return self._log_success(indices).exp(), seconds

    def features(self, indices: Tensor | None = None) -> Tensor:
        """Features of these architectures, or of all, as the surrogate takes them, (q, d)."""
        return self._features if indices is None else self._features[indices]

    @property
    @_once
    def model(self) -> Model:
        """What the observations so far have taught, as a BoTorch model: the surrogate, or one's own."""
        if self._make_model is None:
            return self.surrogate
        known = self._known()
        if not len(known.y):
            raise ValueError(
                "a model of one's own needs a training that succeeded, but none has; observe one"
            )
        with manual_seed(derived_seed(self.seed, "model", len(self._observed))):
            return self._make_model(known.x, known.y[:, None])

    @property
    @_once
    def surrogate(self) -> Surrogate:
        """gpnas' own model of the observations so far, whoever's chooses."""
        known = self._known()
        return self._values.of(known.x, known.y, self._came(self._succeeded()))

    def _came(self, listed: Sequence[Observation]) -> list[int]:
        """Rows of listed observations, in the order in which they came."""
        order = {identity: place for place, identity in enumerate(self._observed)}
        return sorted(range(len(listed)), key=lambda row: order[listed[row].candidate.id])

    def outlook(self, architecture: Architecture) -> tuple[float, float] | None:
        """Mean and standard deviation of one more training of an architecture, in the objective's unit.

        Returns:
            None while nothing is known: no training succeeded, and there is no other search's.

        Raises:
            SpaceError: it is not of this space.
        """
        index = self.space.index(architecture)
        if self._context is None and not self._succeeded():
            return None
        model, x = self.model, self._features[[index]]
        if isinstance(model, Surrogate):
            mean, variance = model.latent(x)
            mean, variance = model.warp.moments(mean, variance + model.noise)
        else:
            mean, variance = _moments(model, x, observation_noise=True)
        return self.sign * float(mean), float(variance.sqrt())

    def uncertainty(self, top: int = 10) -> float | None:
        """Mean standard deviation of the untrained architectures of the best predictions, in the
        objective's unit: what a search could still find out.

        Args:
            top: so many of them; of more than 1,000 untrained ones, those of an even part.

        Returns:
            None where nothing was fitted since the last observation, since a look costs no fit, and
            where every architecture was suggested.
        """
        free = (~self._taken & ~self._vetoed).nonzero()[:, 0]
        if ("surrogate" if self._make_model is None else "model") not in self._since or not len(free):
            return None
        part = free[:: -(-len(free) // FINALISTS)]
        mean, variance = _moments(self.model, self._features[part])
        return float(variance[mean.argsort(descending=True, stable=True)[:top]].sqrt().mean())

    @_once
    def prospect(self) -> Prospect | None:
        """What the model makes of the search, stopped now.

        Returns:
            None where nothing was trained to the end.
        """
        leader = next(iter(self.recommend()), None)
        if leader is None:
            return None
        own, everything = self.space.index(leader.architecture), (~self._vetoed).nonzero()[:, 0]
        if len(everything) > SCORED:
            everything = torch.cat([self._shortlist(everything), torch.tensor(self._leaders())]).unique()
        if self._make_model is None:
            promise = self._optimism(everything)
        else:
            mean, variance = _moments(self.model, self._features[everything])
            promise = mean + 2 * variance.sqrt()
        # what can hardly be trained is not missed
        best = most_promising(everything, promise + self._success(everything))
        asked = torch.cat([best, torch.tensor([own])]).unique()
        model, x = self.model, self._features[asked]
        if isinstance(model, Surrogate):
            values = model.warp.inverse(joint_draws(model, x))
        else:
            with torch.no_grad(), manual_seed(0), catch_warnings():
                simplefilter("ignore", NumericalWarning)  # that neighbours' values are nearly equal
                values = model.posterior(x).rsample(torch.Size([DRAWS])).reshape(-1, len(x)).double()
        regret, _ = regret_of(values, [int((asked == own).nonzero())])
        mean, variance = _moments(model, self._features[[own]])
        return Prospect(
            observations=len(self._observed),
            leader=leader.id,
            mean=self.sign * float(mean),
            stddev=float(variance.sqrt()),
            regret=float(regret.mean()),
            bound=float(regret.quantile(0.9)),
        )

    def recommend(self) -> list[Candidate]:
        """The candidates that were trained to the end, the most promising first.

        Ranked by posterior mean: a noisy observation's luck is no merit of its architecture.
        """
        finished = [each for each in self._succeeded() if each.finished]
        if not finished:
            return []
        mean, _ = _moments(self.model, self._features[self._indices(finished)])
        order = sorted(range(len(finished)), key=lambda place: (-float(mean[place]), place))
        return [finished[place].candidate for place in order]

    def _note(self, candidate: Candidate) -> None:
        index = self.space.index(candidate.architecture)
        self._suggested[candidate.id] = index
        self._taken[index] = True

    def _indices(self, observations: Sequence[Observation]) -> list[int]:
        """The architectures of observations."""
        return [self._suggested[each.candidate.id] for each in observations]

    @_once
    def _succeeded(self) -> list[Observation]:
        """The observations with a value, in the order of suggestion, so that the order of arrival changes
        nothing."""
        observations = (self._observed.get(identity) for identity in self._suggested)
        return [each for each in observations if each and not each.failed]

    def _known(self) -> Known:
        succeeded, features = self._succeeded(), self._features
        pending = [index for name, index in self._suggested.items() if name not in self._observed]
        return Known(features[self._indices(succeeded)], self._merits(succeeded), features[pending])

    def _merits(self, observations: Sequence[Observation]) -> Tensor:
        """Values of observations, (n,), in the sign in which larger is better."""
        return self.sign * torch.tensor([each.value for each in observations], dtype=torch.float64)

    def _trained(self) -> dict[int, bool]:
        """What was observed, and whether one of its trainings went to the end."""
        trained: dict[int, bool] = {}
        for index, each in zip(self._indices(self._succeeded()), self._succeeded(), strict=True):
            trained[index] = trained.get(index, False) or each.finished
        return trained

    @_once
    def _leaders(self) -> list[int]:
        """What was observed, the best posterior mean first."""
        indices = torch.tensor(sorted(self._trained()), dtype=torch.int64)
        mean, _ = self.surrogate.latent(self._features[indices], indices)
        return indices[mean.argsort(descending=True, stable=True)].tolist()

    def _failed(self) -> list[Observation]:
        return [each for each in self._observed.values() if each.failed]

    def _by_score(self, free: Tensor, number: int) -> Weighing:
        features = self._features
        if len(free) > SCORED:
            free = self._shortlist(free)
        success = self._success(free)
        if self._succeeded() and (self._make_model or self._make_acquisition):
            phase, scores = self._by_acquisition(free, success, number)
            return Weighing(phase, free, scores, self._one_of(scores >= scores.max(), number))
        posterior = self.surrogate
        if len(self._suggested) == len(self._failed()):  # nothing to be better than, but sources
            scores = success + posterior.latent(features[free])[0]
            phase = "sources"
        elif self.portfolio > 1 and self.strategy != "published":
            phase, scores = self._by_portfolio(free, success)
        elif self.strategy == "mi+kg":
            phase, free, scores = self._by_gradient(free, success)
        elif self.strategy == "published":
            mean, _ = posterior.mean_and_variance(features[free])
            scores = mean + posterior.warp.unit * success
            phase = "posterior mean"
        else:
            base = features[sorted(set(self._suggested.values()) - set(self._indices(self._failed())))]
            seed = derived_seed(self.seed, "improvement", number)
            improvement = LogNoisyExpectedImprovement(posterior, base, seed=seed)
            scores = success + improvement(features[free, None]) - self._log_seconds(free)
            phase = "noisy expected improvement"
        tolerance = EQUAL if phase in LOGARITHMIC else 1e-9
        return Weighing(phase, free, scores, self._one_of(scores >= scores.max() - tolerance, number))

    def _by_acquisition(self, free: Tensor, success: Tensor, number: int) -> tuple[str, Tensor]:
        """The name of the acquisition function, and the score of each."""
        model, known, x = self.model, self._known(), self._features[free]
        chance = manual_seed(derived_seed(self.seed, "acquisition", number))
        with torch.no_grad(), chance, catch_warnings():
            simplefilter("ignore", NumericalWarning)  # that neighbours' values are nearly equal
            if self._make_acquisition is not None:
                acquisition = self._make_acquisition(model, known)
            else:
                acquisition = LogExpectedImprovement(model, best_f=_moments(model, known.x)[0].max())
            scores = _scored(acquisition, x)
        name = type(acquisition).__name__
        if getattr(acquisition, "_log", False):
            return name, scores + success - self._log_seconds(free)
        return name, torch.where(success.isinf(), float("-inf"), scores)

    def _by_gradient(self, free: Tensor, success: Tensor) -> tuple[str, Tensor, Tensor]:
        """The phase, indices that may be trained, replicates last, and the score of each."""
        spare = free
        if len(free) > FINALISTS:
            promise = success + self._optimism(free)
            order = promise.argsort(descending=True, stable=True)
            finalists, spare = order[:FINALISTS].sort().values, free[order[: FINALISTS + ROW]]
            free, success = free[finalists], success[finalists]
        trained, best = self._trained(), self._leaders()
        # in the order of suggestion, in which they came to be believed
        ended = {*trained, *self._indices(self._failed())}
        pending = [each for each in dict.fromkeys(self._suggested.values()) if each not in ended]
        # one that was stopped can only be recommended when it is trained again
        finished = [index for index in best if trained[index]][:RIVALS]
        again = torch.tensor(sorted(set(best[:REPLICATES]) - set(pending)), dtype=torch.int64)
        again = again[~self._vetoed[again]]
        indices = torch.cat([free, again])
        success = torch.cat([success, torch.zeros(len(again), dtype=torch.float64)])
        rivals, asked = [*dict.fromkeys([*finished, *pending])], indices.tolist()
        believing = self._believing(pending, [*asked, *rivals], spare)
        if len(rivals) > RIVALS:
            order = believing.mean(rivals).argsort(descending=True, stable=True)[:RIVALS]
            rivals = [rivals[place] for place in order.tolist()]
        told = believing.beside(asked, rivals)
        scores = success + log_knowledge_gradient(*told, self.surrogate.noise)
        return "knowledge gradient", indices, scores - self._log_seconds(indices)

    def _believing(self, pending: list[int], asked: list[int], spare: Tensor) -> Believing:
        """The surrogate that believes what pends, and may be asked about some architectures.

        Suggestions come in rows, each after the one before, so it goes on from what was believed then.

        Args:
            pending: in the order of suggestion.
            asked: what it is asked about now.
            spare: (s,), what it may be asked about after that.
        """
        known: Believing | None = self._since.get("believing")
        if (
            known is None
            or known.believed != pending[: len(known.believed)]
            or not all(each in known for each in asked)
        ):
            at = torch.tensor(sorted({*asked, *pending, *spare.tolist()}), dtype=torch.int64)
            known = self._since["believing"] = Believing(self.surrogate, self._features[at], at)
        known.believe(pending[len(known.believed) :])
        return known

    def _by_portfolio(self, free: Tensor, success: Tensor) -> tuple[str, Tensor]:
        """The phase, and the score of each; what pends is believed, its errors' correlation predicted."""
        succeeded = [each for each in self._succeeded() if each.finished]
        posterior, own, x = self.surrogate, self._features[self._indices(succeeded)], self._features[free]
        trained = torch.cat([own, self._known().pending])
        measured = measured_correlation(succeeded)
        known_overlaps = overlaps(measured, self._merits(succeeded))
        disagreement = Disagreement.fitted(own, known_overlaps, self._columns)
        values = posterior.mean_and_variance(trained)[0]
        overlap = disagreement(trained, trained, self._columns)
        correlation = correlations_from(overlap, values, values).fill_diagonal_(1.0)
        known = ~measured.isnan()
        correlation[: len(own), : len(own)][known] = measured[known]
        mean, variance = posterior.mean_and_variance(x)
        gain = log_portfolio_improvement(
            mean,
            variance.sqrt(),
            values,
            correlation,
            disagreement(x, trained, self._columns),
            self.portfolio,
            uncertainty=disagreement.stddev,
        )
        if bool(gain.isinf().all()):
            return "optimism", success + self._optimism(free)
        return "portfolio improvement", success + gain - self._log_seconds(free)

    def expected_seconds(self, indices: Tensor) -> Tensor | None:
        """Seconds that training each of these architectures is expected to take, (q,), by those so far; None
        before any told its own."""
        expected = self._expected_log_seconds(indices)
        return None if expected is None else expected.exp()

    def _log_seconds(self, indices: Tensor) -> Tensor:
        """Logarithm of the seconds that a training is expected to take; 0 where that does not count."""
        expected = self._expected_log_seconds(indices) if self.cost_aware else None
        return torch.zeros(len(indices), dtype=torch.float64) if expected is None else expected

    def _expected_log_seconds(self, indices: Tensor) -> Tensor | None:
        model = self._of_durations()
        return None if model is None else model.mean_and_variance(self._features[indices])[0]

    @_once
    def _of_durations(self) -> Surrogate | None:
        timed = [each for each in self._succeeded() if each.seconds > 0 and each.finished]
        if not timed:
            return None
        seconds = torch.tensor([each.seconds for each in timed], dtype=torch.float64)
        return self._durations.of(self._features[self._indices(timed)], seconds.log(), self._came(timed))

    def _optimism(self, indices: Tensor) -> Tensor:
        """Latent mean plus two standard deviations, roughly; of each once, since suggestions come in rows."""
        bounds: Tensor = self._since.setdefault("bound", torch.full((len(self.space),), math.nan).double())
        missing = indices[bounds[indices].isnan()]
        if len(missing):
            screening = self.surrogate.thinned(SCREENING)
            mean, variance = screening.members(self._features[missing], at=missing)
            bounds[missing] = (mean + 2 * variance.sqrt()).mean(dim=0)
        return bounds[indices]

    def _success(self, indices: Tensor) -> Tensor:
        """The log probability of success, but -inf where it is hopeless."""
        success = self._log_success(indices)
        # a great promise must not outweigh a near-certain failure for ever
        hopeless = success < LEAST_SUCCESS
        return torch.where(hopeless & ~hopeless.all(), float("-inf"), success)

    def _log_success(self, indices: Tensor) -> Tensor:
        if not self._failed():
            return torch.zeros(len(indices), dtype=torch.float64)
        return log_success_probability(self._of_labels(), self._features[indices])

    @_once
    def _of_labels(self) -> Surrogate:
        succeeded, failed = self._succeeded(), self._failed()
        x, labels = success_labels(*(self._features[self._indices(each)] for each in (succeeded, failed)))
        return self._labels.of(x, labels, self._came([*succeeded, *failed]))

    def _shortlist(self, free: Tensor) -> Tensor:
        """A random part of the free architectures and those most like the best that were trained; both
        change with what was observed alone, since suggestions come in rows."""
        listed = self._listed()
        listed = listed[~self._taken[listed] & ~self._vetoed[listed]]
        return listed if len(listed) else free[:SCORED]

    @_once
    def _listed(self) -> Tensor:
        chance = torch.Generator().manual_seed(derived_seed(self.seed, "part", len(self._observed)))
        part = torch.randperm(len(self.space), generator=chance)[: SCORED // 2]
        leaders = [self.space.index(each.architecture) for each in self.recommend()[:5]]
        apart = [(self._features - self._features[leader]).abs().sum(dim=1) for leader in leaders]
        near = [each.topk(SCORED // 10, largest=False).indices for each in apart]
        return torch.cat([part, *near]).unique()

    def _by_information(self, free: Tensor) -> Weighing:
        """The architecture that tells most about the others, given what is observed or pending."""
        published = self.strategy == "published" and self._make_model is None
        if published and len(self._succeeded()) >= ROUND:
            believed: Believed = self._believed
        else:
            # of the stationary part alone: a linear term sends the design to the corners, where
            # nothing good lies
            believed = before_anything(self._features.numpy(), self._columns, linear=published)
        forced, number = sorted(set(self._suggested.values())), len(self._suggested)
        choice = choose(free.numpy(), forced, believed, self.seed, number)
        points, gains = torch.from_numpy(choice.points), torch.from_numpy(choice.gains)
        return Weighing("mutual information", points, gains, choice.place)

    def _believed(self, points: Places) -> tuple[NDArray[np.float64], float]:
        """What the surrogate's first draw says of the covariance of architectures, and of the noise."""
        x, model = self._features[torch.from_numpy(points)], self.surrogate
        return model.covar_module.forward(x, x)[0].numpy(), float(model.likelihood.noise[0])

    def _one_of(self, equal: Tensor, number: int) -> int:  # (q,)
        """The place of one of those that are equally good."""
        return one_of(equal.numpy().astype(bool), self.seed, number)

    def _decision(self, weighing: Weighing, index: int) -> dict[str, Any]:
        # what it knew: an observation may be committed while the engine still thinks
        known = len(self._observed)
        decision: dict[str, Any] = {"phase": weighing.phase, "observations": known, "engine": VERSION}
        if self._words:
            decision["words"] = self._words
        if bool(self._taken[index]):
            decision["replicate"] = True
        if weighing.scores is not None:
            decision["score"] = float(weighing.scores[weighing.place])
        if self._succeeded() and weighing.phase != "random":
            mean, variance = _moments(self.model, self._features[[index]])
            decision |= {"mean": self.sign * float(mean[0]), "stddev": float(variance[0].sqrt())}
        return decision


def _scored(acquisition: AcquisitionFunction, x: Tensor) -> Tensor:  # (q, d) -> (q,)
    """Scores of single points by someone else's acquisition function.

    Raises:
        ValueError: it cannot score single points, or gives what are no numbers.
    """
    name, scores = type(acquisition).__name__, []
    if isinstance(acquisition, OneShotAcquisitionFunction):
        raise ValueError(
            f"an acquisition function must score single points, but {name} optimises fantasies beside them; "
            "take another"
        )
    for part in x.split(PART):
        found = acquisition(part[:, None])
        if found.shape != part.shape[:1]:
            raise ValueError(
                f"{name} must give {len(part)} points as many scores, but gave {tuple(found.shape)}; "
                f"return a tensor of shape ({len(part)},)"
            )
        scores.append(found.double())
    if bool(torch.cat(scores).isnan().any()):
        raise ValueError(f"the scores of {name} must be numbers, but some are NaN; mend it or its model")
    return torch.cat(scores)


def _moments(model: Model, x: Tensor, *, observation_noise: bool = False) -> tuple[Tensor, Tensor]:
    """Means and variances of the values at (q, d) points, (q,) each."""
    if isinstance(model, Surrogate) and not observation_noise:
        return model.mean_and_variance(x)
    means, variances = [], []
    with torch.no_grad():
        for part in x.split(PART):
            # a batch of single points: no covariance between them is needed
            posterior = model.posterior(part[:, None], observation_noise=observation_noise)
            mixed = is_ensemble(model)
            means.append((posterior.mixture_mean if mixed else posterior.mean)[:, 0, 0])
            variances.append((posterior.mixture_variance if mixed else posterior.variance)[:, 0, 0])
    return torch.cat(means).double(), torch.cat(variances).double()


def _context(
    space: SearchSpace, columns: tuple[Column, ...], sources: Sequence[Source], sign: int
) -> Context:
    """The sources' trainings, each on the latent scale of a surrogate of its own; `sign` is -1 where the
    smaller of two values is the better one."""
    features, latent, units = [], [], []
    for number, source in enumerate(sources):
        known = [
            (space.index(architecture), sign * value)
            for architecture, value in zip(source.architectures, source.values, strict=True)
            if architecture in space
        ]
        if not known:
            raise SpaceError(
                f"a source must have trained architectures of this space, but {source.name} has none of its "
                f"{len(source.architectures)}"
            )
        known.sort(key=lambda each: (-each[1], each[0]))
        if len(known) > SOURCE_TRAININGS:
            half = SOURCE_TRAININGS // 2
            stride = -(-(len(known) - half) // half)
            known = known[:half] + known[half::stride]
        x = space.features[[index for index, _ in known]]
        y = torch.tensor([value for _, value in known], dtype=torch.float64)
        warp = fit(x, y, columns, members=1).warp
        tasks = torch.zeros(len(x), len(sources), dtype=torch.float64)
        tasks[:, number] = 1
        features.append(torch.cat([x, tasks], dim=1))
        latent.append(warp.latent(y))
        units.append(warp.unit)
    return Context(torch.cat(features), torch.cat(latent), sum(units) / len(units))


def engine_for(space: SearchSpace, header: Header) -> Engine:
    """The engine of a search, before anything was suggested.

    Args:
        space: of the search, with its costs.
        header: of its journal.

    Raises:
        JournalError: the header is not that of a search.
        SpaceError: a source has no architecture of this space.
    """
    search = header.search
    if search is None:
        raise JournalError(f"only a search has an engine, but got the header of a {header.kind}")
    return Engine(
        space,
        seed=header.seed,
        strategy=search.strategy,
        trials=header.trials,
        steps=search.steps,
        sources=search.sources,
        cost_aware=search.cost_aware,
        portfolio=search.portfolio if search.portfolio_aware else 1,
        minimise=header.objective.sign < 0,
        common_seeds=search.common_seeds,
        defaults=search.defaults,
    )
