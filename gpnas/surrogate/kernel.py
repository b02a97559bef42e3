"""The covariance of latent values, and what it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnas.space import Column

Array = NDArray[np.float64]

CONSTANT_VARIANCE = 1.0
"""Prior variance of the constant, in units of the standardised values."""
OWN_SHARE = 1 / 3
"""Variance of what is an architecture's own, told by no other, in units of the noise variance."""
LENGTHSCALE_PRIOR = (math.log(0.5) + 0.5, 1.0)
"""Mean, for one column, and standard deviation of a lengthscale's logarithm; features span [0, 1]."""
TASK_PRIOR = (math.log(2.0), 1.5)
"""The same of a task's; two tasks of lengthscale ℓ correlate as exp(-1/ℓ)."""
NOISE_PRIOR = (math.log(0.2), 1.5)
"""Mean and standard deviation of the logarithm of the noise variance."""


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
        lengthscales, _ = lengthscale_prior(columns)
        # the densest lengthscale, not that of the densest logarithm
        lengthscales -= [0.0 if column.kind == "task" else 0.5 for column in columns]
        return cls.unpack(np.append(lengthscales, [math.log(0.5), math.log(0.5), NOISE_PRIOR[0]]))

    @classmethod
    def unpack(cls, theta: Array) -> Hyperparameters:  # (p,) logarithms
        values = np.exp(theta)
        return cls(torch.from_numpy(values[:-3].copy()), *(float(value) for value in values[-3:]))

    def pack(self) -> Array:  # (p,)
        rest = [self.local_variance, self.linear_variance, self.noise_variance]
        packed: Array = np.log(np.concatenate([self.lengthscales.numpy(), rest]))
        return packed


def lengthscale_prior(columns: Sequence[Column]) -> tuple[Array, Array]:  # (d,), (d,)
    """Means and standard deviations of the lengthscales' logarithms."""
    task = np.array([column.kind == "task" for column in columns])
    mean = LENGTHSCALE_PRIOR[0] + 0.5 * math.log(max(1, len(columns) - task.sum()))
    return np.where(task, TASK_PRIOR[0], mean), np.where(task, TASK_PRIOR[1], LENGTHSCALE_PRIOR[1])


def covariance(
    x1: Tensor,  # (n, d)
    x2: Tensor,  # (q, d)
    columns: Sequence[Column],
    hyperparameters: Hyperparameters,
) -> Tensor:  # (n, q)
    """Prior covariance of latent values, noise left out.

    Tasks have a constant each and correlate in all the rest: an intrinsic model of coregionalisation
    (E. Bonilla, K. M. Chai, C. Williams, "Multi-task Gaussian process prediction", NIPS 2007, Eq. 1).
    """
    polynomial = torch.ones(len(x1), len(x2), dtype=torch.float64)
    exponent = torch.zeros_like(polynomial)
    apart: Tensor | None = None  # exponent of what tasks differ by
    ordered = [number for number, column in enumerate(columns) if is_ordered(column)]
    linear = 4 * (x1[:, ordered] - 0.5) @ (x2[:, ordered] - 0.5).T
    for number, column in enumerate(columns):
        a, b = x1[:, number, None], x2[None, :, number]
        lengthscale = float(hyperparameters.lengthscales[number])
        if is_ordered(column):
            scaled = (a - b).abs_().mul_(math.sqrt(5) / lengthscale)
            exponent += scaled
            polynomial *= scaled.div(3).add_(1).mul_(scaled).add_(1)
        elif column.kind == "task":
            differ = (a != b).double().div_(lengthscale)
            apart = differ if apart is None else apart.add_(differ)
        else:
            differ = (a != b).double()
            exponent += differ / lengthscale
            linear += 1 - differ
    own = (exponent == 0).double().mul_(OWN_SHARE * hyperparameters.noise_variance)
    local = polynomial.mul_(exponent.neg_().exp_()).mul_(hyperparameters.local_variance).add_(own)
    varying = local.add_(linear.mul_(hyperparameters.linear_variance))
    if apart is None:
        return varying.add_(CONSTANT_VARIANCE)
    constant = (apart == 0).double().mul_(CONSTANT_VARIANCE)
    return varying.mul_(apart.neg_().exp_()).add_(constant)


def prior_variance(x: Tensor, columns: Sequence[Column], hyperparameters: Hyperparameters) -> Tensor:
    """The diagonal of `covariance(x, x)`, (q,)."""
    linear = torch.zeros(len(x), dtype=torch.float64)
    for number, column in enumerate(columns):
        if column.kind != "task":
            linear += 4 * (x[:, number] - 0.5).square() if is_ordered(column) else 1.0
    own = OWN_SHARE * hyperparameters.noise_variance
    return CONSTANT_VARIANCE + hyperparameters.linear_variance * linear + hyperparameters.local_variance + own


def is_ordered(column: Column) -> bool:
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
