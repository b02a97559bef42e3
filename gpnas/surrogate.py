"""The surrogate: exact Gaussian processes over the architectures of a space.

    y = c + linear + local + noise

Values are standardised. The covariance is a constant, a linear term (over ordered axes, log costs and
one-hot categories), and a product of one-dimensional Matérn-5/2 kernels over the same columns, with
an exponential of mismatch for categorical axes and families: families are as correlated as their
observations say. Costs (parameters, GMACs) are known before training and count as columns.

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
from dataclasses import dataclass
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
MEMBERS = 16
"""Draws of the hyperparameters that are averaged over."""
LENGTHSCALE_PRIOR = (math.log(0.5) + 0.5, 1.0)
"""Mean, for one column, and standard deviation of a lengthscale's logarithm; features span [0, 1]."""
VARIANCE_PRIOR = (1.5, 1.5)
"""Shape and rate of the gamma prior on the linear and on the local variance."""
NOISE_PRIOR = (math.log(0.1), 1.0)
"""Mean and standard deviation of the logarithm of the noise variance."""
BOUNDS = {"lengthscale": (0.05, 50.0), "variance": (1e-4, 100.0), "noise": (1e-5, 10.0)}
"""Beyond these a fit tells nothing more, and a Cholesky factorisation could fail."""
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
    local = polynomial.mul_(exponent.neg_().exp_()).mul_(hyperparameters.local_variance)
    return local.add_(linear.mul_(hyperparameters.linear_variance)).add_(CONSTANT_VARIANCE)


def prior_variance(x: Tensor, columns: Sequence[Column], hyperparameters: Hyperparameters) -> Tensor:
    """The diagonal of `covariance(x, x)`, (q,)."""
    linear = torch.zeros(len(x), dtype=torch.float64)
    for number, column in enumerate(columns):
        linear += 4 * (x[:, number] - 0.5).square() if _ordered(column) else 1.0
    return CONSTANT_VARIANCE + hyperparameters.linear_variance * linear + hyperparameters.local_variance


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

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (q,) and covariance (q, q) of the latent values."""
        cross = covariance(self.x, x, self.columns, self.hyperparameters)
        solved = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        prior = covariance(x, x, self.columns, self.hyperparameters)
        return cross.T @ self.weights, prior - solved.T @ solved


class Posterior:
    """What the surrogate believes of any architectures, given observations.

    Args:
        x: (n, d) features of the observed architectures; n may be 0, rows may repeat.
        y: (n,) observed values, in their own unit.
        columns: meaning of the feature columns.
        draws: hyperparameters of the mixture's members, equally weighted; at least one.
    """

    def __init__(
        self, x: Tensor, y: Tensor, columns: Sequence[Column], draws: Sequence[Hyperparameters]
    ) -> None:
        self.x, self.columns = x, tuple(columns)
        self.shift, self.unit = _standard(y)
        z = (y - self.shift) / self.unit
        self.members = tuple(Member(x, z, self.columns, each) for each in draws)

    def __len__(self) -> int:
        """How many observations it rests on."""
        return len(self.x)

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent values at (q, d) points, in the values' own unit."""
        mean, variance = _mixed([member.mean_and_variance(x) for member in self.members])
        return self.shift + self.unit * mean, self.unit**2 * variance

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (q,) and covariance (q, q) of the latent values, in the values' own unit."""
        pairs = [member.joint(x) for member in self.members]
        means = torch.stack([mean for mean, _ in pairs])
        mean = means.mean(dim=0)
        spread = (means - mean).T @ (means - mean) / len(means)
        within = torch.stack([each for _, each in pairs]).mean(dim=0)
        return self.shift + self.unit * mean, self.unit**2 * (within + spread)

    @property
    def noise_variance(self) -> float:
        """Of one observation, in the values' own unit squared."""
        noise = sum(member.hyperparameters.noise_variance for member in self.members)
        return self.unit**2 * noise / len(self.members)

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Mean and variance predicted for each observation from all others, (n,) each.

        The hyperparameters are those fitted to all; the variance is an observation's, noise included.
        """

        def predictions() -> Iterator[tuple[Tensor, Tensor]]:
            for member in self.members:
                variance = 1 / torch.cholesky_inverse(member.factor).diagonal()
                yield member.z - member.weights * variance, variance

        mean, variance = _mixed(list(predictions()))
        return self.shift + self.unit * mean, self.unit**2 * variance


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


def fit(x: Tensor, y: Tensor, columns: Sequence[Column], *, members: int = MEMBERS) -> Posterior:
    """The posterior over values, hyperparameters averaged out.

    Args:
        x: (n, d) features; rows may repeat, n may be 0.
        y: (n,) finite values, larger is better.
        columns: meaning of the feature columns.
        members: draws of the hyperparameters; 1 takes the likeliest ones.
    """
    shift, unit = _standard(y)
    target = LogPosterior(x, (y - shift) / unit, columns)
    likeliest = _maximum(target)
    if members == 1:
        return Posterior(x, y, columns, [Hyperparameters.unpack(likeliest)])
    draws = _laplace_draws(target, likeliest, members)
    return Posterior(x, y, columns, [Hyperparameters.unpack(draw) for draw in draws])


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
        matrix[self._rows, self._others] += local * kernel
        matrix[np.diag_indices(n)] += local + noise
        factor, info = lapack.dpotrf(matrix.T, lower=1)  # reads the lower half of the transpose
        if info:  # cannot be a maximum: the search turns back
            return -1e10, np.zeros_like(theta)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        alpha = inverse @ self._z
        value = -0.5 * self._z @ alpha - np.log(factor.diagonal()).sum() - 0.5 * n * math.log(2 * math.pi)
        # d(evidence) = ½ tr(W dK), W = ααᵀ - K⁻¹; a pair counts twice
        weight = np.outer(alpha, alpha) - inverse
        pairs = weight[self._rows, self._others] * kernel
        trace = 0.5 * np.trace(weight)
        slope = np.where(self._ordered, scaled * scaled * (1 + scaled) / (3 * polynomial), scaled)
        gradient[:d] = local * (slope @ pairs)
        gradient[d] = local * (pairs.sum() + trace)
        gradient[d + 1] = 0.5 * linear * (weight * self._linear).sum()
        gradient[d + 2] = noise * trace
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


def _maximum(target: LogPosterior) -> Array:  # (p,)
    """The likeliest logarithms, from a start at the priors' centre and one smoother and noisier."""

    def loss(theta: Array) -> tuple[float, Array]:
        value, gradient = target(theta)
        return -value, -gradient

    first = _centre(target.d)
    second = first.copy()
    second[: target.d] += math.log(4.0)
    second[-1] += math.log(4.0)
    options = {"maxiter": 100, "ftol": 1e-9}
    ends = [
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=target.bounds, options=options)
        for start in (first, second)
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
