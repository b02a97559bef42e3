"""What the surrogate of a search believes, as the numbers of figures.

Glossary: n architectures of the space, q of them asked about, m observations, d feature columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpnas.diagnostics import Diagnostics, design_matrix, diagnose, ridge_leave_one_out
from gpnas.engine import Belief, Engine, engine_for
from gpnas.errors import SpaceError
from gpnas.figures.data import (
    Cell,
    Left,
    Mark,
    PosteriorMap,
    Predicted,
    Remaining,
    Slice,
    SlicePoint,
    Trust,
)
from gpnas.figures.reading import space_of
from gpnas.figures.records import Measure, Recorded, Trial, spread, thinned
from gpnas.journal import Journal
from gpnas.learned import Learned, learned
from gpnas.records import Architecture, AxisValue
from gpnas.regret import DRAWS, POOL, WEIGHED, given, joint_draws, most_promising, regret_of, sampled
from gpnas.space import IntegerAxis, SearchSpace
from gpnas.surrogate import Surrogate

MOST = 500
"""Observations on which the surrogate of a report rests; of more, the best half and a part spread over the
rest, so that a report of a long search does not take longer than people wait."""
LEVELS = 24
"""Values of an axis that a map or a slice shows; of more, a part evenly spread."""
COVERAGE = 0.9
"""Probability of intervals."""
MOMENTS = 16
"""Points of a course over the observations, at most."""
STANDING_FOR = 1_000
"""Architectures whose variance stands for the space's."""


@dataclass(frozen=True)
class Standing:
    """A search's engine, as it stands after its observations."""

    recorded: Recorded
    engine: Engine
    trials: tuple[Trial, ...]
    """Whose values the posterior rests on, in the rows' order."""
    posterior: Surrogate
    """It knows the negatives of values that are to be small."""
    diagnostics: Diagnostics
    pool: Tensor  # (q,)
    """Indices of architectures that stand for the space, increasing."""
    believed: Belief
    """What is believed of them, (q,)."""

    @property
    def objective(self) -> Measure:
        return self.recorded.objective

    @property
    def space(self) -> SearchSpace:
        return self.engine.space


def standing_of(run: Path, recorded: Recorded) -> Standing:
    """The engine of a run, given its observations again.

    Raises:
        JournalError: the journal cannot be read, or does not describe its space.
        SpaceError: nothing was observed yet, or the search has no engine.
    """
    with Journal.read(run) as journal, journal.moment():
        candidates, observations = journal.candidates(), journal.observations()
        header, space = journal.header, space_of(journal)
    succeeded = [each for each in observations if each.value is not None]
    kept = thinned(succeeded, MOST, lambda each: -recorded.objective.merit(each.value or 0.0))
    if not kept:
        raise SpaceError(
            "a surrogate needs at least one training that succeeded, but there is none; wait for the first"
        )
    try:
        engine = engine_for(space, header)
    except ValueError as error:
        raise SpaceError(f"a search must have an engine, but {error}") from None
    told = [*kept, *(each for each in observations if each.failed)]
    names = {each.candidate.id for each in told}
    engine.replay([each for each in candidates if each.id in names], told)
    rows = [trial for trial in recorded.trials if trial.id in names and trial.value is not None]
    posterior = engine.surrogate
    pool = sampled(torch.arange(len(engine.space)), POOL)
    return Standing(recorded, engine, tuple(rows), posterior, diagnose(posterior), pool, engine.belief(pool))


def leader_of(standing: Standing, family: str) -> int:
    """The index of the architecture of a family around which maps and slices are drawn: of those trained to
    the end the one with the best posterior mean, else the best of all."""
    indices = [
        standing.space.index(Architecture(trial.family, trial.axes))
        for trial in standing.trials
        if trial.finished and trial.family == family
    ]
    if not indices:
        number = [each.name for each in standing.space.families].index(family)
        rows = (standing.space.digits[0] == number).nonzero()[:, 0]
        indices = sampled(rows, POOL).tolist()
    merit = standing.engine.sign * standing.engine.belief(torch.tensor(indices)).mean
    return indices[int(merit.argmax())]


