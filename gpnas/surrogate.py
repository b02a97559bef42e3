"""The surrogate: exact Gaussian processes over the architectures of a space.

    warp(y) = c + linear + local + own + noise

The covariance is a constant, a linear term (over ordered axes, log costs and one-hot categories), a
product of one-dimensional Matérn-5/2 kernels over the same columns, with an exponential of mismatch
for categorical axes and families (families are as correlated as their observations say), and what is
an architecture's own, told by no other. Costs (parameters, GMACs) are known before training and count
as columns. Values are standardised, and warped where that makes them likelier.

A handful of observations leaves the hyperparameters open, and intervals drawn from the likeliest ones
are too narrow. So the posterior is a mixture: hyperparameters are drawn from the Laplace approximation
of their posterior around its maximum, by a fixed quasi-random sequence. A fit is a pure function.

C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006: Eq. 2.23-2.26
(posterior), 2.30 and 5.9 (evidence, its gradient), 3.32 (Laplace), 4.17 (Matérn), 5.10-5.12
(leave-one-out). Lengthscale prior, growing with √d: C. Hvarfner et al., "Vanilla Bayesian
optimization performs great in high dimensions", ICML 2024.

Glossary: n observed points, q queried points, d feature columns, p = d + 3 hyperparameters, M members
of the mixture, m = n(n-1)/2 pairs. All float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.optimize import minimize
from torch import Tensor

from gpnas.space import Column

Array = NDArray[np.float64]

CONSTANT_VARIANCE = 1.0
"""Prior variance of the constant, in units of the standardised values."""
MEMBERS = ((64, 16), (256, 4))
"""Up to so many observations, so many draws of the hyperparameters are averaged over; of more, none:
they leave little open."""
LENGTHSCALE_PRIOR = (math.log(0.5) + 0.5, 1.0)
"""Mean, for one column, and standard deviation of a lengthscale's logarithm; features span [0, 1]."""
VARIANCE_PRIOR = (1.5, 1.5)
"""Shape and rate of the gamma prior on the linear and on the local variance."""
NOISE_PRIOR = (math.log(0.2), 1.5)
"""Mean and standard deviation of the logarithm of the noise variance."""
BOUNDS = {"lengthscale": (0.05, 50.0), "variance": (1e-4, 100.0), "noise": (1e-5, 10.0)}
"""Beyond these a fit tells nothing more, and a Cholesky factorisation could fail."""
OWN_SHARE = 1 / 3
"""Variance of what is an architecture's own, told by no other, in units of the noise variance."""
POWER_STEP = 0.5
"""Of the warp's power; smaller steps changed nothing that could be measured."""
POWER_STDDEV = 0.5
"""Of the normal prior on the power, around 1."""
LEAST_WARPED = 8
"""Observations below which values are not warped."""
NODES = 15
"""Gauss-Hermite nodes by which moments pass the warp."""
ENTRIES = 4_000_000
"""Numbers in one block of a covariance (32 MB); larger queries are taken in parts."""


@dataclass(frozen=True)
class Hyperparameters:
    """What a fit learns, all positive, in units of the standardised values."""

    lengthscales: Tensor  # (d,)
    local_variance: float
    linear_variance: float
    noise_variance: float

    @classmethod
    def default(cls, columns: Sequence[Column]) -> Hyperparameters:
        """What is believed before anything is observed."""
        return cls.unpack(_centre(len(columns)))

    @classmethod
    def unpack(cls, theta: Array) -> Hyperparameters:  # (p,) logarithms
        values = np.exp(theta)
        return cls(torch.from_numpy(values[:-3].copy()), *(float(value) for value in values[-3:]))

    def pack(self) -> Array:  # (p,)
        rest = [self.local_variance, self.linear_variance, self.noise_variance]
        packed: Array = np.log(np.concatenate([self.lengthscales.numpy(), rest]))
        return packed


def _centre(d: int) -> Array:
    lengthscale = LENGTHSCALE_PRIOR[0] - 0.5 + 0.5 * math.log(d)
    return np.array([lengthscale] * d + [math.log(0.5), math.log(0.5), NOISE_PRIOR[0]])


