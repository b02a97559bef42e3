"""The covariance of latent values as a GPyTorch kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
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


BLOCK = 65_536
"""Numbers of a block of columns (512 kB)."""


class Distances(NamedTuple):
    """What the kernel needs to know of pairs of points, whatever its hyperparameters; S is the shape of
    the pairs, (*b, n, q) or, of points one by one, (*b, n)."""

    columns: Tensor  # (d, *S)
    """Absolute differences; in columns of codes 1.0 where they differ."""
    linear: Tensor  # S
    same: Tensor  # S
    """1.0 where two points are the same architecture."""


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
            matrix: whether all pairs are meant, (*b, n, q), rather than the i-th with the i-th, (*b, n).
        """
        a, b = (2 * x[..., self._ordered] - 1 for x in (x1, x2))
        linear = a @ b.mT if matrix else (a * b).sum(dim=-1)
        if matrix:
            x1, x2 = x1.unsqueeze(-2), x2.unsqueeze(-3)
        rank = max(x1.dim(), x2.dim())
        a, b = (x[(None,) * (rank - x.dim())] for x in (x1, x2))
        columns = (a.movedim(-1, 0) - b.movedim(-1, 0)).abs()
        for number, ordered in enumerate(self._ordered.tolist()):
            if not ordered:
                columns[number] = (columns[number] != 0).to(columns)
        if bool(self._category.any()):
            linear = linear + (1 - columns[self._category]).sum(dim=0)
        same = columns[: len(columns) - self._tasks].sum(dim=0) == 0
        return Distances(columns, linear, same.to(columns))

    def of(self, pairs: Distances, *, matrix: bool = True) -> Tensor:
        """Covariances of pairs of points, (*B, *S), broadcast.

        Args:
            pairs: their distances.
            matrix: whether S ends in (n, q) rather than in (n).
        """
        rank = [1] * (2 if matrix else 1)
        decay = (self._decay / self.lengthscale[..., 0, :]).movedim(-1, 0)
        decay = decay.reshape(*decay.shape, *rank)
        outputscale, linear_variance, own_variance = (
            value.reshape(*value.shape, *rank)
            for value in (self.outputscale, self.linear_variance, self.own_variance)
        )
        untied = len(decay) - self._tasks
        local = _product(pairs.columns[:untied], decay[:untied], self._ordered[:untied])
        varying = outputscale * local + linear_variance * pairs.linear + own_variance * pairs.same
        if not self._tasks:
            return varying + CONSTANT_VARIANCE
        apart = sum(pairs.columns[number] * decay[number] for number in range(untied, len(decay)))
        return varying * (-apart).exp() + CONSTANT_VARIANCE * (apart == 0)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        if diag:
            return self.of(self.distances(x1, x2, matrix=False), matrix=False)
        return self.of(self.distances(x1, x2))


def _product(distance: Tensor, decay: Tensor, ordered: Tensor) -> Tensor:
    """The product over columns of Matérn-5/2 kernels or, for codes, exponentials of mismatch.

    Args:
        distance: (d, *S) of pairs.
        decay: (d, *B, 1, …) by which each column's are multiplied, √5 / ℓ or 1 / ℓ.
        ordered: (d,), which columns are.
    """
    if distance.requires_grad or distance.dim() > 3:
        exponent, polynomial = torch.zeros((), dtype=decay.dtype), torch.ones((), dtype=decay.dtype)
        for number, each in enumerate(ordered.tolist()):
            scaled = distance[number] * decay[number]
            exponent = exponent + scaled
            if each:
                polynomial = polynomial * (1 + scaled * (1 + scaled / 3))
        return polynomial * (-exponent).exp()
    product: Tensor = _Product.apply(distance, decay, ordered)
    return product


class _Product(torch.autograd.Function):
    """`_product` with its gradient by the decays in closed form, as GPyTorch has for its Matérn kernels:
    a fit then keeps no matrix per column. Columns are taken in blocks that fit a processor's cache."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, decay: Tensor, ordered: Tensor) -> Tensor:
        # not torch.broadcast_shapes, whose first call loads SymPy, for most of a second
        shape = np.broadcast_shapes(distance.shape[1:], decay.shape[1:])
        exponent, polynomial = distance.new_zeros(shape), distance.new_ones(shape)
        for apart, rate, straight in _blocks(distance, decay, ordered, exponent.numel()):
            scaled = apart * rate
            exponent += scaled.sum(dim=0)
            polynomial *= scaled.div(3).add_(1).mul_(scaled).mul_(straight).add_(1).prod(dim=0)
        product = polynomial.mul_(exponent.neg_().exp_())
        ctx.save_for_backward(distance, decay, ordered, product)
        return product

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[None, Tensor, None]:
        distance, decay, ordered, product = ctx.saved_tensors
        weighted, gradients = outputs[0] * product, []
        for apart, rate, straight in _blocks(distance, decay, ordered, product.numel()):
            scaled = apart * rate
            # d log[(1 + s + s²/3) exp(-s)] / ds = -s (1 + s) / (3 + 3s + s²)
            slope = (scaled + 1).mul_(scaled).div_(scaled.add(3).mul_(scaled).add_(3))
            slope = slope.sub_(1).mul_(straight).add_(1).mul_(apart)
            gradients.append(-(weighted * slope).sum(dim=tuple(range(1 - distance.dim(), 0)), keepdim=True))
        return None, torch.cat(gradients), None


def _blocks(distance: Tensor, decay: Tensor, ordered: Tensor, size: int) -> Iterator[tuple[Tensor, ...]]:
    """A few columns at once of distances and decays, aligned, and 1 where they are ordered, else 0."""
    lead = [1] * (decay.dim() - 1)
    apart = distance.view(len(distance), *[1] * (decay.dim() - distance.dim()), *distance.shape[1:])
    width = max(1, BLOCK // max(1, size))
    parts = (each.split(width) for each in (apart, decay, ordered.to(decay).view(-1, *lead)))
    return zip(*parts, strict=True)
