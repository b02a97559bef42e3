"""Hyperparameters and warp, learned from observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from gpnas.space import Column
from gpnas.surrogate.kernel import (
    CONSTANT_VARIANCE,
    NOISE_PRIOR,
    OWN_SHARE,
    Array,
    Hyperparameters,
    is_ordered,
    lengthscale_prior,
)
from gpnas.surrogate.posterior import Context, Posterior
from gpnas.surrogate.warp import Warp

MEMBERS = ((64, 16), (256, 4))
"""Up to so many observations, so many draws of the hyperparameters are averaged over; of more, none:
they leave little open."""
VARIANCE_PRIOR = (1.5, 1.5)
"""Shape and rate of the gamma prior on the linear and on the local variance."""
BOUNDS = {"lengthscale": (0.05, 50.0), "variance": (1e-4, 100.0), "noise": (1e-5, 10.0)}
"""Beyond these a fit tells nothing more, and a Cholesky factorisation could fail."""
POWER_STEP = 0.5
"""Of the warp's power; smaller steps changed nothing that could be measured."""
POWER_STDDEV = 0.5
"""Of the normal prior on the power, around 1."""
UNIT_STEP = 1.5
"""Factor between the units that are tried."""
UNIT_STDDEV = 0.7
"""Of the normal prior on the unit's logarithm, around the other tasks'."""
OPTIONS = {"maxiter": 100, "ftol": 1e-9, "gtol": 1e-5}
"""Of the optimiser, SciPy's L-BFGS-B."""
LEAST_WARPED = 8
"""Observations below which values are not warped."""


def fit(
    x: Tensor,
    y: Tensor,
    columns: Sequence[Column],
    *,
    members: int | None = None,
    context: Context | None = None,
) -> Posterior:
    """The posterior over values, hyperparameters averaged out.

    Args:
        x: (n, d) features; rows may repeat, n may be 0.
        y: (n,) finite values, larger is better.
        columns: meaning of the feature columns.
        members: draws of the hyperparameters; 1 takes the likeliest ones. None fits their number to
            the observations'.
        context: what is known of other tasks. The unit of the values is then learned too, since
            architectures chosen for their promise vary less than those of the other tasks.
    """
    count = len(y) + (len(context.z) if context else 0)
    if members is None:
        members = next((draws for most, draws in MEMBERS if count <= most), 1)
    best = _Fit.at(_Data(x, y, columns, context), 1.0, context.unit if context else None)
    if context is not None and len(y):
        best = _climbed(best, lambda fit, up: fit.moved(fit.power, (fit.unit or 1.0) * UNIT_STEP**up))
    if len(y) >= LEAST_WARPED:
        best = _climbed(best, lambda fit, up: fit.moved(fit.power + POWER_STEP * up, fit.unit))
    draws = [best.maximum] if members == 1 else list(_laplace_draws(best.target, best.maximum, members))
    hyperparameters = [Hyperparameters.unpack(draw) for draw in draws]
    return Posterior(x, y, columns, hyperparameters, best.power, best.unit, context)


def likeliest(x: Tensor, z: Tensor, columns: Sequence[Column]) -> Hyperparameters:
    """The hyperparameters of highest posterior density, given (n, d) features and (n,) latent values."""
    return Hyperparameters.unpack(_maximum(LogPosterior(x, z, columns)))


class _Data(NamedTuple):
    x: Tensor
    y: Tensor
    columns: Sequence[Column]
    context: Context | None