def covariance(
    x1: Tensor,  # (n, d)
    x2: Tensor,  # (q, d)
    columns: Sequence[Column],
    hyperparameters: Hyperparameters,
) -> Tensor:  # (n, q)
    """Prior covariance of latent values, noise left out."""
    polynomial = torch.ones(len(x1), len(x2), dtype=torch.float64)
    exponent = torch.zeros_like(polynomial)
    ordered = [number for number, column in enumerate(columns) if _ordered(column)]
    linear = 4 * (x1[:, ordered] - 0.5) @ (x2[:, ordered] - 0.5).T
    for number, column in enumerate(columns):
        a, b = x1[:, number, None], x2[None, :, number]
        lengthscale = float(hyperparameters.lengthscales[number])
        if _ordered(column):
            scaled = (a - b).abs_().mul_(math.sqrt(5) / lengthscale)
            exponent += scaled
            polynomial *= scaled.div(3).add_(1).mul_(scaled).add_(1)
        else:
            differ = (a != b).double()
            exponent += differ / lengthscale
            linear += 1 - differ
    own = (exponent == 0).double().mul_(OWN_SHARE * hyperparameters.noise_variance)
    local = polynomial.mul_(exponent.neg_().exp_()).mul_(hyperparameters.local_variance).add_(own)
    return local.add_(linear.mul_(hyperparameters.linear_variance)).add_(CONSTANT_VARIANCE)


def prior_variance(x: Tensor, columns: Sequence[Column], hyperparameters: Hyperparameters) -> Tensor:
    """The diagonal of `covariance(x, x)`, (q,)."""
    linear = torch.zeros(len(x), dtype=torch.float64)
    for number, column in enumerate(columns):
        linear += 4 * (x[:, number] - 0.5).square() if _ordered(column) else 1.0
    own = OWN_SHARE * hyperparameters.noise_variance
    return CONSTANT_VARIANCE + hyperparameters.linear_variance * linear + hyperparameters.local_variance + own


