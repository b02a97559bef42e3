"""The surrogate's algebra equals GPyTorch's and the definitions; its fit holds up."""

import gpytorch
import pytest
import torch
from torch import Tensor

from gpnas.space import Column
from gpnas.surrogate import (
    CONSTANT_VARIANCE,
    Hyperparameters,
    Posterior,
    covariance,
    fit,
    log_evidence,
    prior_variance,
)

COLUMNS = (Column("a", "ordered"), Column("b", "ordered"), Column("c", "cost"), Column("kind", "categorical"))
HYPERPARAMETERS = Hyperparameters(
    torch.tensor([0.5, 1.3, 2.0, 0.7], dtype=torch.float64),
    torch.tensor(0.8, dtype=torch.float64),
    torch.tensor(0.3, dtype=torch.float64),
    torch.tensor(0.05, dtype=torch.float64),
)


def points(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 4, generator=generator, dtype=torch.float64)
    x[:, 3] = torch.randint(3, (n,), generator=generator).double()
    return x


def values(x: Tensor, seed: int = 1) -> Tensor:
    noise = 0.1 * torch.randn(len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 27 + x[:, 0] - 0.5 * x[:, 1].square() + 0.3 * x[:, 2] * x[:, 0] + noise


class Reference(gpytorch.models.ExactGP):
    """The same prior, put together from GPyTorch's kernels."""

    def __init__(self, x: Tensor, y: Tensor, h: Hyperparameters) -> None:
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        likelihood.noise = h.noise_variance
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        local = None
        for column in range(3):
            kernel = gpytorch.kernels.MaternKernel(nu=2.5, active_dims=[column]).double()
            kernel.lengthscale = h.lengthscales[column]
            local = kernel if local is None else local * kernel
        linear = gpytorch.kernels.LinearKernel().double()
        linear.variance = 4 * h.linear_variance
        self.h, self.local, self.linear = h, local, linear

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        with gpytorch.settings.lazily_evaluate_kernels(False):
            mismatch = (x[:, 3, None] != x[None, :, 3]).double()
            assert self.local is not None
            local = self.local(x).to_dense() * torch.exp(-mismatch / self.h.lengthscales[3])
            linear = self.linear(x[:, :3] - 0.5).to_dense()
            whole = CONSTANT_VARIANCE + linear + self.h.local_variance * local
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), whole)


@pytest.fixture(autouse=True)
def _exact_gpytorch() -> object:
    with (
        gpytorch.settings.fast_computations(False, False, False),
        gpytorch.settings.skip_posterior_variances(False),
    ):
        yield


def test_the_evidence_equals_gpytorchs() -> None:
    x = points(15)
    y = values(x) - 27
    model = Reference(x, y, HYPERPARAMETERS)
    model.train()
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    expected = mll(model(x), y) * len(y)
    torch.testing.assert_close(
        log_evidence(x, y, COLUMNS, HYPERPARAMETERS), expected.detach(), atol=1e-6, rtol=0
    )


def test_the_posterior_equals_gpytorchs() -> None:
    x, query = points(12), points(30, seed=5)
    y = values(x)
    z = (y - y.mean()) / y.std()
    model = Reference(x, z, HYPERPARAMETERS)
    model.eval()
    with torch.no_grad(), gpytorch.settings.debug(False):
        expected = model(query)
    mean, joint = Posterior(x, y, COLUMNS, HYPERPARAMETERS).joint(query)
    torch.testing.assert_close(mean, y.mean() + y.std() * expected.mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(joint, y.var() * expected.covariance_matrix, atol=1e-6, rtol=0)


def test_mean_and_variance_are_the_joints_diagonal() -> None:
    x, query = points(9), points(20, seed=3)
    posterior = Posterior(x, values(x), COLUMNS, HYPERPARAMETERS)
    mean, variance = posterior.mean_and_variance(query)
    joint_mean, joint = posterior.joint(query)
    torch.testing.assert_close(mean, joint_mean)
    torch.testing.assert_close(variance, joint.diagonal(), atol=1e-10, rtol=0)


def test_the_prior_is_positive_semi_definite_with_the_stated_diagonal() -> None:
    x = points(60)
    whole = covariance(x, x, COLUMNS, HYPERPARAMETERS)
    assert float(torch.linalg.eigvalsh(whole)[0]) > -1e-10
    torch.testing.assert_close(whole.diagonal(), prior_variance(x, COLUMNS, HYPERPARAMETERS))


def test_leave_one_out_equals_leaving_one_out() -> None:
    x = points(10)
    y = values(x)
    posterior = Posterior(x, y, COLUMNS, HYPERPARAMETERS)
    mean, variance = posterior.leave_one_out()
    z = (y - posterior.shift) / posterior.unit
    for left in range(10):
        rest = [index for index in range(10) if index != left]
        k = covariance(x, x, COLUMNS, HYPERPARAMETERS) + HYPERPARAMETERS.noise_variance * torch.eye(10)
        solved = torch.linalg.solve(k[rest][:, rest], k[rest, left])
        assert float(mean[left]) == pytest.approx(
            posterior.shift + posterior.unit * float(solved @ z[rest]), abs=1e-7
        )
        expected = posterior.unit**2 * float(k[left, left] - k[left, rest] @ solved)
        assert float(variance[left]) == pytest.approx(expected, abs=1e-7)


def test_a_fit_predicts_better_than_the_mean_and_covers() -> None:
    x, query = points(24), points(300, seed=9)
    posterior = fit(x, values(x), COLUMNS)
    mean, variance = posterior.mean_and_variance(query)
    truth = values(query, seed=4)
    assert float((truth - mean).square().mean()) < 0.3 * float(truth.var())
    within = (truth - mean).abs() < 1.645 * (variance + posterior.noise_variance).sqrt()
    assert 0.8 < float(within.double().mean()) < 0.98


def test_a_fit_is_a_pure_function() -> None:
    x = points(14)
    first, second = (fit(x, values(x), COLUMNS).hyperparameters.pack() for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("constant", [True, False])
def test_duplicates_ties_and_few_observations_never_break_a_fit(n: int, constant: bool) -> None:
    x = points(1).repeat(n, 1)
    y = torch.full((n,), 30.0, dtype=torch.float64) if constant else torch.arange(n).double()
    mean, variance = fit(x, y, COLUMNS).mean_and_variance(points(5, seed=2))
    assert bool(mean.isfinite().all())
    assert bool((variance > 0).all())


def test_many_repeats_of_one_architecture_average_out() -> None:
    """With replicates the posterior mean tends to their mean, and its deviation to that of a mean."""
    x = points(1).repeat(200, 1)
    y = 30 + torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    posterior = fit(torch.cat([x, points(20, seed=8)]), torch.cat([y, values(points(20, seed=8))]), COLUMNS)
    mean, variance = posterior.mean_and_variance(x[:1])
    assert float(mean) == pytest.approx(float(y.mean()), abs=0.1)
    assert float(variance.sqrt()) < 0.15
