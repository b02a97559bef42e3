"""Values on the scale that the process lives on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

NODES = 15
"""Gauss-Hermite nodes by which moments pass the warp."""


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
    def of(cls, y: Tensor, power: float = 1.0, unit: float | None = None) -> Warp:  # (n,)
        """That standardises observed values, or in another unit than their standard deviation."""
        shift, stddev = _standard(y)
        if unit is not None:
            return cls(power, shift, unit)
        plain = cls(power, shift, stddev)
        if power == 1:
            return plain
        centre, spread = _standard(plain(y))
        return replace(plain, centre=centre, spread=spread)

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
        return float(self.log_slopes(y).sum())

    def log_slopes(self, y: Tensor) -> Tensor:  # (n,)
        """Logarithms of the map's slopes at values."""
        z = (y - self.shift) / self.unit
        return (self.power - 1) * z.sign() * z.abs().log1p() - math.log(self.unit * self.spread)

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


def _standard(y: Tensor) -> tuple[float, float]:
    """Mean and standard deviation; 1 for the latter where values are too few or all the same."""
    if not len(y):
        return 0.0, 1.0
    unit = float(y.std()) if len(y) > 1 else 0.0
    return float(y.mean()), unit if unit > 1e-9 * max(1.0, float(y.abs().max())) else 1.0
