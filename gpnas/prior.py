"""What is believed of latent values before anything is observed: priors, and the covariance at their middle.

The surrogate's kernel (`gpnas.surrogate.kernel`) has these priors for its hyperparameters; the first design
needs no more than they say, and so no PyTorch.

Glossary: n points, d feature columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpnas.space import Column

CONSTANT_VARIANCE = 1.0
"""Prior variance of the constant, in units of the standardised values."""
OWN_SHARE = 1 / 3
"""Variance of what is an architecture's own, shared with no other, in units of the noise variance."""
LENGTHSCALE_PRIOR = (math.log(0.5) + 0.5, 1.0)
"""Mean (with a single column) and standard deviation of a lengthscale's logarithm; features span [0, 1]."""
TASK_PRIOR = (math.log(2.0), 1.5)
"""Mean and standard deviation of the logarithm of a task's lengthscale ℓ, by which two tasks correlate as
exp(-1/ℓ)."""
NOISE_PRIOR = (math.log(0.2), 1.5)
"""Mean and standard deviation of the logarithm of the noise variance."""
VARIANCE_PRIOR = (1.5, 1.5)
"""Shape and rate of the gamma prior on the logarithmic scale of both variances: the density of log v is
that of v ~ Gamma(shape, rate), so that the density of v itself has a shape larger by 1."""
VARIANCE = 0.5
"""Variance of the local and of the linear part before anything is observed."""
NOISE = math.exp(NOISE_PRIOR[0])
"""Noise variance before anything is observed."""


def lengthscale_mean(columns: int) -> float:
    """Mean of the logarithm of a lengthscale where so many columns, tasks aside, share what varies."""
    return LENGTHSCALE_PRIOR[0] + 0.5 * math.log(max(1, columns))


def covariance(
    points: NDArray[np.float64],  # (n, d)
    columns: Sequence[Column],
    *,
    linear: bool,
) -> NDArray[np.float64]:  # (n, n)
    """Covariances of the latent values of architectures of one task, as the surrogate has them unfitted.

    Args:
        points: their features.
        columns: meaning of the feature columns; those of tasks say nothing.
        linear: whether the linear part is counted.
    """
    varying = [number for number, column in enumerate(columns) if column.kind != "task"]
    # the densest lengthscales, not the densest logarithms
    lengthscale = math.exp(lengthscale_mean(len(varying)) - 0.5)
    count = len(points)
    exponent, polynomial, products = (np.full((count, count), start) for start in (0.0, 1.0, 0.0))
    same = np.ones((count, count))
    for number in varying:
        own = points[:, number]
        apart = np.abs(own[:, None] - own)
        same[apart != 0] = 0.0
        if columns[number].kind in ("ordered", "cost"):
            scaled = apart * (math.sqrt(5) / lengthscale)
            polynomial *= 1 + scaled * (1 + scaled / 3)
            products += np.multiply.outer(2 * own - 1, 2 * own - 1)
        else:
            scaled = (apart != 0) / lengthscale
            products += apart == 0
        exponent += scaled
    total = CONSTANT_VARIANCE + VARIANCE * polynomial * np.exp(-exponent) + OWN_SHARE * NOISE * same
    return total + VARIANCE * products if linear else total
