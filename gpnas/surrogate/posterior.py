"""What is believed of any architectures, given observations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gpnas.space import Column
from gpnas.surrogate.kernel import Hyperparameters, cholesky, covariance, prior_variance
from gpnas.surrogate.warp import Warp

ENTRIES = 4_000_000
"""Numbers in one block of a covariance (32 MB); larger queries are taken in parts."""


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

    def beside(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # (q, d)
        """Latent means (n,) where this process was told values; means and variances (q,) at other points;
        and the covariance (n, q) between.

        Where values were told, s²(K + s²I)⁻¹k(x) is the posterior covariance with x.
        """
        noise = self.hyperparameters.noise_variance
        cross = covariance(self.x, x, self.columns, self.hyperparameters)
        solved = torch.cholesky_solve(cross, self.factor)
        variance = prior_variance(x, self.columns, self.hyperparameters) - (cross * solved).sum(dim=0)
        return (
            self.z - noise * self.weights,
            cross.T @ self.weights,
            variance.clamp_min(1e-12),
            noise * solved,
        )

    def believing(self, x: Tensor) -> Member:
        """As if each of (r, d) points were observed at its mean."""
        means, _ = self.mean_and_variance(x)
        return Member(torch.cat([self.x, x]), torch.cat([self.z, means]), self.columns, self.hyperparameters)


@dataclass(frozen=True)
class Context:
    """Observations of other tasks, such as another scale or data set."""

    x: Tensor  # (s, d)
    """Features, with columns of kind `task` in which the task at hand has zeros."""
    z: Tensor  # (s,)
    """Each task's values on a latent scale of its own."""
    unit: float
    """What one on those scales is in values, roughly: where the unit of the task at hand is sought."""


class Posterior:
    """What the surrogate believes of any architectures, given observations.

    Args:
        x: (n, d) features of the observed architectures; n may be 0, rows may repeat.
        y: (n,) observed values, in their own unit.
        columns: meaning of the feature columns.
        draws: hyperparameters of the mixture's members, equally weighted; at least one.
        power: of the values' warp.
        unit: of the values' warp; None is their standard deviation.
        context: what is known of other tasks.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        columns: Sequence[Column],
        draws: Sequence[Hyperparameters],
        power: float = 1.0,
        unit: float | None = None,
        context: Context | None = None,
    ) -> None:
        self.x, self.columns = x, tuple(columns)
        self.y = y  # what is only believed has no value
        self.warp = Warp.of(y, power, unit)
        z = self.warp(y)
        if context is not None:  # after what was observed, so that the first rows are those
            x, z = torch.cat([x, context.x]), torch.cat([z, context.z])
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

    def beside(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # (q, d), (r,)
        """Latent means (r,) of what was told, by row; means and variances (q,) at other points; and the
        covariance (r, q) between, hyperparameters averaged out."""
        parts = [member.beside(x) for member in self.members]
        own = torch.stack([part[0][rows] for part in parts])
        means = torch.stack([part[1] for part in parts])
        mean, variance = _mixed([(part[1], part[2]) for part in parts])
        between = torch.zeros(len(rows), len(x), dtype=torch.float64)
        for part in parts:
            between += part[3][rows] / len(parts)
        between += (own - own.mean(dim=0)).T @ (means - mean) / len(parts)
        return own.mean(dim=0), mean, variance, between

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
        return self.warp.moments(*self.latent_leave_one_out())

    def latent_leave_one_out(self) -> tuple[Tensor, Tensor]:
        """The same on the latent scale, where the predictions are normal."""

        def predictions() -> Iterator[tuple[Tensor, Tensor]]:
            for member in self.members:
                variance = 1 / torch.cholesky_inverse(member.factor).diagonal()
                mean = member.z - member.weights * variance
                yield mean[: len(self)], variance[: len(self)]

        return _mixed(list(predictions()))


def _mixed(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of an equal mixture."""
    means, variances = (torch.stack(each) for each in zip(*pairs, strict=True))
    return means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, correction=0)
