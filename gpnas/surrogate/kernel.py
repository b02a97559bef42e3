"""The covariance of latent values as a GPyTorch kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.priors import GammaPrior, NormalPrior
from torch import Tensor

from gpnas.prior import (
    CONSTANT_VARIANCE,
    LENGTHSCALE_PRIOR,
    OWN_SHARE,
    TASK_PRIOR,
    VARIANCE_PRIOR,
    lengthscale_mean,
)
from gpnas.space import Column


def logarithmic() -> Positive:
    """A constraint whose raw parameter is the logarithm, in which maxima and curvatures are taken."""
    return Positive(transform=torch.exp, inv_transform=torch.log)


class Distances(NamedTuple):
    """What the kernel needs to know of pairs of points, whatever its hyperparameters; S is the shape of
    the pairs, (*b, n, q) or, of points one by one, (*b, 1, n)."""

    columns: Tensor  # (d, *S)
    """Absolute differences; in columns of codes 1.0 where they differ."""
    linear: Tensor  # S


class ArchitectureKernel(Kernel):
    """Covariance of latent values over architectures: constant + linear + local + own.

    The linear part is over ordered columns, centred, and one-hot categories. The local part is a product
    of one-dimensional Matérn-5/2 kernels over ordered columns (GPyTorch's with automatic relevance is
    radial instead) and of exponentials of mismatch over categories, as BoTorch's `CategoricalKernel`
    over each. The own part is shared by trainings of one architecture alone; its variance is
    `OWN_SHARE` of the likelihood's noise. Tasks have a constant each and correlate in all the rest:
    an intrinsic model of coregionalisation (E. Bonilla, K. M. Chai, C. Williams, "Multi-task Gaussian
    process prediction", NIPS 2007, Eq. 1).

    Its hyperparameters are `lengthscale` (*B, 1, d), a column each, `outputscale` (*B), the variance of
    the local part, and `linear_variance` (*B).

    Args:
        columns: meaning of the feature columns.
        likelihood: whose noise variance is known to the own part.
        batch_shape: B, of the hyperparameters.
    """

    has_lengthscale = True

    def __init__(
        self, columns: Sequence[Column], likelihood: GaussianLikelihood, batch_shape: torch.Size
    ) -> None:
        super().__init__(
            ard_num_dims=len(columns), batch_shape=batch_shape, lengthscale_constraint=logarithmic()
        )
        self._ordered = torch.tensor([column.kind in ("ordered", "cost") for column in columns])
        self._decay = torch.where(self._ordered, torch.tensor(5.0, dtype=torch.float64).sqrt(), 1.0)
        task = torch.tensor([column.kind == "task" for column in columns])
        self._tasks = int(task.sum())  # they are the last columns
        self._category = ~self._ordered & ~task
        # the likelihood is the model's submodule, not this one's
        self._likelihood = (likelihood,)
        mean = lengthscale_mean(len(columns) - self._tasks)
        means = torch.where(task, TASK_PRIOR[0], torch.full(task.shape, mean, dtype=torch.float64))
        spreads = torch.where(task, TASK_PRIOR[1], torch.full_like(means, LENGTHSCALE_PRIOR[1]))
        self.register_prior(
            "lengthscale_prior", NormalPrior(means, spreads), lambda kernel: kernel.lengthscale.log()
        )
        # logarithms of the densest lengthscales, not the densest logarithms
        self.densest = torch.where(task, means, means - 0.5)
        for name in ("outputscale", "linear_variance"):
            self.register_parameter(f"raw_{name}", torch.nn.Parameter(torch.zeros(batch_shape)))
            self.register_constraint(f"raw_{name}", logarithmic())
            shape, rate = VARIANCE_PRIOR
            self.register_prior(f"{name}_prior", GammaPrior(shape + 1, rate), name)

    @property
    def outputscale(self) -> Tensor:
        return self.raw_outputscale_constraint.transform(self.raw_outputscale)

    @property
    def linear_variance(self) -> Tensor:
        return self.raw_linear_variance_constraint.transform(self.raw_linear_variance)

    @property
    def own_variance(self) -> Tensor:
        """Variance of what is an architecture's own, B."""
        return OWN_SHARE * self._likelihood[0].noise[..., 0]

    def distances(self, x1: Tensor, x2: Tensor, *, matrix: bool = True) -> Distances:
        """What the kernel needs to know of pairs of points.

        Args:
            x1, x2: (*b, n, d) and (*b, q, d).
            matrix: whether all pairs are meant, (*b, n, q), rather than the i-th with the i-th, (*b, 1, n).
        """
        a, b = (2 * x[..., self._ordered] - 1 for x in (x1, x2))
        linear = a @ b.mT if matrix else (a * b).sum(dim=-1).unsqueeze(-2)
        x1, x2 = x1.unsqueeze(-2 if matrix else -3), x2.unsqueeze(-3)
        rank = max(x1.dim(), x2.dim())
        a, b = (x[(None,) * (rank - x.dim())].movedim(-1, 0) for x in (x1, x2))
        columns = (a - b).abs_()
        for number, ordered in enumerate(self._ordered.tolist()):
            if not ordered:
                columns[number] = (columns[number] != 0).to(columns)
        if bool(self._category.any()):
            linear = linear + (1 - columns[self._category]).sum(dim=0)
        return Distances(columns, linear)

    def of(self, pairs: Distances) -> Tensor:
        """Covariances of pairs of points, (*B, *S), broadcast."""
        decay = (self._decay / self.lengthscale[..., 0, :]).movedim(-1, 0)[..., None, None]
        exponent, polynomial = decay.new_zeros(()), decay.new_ones(())
        untied = len(decay) - self._tasks
        for number, ordered in enumerate(self._ordered[:untied].tolist()):
            scaled = pairs.columns[number] * decay[number]
            exponent = exponent + scaled
            if ordered:  # Matérn-5/2 is (1 + s + s²/3) exp(-s)
                factor = torch.addcmul(scaled, scaled, scaled, value=1 / 3)
                polynomial = torch.addcmul(polynomial, polynomial, factor)
        local, linear, own = (
            value[..., None, None] for value in (self.outputscale, self.linear_variance, self.own_variance)
        )
        varying = local * polynomial * (-exponent).exp() + linear * pairs.linear + own * (exponent == 0)
        if not self._tasks:
            return varying + CONSTANT_VARIANCE
        apart = sum(d * rate for d, rate in zip(pairs.columns[untied:], decay[untied:], strict=True))
        return varying * (-apart).exp() + CONSTANT_VARIANCE * (apart == 0)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        covariance = self.of(self.distances(x1, x2, matrix=not diag))
        return covariance[..., 0, :] if diag else covariance