def posterior_map(standing: Standing, family: str, x: str, y: str, *, averaged: bool = False) -> PosteriorMap:
    """The posterior over two axes of a family.

    Args:
        standing: of a search.
        family: its name.
        x, y: names of two of its axes.
        averaged: over the other axes, instead of holding them at the leader's.

    Raises:
        ValueError: there is no such family or axis, or both are the same.
    """
    number, axes = _axes(standing, family, x, y)
    places = standing.space.digits[1]
    leader = leader_of(standing, family)
    rows, others = _rows(standing, number, axes, leader)
    if averaged:
        own = standing.space.digits[0][standing.pool] == number
        rows = standing.pool[own]
        mean, stddev = standing.believed.mean[own], standing.believed.stddev[own]
    else:
        belief = standing.engine.belief(rows)
        mean, stddev = belief.mean, belief.stddev
    shown = [_levels(standing, number, axis) for axis in axes]
    sums: dict[tuple[int, int], tuple[float, float, int]] = {}
    groups = [places[rows, axis].tolist() for axis in axes]
    for row, (a, b) in enumerate(zip(*groups, strict=True)):
        if a not in shown[0] or b not in shown[1]:
            continue
        so_far = sums.get((a, b), (0.0, 0.0, 0))
        sums[a, b] = (so_far[0] + float(mean[row]), so_far[1] + float(stddev[row]), so_far[2] + 1)
    values = [standing.space.families[number].axes[axis].values for axis in axes]
    return PosteriorMap(
        family=family,
        x=x,
        y=y,
        x_values=tuple(values[0][place] for place in shown[0]),
        y_values=tuple(values[1][place] for place in shown[1]),
        others=None if averaged else others,
        cells=tuple(
            Cell(values[0][a], values[1][b], total / count, spread / count)
            for (a, b), (total, spread, count) in sorted(sums.items())
        ),
        marks=tuple(
            Mark(trial.id, trial.axes[x], trial.axes[y], trial.value, averaged or _shares(trial, others))
            for trial in standing.trials
            if trial.family == family
            and trial.value is not None
            and values[0].index(trial.axes[x]) in shown[0]
            and values[1].index(trial.axes[y]) in shown[1]
        ),
        objective=standing.objective,
    )


def slice_along(standing: Standing, family: str, axis: str) -> Slice:
    """The posterior along one axis, the others at the leader's values.

    Raises:
        ValueError: there is no such family or axis.
    """
    number, (place,) = _axes(standing, family, axis)
    rows, others = _rows(standing, number, [place], leader_of(standing, family))
    levels = _levels(standing, number, place)
    at = standing.space.digits[1][rows, place].tolist()
    kept = [row for row, level in zip(rows.tolist(), at, strict=True) if level in levels]
    belief = standing.engine.belief(torch.tensor(kept))
    known = standing.space.families[number].axes[place]
    points = [
        SlicePoint(standing.space[row].axes[axis], *map(float, each))
        for row, *each in zip(kept, belief.mean, belief.low, belief.high, strict=True)
    ]
    return Slice(
        family=family,
        axis=axis,
        ordered=isinstance(known, IntegerAxis),
        others=others,
        points=tuple(points),
        marks=tuple(
            Mark(trial.id, trial.axes[axis], trial.value, trial.value, True)
            for trial in standing.trials
            if trial.family == family and trial.value is not None and _shares(trial, others)
        ),
        objective=standing.objective,
    )


def learning(standing: Standing) -> Learned:
    """Which axes matter, and how noisy trainings are."""
    sign, features = standing.engine.sign, standing.engine.features()
    merit = sign * standing.believed.mean
    return learned(standing.posterior, standing.space, features, standing.pool, merit, sign)


def trust(standing: Standing, noise: float) -> Trust:
    """How far predictions can be trusted, without the observation itself and as they were made.

    Args:
        standing: of a search.
        noise: standard deviation of trainings of one architecture, in the objective's unit.
    """
    posterior, diagnostics = standing.posterior, standing.diagnostics
    left_out: list[Predicted] = []
    if diagnostics.surrogate is not None:
        latent, variance = posterior.leave_one_out()
        half = _half(COVERAGE) * variance.sqrt()
        mean, _ = posterior.warp.moments(latent, variance)
        sign = standing.engine.sign
        low, high = (sign * posterior.warp.inverse(latent + side * half) for side in (-sign, sign))
        level = _level((posterior.warp.latent(posterior.y) - latent) / variance.sqrt())
        matrix = design_matrix(posterior.x[: len(posterior)], posterior.columns)
        ridge, ridge_variance, _ = ridge_leave_one_out(matrix, posterior.y)
        ridge_level = _level((posterior.y - ridge) / ridge_variance.sqrt())
        told = [sign * posterior.y, sign * mean, low, high, level, sign * ridge, ridge_level]
        numbers = torch.stack(told, dim=1).tolist()
        left_out = [Predicted(trial.id, *row) for trial, row in zip(standing.trials, numbers, strict=True)]
    return Trust(
        left_out=tuple(left_out),
        foretold=tuple(foretold(standing.recorded, noise)),
        diagnostics=diagnostics,
        objective=standing.objective,
    )


