"""The surrogate: an exact Gaussian process over the architectures of a space.

    f(x) = c + linear + local,   y = f + noise

Values are standardised. The covariance is a constant, a linear term over ordered axes and log costs,
and a product of one-dimensional Matérn-5/2 kernels over the same columns, with an exponential of
mismatch for categorical axes and families. Costs (parameters, GMACs) are known before training and
count as columns. Variances, lengthscales and noise are the maximum of their posterior under priors
that hold up at five observations.

C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006: Eq. 2.23-2.26
(posterior), 2.30 (evidence), 4.17 (Matérn), 5.10-5.12 (leave-one-out). Lengthscale priors: C.
Hvarfner et al., "Vanilla Bayesian optimization performs great in high dimensions", ICML 2024.

Glossary: n observed points, q queried points, d feature columns, p hyperparameters. All float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from gpnas.space import Column

CONSTANT_VARIANCE = 1.0
"""Prior variance of the constant, in units of the standardised values."""
STARTS = 3
"""Starting points of a fit: the priors' modes, a short and a long lengthscale."""


@dataclass(frozen=True)
class Hyperparameters:
    """What a fit learns, all positive, in units of the standardised values."""

    lengthscales: Tensor  # (d,)
    local_variance: Tensor  # ()
    linear_variance: Tensor  # ()
    noise_variance: Tensor  # ()

    @classmethod
    def default(cls, columns: Sequence[Column]) -> Hyperparameters:
        """The priors' centres: what is believed before anything is observed."""
        d = len(columns)
        return cls(
            torch.full((d,), 0.5 * math.sqrt(d), dtype=torch.float64),
            torch.tensor(0.5, dtype=torch.float64),
            torch.tensor(0.5, dtype=torch.float64),
            torch.tensor(0.02, dtype=torch.float64),
        )

    @classmethod
    def unpack(cls, theta: Tensor) -> Hyperparameters:  # (p,) logarithms
        values = theta.exp()
        return cls(values[:-3], values[-3], values[-2], values[-1])

    def pack(self) -> Tensor:  # (p,)
        rest = torch.stack([self.local_variance, self.linear_variance, self.noise_variance])
        return torch.cat([self.lengthscales, rest]).log()


@dataclass(frozen=True)
class Differences:
    """What the covariance of two sets of points needs of their features, whatever the hyperparameters."""

    distance: Tensor  # (d, n, q); 0 in unordered columns
    mismatch: Tensor  # (d, n, q); 0 in ordered columns
    linear: Tensor  # (n, q), product of centred ordered features

    @classmethod
    def of(cls, x1: Tensor, x2: Tensor, columns: Sequence[Column]) -> Differences:  # (n, d), (q, d)
        ordered = _ordered(columns)
        gap = x1.T[:, :, None] - x2.T[:, None, :]
        a, b = 2 * x1[:, ordered] - 1, 2 * x2[:, ordered] - 1
        return cls(
            math.sqrt(5) * gap.abs() * ordered[:, None, None],
            (gap != 0).double() * ~ordered[:, None, None],
            a @ b.T,
        )

    def covariance(self, hyperparameters: Hyperparameters) -> Tensor:  # (n, q)
        inverse = 1 / hyperparameters.lengthscales[:, None, None]
        scaled = self.distance * inverse
        polynomial = (1 + scaled + scaled.square() / 3).prod(dim=0)
        local = polynomial * torch.exp(-(scaled + self.mismatch * inverse).sum(dim=0))
        return (
            CONSTANT_VARIANCE
            + hyperparameters.linear_variance * self.linear
            + hyperparameters.local_variance * local
        )


def _ordered(columns: Sequence[Column]) -> Tensor:  # (d,)
    return torch.tensor([column.kind in ("ordered", "cost") for column in columns])


def covariance(
    x1: Tensor,  # (n, d)
    x2: Tensor,  # (q, d)
    columns: Sequence[Column],
    hyperparameters: Hyperparameters,
) -> Tensor:  # (n, q)
    """Prior covariance of latent values, noise left out."""
    return Differences.of(x1, x2, columns).covariance(hyperparameters)


def prior_variance(x: Tensor, columns: Sequence[Column], hyperparameters: Hyperparameters) -> Tensor:
    """The diagonal of `covariance(x, x)`, (q,)."""
    linear = (2 * x[:, _ordered(columns)] - 1).square().sum(dim=1)
    return CONSTANT_VARIANCE + hyperparameters.linear_variance * linear + hyperparameters.local_variance


def log_prior(hyperparameters: Hyperparameters) -> Tensor:
    """Log density of the priors over the hyperparameters' logarithms, up to a constant.

    Lengthscales and noise are log-normal, the two variances gamma (shape 1.5, rate 1.5).
    """
    d = len(hyperparameters.lengthscales)
    centre = math.log(0.5) + 0.5 * math.log(d) + 0.5
    variances = torch.stack([hyperparameters.local_variance, hyperparameters.linear_variance])
    noise = (hyperparameters.noise_variance.log() - math.log(0.1)) / 1.0
    return (
        -0.5 * (hyperparameters.lengthscales.log() - centre).square().sum()
        + (1.5 * variances.log() - 1.5 * variances).sum()
        - 0.5 * noise.square()
    )


