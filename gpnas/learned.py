"""What a surrogate has learned, for people: which axes matter, how noisy trainings are.

Glossary: d feature columns, q architectures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gpnas.records import AxisValue
from gpnas.space import Column, SearchSpace
from gpnas.surrogate import Surrogate

TOLD = 3
"""Axes that conclusions name, those of the largest effects."""
PAIRS = 128
"""Pairs of architectures over which a column's relevance is averaged."""


@dataclass(frozen=True)
class LearnedColumn:
    """What was learned of one column of the features."""

    name: str
    """Name of the axis or cost, with its family where there are several."""
    kind: str
    """`ordered`, `categorical`, `family` or `cost`."""
    lengthscale: float
    """Typical distance over which values change, where the whole axis is 1; the mixture's geometric
    mean."""
    low: float
    high: float
    """Least and largest lengthscale in the mixture: how sure it is."""
    relevance: float
    """Share of what the surrogate lets an architecture's value vary, when one column alone is changed
    to that of another architecture; all sum to 1."""
    words: str


@dataclass(frozen=True)
class AxisEffect:
    """What an axis does to the predicted value, averaged over all other axes."""

    best: AxisValue
    """The value of the best average prediction."""
    worst: AxisValue
    gain: float
    """What the best is better than the worst, in the objective's unit."""


@dataclass(frozen=True)
class Learned:
    """What a surrogate has learned from its observations."""

    observations: int
    members: int
    """Draws of the hyperparameters that it averages over."""
    noise: float
    """Standard deviation of trainings of one architecture, halfway up the observed values, in the objective's
    unit."""
    power: float
    """Exponent of the warp; 1 is none."""
    warp: str
    """The same in words."""
    columns: tuple[LearnedColumn, ...]
    """The most relevant first."""
    effects: Mapping[str, AxisEffect]
    """Effects by axis, of those with several values; the largest first."""
    sources: Mapping[str, float]
    """Name of another search that was learned from to the correlation of what varies there and here."""

    @property
    def apart(self) -> float:
        """What two trainings of one architecture differ by: the standard deviation of their difference."""
        return math.sqrt(2) * self.noise

    def conclusions(self, unit: str) -> tuple[str, ...]:
        """What was learned, in sentences for someone who knows no Gaussian process.

        Args:
            unit: of the objective, such as `dB`.
        """
        noise = (
            f"two trainings of one architecture would differ by about {self.apart:.2g} {unit} (each strays "
            f"by {self.noise:.2g}), so smaller differences between two trained networks say little"
        )
        points = "percentage points" if unit == "%" else unit
        clear = [(axis, effect) for axis, effect in self.effects.items() if effect.gain > self.noise]
        if not clear:
            return (f"no axis alone changes the predicted value by more than trainings scatter; {noise}",)
        return (
            "predicted on average over all architectures: "
            + "; ".join(
                f"{axis} {effect.best} is {effect.gain:.2g} {points} better than {axis} {effect.worst}"
                for axis, effect in clear[:TOLD]
            ),
            noise,
        )


def learned(
    posterior: Surrogate,
    space: SearchSpace,
    features: Tensor,  # (n, d)
    indices: Tensor,  # (q,)
    mean: Tensor,  # (q,)
    sign: int = 1,
) -> Learned:
    """What a posterior with at least one observation has learned.

    Args:
        posterior: of the observations.
        space: of the architectures.
        features: of all of them, as the surrogate takes them.
        indices: architectures to average over: all of the space, or a part that stands for them.
        mean: their posterior means, in the objective's unit, in the sign in which larger is better.
        sign: -1 where that is not the objective's own, of which the smaller value is the better one.
    """
    return Learned(
        observations=len(posterior),
        members=len(posterior.theta),
        noise=_noise(posterior),
        power=posterior.warp.power,
        warp=_warp(posterior.warp.power, sign),
        columns=_columns(posterior, space, features[indices]),
        effects=_effects(space, indices, mean),
        sources=_sources(posterior),
    )


