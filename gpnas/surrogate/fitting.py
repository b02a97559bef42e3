"""Hyperparameters and warp, learned from observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from botorch.optim.batched_lbfgs_b import fmin_l_bfgs_b_batched
from numpy.typing import NDArray
from torch import Tensor

from gpnas.space import Column
from gpnas.surrogate.model import Context, Surrogate
from gpnas.surrogate.warp import Warp

Array = NDArray[np.float64]

MEMBERS = ((64, 16), (256, 4))
"""Largest numbers of observations, and how many draws of the hyperparameters are averaged over up to
each. Beyond the last the likeliest hyperparameters serve alone: the observations leave little open."""
BOUNDS = {"lengthscale": (0.05, 50.0), "variance": (1e-4, 100.0), "noise": (1e-5, 10.0)}
"""Ranges of the hyperparameters, beyond which a fit tells nothing more and a Cholesky factorisation could
fail."""
POWERS = (0.5, 1.5)
"""Powers of the warp that are tried beside 1, and then 0 or 2 beyond the likelier one; smaller steps changed
nothing that could be measured."""
POWER_STDDEV = 0.5
"""Standard deviation of the normal prior on the power, around 1."""
UNITS = tuple(1.5**step for step in range(-5, 6) if step)
"""Units of the values that are tried beside the other tasks' unit, as multiples of it."""
UNIT_STDDEV = 0.7
"""Standard deviation of the normal prior on the unit's logarithm, around that of the other tasks."""
OPTIONS = {"maxiter": 100, "factr": 1e-6 / np.finfo(np.float64).eps, "pgtol": 1e-2}
"""Options of BoTorch's batched L-BFGS-B: within about 1e-4 of the largest log density."""
NOWHERE = -1e10
"""Log density that stands for a covariance without a Cholesky factor, so that the optimiser turns back."""
LOG_TWO_PI = math.log(2 * math.pi)
LEAST_WARPED = 8
"""Observations below which values are not warped."""


def fit(
    x: Tensor,
    y: Tensor,
    columns: Sequence[Column],
    *,
    members: int | None = None,
    context: Context | None = None,
) -> Surrogate:
    """The posterior over values, hyperparameters averaged out.

    The maximum of the posterior density of the hyperparameters is looked for from several starts and with
    several warps at once; the draws are quasi-random ones of its Laplace approximation.

    Args:
        x: (n, d) features; rows may repeat, n may be 0.
        y: (n,) finite values, larger is better.
        columns: meaning of the feature columns.
        members: number of draws of the hyperparameters; 1 takes the likeliest ones, None is by the
            number of observations (`MEMBERS`).
        context: what is known of other tasks. The unit of the values is then learned too, since
            architectures chosen for their promise vary less than those of the other tasks.
    """
    count = len(y) + (len(context.z) if context else 0)
    if members is None:
        members = next((draws for most, draws in MEMBERS if count <= most), 1)
    first = Warp(y, 1.0, context.unit if context else None)
    evidence = Evidence(Surrogate(x, y, columns, warp=first, context=context))
    # many observations leave no more than one maximum that matters
    starts = evidence.starts()[: 1 if count > MEMBERS[0][0] else None]
    best = evidence.maximum(starts, [first])
    if context is not None and len(y):
        best = evidence.higher(best, [Warp(y, 1.0, context.unit * each) for each in UNITS])
    if len(y) >= LEAST_WARPED:
        unit = best.warp.unit if context else None
        best = evidence.higher(best, [Warp(y, power, unit) for power in POWERS])
        if best.warp.power != 1:
            best = evidence.higher(best, [Warp(y, 2 * best.warp.power - 1, unit)])
    theta = best.theta[None] if members == 1 else evidence.draws(best, members)
    return Surrogate(x, y, columns, torch.from_numpy(theta), best.warp, context)


def likeliest(x: Tensor, z: Tensor, columns: Sequence[Column]) -> Surrogate:
    """A surrogate of latent values (n,), taken as they are, with the likeliest hyperparameters."""
    model = Surrogate(x, z, columns, warp=Warp(z[:0]))
    evidence = Evidence(model)
    best = evidence.maximum(evidence.starts(), [model.warp])
    return Surrogate(x, z, columns, torch.from_numpy(best.theta[None]), model.warp)


class Maximum(NamedTuple):
    """The likeliest hyperparameters and warp."""

    theta: Array  # (p,)
    warp: Warp
    density: float
    """Logarithm, up to a constant."""


