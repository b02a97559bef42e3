"""What is believed of any architectures, given observations: a BoTorch model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.gpytorch import GPyTorchModel
from botorch.posteriors import Posterior
from botorch.posteriors.fully_bayesian import GaussianMixturePosterior
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ZeroMean
from gpytorch.models import ExactGP
from gpytorch.priors import NormalPrior
from torch import Tensor
from torch.nn import Parameter

from gpnas.space import Column
from gpnas.surrogate.kernel import NOISE_PRIOR, ArchitectureKernel, logarithmic
from gpnas.surrogate.warp import Warp

ENTRIES = 1_000_000
"""Numbers in one block of distances (8 MB); larger queries are taken in parts."""


@dataclass(frozen=True)
class Context:
    """Observations of other tasks, such as another scale or data set."""

    x: Tensor  # (s, d)
    """Features, with columns of kind `task` in which the task at hand has zeros."""
    z: Tensor  # (s,)
    """Each task's values on a latent scale of its own."""
    unit: float
    """What one on those scales is in values, roughly: where the unit of the task at hand is sought."""


class Surrogate(GPyTorchModel, ExactGP):
    """An equal mixture of exact Gaussian processes, one for each draw of the hyperparameters.

    To BoTorch it is a fully Bayesian, single-output model: its posterior is a mixture over the draws, of
    which acquisition functions take the average. Targets are latent values; `outcome_transform` maps
    them to values. It is fitted by `fit`; one made here has the hyperparameters that are believed before
    anything is observed.

    Args:
        x: (n, d) features of observed architectures; n may be 0, rows may repeat.
        y: (n,) observed values, in their own unit, larger is better.
        columns: meaning of the feature columns.
        theta: (M, d + 3) logarithms of the draws of the hyperparameters.
        warp: of the values; None standardises them.
        context: what is known of other tasks.
    """

    _is_fully_bayesian = True
    _is_ensemble = True
    num_outputs = 1

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        columns: Sequence[Column],
        theta: Tensor | None = None,
        warp: Warp | None = None,
        context: Context | None = None,
    ) -> None:
        warp = warp or Warp(y)
        everything, z = x, warp.latent(y)
        if context is not None:  # after what was observed, so that the first rows are those
            everything, z = torch.cat([x, context.x]), torch.cat([z, context.z])
        batch = torch.Size([1 if theta is None else len(theta)])
        likelihood = GaussianLikelihood(noise_constraint=logarithmic(), batch_shape=batch)
        likelihood.noise_covar.register_prior(
            "noise_prior",
            NormalPrior(*(torch.tensor(each, dtype=torch.float64) for each in NOISE_PRIOR)),
            lambda noise: noise.noise.log(),
        )
        super().__init__(everything.expand(*batch, -1, -1), z.expand(*batch, -1), likelihood)
        self.columns, self.y, self.context = tuple(columns), y, context
        self.mean_module = ZeroMean()
        self.covar_module = ArchitectureKernel(columns, likelihood, batch)
        self.outcome_transform = warp
        self.double().eval().requires_grad_(False)
        half = torch.tensor([math.log(0.5), math.log(0.5), NOISE_PRIOR[0]], dtype=torch.float64)
        self.theta = torch.cat([self.covar_module.densest, half])[None] if theta is None else theta

    def __len__(self) -> int:
        """How many observations it rests on; what is only believed is none."""
        return len(self.y)

    def forward(self, x: Tensor) -> MultivariateNormal:
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))

    @property
    def warp(self) -> Warp:
        """The map from values to latent ones, `outcome_transform` by its own type."""
        warp: Warp = self.outcome_transform
        return warp

    @property
    def x(self) -> Tensor:
        """(n, d) features of what was observed or is believed, then of the context."""
        return self.train_inputs[0][0]

    @property
    def theta(self) -> Tensor:
        """(M, d + 3) logarithms of the hyperparameters: the columns' lengthscales, the variances of the
        local and of the linear part, and the noise variance."""
        return torch.cat([each.detach().reshape(len(each), -1) for each in self.raw()], dim=1)

    @theta.setter
    def theta(self, theta: Tensor) -> None:
        count = len(self.columns)
        parts = (theta[:, None, :count], theta[:, count], theta[:, count + 1], theta[:, count + 2 :])
        for parameter, part in zip(self.raw(), parts, strict=True):
            parameter.data = part

    def raw(self) -> tuple[Parameter, ...]:
        """The parameters that `theta` concatenates."""
        kernel, noise = self.covar_module, self.likelihood.noise_covar
        return kernel.raw_lengthscale, kernel.raw_outputscale, kernel.raw_linear_variance, noise.raw_noise

    @property
    def lengthscales(self) -> Tensor:
        """(M, d), a column each."""
        return self.covar_module.lengthscale[:, 0]

    @property
    def noise(self) -> float:
        """Variance of one observation, in latent units squared, averaged over the draws."""
        return float(self.likelihood.noise.mean())

    @cached_property
    def factor(self) -> Tensor:
        """(M, n, n) Cholesky factors of the observations' covariance."""
        x = self.x
        return cholesky(
            self.covar_module.forward(x, x)
            + self.likelihood.noise[..., None] * torch.eye(len(x), dtype=x.dtype)
        )

    @cached_property
    def weights(self) -> Tensor:
        """(K + s²I)⁻¹ z, (M, n)."""
        return torch.cholesky_solve(self.train_targets[..., None], self.factor)[..., 0]

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool = False,
        posterior_transform: PosteriorTransform | None = None,
        **_: Any,
    ) -> Posterior:
        """Joint posterior of the values at (*b, q, d) points: a mixture over the draws.

        All points share the factors of the observations' covariance, so that a great many single points
        cost no more than one covariance between them and the observations.
        """
        mean, covariance = self.joint(X)
        if observation_noise:
            covariance = covariance + self.likelihood.noise[..., None] * torch.eye(X.shape[-2], dtype=X.dtype)
        posterior = GaussianMixturePosterior(MultivariateNormal(mean, covariance))
        posterior = self.outcome_transform.untransform_posterior(posterior, X)
        return posterior if posterior_transform is None else posterior_transform(posterior)

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (*b, q, d) -> (*b, M, q), (*b, M, q, q)
        """Means and covariances by each draw on the latent scale (Rasmussen & Williams Eq. 2.23-2.24)."""
        prior = self.covar_module.forward(x.unsqueeze(-3), x.unsqueeze(-3))
        cross = self.covar_module.forward(self.x, x.flatten(end_dim=-2))  # (M, n, b·q)
        solved = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        mean = (self.weights.unsqueeze(-2) @ cross).view(-1, *x.shape[:-1]).movedim(0, -2)
        solved = solved.view(*solved.shape[:2], *x.shape[:-1]).movedim((0, 1), (-3, -2))
        return mean, prior - solved.mT @ solved

    def members(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent means and variances at (q, d) points by each draw, (M, q) each."""
        kernel, means, variances = self.covar_module, [], []
        entries = max(1, len(self.x)) * max(len(self.theta), len(self.columns))
        for part in x.split(max(1, ENTRIES // entries)):
            cross = kernel.forward(self.x, part)
            solved = torch.linalg.solve_triangular(self.factor, cross, upper=False)
            means.append((self.weights[:, None] @ cross)[:, 0])
            prior = kernel.forward(part, part, diag=True)
            variances.append((prior - solved.square().sum(dim=1)).clamp_min(1e-12))
        return torch.cat(means, dim=1), torch.cat(variances, dim=1)

    def thinned(self, draws: int) -> Surrogate:
        """A mixture of the first few draws alone."""
        return Surrogate(
            self.x[: len(self)], self.y, self.columns, self.theta[:draws], self.warp, self.context
        )

    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at (q, d) points, (q,) each, on the latent scale."""
        return _mixed(*self.members(x))

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the noiseless values at (q, d) points, in the values' own unit."""
        return self.warp.moments(*self.latent(x))

    def beside(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # (q, d), (r,)
        """Latent means (r,) of some of what was observed or is believed; means and variances (q,) at other
        points; and the covariance (r, q) between them, hyperparameters averaged out.

        Where values were observed, s²(K + s²I)⁻¹k(x) is the posterior covariance with x.
        """
        noise = self.likelihood.noise  # (M, 1)
        cross = self.covar_module.forward(self.x, x)
        solved = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        chosen = torch.eye(len(self.x), dtype=x.dtype)[:, rows].expand(len(noise), -1, -1)
        chosen = torch.linalg.solve_triangular(self.factor, chosen, upper=False)
        prior = self.covar_module.forward(x, x, diag=True)
        variances = (prior - solved.square().sum(dim=1)).clamp_min(1e-12)
        own = (self.train_targets - noise * self.weights)[:, rows]
        means = (self.weights[:, None] @ cross)[:, 0]
        mean, variance = _mixed(means, variances)
        between = (noise[..., None] * (chosen.mT @ solved)).mean(dim=0)
        between += (own - own.mean(dim=0)).T @ (means - mean) / len(means)
        return own.mean(dim=0), mean, variance, between

    def believing(self, x: Tensor) -> Surrogate:  # (r, d)
        """As if each point were observed at its mean: no mean moves, what pends is no longer unknown.

        D. Ginsbourger, R. Le Riche, L. Carraro, "Kriging is well-suited to parallelize optimization",
        2010, section 4.2.
        """
        if not len(x):
            return self
        believer = Surrogate(self.x, self.y, self.columns, self.theta, self.warp)
        everything = torch.cat([self.x, x]).expand(len(self.theta), -1, -1)
        targets = torch.cat([self.train_targets, self.members(x)[0]], dim=1)
        believer.set_train_data(everything, targets, strict=False)
        # the factor has a few rows more
        cross = torch.linalg.solve_triangular(self.factor, self.covar_module.forward(self.x, x), upper=False)
        noise = self.likelihood.noise[..., None] * torch.eye(len(x), dtype=x.dtype)
        corner = cholesky(self.covar_module.forward(x, x) + noise - cross.mT @ cross)
        above = torch.cat([self.factor, torch.zeros_like(cross)], dim=2)
        believer.factor = torch.cat([above, torch.cat([cross.mT, corner], dim=2)], dim=1)
        return believer

    def interval(self, x: Tensor, coverage: float = 0.9) -> tuple[Tensor, Tensor]:
        """Bounds (q,) that hold one more observation at (q, d) points with probability `coverage`."""
        mean, variance = self.latent(x)
        half = NormalDist().inv_cdf(0.5 + coverage / 2) * (variance + self.noise).sqrt()
        return self.warp.inverse(mean - half), self.warp.inverse(mean + half)

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Latent mean and variance predicted for each observation from all others, (n,) each.

        The hyperparameters are those fitted to all; the variance is an observation's, noise included
        (Rasmussen & Williams Eq. 5.10-5.12).
        """
        variance = 1 / torch.cholesky_inverse(self.factor).diagonal(dim1=-2, dim2=-1)
        mean = self.train_targets - self.weights * variance
        return _mixed(mean[:, : len(self)], variance[:, : len(self)])


def _mixed(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:  # (M, q) each
    """Mean and variance of an equal mixture."""
    return means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, correction=0)


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factors of covariances, with the least jitter that lets them exist.

    GPyTorch's own starts at 1e-8 and warns; the evidence is wanted as exact as it can be.

    Args:
        matrix: (*B, n, n) symmetric, positive semi-definite up to rounding.
    """
    scale = matrix.diagonal(dim1=-2, dim2=-1).mean() if matrix.numel() else torch.ones(())
    for jitter in (0.0, *(10.0**power for power in range(-12, 3))):
        factor, info = torch.linalg.cholesky_ex(
            matrix + jitter * scale * torch.eye(matrix.shape[-1], dtype=matrix.dtype) if jitter else matrix
        )
        if not bool(info.any()):
            return factor
    raise AssertionError("a covariance must be finite and nearly positive semi-definite")