def relevance(posterior: Surrogate, x: Tensor) -> Tensor:  # (q, d) -> (d,)
    """Each column's share of the variance between architectures that differ in one column alone.

    Half the prior variance of f(x) - f(x′), the semivariance, where x′ is x with one column of a random
    other architecture; averaged over pairs and over the hyperparameters. A column with a short
    lengthscale lets values vary much; a linear term adds to every column that spreads.

    Args:
        posterior: whose hyperparameters are asked.
        x: features of architectures.
    """
    generator = torch.Generator().manual_seed(0)
    x = x[torch.randint(len(x), (PAIRS,), generator=generator)]
    other = x[torch.randperm(PAIRS, generator=generator)]
    kernel = posterior.covar_module
    before, own = kernel.forward(x, x, diag=True), kernel.own_variance[:, None]
    shares = []
    for number in range(x.shape[1]):
        moved = x.clone()
        moved[:, number] = other[:, number]
        after, between = kernel.forward(moved, moved, diag=True), kernel.forward(x, moved, diag=True)
        # without what is an architecture's own, which every change changes alike
        changed = (x != moved).any(dim=1).double()
        shares.append((0.5 * (before + after) - between - own * changed).clamp_min(0).mean())
    found = torch.stack(shares)
    total = float(found.sum())
    return found / total if total > 0 else torch.full_like(found, 1 / len(found))


def _columns(posterior: Surrogate, space: SearchSpace, x: Tensor) -> tuple[LearnedColumn, ...]:
    logs = posterior.lengthscales.log()
    shares = relevance(posterior, x)
    found = []
    own = [column for column in posterior.columns if column.kind != "task"]  # tasks are the last ones
    for number, column in enumerate(own):
        share, length = float(shares[number]), float(logs[:, number].mean().exp())
        found.append(
            LearnedColumn(
                name=_label(column, space),
                kind=column.kind,
                lengthscale=length,
                low=float(logs[:, number].min().exp()),
                high=float(logs[:, number].max().exp()),
                relevance=share,
                words=f"{_weight(share, len(own))}; {_shape(column, length)}",
            )
        )
    return tuple(sorted(found, key=lambda each: -each.relevance))


def _sources(posterior: Surrogate) -> dict[str, float]:
    ties = (-1 / posterior.lengthscales).exp().mean(dim=0).tolist()
    return {each.name: tie for each, tie in zip(posterior.columns, ties, strict=True) if each.kind == "task"}


def _label(column: Column, space: SearchSpace) -> str:
    return column.name if column.family is None else f"{space.families[column.family].name}.{column.name}"


def _weight(share: float, count: int) -> str:
    """Relative to an equal share."""
    if share >= 1.5 / count:
        return "matters much"
    if share >= 0.75 / count:
        return "matters"
    return "matters little" if share >= 0.3 / count else "hardly matters"


def _shape(column: Column, lengthscale: float) -> str:
    if column.kind in ("categorical", "family"):
        alike = math.exp(-1 / lengthscale)  # the kernel's correlation across a mismatch
        return "values differ" if alike < 0.3 else "values are somewhat alike" if alike < 0.7 else "alike"
    if lengthscale < 0.3:
        return "goes up and down"
    return "curved" if lengthscale < 1 else "gently curved" if lengthscale < 4 else "nearly straight"


def _warp(power: float, sign: int) -> str:
    if power == 1:
        return "none: values are taken as they are"
    tail = "low" if (power > 1) == (sign > 0) else "high"
    return f"power {power:g}: evens out a long tail of {tail} values"


def _noise(posterior: Surrogate) -> float:
    stddev = torch.tensor([-1.0, 1.0], dtype=torch.float64) * math.sqrt(posterior.noise)
    below, above = posterior.warp.inverse(stddev)
    return float(above - below) / 2


def _effects(space: SearchSpace, indices: Tensor, mean: Tensor) -> dict[str, AxisEffect]:
    number, places = (each[indices] for each in space.digits)
    found: dict[str, AxisEffect] = {}
    for f, family in enumerate(space.families):
        rows = number == f
        for place, axis in enumerate(family.axes):
            averages = {
                value: float(mean[rows & (places[:, place] == digit)].mean())
                for digit, value in enumerate(axis.values)
                if bool((rows & (places[:, place] == digit)).any())
            }
            if len(averages) > 1:
                best, worst = max(averages, key=averages.__getitem__), min(averages, key=averages.__getitem__)
                name = axis.name if len(space.families) == 1 else f"{family.name}.{axis.name}"
                found[name] = AxisEffect(best, worst, averages[best] - averages[worst])
    return dict(sorted(found.items(), key=lambda each: -each[1].gain))