class Evidence:
    """Log density of hyperparameters and values, as a function of the hyperparameters' logarithms.

    GPyTorch's `ExactMarginalLogLikelihood` of a model of latent values times their number, its priors
    included, but for two things: distances between observations are kept, each pair once, and the gradient is
    that of Rasmussen & Williams, Eq. 5.9, so that no Cholesky factorisation is differentiated.
    """

    def __init__(self, model: Surrogate) -> None:
        self._model, self._centre = model.requires_grad_(), model.theta[0].numpy()
        self._pairs = torch.tril_indices(len(model.x), len(model.x)).unbind()
        rows, columns = (model.x[each] for each in self._pairs)
        self._distances = model.covar_module.distances(rows, columns, matrix=False)
        self._diagonal = (self._pairs[0] == self._pairs[1]).to(model.x)
        self._priors = list(model.named_priors())
        lengthscales = [BOUNDS["lengthscale"]] * len(model.columns)
        self.bounds = np.log([*lengthscales, *[BOUNDS["variance"]] * 2, BOUNDS["noise"]])

    def __call__(self, theta: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values and gradients, (b,) and (b, p), at (b, p) hyperparameters, given (b, n) latent values.

        A value far below all others marks where there is none.
        """
        model, (rows, columns) = self._model, self._pairs
        with torch.enable_grad():
            model.theta = theta
            parameters = model.raw()
            noise = model.likelihood.noise * self._diagonal
            covariance = model.covar_module.of(self._distances)[:, 0] + noise  # (b, pairs)
            prior = sum(
                density.log_prob(closure(module)).view(len(theta), -1).sum(dim=1)
                for _, module, density, closure, _ in self._priors
            )
            with torch.no_grad():
                factor = torch.zeros(*z.shape, z.shape[1], dtype=z.dtype)
                factor[:, rows, columns] = covariance
                factor, failed = torch.linalg.cholesky_ex(factor)
                alpha = torch.cholesky_solve(z[..., None], factor)
                value = prior - 0.5 * (z[..., None, :] @ alpha)[..., 0, 0]
                value -= factor.diagonal(dim1=1, dim2=2).log().sum(dim=1) + 0.5 * z.shape[1] * LOG_TWO_PI
                weight = (alpha @ alpha.mT - torch.cholesky_inverse(factor))[:, rows, columns]
                weight *= 1 - self._diagonal / 2
            parts = torch.autograd.grad(prior.sum() + (weight * covariance).sum(), parameters)
        gradient = torch.cat([part.reshape(len(theta), -1) for part in parts], dim=1)
        value[failed > 0], gradient[failed > 0] = NOWHERE, 0.0
        return value, gradient

    def starts(self) -> Array:  # (2, p)
        """Where a maximum is looked for: the priors' centre, and one smoother and noisier."""
        smoother = self._centre.copy()
        smoother[[*range(len(self._model.columns)), -1]] += math.log(4.0)
        return np.stack([self._centre, smoother])

    def maximum(self, starts: Array, warps: Sequence[Warp]) -> Maximum:  # (s, p)
        """The likeliest hyperparameters and warp, looked for from each start with each warp."""
        z = torch.stack([self._targets(warp) for warp in warps for _ in starts])

        def loss(theta: Array, batch_indices: list[int]) -> tuple[Array, Array]:
            value, gradient = self(torch.from_numpy(theta), z[batch_indices])
            return -value.numpy(), -gradient.numpy()

        ends, losses, _ = fmin_l_bfgs_b_batched(
            loss,
            np.concatenate([starts] * len(warps)),
            bounds=self.bounds,
            pass_batch_indices=True,
            **OPTIONS,
        )
        added = [float(warp.log_slope(self._model.y).sum()) + self._prior(warp) for warp in warps]
        densities = np.repeat(added, len(starts)) - losses
        best = int(densities.argmax())
        return Maximum(ends[best], warps[best // len(starts)], float(densities[best]))

    def higher(self, best: Maximum, warps: Sequence[Warp]) -> Maximum:
        """The likelier one of a maximum and of those with other warps, looked for from there."""
        return max(best, self.maximum(best.theta[None], warps), key=lambda each: each.density)

    def _targets(self, warp: Warp) -> Tensor:  # (n,)
        """Latent values of what was observed, by some warp, then those of the context."""
        y = self._model.y
        return torch.cat([warp.latent(y), self._model.train_targets[0, len(y) :]])

    def _prior(self, warp: Warp) -> float:
        """Log density of a warp, up to a constant."""
        context = self._model.context
        power = -0.5 * ((warp.power - 1) / POWER_STDDEV) ** 2
        if context is None:
            return power
        return power - 0.5 * (math.log(warp.unit / context.unit) / UNIT_STDDEV) ** 2

    def draws(self, best: Maximum, count: int) -> Array:  # (count, p)
        """Quasi-random draws of the Gaussian with the maximum's curvature, within the bounds."""
        step, p = 1e-4, len(best.theta)
        around = torch.from_numpy(best.theta + step * np.concatenate([np.zeros((1, p)), np.eye(p)]))
        gradients = self(around, self._targets(best.warp).expand(p + 1, -1))[1].numpy()
        hessian = (gradients[1:] - gradients[0]) / step
        values, vectors = np.linalg.eigh(-(hessian + hessian.T) / 2)
        # a flat or, on a bound, convex direction is no wider than a factor of e² either way
        scales = 1 / np.sqrt(np.maximum(values, 0.25))
        uniform = torch.quasirandom.SobolEngine(p, scramble=True, seed=0).draw(count, dtype=torch.float64)
        normal = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)).numpy()
        # the symmetric root, since eigenvectors may be turned within what LAPACK leaves open
        return np.clip(best.theta + ((normal @ vectors) * scales) @ vectors.T, *self.bounds.T)