def _ordered(column: Column) -> bool:
    return column.kind in ("ordered", "cost")


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor of a covariance, with the least jitter that lets it exist.

    Args:
        matrix: (n, n) symmetric, positive semi-definite up to rounding.
    """
    scale = float(matrix.diagonal().mean()) if len(matrix) else 1.0
    for jitter in (0.0, *(10.0**power for power in range(-12, 3))):
        factor, info = torch.linalg.cholesky_ex(
            matrix + jitter * scale * torch.eye(len(matrix), dtype=matrix.dtype) if jitter else matrix
        )
        if not int(info):
            return factor
    raise AssertionError("a covariance must be finite and nearly positive semi-definite")


@dataclass(frozen=True)
class Member:
    """One exact Gaussian process, in standardised units."""

    x: Tensor  # (n, d)
    z: Tensor  # (n,)
    columns: tuple[Column, ...]
    hyperparameters: Hyperparameters

    @cached_property
    def factor(self) -> Tensor:
        """Cholesky factor of the observations' covariance, (n, n)."""
        noise = self.hyperparameters.noise_variance * torch.eye(len(self.x), dtype=torch.float64)
        return cholesky(covariance(self.x, self.x, self.columns, self.hyperparameters) + noise)

    @cached_property
    def weights(self) -> Tensor:
        """(K + s²I)⁻¹ z, (n,)."""
        return torch.cholesky_solve(self.z[:, None], self.factor)[:, 0]

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the latent values at (q, d) points, (q,) each."""
        means, variances = [], []
        for part in x.split(max(1, ENTRIES // max(1, len(self.x)))):
            cross = covariance(self.x, part, self.columns, self.hyperparameters)
            solved = torch.linalg.solve_triangular(self.factor, cross, upper=False)
            prior = prior_variance(part, self.columns, self.hyperparameters)
            means.append(cross.T @ self.weights)
            variances.append((prior - solved.square().sum(dim=0)).clamp_min(1e-12))
        return torch.cat(means), torch.cat(variances)

    def joint(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (p, d), (q, d)
        """Means (p,) and (q,) of the latent values at two sets of points, and their covariance (p, q)."""
        crosses = [covariance(self.x, each, self.columns, self.hyperparameters) for each in (a, b)]
        left, right = (torch.linalg.solve_triangular(self.factor, each, upper=False) for each in crosses)
        prior = covariance(a, b, self.columns, self.hyperparameters)
        return crosses[0].T @ self.weights, crosses[1].T @ self.weights, prior - left.T @ right

    def believing(self, x: Tensor) -> Member:
        """As if each of (r, d) points were observed at its mean."""
        means, _ = self.mean_and_variance(x)
        return Member(torch.cat([self.x, x]), torch.cat([self.z, means]), self.columns, self.hyperparameters)


@dataclass(frozen=True)
class Warp:
    """A monotone map from values to the standardised latent scale that the process lives on.

    I.-K. Yeo, R. A. Johnson, Biometrika 87(4), 2000, Eq. 2.1, between two standardisations. Failing
    architectures make values skewed; on a scale where they are not, one noise and one smoothness fit
    good and bad ones alike. Powers in [0, 2] map onto all real numbers, 1 changes nothing.
    """

    power: float
    shift: float
    unit: float
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, y: Tensor, power: float = 1.0) -> Warp:  # (n,)
        plain = cls(power, *_standard(y))
        return (
            plain
            if power == 1
            else replace(plain, **dict(zip(("centre", "spread"), _standard(plain(y)), strict=True)))
        )

    def __call__(self, y: Tensor) -> Tensor:
        """Latent values of values."""
        z = (y - self.shift) / self.unit
        if self.power != 1:
            z = torch.where(z >= 0, _raise(z, self.power), -_raise(-z, 2 - self.power))
        return (z - self.centre) / self.spread

    def inverse(self, z: Tensor) -> Tensor:
        """Values of latent values."""
        w = self.centre + self.spread * z
        if self.power != 1:
            w = torch.where(w >= 0, _lower(w, self.power), -_lower(-w, 2 - self.power))
        return self.shift + self.unit * w

    def log_slope(self, y: Tensor) -> float:
        """Sum of the logarithms of the map's slopes at values, by which densities change."""
        z = (y - self.shift) / self.unit
        bend = (self.power - 1) * (z.sign() * z.abs().log1p()).sum()
        return float(bend) - len(y) * math.log(self.unit * self.spread)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:  # (q,), (q,)
        """Mean and variance of values whose latent values are normal."""
        if self.power == 1:
            scale = self.unit * self.spread
            return self.inverse(mean), scale**2 * variance
        nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(NODES))
        weights = weights / weights.sum()
        stddev = variance.sqrt()
        first, second = torch.zeros_like(mean), torch.zeros_like(mean)
        middle = self.inverse(mean)
        for node, weight in zip(nodes, weights, strict=True):
            offset = self.inverse(mean + node * stddev) - middle
            first += weight * offset
            second += weight * offset.square()
        return middle + first, (second - first.square()).clamp_min(1e-300)


def _raise(z: Tensor, power: float) -> Tensor:
    """((1 + z)^power - 1) / power for z > 0; the clamp spares the branch that is not taken."""
    z = z.clamp_min(0)
    return z.log1p() if power == 0 else torch.expm1(power * z.log1p()) / power


def _lower(w: Tensor, power: float) -> Tensor:
    """The inverse of `_raise`."""
    w = w.clamp_min(0)
    return w.expm1() if power == 0 else torch.expm1((power * w).log1p() / power)


