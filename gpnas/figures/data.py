"""The numbers of each figure: frozen records that can be written down as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpnas.figures.records import Measure, Trial
from gpnas.records import AxisValue

if TYPE_CHECKING:
    from gpnas.diagnostics import Diagnostics


@dataclass(frozen=True)
class Cell:
    """What is believed of the architectures at two axes' values."""

    x: AxisValue
    y: AxisValue
    mean: float
    """Posterior mean in the objective's unit."""
    stddev: float
    """Posterior standard deviation in the objective's unit, without the noise of a training."""


@dataclass(frozen=True)
class Mark:
    """A trained architecture on a map or a slice."""

    trial: str
    x: AxisValue
    y: AxisValue | float
    value: float
    within: bool
    """Whether its other axes are those of the map; always so where they are averaged over."""


@dataclass(frozen=True)
class PosteriorMap:
    """The posterior over two axes of a family."""

    family: str
    x: str
    y: str
    x_values: tuple[AxisValue, ...]
    """The values in order; of a long axis a part, evenly spread."""
    y_values: tuple[AxisValue, ...]
    others: Mapping[str, AxisValue] | None
    """The values of the other axes; None where the posterior is averaged over them."""
    cells: tuple[Cell, ...]
    """A cell for each pair with feasible architectures; what is missing is not in the space."""
    marks: tuple[Mark, ...]
    objective: Measure


@dataclass(frozen=True)
class SlicePoint:
    """The posterior at one value of an axis."""

    x: AxisValue
    mean: float
    low: float
    high: float
    """Bounds that hold one training with a probability of 90 %."""


@dataclass(frozen=True)
class Slice:
    """The posterior along one axis, the others held at one architecture."""

    family: str
    axis: str
    ordered: bool
    others: Mapping[str, AxisValue]
    points: tuple[SlicePoint, ...]
    marks: tuple[Mark, ...]
    objective: Measure


@dataclass(frozen=True)
class Predicted:
    """An observation, and what was predicted of it without it."""

    trial: str
    observed: float
    mean: float
    low: float
    high: float
    """Bounds that should hold the observation with a probability of 90 %."""
    level: float
    """The level of the narrowest central interval that holds it, 0 … 1."""
    ridge: float | None = None
    """What ridge regression predicted; None where it was not fitted."""
    ridge_level: float | None = None


def held(predictions: Sequence[Predicted]) -> int:
    """How many of the observations lie within their bounds."""
    return sum(each.low <= each.observed <= each.high for each in predictions)


@dataclass(frozen=True)
class Trust:
    """How far predictions can be trusted."""

    left_out: tuple[Predicted, ...]
    """Each observation, predicted by the surrogate from all others."""
    foretold: tuple[Predicted, ...]
    """Each observation, as it was predicted when it was chosen."""
    diagnostics: Diagnostics
    objective: Measure


@dataclass(frozen=True)
class Remaining:
    """What was left to find out after so many observations."""

    observations: int
    regret: float
    """Expected regret of stopping: how far the best architecture of the space is expected to lie above the
    one that would be recommended, in the objective's unit."""
    bound: float
    """The 90 % quantile of the same."""
    unknown: float
    """Share of the variance over the space that the observations leave."""


@dataclass(frozen=True)
class Left:
    """What is left to find out, and how it became less."""

    course: tuple[Remaining, ...]
    """What remained after each observation; the last is now."""
    weighed: int
    """Architectures among which the best is sought."""
    draws: int
    objective: Measure


@dataclass(frozen=True)
class Together:
    """Which trained networks belong together."""

    names: tuple[str, ...]
    """The names of the best networks alone, the best first."""
    psnr: tuple[float, ...]
    """The PSNR of each alone, in dB."""
    correlation: tuple[tuple[float, ...], ...]
    """The correlation of their errors."""
    frontier: tuple[tuple[tuple[str, ...], float, float], ...]
    """Members, GMACs and PSNR of portfolios of which no other is as good and as cheap."""
    members: tuple[str, ...]
    """The names of the delivered portfolio's networks."""
    weights: tuple[float, ...]
    delivered: float
    """PSNR of its average, in dB."""


@dataclass(frozen=True)
class Bar:
    """One attempt at a trial, on the row of the worker that it may have run on."""

    trial: str
    attempt: int
    lane: int
    """The lane, the first 1; attempts that overlap have different ones."""
    started: float
    """Hours since the search's first start."""
    ended: float
    outcome: str


def lanes(trials: Sequence[Trial], now: float) -> list[Bar]:
    """Attempts on as few rows as there were trials side by side.

    Args:
        trials: of a search.
        now: where attempts end that still run, in seconds since the first start.
    """
    spans = sorted(
        ((span, trial) for trial in trials for span in trial.spans),
        key=lambda each: (each[0].started, each[1].id, each[0].number),
    )
    free: list[float] = []
    bars = []
    for span, trial in spans:
        ended = max(span.started, now if span.ended is None else span.ended)
        lane = next((row for row, until in enumerate(free) if until <= span.started), len(free))
        if lane == len(free):
            free.append(ended)
        free[lane] = ended
        outcome = span.outcome or "running"
        bars.append(Bar(trial.id, span.number, lane + 1, span.started / 3600, ended / 3600, outcome))
    return bars


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, value) than which none is at most as dear and better, cheapest first."""
    front: list[int] = []
    best = float("-inf")
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if points[place][1] > best:
            front.append(place)
            best = points[place][1]
    return front