def foretold(recorded: Recorded, noise: float) -> Iterator[Predicted]:
    """What was predicted of each observation when its candidate was chosen.

    The journal notes mean and standard deviation of the noiseless value; the noise is today's estimate.

    Args:
        recorded: the search.
        noise: standard deviation of trainings of one architecture, in the objective's unit.
    """
    for trial in recorded.trials:
        if trial.value is None or trial.mean is None or trial.stddev is None:
            continue
        spread = max(math.hypot(trial.stddev, noise), 1e-300)
        half = _half(COVERAGE) * spread
        level = math.erf(abs(trial.value - trial.mean) / spread / math.sqrt(2))
        yield Predicted(trial.id, trial.value, trial.mean, trial.mean - half, trial.mean + half, level)


def left(standing: Standing) -> Left:
    """What is left to find out, now and after fewer observations.

    Earlier moments are seen with what the surrogate knows today of scales and noise: its hyperparameters
    and its warp are those of now, its observations those of then.
    """
    posterior, features = standing.posterior, standing.engine.features
    believed = standing.believed
    hopeful = most_promising(standing.pool, standing.engine.sign * believed.mean + 2 * believed.stddev)
    finished = [row for row, trial in enumerate(standing.trials) if trial.finished]
    own = [standing.space.index(Architecture(trial.family, trial.axes)) for trial in standing.trials]
    values = posterior.y[finished]
    leaders = [
        finished[place] for place in values.argsort(descending=True, stable=True)[: WEIGHED // 4].tolist()
    ]
    asked = torch.cat([hopeful, torch.tensor([own[row] for row in leaders], dtype=torch.long)]).unique()
    position = {int(index): place for place, index in enumerate(asked)}
    order = sorted(range(len(standing.trials)), key=lambda row: standing.trials[row].place or 0)
    space_part = features(sampled(standing.pool, STANDING_FOR))
    course = []
    for place in spread(len(order), MOMENTS):
        rows = order[: place + 1]
        told = [row for row in rows if row in set(leaders)]
        then = given(posterior, rows)
        draws = posterior.warp.inverse(joint_draws(then, features(asked)))
        regret, _ = regret_of(draws, [position[own[row]] for row in told])
        bound, unknown = float(regret.quantile(0.9)), _unknown(then, space_part)
        course.append(Remaining(len(rows), float(regret.mean()), bound, unknown))
    return Left(tuple(course), len(asked), DRAWS, standing.objective)


def _unknown(model: Surrogate, x: Tensor) -> float:
    """Share of the prior variance over the space that observations leave."""
    prior = model.covar_module.forward(x, x, diag=True)
    return float((model.members(x)[1].mean(dim=1) / prior.mean(dim=1)).mean())


def _axes(standing: Standing, family: str, *names: str) -> tuple[int, list[int]]:
    families = [each.name for each in standing.space.families]
    if family not in families:
        raise ValueError(f"a family must be one of {', '.join(families)}, but got {family!r}")
    number = families.index(family)
    known = [axis.name for axis in standing.space.families[number].axes]
    for name in names:
        if name not in known:
            raise ValueError(f"an axis of {family} must be one of {', '.join(known)}, but got {name!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"two axes must differ, but got {names[0]!r} twice")
    return number, [known.index(name) for name in names]


def _rows(
    standing: Standing, number: int, axes: Sequence[int], leader: int
) -> tuple[Tensor, dict[str, AxisValue]]:
    """Indices of the architectures that share the leader's values on all other axes, and those values."""
    families, places = standing.space.digits
    names = [axis.name for axis in standing.space.families[number].axes]
    others = {name: standing.space[leader].axes[name] for at, name in enumerate(names) if at not in axes}
    keep = families == number
    for at in range(len(names)):
        if at not in axes:
            keep = keep & (places[:, at] == places[leader, at])
    return keep.nonzero()[:, 0], others


def _levels(standing: Standing, number: int, axis: int) -> list[int]:
    """Places on an axis that are shown."""
    return spread(len(standing.space.families[number].axes[axis].values), LEVELS)


def _shares(trial: Trial, others: Mapping[str, AxisValue]) -> bool:
    return all(trial.axes.get(name) == value for name, value in others.items())


def _half(coverage: float) -> float:
    """Standard deviations on either side of the mean that hold a normal variable with this probability."""
    return float(torch.special.ndtri(torch.tensor(0.5 + coverage / 2, dtype=torch.float64)))


def _level(standardised: Tensor) -> Tensor:
    """Level of the narrowest central interval of a normal distribution that holds a value."""
    return torch.erf(standardised.abs() / math.sqrt(2))