class Posterior:
    """What the surrogate believes of any architectures, given observations.

    Args:
        x: (n, d) features of the observed architectures; n may be 0, rows may repeat.
        y: (n,) observed values, in their own unit.
        columns: meaning of the feature columns.
        draws: hyperparameters of the mixture's members, equally weighted; at least one.
        power: of the values' warp.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        columns: Sequence[Column],
        draws: Sequence[Hyperparameters],
        power: float = 1.0,
    ) -> None:
        self.x, self.columns = x, tuple(columns)
        self.warp = Warp.of(y, power)
        z = self.warp(y)
        self.members = tuple(Member(x, z, self.columns, each) for each in draws)

    def __len__(self) -> int:
        """How many observations it rests on."""
        return len(self.x)

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the noiseless values at (q, d) points, in the values' own unit."""
        return self.warp.moments(*self.latent(x))

    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at (q, d) points, (q,) each, on the latent scale."""
        return _mixed([member.mean_and_variance(x) for member in self.members])

    def latent_covariance(self, a: Tensor, b: Tensor) -> Tensor:  # (p, d), (q, d) -> (p, q)
        """Covariance of the latent values at two sets of points, hyperparameters averaged out."""
        joints = [member.joint(a, b) for member in self.members]
        left, right = (torch.stack([joint[place] for joint in joints]) for place in (0, 1))
        spread = (left - left.mean(dim=0)).T @ (right - right.mean(dim=0)) / len(joints)
        return torch.stack([joint[2] for joint in joints]).mean(dim=0) + spread

    def believing(self, x: Tensor) -> Posterior:  # (r, d)
        """As if each point were observed at its mean: no mean moves, what pends is no longer unknown.

        D. Ginsbourger, R. Le Riche, L. Carraro, "Kriging is well-suited to parallelize optimization",
        2010, section 4.2.
        """
        if not len(x):
            return self
        believer = copy(self)
        believer.x = torch.cat([self.x, x])
        believer.members = tuple(member.believing(x) for member in self.members)
        return believer

    def interval(self, x: Tensor, coverage: float = 0.9) -> tuple[Tensor, Tensor]:
        """Bounds (q,) that hold one more observation at (q, d) points with probability `coverage`."""
        mean, variance = self.latent(x)
        half = float(torch.special.ndtri(torch.tensor(0.5 + coverage / 2))) * (variance + self.noise).sqrt()
        return self.warp.inverse(mean - half), self.warp.inverse(mean + half)

    @property
    def noise(self) -> float:
        """Variance of one observation, in latent units squared."""
        return sum(member.hyperparameters.noise_variance for member in self.members) / len(self.members)

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Mean and variance predicted for each observation from all others, (n,) each, in their unit.

        The hyperparameters are those fitted to all; the variance is an observation's, noise included.
        """

        def predictions() -> Iterator[tuple[Tensor, Tensor]]:
            for member in self.members:
                variance = 1 / torch.cholesky_inverse(member.factor).diagonal()
                yield member.z - member.weights * variance, variance

        return self.warp.moments(*_mixed(list(predictions())))


