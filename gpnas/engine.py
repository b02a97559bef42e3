"""The engine: what to train next, and what is believed of the rest.

It is a pure function of (space, seed, what was suggested and observed): it has no clock, disk or
process, and draws suggestion number i from a generator of its own, so resuming is replaying.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpnas.acquisition import log_noisy_expected_improvement, log_success_probability
from gpnas.mutual_information import greedy_design
from gpnas.records import Candidate, Fidelity, Observation
from gpnas.space import Column, SearchSpace
from gpnas.surrogate import Hyperparameters, Posterior, covariance, fit

STRATEGIES = ("mi+nei", "published", "random")
"""`mi+nei`: a mutual-information design, then noisy expected improvement. `published`: rounds of
mutual information, then the best posterior mean (Li et al., CVPR 2020). `random`: uniform."""

DESIGN_SHARE = {"mi+nei": 0.25, "published": 0.5, "random": 0.0}
"""Share of the trials that mutual information chooses."""
LEAST_SUCCESS = math.log(0.25)
"""Log probability of success below which nothing is trained while there is anything else."""
DESIGN_POINTS = 2_000
"""Largest number of architectures among which a design weighs mutual information; of a larger space
a random part stands for all."""


class Engine:
    """Proposes architectures and learns from what came of them.

    Args:
        space: to choose from.
        seed: of everything random; 0 … 2³¹-1.
        strategy: one of `STRATEGIES`.
        trials: the whole allowance, from which the size of the design derives; None counts on 40.
        steps: optimiser steps granted to each candidate.

    Raises:
        ValueError: an unknown strategy, or a number out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        strategy: str = "mi+nei",
        *,
        trials: int | None = None,
        steps: int = 1,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"a strategy must be one of {', '.join(STRATEGIES)}, but got {strategy!r}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"`0 <= seed < 2**31` must hold, but got {seed}")
        if trials is not None and trials < 1:
            raise ValueError(f"`trials >= 1` must hold, but got {trials}")
        self.space, self.seed, self.strategy = space, seed, strategy
        self.design = max(3, round(DESIGN_SHARE[strategy] * (trials or 40))) if strategy != "random" else 0
        self._fidelity = Fidelity(steps)
        self._suggested: dict[str, int] = {}  # candidate id -> index
        self._observed: dict[str, Observation] = {}
        self._taken = torch.zeros(len(space), dtype=torch.bool)
        self._columns: tuple[Column, ...] = space.columns or (Column("constant", "ordered"),)
        self._posterior: Posterior | None = None

    def suggest(self, n: int = 1) -> list[Candidate]:
        """The next candidates; they count as pending until they are observed.

        Args:
            n: how many, at least 0.

        Returns:
            n candidates with architectures that were never suggested before; fewer, or none, when
            the space is exhausted.
        """
        candidates = []
        for _ in range(n):
            free = (~self._taken).nonzero()[:, 0]
            if not len(free):
                break
            index, decision = self._choose(free)
            number = len(self._suggested)
            candidate = Candidate(
                id=f"c{number:04d}",
                architecture=self.space[index],
                fidelity=self._fidelity,
                seed=self._derived_seed("training", number),
                decision=decision,
            )
            self._note(candidate, index)
            candidates.append(candidate)
        return candidates

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
            self._note(candidate, self.space.index(candidate.architecture))
        self._observed[candidate.id] = observation
        self._posterior = None

    def replay(self, candidates: Sequence[Candidate], observations: Sequence[Observation]) -> None:
        """Takes up a search where its journal ends: what was suggested, in order, and observed.

        Raises:
            SpaceError: a candidate's architecture is not of this space.
        """
        for candidate in candidates:
            self._note(candidate, self.space.index(candidate.architecture))
        for observation in observations:
            self.observe(observation)

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every architecture's objective, (n,) each, in its unit."""
        mean, variance = self._fitted().mean_and_variance(self._features)
        return mean, variance.sqrt()

    def recommend(self) -> list[Candidate]:
        """The candidates that were trained, the most promising first.

        Ranked by posterior mean: a noisy observation's luck is no merit of its architecture.
        """
        succeeded = [each for each in self._observed.values() if not each.failed]
        if not succeeded:
            return []
        mean, _ = self.posterior()
        order = sorted(
            succeeded, key=lambda each: (-float(mean[self._suggested[each.candidate.id]]), each.candidate.id)
        )
        return [observation.candidate for observation in order]

    def _note(self, candidate: Candidate, index: int) -> None:
        self._suggested[candidate.id] = index
        self._taken[index] = True

    @property
    def _features(self) -> Tensor:
        return self.space.features

    def _indices(self, failed: bool) -> list[int]:
        return [
            self._suggested[each.candidate.id] for each in self._observed.values() if each.failed is failed
        ]

    def _fitted(self) -> Posterior:
        if self._posterior is None:
            indices = self._indices(failed=False)
            values = [each.value for each in self._observed.values() if each.value is not None]
            y = torch.tensor(values, dtype=torch.float64)
            self._posterior = fit(self._features[indices], y, self._columns)
        return self._posterior

    def _choose(self, free: Tensor) -> tuple[int, dict[str, Any]]:
        """An index among the free ones, and why."""
        number = len(self._suggested)
        if self.strategy == "random":
            drawn = torch.randint(len(free), (1,), generator=self._generator("choice", number))
            return int(free[drawn]), {"phase": "random"}
        if number < self.design:
            return self._by_information(free, number)
        posterior = self._fitted()
        if not len(posterior.x):  # everything so far failed or is still under way
            return self._by_information(free, number)
        success = log_success_probability(
            self._features[free],
            self._features[self._indices(failed=False)],
            self._features[self._indices(failed=True)],
            self._columns,
        )
        # a great promise must not outweigh a near-certain failure for ever
        hopeless = success < LEAST_SUCCESS
        success = torch.where(hopeless & ~hopeless.all(), float("-inf"), success)
        if self.strategy == "published":
            scores = posterior.mean_and_variance(self._features[free])[0] + success
            phase = "posterior mean"
        else:
            failed = set(self._indices(failed=True))
            base = sorted(set(self._suggested.values()) - failed)
            scores = success + log_noisy_expected_improvement(
                posterior, self._features[free], self._features[base], seed=self._derived_seed("nei", number)
            )
            phase = "noisy expected improvement"
        place = int((scores >= scores.max() - 1e-9).nonzero()[0])
        return int(free[place]), self._decision(phase, float(scores[place]), int(free[place]))

    def _by_information(self, free: Tensor, number: int) -> tuple[int, dict[str, Any]]:
        """The architecture that tells most about all others, given what is observed or pending."""
        phase = "mutual information"
        observations = sum(not each.failed for each in self._observed.values())
        if observations >= 5:
            hyperparameters = self._fitted().hyperparameters
        else:
            hyperparameters = Hyperparameters.default(self._columns)
        forced = sorted(set(self._suggested.values()))
        points = torch.arange(len(self.space))
        if len(points) > DESIGN_POINTS:
            shuffled = torch.randperm(len(points), generator=self._generator("design", 0))
            part = shuffled[: DESIGN_POINTS - len(forced)]
            points = torch.cat([part, torch.tensor(forced, dtype=part.dtype)]).unique()
        position = {int(index): place for place, index in enumerate(points)}
        candidates = [position[int(index)] for index in free if int(index) in position]
        x = self._features[points]
        picks, gains = greedy_design(
            [covariance(x, x, self._columns, hyperparameters).numpy()],
            float(hyperparameters.noise_variance),
            1,
            [position[index] for index in forced],
            candidates=candidates,
        )
        if not picks:  # more than half of the space is taken: nothing tells much about the rest
            first = int(free[0])
            return first, self._decision(phase, None, first)
        pick = int(points[picks[0]])
        return pick, self._decision(phase, gains[0], pick)

    def _decision(self, phase: str, score: float | None, index: int) -> dict[str, Any]:
        decision: dict[str, Any] = {"phase": phase}
        if score is not None:
            decision["score"] = score
        if any(not each.failed for each in self._observed.values()):
            mean, variance = self._fitted().mean_and_variance(self._features[[index]])
            decision |= {"mean": float(mean[0]), "stddev": float(variance[0].sqrt())}
        return decision

    def _derived_seed(self, purpose: str, number: int) -> int:
        digest = hashlib.sha256(f"{self.seed} {purpose} {number}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._derived_seed(purpose, number))
