"""Values on the scale that the process lives on, as a BoTorch outcome transform."""

from __future__ import annotations

import math

import numpy as np
import torch
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.posteriors import GPyTorchPosterior, Posterior, TransformedPosterior
from botorch.posteriors.fully_bayesian import MCMC_DIM
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

NODES = 15
"""Gauss-Hermite nodes by which moments pass the warp."""


class Warp(OutcomeTransform):
    """A monotone map from values to the standardised latent scale that the process lives on.

    I.-K. Yeo, R. A. Johnson, Biometrika 87(4), 2000, Eq. 2.1, between two standardisations. Failing
    architectures make values skewed; on a scale where they are not, one noise and one smoothness fit
    good and bad ones alike. Powers in [0, 2] map onto all real numbers; 1 changes nothing, so that the
    transform is linear.

    Args:
        y: (n,) values to be standardised; n may be 0.
        power: of Yeo and Johnson.
        unit: of the first standardisation; None is the values' standard deviation.
    """

    def __init__(self, y: Tensor, power: float = 1.0, unit: float | None = None) -> None:
        super().__init__()
        self.power = power
        self.shift, stddev = _standard(y)
        self.unit = stddev if unit is None else unit
        self.centre, self.spread = 0.0, 1.0
        if unit is None and power != 1:
            self.centre, self.spread = _standard(self.latent(y))

    def latent(self, y: Tensor) -> Tensor:
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

    def log_slope(self, y: Tensor) -> Tensor:  # (n,)
        """Logarithms of the map's slopes at values, by which densities change."""
        z = (y - self.shift) / self.unit
        return (self.power - 1) * z.sign() * z.abs().log1p() - math.log(self.unit * self.spread)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of values whose latent values are normal."""
        if self._is_linear:
            return self.inverse(mean), self.unit**2 * variance
        nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(NODES))
        middle = self.inverse(mean)
        offsets = self.inverse(mean[..., None] + variance.sqrt()[..., None] * nodes) - middle[..., None]
        first, second = ((offsets**power * weights).sum(dim=-1) / weights.sum() for power in (1, 2))
        return middle + first, (second - first.square()).clamp_min(1e-300)

    def forward(
        self, Y: Tensor, Yvar: Tensor | None = None, X: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if Yvar is not None:
            raise NotImplementedError("the surrogate learns the noise: values have no variances of their own")
        return self.latent(Y), None

    def untransform(
        self, Y: Tensor, Yvar: Tensor | None = None, X: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if Yvar is not None:
            raise NotImplementedError("the surrogate learns the noise: values have no variances of their own")
        return self.inverse(Y), None

    @property
    def _is_linear(self) -> bool:
        return self.power == 1

    def untransform_posterior(self, posterior: Posterior, X: Tensor | None = None) -> Posterior:
        if self._is_linear and isinstance(posterior, GPyTorchPosterior):
            mean, covariance = posterior.distribution.mean, posterior.distribution.lazy_covariance_matrix
            return type(posterior)(MultivariateNormal(self.inverse(mean), covariance * self.unit**2))
        return WarpedPosterior(posterior, self)


class WarpedPosterior(TransformedPosterior):
    """Values whose latent ones have a posterior; of a mixture, what BoTorch asks one for."""

    def __init__(self, posterior: Posterior, warp: Warp) -> None:
        super().__init__(
            posterior,
            sample_transform=warp.inverse,
            mean_transform=lambda mean, variance: warp.moments(mean, variance)[0],
            variance_transform=lambda mean, variance: warp.moments(mean, variance)[1],
        )
        self._warp = warp

    @property
    def mixture_mean(self) -> Tensor:
        """Means over all draws of the hyperparameters."""
        return self.mean.mean(dim=MCMC_DIM)

    @property
    def mixture_variance(self) -> Tensor:
        """Variances over all draws of the hyperparameters."""
        return self.variance.mean(dim=MCMC_DIM) + self.mean.var(dim=MCMC_DIM, unbiased=False)

    def quantile(self, value: Tensor) -> Tensor:
        """Quantiles, which a monotone map keeps."""
        return self._warp.inverse(self._posterior.quantile(value))


def _raise(z: Tensor, power: float) -> Tensor:
    """((1 + z)^power - 1) / power for z > 0; the clamp spares the branch that is not taken."""
    z = z.clamp_min(0)
    return z.log1p() if power == 0 else torch.expm1(power * z.log1p()) / power


def _lower(w: Tensor, power: float) -> Tensor:
    """The inverse of `_raise`."""
    w = w.clamp_min(0)
    return w.expm1() if power == 0 else torch.expm1((power * w).log1p() / power)


def _standard(y: Tensor) -> tuple[float, float]:
    """Mean and standard deviation; 1 for the latter where values are too few or all the same."""
    if not len(y):
        return 0.0, 1.0
    unit = float(y.std()) if len(y) > 1 else 0.0
    return float(y.mean()), unit if unit > 1e-9 * max(1.0, float(y.abs().max())) else 1.0