def _mixed(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of an equal mixture."""
    means, variances = (torch.stack(each) for each in zip(*pairs, strict=True))
    return means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, correction=0)


def _standard(y: Tensor) -> tuple[float, float]:
    """Mean and standard deviation; 1 for the latter where values are too few or all the same."""
    if not len(y):
        return 0.0, 1.0
    unit = float(y.std()) if len(y) > 1 else 0.0
    return float(y.mean()), unit if unit > 1e-9 * max(1.0, float(y.abs().max())) else 1.0


def fit(x: Tensor, y: Tensor, columns: Sequence[Column], *, members: int | None = None) -> Posterior:
    """The posterior over values, hyperparameters averaged out.

    Args:
        x: (n, d) features; rows may repeat, n may be 0.
        y: (n,) finite values, larger is better.
        columns: meaning of the feature columns.
        members: draws of the hyperparameters; 1 takes the likeliest ones. None fits their number to n.
    """
    if members is None:
        members = next((count for most, count in MEMBERS if len(y) <= most), 1)
    best = _with_power(x, y, columns, 1.0, None)
    if len(y) >= LEAST_WARPED:
        for step in (POWER_STEP, -POWER_STEP):  # uphill, while a power maps onto all real numbers
            plain = best
            while 0 <= best.power + step <= 2:
                further = _with_power(x, y, columns, best.power + step, best.maximum)
                if further.value <= best.value:
                    break
                best = further
            if best is not plain:
                break
    draws = [best.maximum] if members == 1 else list(_laplace_draws(best.target, best.maximum, members))
    return Posterior(x, y, columns, [Hyperparameters.unpack(draw) for draw in draws], best.power)


def likeliest(x: Tensor, z: Tensor, columns: Sequence[Column]) -> Hyperparameters:
    """The hyperparameters of highest posterior density, given (n, d) features and (n,) latent values."""
    return Hyperparameters.unpack(_maximum(LogPosterior(x, z, columns)))


@dataclass(frozen=True)
class _Fit:
    """The likeliest hyperparameters with one warp."""

    power: float
    target: LogPosterior
    maximum: Array
    value: float
    """Log density of warp, hyperparameters and values."""


def _with_power(x: Tensor, y: Tensor, columns: Sequence[Column], power: float, start: Array | None) -> _Fit:
    warp = Warp.of(y, power)
    target = LogPosterior(x, warp(y), columns)
    maximum = _maximum(target, start)
    prior = -0.5 * ((power - 1) / POWER_STDDEV) ** 2
    return _Fit(power, target, maximum, target(maximum)[0] + warp.log_slope(y) + prior)


class LogPosterior:
    """Log density of the hyperparameters' logarithms given standardised values, and its gradient.

    The evidence (Rasmussen & Williams Eq. 2.30, gradient 5.9) plus the log priors, up to a constant.
    Distances between observations are kept per pair and column, (d, m), since a fit asks often.
    """

    def __init__(self, x: Tensor, z: Tensor, columns: Sequence[Column]) -> None:
        features, self._z = x.numpy(), z.numpy()
        n, self.d = features.shape
        ordered = np.array([_ordered(column) for column in columns])
        self._rows, self._others = np.triu_indices(n, 1)
        distance = np.abs(features[self._rows] - features[self._others]).T
        distance[~ordered] = distance[~ordered] != 0
        self._distance = np.ascontiguousarray(distance)
        self._same = (distance == 0).all(axis=0).astype(np.float64)
        self._ordered = ordered[:, None]
        centred = 2 * (features[:, ordered] - 0.5)
        self._linear = centred @ centred.T
        for number in np.flatnonzero(~ordered):
            self._linear += features[:, None, number] == features[None, :, number]
        self.bounds = np.log([BOUNDS["lengthscale"]] * self.d + [BOUNDS["variance"]] * 2 + [BOUNDS["noise"]])

    def __call__(self, theta: Array) -> tuple[float, Array]:  # (p,) -> value, (p,)
        d, n = self.d, len(self._z)
        gradient = np.zeros_like(theta)
        if not n:
            return self._add_priors(theta, gradient), gradient
        lengthscales, (local, linear, noise) = np.exp(theta[:d]), np.exp(theta[d:])
        scaled = self._distance * (np.where(self._ordered[:, 0], math.sqrt(5), 1.0) / lengthscales)[:, None]
        polynomial = np.where(self._ordered, 1 + scaled * (1 + scaled / 3), 1.0)
        kernel = polynomial.prod(axis=0) * np.exp(-scaled.sum(axis=0))  # (m,)
        matrix = CONSTANT_VARIANCE + linear * self._linear
        matrix[self._rows, self._others] += local * kernel + OWN_SHARE * noise * self._same
        matrix[np.diag_indices(n)] += local + (1 + OWN_SHARE) * noise
        factor, info = lapack.dpotrf(matrix.T, lower=1)  # reads the lower half of the transpose
        if info:  # cannot be a maximum: the search turns back
            return -1e10, np.zeros_like(theta)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
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
        gradient[d + 1] = 0.5 * linear * (weight * self._linear).sum()
        gradient[d + 2] = noise * ((1 + OWN_SHARE) * trace + OWN_SHARE * (between @ self._same))
        value += self._add_priors(theta, gradient)
        return float(value), gradient

    def _add_priors(self, theta: Array, gradient: Array) -> float:
        d = self.d
        mean, deviation = LENGTHSCALE_PRIOR
        offset = (theta[:d] - mean - 0.5 * math.log(d)) / deviation
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

    def loss(theta: Array) -> tuple[float, Array]:
        value, gradient = target(theta)
        return -value, -gradient

    starts = [start]
    if start is None:
        smoother = _centre(target.d)
        smoother[: target.d] += math.log(4.0)
        smoother[-1] += math.log(4.0)
        starts = [_centre(target.d), smoother]
    options = {"maxiter": 100, "ftol": 1e-9}
    ends = [
        minimize(loss, each, jac=True, method="L-BFGS-B", bounds=target.bounds, options=options)
        for each in starts
    ]
    best: Array = min(ends, key=lambda end: float(end.fun)).x
    return best


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