@dataclass(frozen=True)
class _Fit:
    """The likeliest hyperparameters with one warp."""

    data: _Data
    power: float
    unit: float | None
    target: LogPosterior
    maximum: Array
    value: float
    """Log density of warp, hyperparameters and values."""

    @classmethod
    def at(cls, data: _Data, power: float, unit: float | None, start: Array | None = None) -> _Fit:
        warp = Warp.of(data.y, power, unit)
        x, z = data.x, warp(data.y)
        prior = -0.5 * ((power - 1) / POWER_STDDEV) ** 2
        if data.context is not None and unit is not None:
            x, z = torch.cat([x, data.context.x]), torch.cat([z, data.context.z])
            prior -= 0.5 * (math.log(unit / data.context.unit) / UNIT_STDDEV) ** 2
        target = LogPosterior(x, z, data.columns)
        maximum = _maximum(target, start)
        value = target(maximum)[0] + warp.log_slope(data.y) + prior
        return cls(data, power, unit, target, maximum, value)

    def moved(self, power: float, unit: float | None) -> _Fit | None:
        """With another warp; None where powers do not map onto all real numbers."""
        return _Fit.at(self.data, power, unit, self.maximum) if 0 <= power <= 2 else None


def _climbed(best: _Fit, step: Callable[[_Fit, int], _Fit | None]) -> _Fit:
    """Uphill in one direction or the other, while it goes uphill."""
    start = best
    for direction in (1, -1):
        while (further := step(best, direction)) is not None and further.value > best.value:
            best = further
        if best is not start:
            break
    return best


class LogPosterior:
    """Log density of the hyperparameters' logarithms given standardised values, and its gradient.

    The evidence (Rasmussen & Williams Eq. 2.30, gradient 5.9) plus the log priors, up to a constant.
    Distances between observations are kept per pair and column, (d, m), since a fit asks often.
    """

    def __init__(self, x: Tensor, z: Tensor, columns: Sequence[Column]) -> None:
        features, self._z = x.numpy(), z.numpy()
        n, self.d = features.shape
        ordered = np.array([is_ordered(column) for column in columns])
        self._task = np.array([column.kind == "task" for column in columns])
        self._columns, self._lengthscales = tuple(columns), lengthscale_prior(columns)
        self._rows, self._others = np.triu_indices(n, 1)
        distance = np.abs(features[self._rows] - features[self._others]).T
        distance[~ordered] = distance[~ordered] != 0
        self._distance = np.ascontiguousarray(distance)
        self._same = (distance[~self._task] == 0).all(axis=0).astype(np.float64)
        apart = np.zeros((n, n))
        apart[self._rows, self._others] = distance[self._task].any(axis=0)
        self._constant = CONSTANT_VARIANCE * (apart + apart.T == 0)
        self._ordered = ordered[:, None]
        centred = 2 * (features[:, ordered] - 0.5)
        self._linear = centred @ centred.T
        for number in np.flatnonzero(~ordered & ~self._task):
            self._linear += features[:, None, number] == features[None, :, number]
        self.bounds = np.log([BOUNDS["lengthscale"]] * self.d + [BOUNDS["variance"]] * 2 + [BOUNDS["noise"]])

    def starts(self) -> list[Array]:
        """Where a maximum is looked for: the priors' centre, and one smoother and noisier."""
        centre = Hyperparameters.default(self._columns).pack()
        smoother = centre.copy()
        smoother[[*range(self.d), -1]] += math.log(4.0)
        return [centre, smoother]

    def __call__(self, theta: Array) -> tuple[float, Array]:  # (p,) -> value, (p,)
        d, n = self.d, len(self._z)
        gradient = np.zeros_like(theta)
        if not n:
            return self._add_priors(theta, gradient), gradient
        lengthscales, (local, linear, noise) = np.exp(theta[:d]), np.exp(theta[d:])
        scaled = self._distance * (np.where(self._ordered[:, 0], math.sqrt(5), 1.0) / lengthscales)[:, None]
        polynomial = np.where(self._ordered, 1 + scaled * (1 + scaled / 3), 1.0)
        tie = np.exp(-scaled[self._task].sum(axis=0))  # (m,) correlation of tasks
        kernel = polynomial.prod(axis=0) * np.exp(-scaled.sum(axis=0))  # (m,) tied
        straight = linear * self._linear
        matrix = self._constant + straight
        same = tie * self._same
        matrix[self._rows, self._others] += (
            local * kernel + OWN_SHARE * noise * same + (tie - 1) * straight[self._rows, self._others]
        )
        matrix[np.diag_indices(n)] += local + (1 + OWN_SHARE) * noise
        # only the upper half is filled
        upper, info = torch.linalg.cholesky_ex(torch.from_numpy(matrix), upper=True)
        if info:  # cannot be a maximum: the search turns back
            return -1e10, np.zeros_like(theta)
        factor, inverse = upper.numpy(), torch.cholesky_inverse(upper, upper=True).numpy()
        alpha = inverse @ self._z
        value = -0.5 * self._z @ alpha - np.log(factor.diagonal()).sum() - 0.5 * n * math.log(2 * math.pi)
        # d(evidence) = ½ tr(W dK), W = ααᵀ - K⁻¹; a pair counts twice
        weight = np.outer(alpha, alpha) - inverse
        between = weight[self._rows, self._others]
        pairs = between * kernel
        trace = 0.5 * np.trace(weight)
        slope = np.where(self._ordered, scaled * scaled * (1 + scaled) / (3 * polynomial), scaled)
        gradient[:d] = local * (slope @ pairs)
        gradient[d] = local * (pairs.sum() + trace)
        lines = straight[self._rows, self._others]
        bound = between * tie * lines
        gradient[d + 1] = bound.sum() + 0.5 * weight.diagonal() @ straight.diagonal()
        gradient[d + 2] = noise * ((1 + OWN_SHARE) * trace + OWN_SHARE * (between @ same))
        rest = bound + OWN_SHARE * noise * between * same  # what tasks tie besides the local part
        gradient[:d][self._task] += scaled[self._task] @ rest
        value += self._add_priors(theta, gradient)
        return float(value), gradient

    def _add_priors(self, theta: Array, gradient: Array) -> float:
        d = self.d
        mean, deviation = self._lengthscales
        offset = (theta[:d] - mean) / deviation
        gradient[:d] -= offset / deviation
        shape, rate = VARIANCE_PRIOR
        variances = np.exp(theta[d : d + 2])
        gradient[d : d + 2] += shape - rate * variances
        noise = (theta[-1] - NOISE_PRIOR[0]) / NOISE_PRIOR[1]
        gradient[-1] -= noise / NOISE_PRIOR[1]
        gamma = (shape * theta[d : d + 2] - rate * variances).sum()
        return float(-0.5 * offset @ offset + gamma - 0.5 * noise**2)


