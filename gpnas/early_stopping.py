"""Whether a training that is under way will still matter, judged by its learning curve.

All trials of a search share one recipe and are evaluated at the same steps, so those that finished
tell how much a training still gains from any step on. Two sources say what a running one will come
to: its own curve, through a Bayesian linear regression over the finished ones,

    final - at step t = a + b · at step t + c · gain since the evaluation before + noise,

and the surrogate, which has seen no step of it. Their densities are multiplied. The regression rests
on few trainings, so it is a Student's t and its slopes are shrunk towards none: with little known,
nothing is stopped.

T. Domhan, J. Springenberg, F. Hutter, "Speeding up automatic hyperparameter optimization of deep
neural networks by extrapolation of learning curves", IJCAI 2015, section 3.3 (stop where the chance to
be better is small). A. Gelman et al., "Bayesian Data Analysis", 3rd ed. 2013, sections 14.2 and 14.8
(the regression, its slopes' prior), 12.1 and 17.2 (the t as a mixture of normals).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Curve = Mapping[int, float]
"""Step to validated value, larger is better."""

LEAST_CHANCE = 0.05
"""Chance to end among the best below which a training is stopped."""
LEAST_FINISHED = 4
"""Finished trainings without which none is stopped."""
SHRINKAGE = 1.0
"""Weight of the prior that slopes are 0, in finished trainings of average spread."""
NORMALS = 256
"""Normals by which a Student's t is mixed."""
TAILS = 1e-80, 1e-12
"""Most probability of the precisions below the mixture, and above."""
TINY = 1e-9
"""Least scale of a forecast, relative to the value."""


@dataclass(frozen=True)
class Forecast:
    """What a training will come to, as its curve has it: a Student's t, in the unit of the values."""

    mean: float
    scale: float
    """Positive."""
    freedom: float
    """Degrees of freedom, at least 1."""

    @property
    def stddev(self) -> float:
        """The standard deviation; of a t with no more than 2 degrees of freedom, which has none, that
        of one with 3."""
        freedom = max(self.freedom, 3.0)
        return self.scale * math.sqrt(freedom / (freedom - 2))


@dataclass(frozen=True)
class Outlook:
    """What is known of a running training's end."""

    step: int
    """Step of the newest evaluation."""
    value: float
    """What that evaluation measured."""
    forecast: Forecast
    """What the curve alone foretells."""
    mean: float
    """Mean of the final value, by curve and surrogate."""
    stddev: float
    chance: float
    """That the final value is among the best."""
    best: int
    """Among how many best."""


def forecast(finished: Sequence[Curve], running: Curve, last: int) -> Forecast | None:
    """What a running training will come to, given those that finished.

    Args:
        finished: curves with a value at step `last`.
        running: a curve that ends before it, with at least one value.
        last: the last step of a training.

    Returns:
        None where fewer than `LEAST_FINISHED` were evaluated at the same steps.
    """
    step = max(running)
    before = max((each for each in running if each < step), default=None)
    like = [each for each in finished if step in each and (before is None or before in each)]
    if len(like) < LEAST_FINISHED:
        return None
    gains = np.array([each[last] - each[step] for each in like])
    slopes = np.array([_regressors(each, step, before) for each in like])  # (n, p)
    centre, spread = slopes.mean(axis=0), slopes.std(axis=0)
    spread[spread == 0] = 1.0
    x = (slopes - centre) / spread
    mean = gains.mean()
    precision = x.T @ x + SHRINKAGE * np.eye(x.shape[1])
    weights = np.linalg.solve(precision, x.T @ (gains - mean))
    rest = gains - mean - x @ weights
    freedom = len(like) - 1
    variance = (rest @ rest + SHRINKAGE * weights @ weights) / freedom
    at = (np.array(_regressors(running, step, before)) - centre) / spread
    uncertain = 1 + 1 / len(like) + at @ np.linalg.solve(precision, at)
    floor = TINY * (1 + abs(running[step]))  # curves that rise by exactly as much
    return Forecast(
        mean=running[step] + float(mean + at @ weights),
        scale=max(math.sqrt(variance * uncertain), floor),
        freedom=float(freedom),
    )


def _regressors(curve: Curve, step: int, before: int | None) -> list[float]:
    return [curve[step]] if before is None else [curve[step], curve[step] - curve[before]]


def combine(
    forecast: Forecast, prior: tuple[float, float] | None, threshold: float
) -> tuple[float, float, float]:
    """What curve and surrogate together say of a final value.

    Args:
        forecast: from the curve.
        prior: mean and standard deviation from what does not know the curve; None says nothing.
        threshold: a value to exceed.

    Returns:
        Mean and standard deviation, and the probability to exceed the threshold, of the density
        proportional to the product of both, the t taken as a mixture of `NORMALS` normals.
    """
    # precision is gamma distributed; evenly spaced in its logarithm, the tails have their normals too,
    # which are what counts where curve and surrogate disagree
    half = forecast.freedom / 2
    precision = np.geomspace(*_range(half), NORMALS)
    variances = forecast.scale**2 * half / precision
    means, logs = np.full(NORMALS, forecast.mean), half * np.log(precision) - precision
    if prior is not None:
        total = variances + prior[1] ** 2
        logs -= 0.5 * ((forecast.mean - prior[0]) ** 2 / total + np.log(total))
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    if prior is not None:
        means = (forecast.mean * prior[1] ** 2 + prior[0] * variances) / total
        variances = variances * prior[1] ** 2 / total
    mean = float(weights @ means)
    stddev = math.sqrt(float(weights @ (variances + (means - mean) ** 2)))
    below = (threshold - means) / np.sqrt(2 * variances)
    chance = float(weights @ np.array([math.erfc(each) / 2 for each in below]))
    return mean, stddev, chance


def _range(shape: float) -> tuple[float, float]:
    """Between which nearly all of a gamma distribution of rate 1 lies.

    Below x lies less than xᵃ/Γ(a + 1), the first term of its series; above a + √(2at) + t less than
    exp(-t) (Boucheron, Lugosi, Massart, "Concentration inequalities", 2013, section 2.4).
    """
    below, t = math.log(TAILS[0]), -math.log(TAILS[1])
    return math.exp((below + math.lgamma(shape + 1)) / shape), shape + math.sqrt(2 * shape * t) + t


def outlook(
    finished: Sequence[Curve],
    running: Curve,
    *,
    last: int,
    best: int,
    prior: tuple[float, float] | None = None,
) -> Outlook | None:
    """Whether a running training will matter.

    Args:
        finished: curves of all that finished, in any order.
        running: the curve so far.
        last: the last step of a training.
        best: among how many best finished ones it must end to matter.
        prior: the surrogate's mean and standard deviation of one training of its architecture.

    Returns:
        None where too little is known to judge: fewer than `LEAST_FINISHED` or than `best` finished,
        or no evaluation yet.
    """
    whole = [each for each in finished if last in each]
    if not running or len(whole) < max(best, LEAST_FINISHED):
        return None
    step = max(running)
    if step >= last:
        return None
    curve = forecast(whole, running, last)
    if curve is None:
        return None
    threshold = sorted((each[last] for each in whole), reverse=True)[best - 1]
    mean, stddev, chance = combine(curve, prior, threshold)
    return Outlook(step, running[step], curve, mean, stddev, chance, best)