def log_evidence(x: Tensor, y: Tensor, columns: Sequence[Column], hyperparameters: Hyperparameters) -> Tensor:
    """Log marginal likelihood of standardised values, Rasmussen & Williams Eq. 2.30."""
    return _log_evidence(Differences.of(x, x, columns), y, hyperparameters)


def _log_evidence(differences: Differences, y: Tensor, hyperparameters: Hyperparameters) -> Tensor:
    factor = _factor(differences, hyperparameters)
    solved = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
    constant = 0.5 * len(y) * math.log(2 * math.pi)
    return -0.5 * solved.square().sum() - factor.diagonal().log().sum() - constant


def _factor(differences: Differences, hyperparameters: Hyperparameters) -> Tensor:
    prior = differences.covariance(hyperparameters)
    noisy = prior + hyperparameters.noise_variance * torch.eye(len(prior), dtype=torch.float64)
    return psd_safe_cholesky(noisy)  # adds jitter where duplicates ask for it


class Posterior:
    """What the surrogate believes of any architectures, given observations.

    Args:
        x: (n, d) features of the observed architectures; n may be 0, rows may repeat.
        y: (n,) observed values, in their own unit.
        columns: meaning of the feature columns.
        hyperparameters: as fitted to the standardised values.
    """

    def __init__(
        self, x: Tensor, y: Tensor, columns: Sequence[Column], hyperparameters: Hyperparameters
    ) -> None:
        self.x, self.columns, self.hyperparameters = x, tuple(columns), hyperparameters
        self.shift, self.unit = _standard(y)
        self._z = (y - self.shift) / self.unit
        if len(x):
            self._factor = _factor(Differences.of(x, x, columns), hyperparameters)
            self._alpha = torch.cholesky_solve(self._z[:, None], self._factor)[:, 0]

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent values at (q, d) points, in the values' own unit."""
        variance = prior_variance(x, self.columns, self.hyperparameters)
        if not len(self.x):
            return torch.full_like(variance, self.shift), self.unit**2 * variance
        means, reductions = [], []
        for part in x.split(max(1, 4_000_000 // self.x.numel())):  # 32 MB at a time
            cross = covariance(self.x, part, self.columns, self.hyperparameters)
            solved = torch.linalg.solve_triangular(self._factor, cross, upper=False)
            means.append(cross.T @ self._alpha)
            reductions.append(solved.square().sum(dim=0))
        variance = (variance - torch.cat(reductions)).clamp_min(1e-12)
        return self.shift + self.unit * torch.cat(means), self.unit**2 * variance

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (q,) and covariance (q, q) of the latent values, in the values' own unit."""
        prior = covariance(x, x, self.columns, self.hyperparameters)
        mean, _ = self.mean_and_variance(x)
        if len(self.x):
            cross = covariance(self.x, x, self.columns, self.hyperparameters)
            solved = torch.linalg.solve_triangular(self._factor, cross, upper=False)
            prior = prior - solved.T @ solved
        return mean, self.unit**2 * prior

    @property
    def noise_variance(self) -> float:
        """Of one observation, in the values' own unit squared."""
        return float(self.hyperparameters.noise_variance) * self.unit**2

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Mean and variance predicted for each observation from all others, (n,) each.

        Rasmussen & Williams Eq. 5.10-5.12; the variance is an observation's, noise included.
        """
        precision = torch.cholesky_inverse(self._factor)
        variance = 1 / precision.diagonal()
        return self.shift + self.unit * (self._z - self._alpha * variance), self.unit**2 * variance


def _standard(y: Tensor) -> tuple[float, float]:
    if not len(y):
        return 0.0, 1.0
    unit = float(y.std()) if len(y) > 1 else 0.0
    return float(y.mean()), unit if unit > 1e-9 * max(1.0, float(y.abs().max())) else 1.0


def fit(x: Tensor, y: Tensor, columns: Sequence[Column]) -> Posterior:
    """The posterior with the hyperparameters that observations and priors make most likely.

    A pure function: the same observations give the same fit, whatever was fitted before.

    Args:
        x: (n, d) features; rows may repeat.
        y: (n,) values, larger is better.
        columns: meaning of the feature columns.
    """
    default = Hyperparameters.default(columns)
    if len(x) < 3:  # nothing to learn hyperparameters from
        return Posterior(x, y, columns, default)
    shift, unit = _standard(y)
    z = (y - shift) / unit

    differences = Differences.of(x, x, columns)

    def objective(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        free = torch.from_numpy(theta).requires_grad_()
        hyperparameters = Hyperparameters.unpack(free)
        loss = -(_log_evidence(differences, z, hyperparameters) + log_prior(hyperparameters))
        (gradient,) = torch.autograd.grad(loss, free)
        return float(loss.detach()), gradient.numpy()

    start = default.pack()
    starts = [start, start.clone(), start.clone()][:STARTS]
    starts[1][: len(columns)] += math.log(0.4)
    starts[2][: len(columns)] += math.log(4.0)
    starts[2][-1] += math.log(5.0)
    d = len(columns)
    bounds = [(math.log(0.05), math.log(50.0))] * d + [(math.log(1e-4), math.log(100.0))] * 2
    bounds.append((math.log(1e-5), math.log(10.0)))
    results = [
        minimize(
            objective, each.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 100}
        )
        for each in starts
    ]
    best = min(results, key=lambda result: float(result.fun))
    return Posterior(x, y, columns, Hyperparameters.unpack(torch.from_numpy(best.x)))
