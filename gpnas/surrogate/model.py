"""What is believed of any architectures, given observations: a BoTorch model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Self

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
from linear_operator import to_linear_operator
from torch import Tensor
from torch.nn import Parameter

from gpnas.prior import NOISE_PRIOR, VARIANCE
from gpnas.space import Column
from gpnas.surrogate.kernel import ArchitectureKernel, logarithmic
from gpnas.surrogate.warp import Warp

ENTRIES = 1_000_000
"""Numbers in one block of covariances (8 MB); larger queries are taken in parts."""
CACHED = 100000
"""Numbers in one block of distances, which a processor's cache holds."""
WATCHED = 40_000_000
"""Largest number of numbers that are kept of points that are watched (320 MB)."""


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
        self._base: tuple[Surrogate, ...] = ()  # in a tuple, so that it is no submodule
        self._watched: Tensor | None = None  # (M, w, n)
        self.mean_module = ZeroMean()
        self.covar_module = ArchitectureKernel(columns, likelihood, batch)
        self.warp = self.outcome_transform = warp
        self.double().eval().requires_grad_(False)
        for module in self.modules():
            # GPyTorch's hook, which lets shapes differ where that is asked for, holds its module, so that the
            # factors of a surrogate that nobody needs would wait for a search for cyclic garbage
            module._load_state_dict_pre_hooks.clear()
        half = torch.tensor([math.log(VARIANCE), math.log(VARIANCE), NOISE_PRIOR[0]], dtype=torch.float64)
        self.theta = torch.cat([self.covar_module.densest, half])[None] if theta is None else theta

    def __len__(self) -> int:
        """How many observations it rests on; what is only believed is none."""
        return len(self.y)

    def forward(self, x: Tensor) -> MultivariateNormal:
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))

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
        self._forget()

    def _forget(self) -> None:
        """Whatever was computed from other hyperparameters or observations."""
        self._base, self._watched = (), None
        for name in ("factor", "_appended", "whitened"):
            self.__dict__.pop(name, None)

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._forget()
        return super().train(mode)

    def set_train_data(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super().set_train_data(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._forget()
        return super().load_state_dict(*args, **kwargs)

    def condition_on_observations(self, X: Tensor, Y: Tensor, **_: Any) -> Surrogate:
        """The same hyperparameters and warp, given values (m, 1) at (m, d) points as well."""
        if X.dim() != 2 or Y.shape != (len(X), 1):
            shapes = f"{tuple(X.shape)} and {tuple(Y.shape)}"
            raise NotImplementedError(f"X must be (m, d) and Y (m, 1), but got {shapes}; give no batch")
        x, y = torch.cat([self.x[: len(self)], X]), torch.cat([self.y, Y[:, 0]])
        return Surrogate(x, y, self.columns, self.theta, self.warp, self.context)

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

    def upon(self, base: Surrogate) -> Surrogate:
        """This surrogate, whose first rows and hyperparameters are those of another, as is taken on trust:
        what was computed of them serves."""
        self._base = (base,)
        return self

    def watch(self, x: Tensor) -> None:  # (w, d)
        """Keeps what the observations tell of these points, so that surrogates upon this one need not ask
        again; where that is too much to be kept, it is computed whenever it is asked for."""
        if len(self.theta) * len(self.x) * len(x) <= WATCHED:
            self._watched = torch.cat([self.solved(part) for part in x.split(self._width())], dim=1)

    @cached_property
    def factor(self) -> Tensor:
        """(M, n, n) Cholesky factors of the observations' covariance."""
        if self._base:
            side, corner = self._appended
            above = torch.cat([self._base[0].factor, torch.zeros_like(side).mT], dim=2)
            return torch.cat([above, torch.cat([side, corner], dim=2)], dim=1)
        return cholesky(self._noisy(self.x))

    @cached_property
    def _appended(self) -> tuple[Tensor, Tensor]:
        """What a factor has beyond the base's: its further rows, (M, n - n₀, n₀), and its corner, (M, n - n₀,
        n - n₀)."""
        x = self.x[len(self._base[0].x) :]
        side = self._base[0].solved(x)
        return side, cholesky(self._noisy(x) - side @ side.mT)

    def _noisy(self, x: Tensor) -> Tensor:
        covariance = self.covar_module.forward(x, x)
        return covariance + self.likelihood.noise[..., None] * torch.eye(len(x), dtype=x.dtype)

    def solved(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """The factors' inverses times the covariances with the observations of (q, d) points, (M, q, n).

        Args:
            x: the points.
            at: where they are among those that are watched, if any are.
        """
        if self._watched is not None and at is not None:
            return self._watched[:, at]
        if not self._base:
            return _solved(self.factor, self.cross(x, self.x))
        base = self._base[0]
        return self._further(base.solved(x, at), self.cross(x, self.x[len(base.x) :]))

    def _further(self, above: Tensor, right: Tensor) -> Tensor:  # (M, q, n₀), (M, q, n - n₀)
        """The factors' inverses times right-hand sides, of which the base's part is solved."""
        side, corner = self._appended
        return torch.cat([above, _solved(corner, right - above @ side.mT)], dim=2)

    def _width(self) -> int:
        """How many points are asked about at once."""
        return max(1, ENTRIES // (max(1, len(self.x)) * max(len(self.theta), len(self.columns))))

    def cross(self, x1: Tensor, x2: Tensor) -> Tensor:  # (q, d), (n, d) -> (M, q, n)
        """Prior covariances between points, in blocks that fit a processor's cache."""
        width = max(8, CACHED // max(1, len(x2) * len(self.theta)))
        return torch.cat([self.covar_module.forward(part, x2) for part in x1.split(width)], dim=1)

    @cached_property
    def whitened(self) -> Tensor:
        """The factors' inverses times the latent values, (M, n)."""
        right = self.train_targets[:, None]
        if not self._base:
            return _solved(self.factor, right)[:, 0]
        count = len(self._base[0].x)
        return self._further(_solved(self._base[0].factor, right[..., :count]), right[..., count:])[:, 0]

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
        # as an operator, which GPyTorch factorises with jitter where values are nearly equal
        normal = MultivariateNormal(mean, to_linear_operator(covariance))
        posterior = GaussianMixturePosterior(normal)
        posterior = self.outcome_transform.untransform_posterior(posterior, X)
        return posterior if posterior_transform is None else posterior_transform(posterior)

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (*b, q, d) -> (*b, M, q), (*b, M, q, q)
        """Means and covariances by each draw on the latent scale (Rasmussen & Williams Eq. 2.23-2.24)."""
        prior = self.covar_module.forward(x.unsqueeze(-3), x.unsqueeze(-3))
        solved = self.solved(x.flatten(end_dim=-2)).unflatten(1, x.shape[:-1]).movedim(0, -3)  # (*b, M, q, n)
        mean = (solved @ self.whitened[..., None])[..., 0]
        return mean, prior - solved @ solved.mT

    def drawn(self, x: Tensor, normal: Tensor) -> Tensor:  # (q, d), (M, S, q) -> (M, S, q)
        """Joint draws of latent values by each draw of the hyperparameters, from standard normal ones."""
        mean, joint = self.joint(x)
        return mean[:, None] + normal @ cholesky(joint).mT

    def members(self, x: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent means and variances at (q, d) points by each draw, (M, q) each; arguments of `solved`."""
        found = []
        for part in torch.arange(len(x)).split(self._width()):
            solved = self.solved(x[part], None if at is None else at[part])
            found.append(self.moments(x[part], solved))
        means, variances = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        return means, variances

    def moments(self, x: Tensor, solved: Tensor) -> tuple[Tensor, Tensor]:  # (q, d), (M, q, n)
        """Latent means and variances at points by each draw, (M, q) each, from what is `solved` of them."""
        prior = self.covar_module.forward(x, x, diag=True)
        variance = (prior - torch.linalg.vector_norm(solved, dim=2).square()).clamp_min(1e-12)
        return (solved @ self.whitened[..., None])[..., 0], variance

    def thinned(self, draws: int) -> Surrogate:
        """A mixture of the first few draws alone."""
        if draws >= len(self.theta):
            return self
        return Surrogate(
            self.x[: len(self)], self.y, self.columns, self.theta[:draws], self.warp, self.context
        )

    def latent(self, x: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance at (q, d) points, (q,) each, on the latent scale; arguments of `solved`."""
        return mixed(*self.members(x, at))

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the noiseless values at (q, d) points, in the values' own unit."""
        return mixed(*self.warp.moments(*self.members(x)))

    def beside(self, x: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latent means (r,) at (r, d) rivals; means and variances (q,) at (q, d) points; and the covariance
        (r, q) between them, hyperparameters averaged out."""
        there, here = self.solved(x), self.solved(rivals)
        (means, variances), (own, _) = self.moments(x, there), self.moments(rivals, here)
        mean, variance = mixed(means, variances)
        between = (self.cross(rivals, x) - here @ there.mT).mean(dim=0)
        between += (own - own.mean(dim=0)).T @ (means - mean) / len(means)
        return own.mean(dim=0), mean, variance, between

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
        weights = torch.cholesky_solve(self.train_targets[..., None], self.factor)[..., 0]
        mean = self.train_targets - weights * variance
        return mixed(mean[:, : len(self)], variance[:, : len(self)])


def _solved(factor: Tensor, right: Tensor) -> Tensor:  # (M, n, n), (M, q, n) -> (M, q, n)
    """Inverses of lower factors times right-hand sides, which are rows."""
    return torch.linalg.solve_triangular(factor.mT, right, upper=True, left=False)


def mixed(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:  # (M, q) each
    """Mean and variance of an equal mixture."""
    mean = means.mean(dim=0)
    return mean, variances.mean(dim=0) + (means - mean).square().mean(dim=0)


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