def _maximum(target: LogPosterior, start: Array | None = None) -> Array:  # (p,)
    """The likeliest logarithms; without a start from the priors' centre, and one smoother and noisier."""

    def negative(theta: Array) -> tuple[float, Array]:
        value, gradient = target(theta)
        return -value, -gradient

    starts = [start] if start is not None else target.starts()
    ends = [
        minimize(negative, each, jac=True, method="L-BFGS-B", bounds=target.bounds, options=OPTIONS)
        for each in starts
    ]
    maximum: Array = min(ends, key=lambda end: end.fun).x
    return maximum


def _laplace_draws(target: LogPosterior, maximum: Array, count: int) -> Array:  # (count, p)
    """Quasi-random draws of the Gaussian with the maximum's curvature, within the bounds."""
    step, p = 1e-4, len(maximum)
    here = target(maximum)[1]
    hessian = np.stack([(target(maximum + step * unit)[1] - here) / step for unit in np.eye(p)])
    values, vectors = np.linalg.eigh(-(hessian + hessian.T) / 2)
    # a flat or, on a bound, convex direction is no wider than a factor of e² either way
    scales = 1 / np.sqrt(np.maximum(values, 0.25))
    uniform = torch.quasirandom.SobolEngine(p, scramble=True, seed=0).draw(count, dtype=torch.float64)
    normal = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)).numpy()
    draws: Array = np.clip(maximum + (normal * scales) @ vectors.T, *target.bounds.T)
    return draws
