"""The surrogate against GPyTorch, BoTorch, closed forms and real trainings."""

from __future__ import annotations

import csv
import gc
import math
import weakref
from collections.abc import Iterator
from pathlib import Path

import gpytorch
import numpy as np
import pytest
import torch
from botorch import fit_gpytorch_mll
from botorch.acquisition import qLogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.models.kernels.categorical import CategoricalKernel
from botorch.optim import optimize_acqf_discrete
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.sampling import manual_seed
from gpytorch.models import ExactGP
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gamma, kendalltau, norm, yeojohnson
from torch import Tensor

from gpnas.prior import (
    CONSTANT_VARIANCE,
    LENGTHSCALE_PRIOR,
    NOISE_PRIOR,
    OWN_SHARE,
    TASK_PRIOR,
    VARIANCE_PRIOR,
)
from gpnas.records import Architecture
from gpnas.regret import joint_draws
from gpnas.space import Column, SearchSpace
from gpnas.surrogate import Believing, Context, Evidence, Surrogate, Warp, cholesky, fit, likeliest

TABLES = Path(__file__).parents[3] / "shared" / "data" / "tables"
COLUMNS = (
    Column("features", "ordered"),
    Column("family", "family"),
    Column("blocks", "ordered"),
    Column("fuse", "categorical"),
    Column("parameters", "cost"),
)
ORDERED = [0, 2, 4]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def points(n: int, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 5, (n, 5)) / 4.0
    x[:, [1, 3]] = generator.integers(0, 3, (n, 2))
    return torch.from_numpy(x)


def logarithms(*seeds: int, columns: int = 5) -> Tensor:
    """(M, p) hyperparameters' logarithms, a seed for each draw."""
    return torch.from_numpy(
        np.stack([np.random.default_rng(seed).normal(-0.5, 0.7, columns + 3) for seed in seeds])
    )


def empty(theta: Tensor, columns: tuple[Column, ...] = COLUMNS) -> Surrogate:
    nothing = torch.empty(0, dtype=torch.float64)
    return Surrogate(nothing.view(0, len(columns)), nothing, columns, theta)


def covariance(x1: Tensor, x2: Tensor, theta: Tensor, columns: tuple[Column, ...] = COLUMNS) -> Tensor:
    kernel: Tensor = empty(theta[None], columns).covar_module(x1, x2).to_dense()[0]
    return kernel


def gpytorch_covariance(x1: Tensor, x2: Tensor, theta: Tensor) -> Tensor:
    """The same kernel from parts of GPyTorch and BoTorch."""
    lengthscales, (local, linear_variance, noise) = theta[:5].exp(), theta[-3:].exp()
    product = torch.ones(len(x1), len(x2), dtype=torch.float64)
    for number, column in enumerate(COLUMNS):
        if column.kind in ("ordered", "cost"):
            kernel = gpytorch.kernels.MaternKernel(nu=2.5).double()
        else:
            kernel = CategoricalKernel().double()
        kernel.lengthscale = lengthscales[number]
        product = product * kernel(x1[:, [number]], x2[:, [number]]).to_dense()
    linear = gpytorch.kernels.LinearKernel().double()
    linear.variance = 4 * linear_variance
    main = linear(x1[:, ORDERED] - 0.5, x2[:, ORDERED] - 0.5).to_dense()
    for number in (1, 3):
        codes = torch.nn.functional.one_hot(torch.cat([x1, x2])[:, number].long()).double()
        main = main + linear_variance * codes[: len(x1)] @ codes[len(x1) :].T
    same = (x1[:, None] == x2[None]).all(dim=2).double()  # an architecture's own part
    return (CONSTANT_VARIANCE + main + local * product + OWN_SHARE * noise * same).detach()


def test_covariance_is_the_sum_of_gpytorch_kernels() -> None:
    x1, x2 = points(7, 0), points(9, 1)
    for theta in logarithms(0, 1, 2):
        expected = gpytorch_covariance(x1, x2, theta)
        # GPyTorch's distances are exact to about 1e-8 where points coincide
        torch.testing.assert_close(covariance(x1, x2, theta), expected, atol=1e-7, rtol=1e-7)
        kernel = empty(theta[None]).covar_module
        torch.testing.assert_close(kernel(x1, x1, diag=True)[0], covariance(x1, x1, theta).diagonal())


def test_the_kernel_s_gradient_is_autograd_s_and_batches_are_their_parts() -> None:
    """Where points have gradients too, as when BoTorch optimises over them, all is autograd's."""
    x1, x2, theta = points(5, 0), points(6, 1), logarithms(3, 4)
    gradients = []
    for moving in (False, True):
        kernel = empty(theta).requires_grad_().covar_module
        matrix = kernel.forward(x1.clone().requires_grad_(moving), x2)
        (matrix * torch.arange(60).view(2, 5, 6)).sum().backward()
        gradients.append(kernel.raw_lengthscale.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    for number in range(2):
        torch.testing.assert_close(matrix[number].detach(), covariance(x1, x2, theta[number]))
    batched = empty(theta).covar_module.forward(torch.stack([x1, x1 / 2])[:, None], x2)
    torch.testing.assert_close(batched[0], matrix.detach())
    assert batched.shape == (2, 2, 5, 6)


def test_the_evidence_is_gpytorch_s_marginal_likelihood_and_so_is_its_gradient() -> None:
    x, z = points(12, 2), torch.from_numpy(np.random.default_rng(3).normal(size=12))
    identity, theta = Warp(z[:0]), logarithms(4, 5)
    values, gradients = Evidence(Surrogate(x, z, COLUMNS, warp=identity))(theta, z.expand(2, -1))
    for number, one in enumerate(theta):
        model = Surrogate(x, z, COLUMNS, one[None], identity).requires_grad_()
        model.train()
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        evidence = 12 * mll(model(*model.train_inputs), model.train_targets).sum()
        assert float(values[number]) == pytest.approx(float(evidence.detach()), rel=1e-8)
        parts = torch.autograd.grad(evidence, model.raw())
        expected = torch.cat([part.flatten() for part in parts])
        torch.testing.assert_close(gradients[number], expected, rtol=1e-8, atol=1e-8)


def test_priors_are_those_of_the_hyperparameters_logarithms() -> None:
    """Densities of positive values times the Jacobian of their logarithms, by SciPy."""

    def density(theta: np.ndarray) -> float:
        middle = LENGTHSCALE_PRIOR[0] + 0.5 * math.log(5)
        priors = norm(middle, LENGTHSCALE_PRIOR[1]).logpdf(theta[:5]).sum()
        priors += norm(*NOISE_PRIOR).logpdf(theta[7])
        shape, rate = VARIANCE_PRIOR
        return float(priors + (gamma(shape, scale=1 / rate).logpdf(np.exp(theta[5:7])) + theta[5:7]).sum())

    nothing = torch.empty(0, dtype=torch.float64)
    evidence = Evidence(Surrogate(nothing.view(0, 5), nothing, COLUMNS))
    theta = logarithms(4, 5)
    values, _ = evidence(theta, nothing.expand(2, -1))
    expected = density(theta[0].numpy()) - density(theta[1].numpy())
    assert float(values[0] - values[1]) == pytest.approx(expected, rel=1e-9)


def conditioned(x: Tensor, z: Tensor, at: Tensor, theta: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rasmussen & Williams Eq. 2.23-2.24 with a plain inverse."""
    inverse = np.linalg.inv(covariance(x, x, theta).numpy() + math.exp(theta[-1]) * np.eye(len(x)))
    cross = covariance(x, at, theta).numpy()
    prior = covariance(at, at, theta).numpy()
    return cross.T @ inverse @ z.numpy(), prior - cross.T @ inverse @ cross


def mixture(seeds: tuple[int, ...]) -> tuple[Surrogate, Tensor]:
    x, y = points(10, 6), torch.from_numpy(np.random.default_rng(8).normal(30.0, 2.0, 10))
    theta = logarithms(*seeds)
    return Surrogate(x, y, COLUMNS, theta), theta


def test_posterior_is_the_mixture_of_textbook_posteriors() -> None:
    (model, theta), at = mixture((9, 10, 11)), points(6, 7)
    unit, shift = float(model.y.std()), float(model.y.mean())
    moments = [conditioned(model.x, (model.y - shift) / unit, at, one) for one in theta]
    mean = np.mean([each for each, _ in moments], axis=0)
    second = np.mean([each + np.outer(m, m) for m, each in moments], axis=0)
    expected = unit**2 * (second - np.outer(mean, mean))
    own_mean, variance = model.mean_and_variance(at)
    np.testing.assert_allclose(own_mean, shift + unit * mean, rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(expected), rtol=1e-7)
    low, high = model.interval(at, 0.9)
    noise = float(theta[:, -1].exp().mean())
    half = norm.ppf(0.95) * np.sqrt(np.diag(expected) + unit**2 * noise)
    np.testing.assert_allclose((high - low) / 2, half, rtol=1e-7)
    np.testing.assert_allclose((high + low) / 2, own_mean, rtol=1e-9)
    # as BoTorch hears it: single points, and all jointly
    single, joint = model.posterior(at[:, None]), model.posterior(at)
    np.testing.assert_allclose(single.mixture_mean[:, 0, 0], own_mean, rtol=1e-9)
    np.testing.assert_allclose(single.mixture_variance[:, 0, 0], variance, rtol=1e-7)
    np.testing.assert_allclose(joint.mixture_covariance_matrix.to_dense(), expected, rtol=1e-7, atol=1e-9)
    noisy = model.posterior(at[:, None], observation_noise=True).mixture_variance[:, 0, 0]
    np.testing.assert_allclose(noisy, variance + unit**2 * noise, rtol=1e-7)


def test_each_draw_s_posterior_is_gpytorch_s() -> None:
    (model, _), at = mixture((9, 10)), points(6, 7)
    with gpytorch.settings.fast_computations(False, False, False), torch.no_grad():
        expected = ExactGP.__call__(model, at.expand(2, -1, -1))
    mean, joint = model.joint(at)
    torch.testing.assert_close(mean, expected.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(joint, expected.covariance_matrix, rtol=1e-8, atol=1e-8)


def test_a_warped_posterior_is_one_of_values_to_botorch() -> None:
    """Moments against samples, and analytic against Monte-Carlo expected improvement."""
    x = points(12, 6)
    y = -torch.exp(-torch.from_numpy(np.random.default_rng(8).normal(0.0, 1.0, 12)))
    model, at = Surrogate(x, y, COLUMNS, logarithms(1, 2), Warp(y, 1.5)), points(5, 7)
    posterior = model.posterior(at[:, None])
    with manual_seed(0):
        samples = posterior.rsample(torch.Size([20_000]))
    error = 5 * float(posterior.variance.sqrt().max()) / math.sqrt(20_000)
    torch.testing.assert_close(posterior.mean, samples.mean(dim=0), atol=error, rtol=0)
    torch.testing.assert_close(posterior.variance, samples.var(dim=0), atol=0.05, rtol=0.1)
    torch.testing.assert_close(model.warp.untransform(model.warp(y)[0])[0], y)
    sampler = SobolQMCNormalSampler(torch.Size([4096]), seed=0)
    improvement = qLogExpectedImprovement(model, best_f=float(y.max()), sampler=sampler)(at[:, None]).exp()
    assert improvement.shape == (5,)
    expected = (samples[..., 0, 0] - y.max()).clamp_min(0).mean(dim=(0, 2))
    torch.testing.assert_close(improvement, expected, atol=0.02, rtol=0.1)


def test_a_warped_mixture_is_that_of_its_samples() -> None:
    x, values = points(9, 1), torch.linspace(-4, 2, 9).double().exp()
    model = Surrogate(x, values, COLUMNS, logarithms(1, 2, 3, 4), Warp(values, 0.5))
    at = points(5, 7)
    posterior = model.posterior(at[:, None])
    with manual_seed(0):
        drawn = posterior.rsample(torch.Size([100_000]))  # (S, 5, M, 1, 1)
    everything = drawn.movedim(1, 0).flatten(start_dim=1)
    error = everything.std(dim=1) / 400_000**0.5
    assert bool(((posterior.mixture_mean[:, 0, 0] - everything.mean(dim=1)).abs() < 5 * error).all())
    torch.testing.assert_close(
        posterior.mixture_variance[:, 0, 0], everything.var(dim=1), rtol=0.03, atol=0.0
    )
    mean, variance = model.mean_and_variance(at)
    torch.testing.assert_close(mean, posterior.mixture_mean[:, 0, 0])
    torch.testing.assert_close(variance, posterior.mixture_variance[:, 0, 0])
    median = posterior.quantile(torch.tensor([0.5], dtype=torch.float64)).flatten()
    torch.testing.assert_close(median, everything.median(dim=1).values, rtol=0.02, atol=0.01)


def test_joint_draws_are_of_all_members() -> None:
    x, at = points(9, 1), points(6, 7)
    theta = logarithms(*range(16))
    theta[:4, -1] = 3.0  # to the first few, all that was observed is noise
    model = Surrogate(x, torch.arange(9).double(), COLUMNS, theta)
    draws = joint_draws(model, at)
    mean, variance = model.latent(at)
    assert bool(((draws.mean(dim=0) - mean).abs() < 4 * (variance / len(draws)).sqrt()).all())
    torch.testing.assert_close(draws.var(dim=0), variance, rtol=0.15, atol=0.0)


@pytest.mark.filterwarnings("ignore::linear_operator.utils.warnings.NumericalWarning")  # of jitter
def test_equal_points_do_not_stop_botorch() -> None:
    """A replicate among the observations, and candidates that are base points."""
    x = points(12, 3)
    x[1] = x[0]
    model = fit(x, torch.arange(12).double(), COLUMNS)
    acquisition = qLogNoisyExpectedImprovement(model, X_baseline=model.x)
    chosen, value = optimize_acqf_discrete(acquisition, q=1, choices=points(40, 5))
    assert bool(value.isfinite())
    twice = model.posterior(x[[0, 0]]).rsample(torch.Size([64]))
    torch.testing.assert_close(twice[..., 0, :], twice[..., 1, :], rtol=0, atol=1e-2)
    assert chosen.shape == (1, 5)


def test_nothing_is_kept_of_other_observations_or_hyperparameters() -> None:
    x, values, at = points(9, 1), torch.arange(9).double(), points(4, 7)

    def made(theta: Tensor, warp: Warp, y: Tensor = values) -> Surrogate:
        return Surrogate(x, y, COLUMNS, theta, warp)

    def same(a: Surrogate, b: Surrogate) -> None:
        for one, other in zip(a.mean_and_variance(at), b.mean_and_variance(at), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)

    one, other, warp = logarithms(1, 2), logarithms(3, 4), Warp(values)
    model = made(one, warp)
    model.mean_and_variance(at)
    model.theta = other
    same(model, made(other, warp))
    model.load_state_dict(made(one, warp).state_dict())
    same(model, made(one, warp))
    model.set_train_data(targets=warp.latent(values + 1).expand(2, -1))
    same(model, made(one, warp, values + 1))
    further = made(one, warp).condition_on_observations(at[:2], torch.tensor([[3.0], [5.0]]).double())
    together = torch.cat([values, torch.tensor([3.0, 5.0]).double()])
    same(further, Surrogate(torch.cat([x, at[:2]]), together, COLUMNS, one, warp))


def test_beside_what_was_told_moments_are_the_textbook_s() -> None:
    (model, theta), at = mixture((9, 10, 11)), points(6, 7)
    everything, rows = torch.cat([model.x, at]), torch.tensor([3, 0, 7])
    moments = [conditioned(model.x, model.warp.latent(model.y), everything, one) for one in theta]
    mean = np.mean([each for each, _ in moments], axis=0)
    expected = np.mean([each + np.outer(m, m) for m, each in moments], axis=0) - np.outer(mean, mean)
    own, there, variance, between = model.beside(at, model.x[rows])
    np.testing.assert_allclose(own, mean[rows], rtol=1e-8)
    np.testing.assert_allclose(there, mean[10:], rtol=1e-8)
    np.testing.assert_allclose(variance, np.diag(expected)[10:], rtol=1e-7)
    np.testing.assert_allclose(between, expected[rows][:, 10:], rtol=1e-6, atol=1e-9)


def test_believing_is_observing_the_mean() -> None:
    """One after another, and several at once; asked about in between or only in the end."""
    (model, theta), at, pending = mixture((9, 10)), points(6, 7), points(3, 8)
    watched, rivals = torch.cat([at, pending]), [20, 23, 28]
    asked, moments = Believing(model, watched, torch.arange(20, 29)), []
    asked.beside([21, 22], rivals[:2])
    for numbers in ([26, 27], [], [28]):
        asked.believe(numbers)
        asked.beside([21, 22], rivals)
    unasked = Believing(model, watched, torch.arange(20, 29))
    unasked.believe([26, 27, 28])
    beliefs, _ = model.members(pending)
    for number, one in enumerate(theta):
        told = torch.cat([model.warp.latent(model.y), beliefs[number]])
        moments.append(conditioned(torch.cat([model.x, pending]), told, watched, one))
    mean = np.mean([each for each, _ in moments], axis=0)
    expected = np.mean([each + np.outer(m, m) for m, each in moments], axis=0) - np.outer(mean, mean)
    for believing in (asked, unasked):
        own, there, variance, between = believing.beside(range(20, 26), rivals)
        np.testing.assert_allclose(own, mean[[0, 3, 8]], rtol=1e-8)
        np.testing.assert_allclose(there, mean[:6], rtol=1e-8)
        np.testing.assert_allclose(variance, np.diag(expected)[:6], rtol=1e-7)
        np.testing.assert_allclose(between, expected[[0, 3, 8]][:, :6], rtol=1e-6, atol=1e-9)


def test_a_surrogate_upon_another_is_the_textbook_s() -> None:
    """Its factor has rows more; points that are watched are asked about by their number."""
    (model, theta), at = mixture((9, 10)), points(6, 7)
    base = Surrogate(model.x[:7], torch.zeros(7, dtype=torch.float64), COLUMNS, model.theta)
    base.watch(at)
    upon = Surrogate(model.x, model.y, COLUMNS, model.theta, model.warp).upon(base)
    for numbers in (None, torch.arange(6)):
        means, variances = upon.members(at, numbers)
        for number, one in enumerate(theta):
            expected, spread = conditioned(model.x, model.warp.latent(model.y), at, one)
            np.testing.assert_allclose(means[number], expected, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(variances[number], np.diag(spread), rtol=1e-7)
    torch.testing.assert_close(upon.factor @ upon.factor.mT, model.factor @ model.factor.mT)
    torch.testing.assert_close(upon.leave_one_out(), model.leave_one_out())


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_warp_is_scipy_s_yeo_johnson_between_standardisations(power: float) -> None:
    y = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 3.0, 40) + 20)
    warp = Warp(y, power)
    plain = (y.numpy() - y.numpy().mean()) / y.numpy().std(ddof=1)
    raised = yeojohnson(plain, power)
    expected = (raised - raised.mean()) / raised.std(ddof=1)
    np.testing.assert_allclose(warp.latent(y), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(warp.inverse(warp.latent(y)), y, rtol=1e-12)
    step = 1e-6
    slopes = (warp.latent(y + step) - warp.latent(y - step)) / (2 * step)
    np.testing.assert_allclose(warp.log_slope(y), slopes.log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_moments_pass_a_warp_as_numerical_integration_says(power: float) -> None:
    warp = Warp(torch.from_numpy(np.random.default_rng(1).normal(30, 2, 20)), power)
    for centre, variance in ((0.3, 0.2), (-1.0, 0.05)):
        mean, spread = warp.moments(*(torch.tensor([each]).double() for each in (centre, variance)))

        grid = np.linspace(-9, 9, 200_001)
        weights = norm.pdf(grid) / norm.pdf(grid).sum()
        y = warp.inverse(centre + math.sqrt(variance) * torch.from_numpy(grid)).numpy()
        first = weights @ y
        second = weights @ (y - first) ** 2
        assert float(mean) == pytest.approx(first, abs=1e-3)  # of a unit of 2: quadrature across the kink
        assert float(spread) == pytest.approx(second, rel=3e-3)


def test_skewed_values_are_warped_and_normal_ones_are_not() -> None:
    x = points(40, 3)
    assert fit(x, values(x), COLUMNS).warp.power == 1
    latent = values(x) - 27
    assert fit(x, -torch.exp(-3 * latent), COLUMNS).warp.power > 1
    assert fit(x, torch.exp(3 * latent), COLUMNS).warp.power < 1


def test_leave_one_out_is_leaving_one_out() -> None:
    x, theta = points(9, 12), logarithms(13)
    y = torch.from_numpy(np.random.default_rng(14).normal(size=9))
    y = (y - y.mean()) / y.std()
    mean, variance = Surrogate(x, y, COLUMNS, theta).leave_one_out()
    for left_out in range(9):
        rest = [number for number in range(9) if number != left_out]
        expected, spread = conditioned(x[rest], y[rest], x[[left_out]], theta[0])
        assert float(mean[left_out]) == pytest.approx(expected[0], rel=1e-8)
        assert float(variance[left_out]) == pytest.approx(spread[0, 0] + math.exp(theta[0, -1]), rel=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_hyperparameters_are_as_likely_as_botorch_s_fit_finds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n, d = int(generator.choice([2, 8, 30])), int(generator.integers(1, 6))
    kinds = [("ordered", "ordered", "categorical")[each] for each in generator.integers(0, 3, d)]
    codes = generator.integers(0, 5, (n, d)).astype(np.float64)
    x = torch.from_numpy(np.where([kind == "ordered" for kind in kinds], codes / 4, codes))
    y = np.sin(3 * x.numpy() @ generator.normal(size=d)) + 0.3 * generator.normal(size=n)
    z = torch.from_numpy((y - y.mean()) / y.std())
    columns = tuple(Column(f"axis {number}", kind) for number, kind in enumerate(kinds))  # type: ignore[arg-type]
    evidence = Evidence(Surrogate(x, z, columns, warp=Warp(z[:0])))
    own, _ = evidence(likeliest(x, z, columns).theta, z[None])
    model = Surrogate(x, z, columns, warp=Warp(z[:0])).requires_grad_()
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    fit_gpytorch_mll(mll)
    peer, _ = evidence(model.theta.clamp(*torch.from_numpy(evidence.bounds.T)), z[None])
    assert float(own) >= float(peer) - 1e-4


def test_without_observations_a_fit_is_the_prior_around_its_mode() -> None:
    theta = fit(torch.empty(0, 5).double(), torch.empty(0).double(), COLUMNS).theta.numpy()
    middle = LENGTHSCALE_PRIOR[0] + 0.5 * math.log(5)
    np.testing.assert_allclose(theta[:, :5].mean(axis=0), middle, atol=0.2)
    np.testing.assert_allclose(theta[:, :5].std(axis=0), LENGTHSCALE_PRIOR[1], atol=0.25)
    assert theta[:, -1].mean() == pytest.approx(NOISE_PRIOR[0], abs=0.2)


def values(x: Tensor, seed: int = 1) -> Tensor:
    noise = 0.1 * torch.randn(len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 27 + x[:, 0] - 0.5 * x[:, 2].square() + 0.3 * x[:, 4] * x[:, 0] + noise


def test_a_fit_predicts_better_than_the_mean_and_covers() -> None:
    x, query = points(24, 0), points(300, seed=9)
    posterior = fit(x, values(x), COLUMNS)
    mean, _ = posterior.mean_and_variance(query)
    truth = values(query, seed=4)
    assert float((truth - mean).square().mean()) < 0.3 * float(truth.var())
    low, high = posterior.interval(query)
    within = (low < truth) & (truth < high)
    assert 0.8 < float(within.double().mean()) < 0.98


def test_a_fit_is_a_pure_function() -> None:
    x = points(14, 0)
    first, second = (fit(x, values(x), COLUMNS).mean_and_variance(points(5, 1)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_surrogate_that_nobody_needs_gives_its_memory_back_at_once() -> None:
    """Without a search for cyclic garbage, which comes late, as its few objects are large ones."""
    x = points(14, 0)
    gc.disable()
    try:
        model = fit(x, values(x), COLUMNS)
        model.mean_and_variance(x)
        gone = [weakref.ref(each) for each in (model, *model.modules(), model.factor)]
        del model
        assert all(each() is None for each in gone)
    finally:
        gc.enable()


def test_many_repeats_of_one_architecture_average_out() -> None:
    """With replicates the posterior mean tends to their mean, and its deviation to that of a mean."""
    x = points(1, 0).repeat(200, 1)
    y = 30 + torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    posterior = fit(torch.cat([x, points(20, seed=8)]), torch.cat([y, values(points(20, seed=8))]), COLUMNS)
    mean, variance = posterior.mean_and_variance(x[:1])
    assert float(mean) == pytest.approx(float(y.mean()), abs=0.1)
    assert float(variance.sqrt()) < 0.15


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(3, 12), st.integers(0, 10**6), st.floats(1e-3, 1e4), st.floats(-1e3, 1e3))
def test_units_and_order_of_the_observations_change_nothing(
    n: int, seed: int, unit: float, shift: float
) -> None:
    generator = np.random.default_rng(seed)
    x, y, at = points(n, seed), torch.from_numpy(generator.normal(size=n)), points(4, seed + 1)
    mean, variance = fit(x, y, COLUMNS).mean_and_variance(at)
    order = torch.from_numpy(generator.permutation(n))
    moved, scaled = fit(x[order], unit * y[order] + shift, COLUMNS).mean_and_variance(at)
    scale = unit * float(y.std())
    # rounding may end the fit elsewhere on a flat maximum
    torch.testing.assert_close(moved, unit * mean + shift, atol=0.05 * scale, rtol=0)
    torch.testing.assert_close(scaled, unit**2 * variance, atol=0.05 * scale**2, rtol=0.05)


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_degenerate_observations_give_a_finite_posterior(n: int) -> None:
    same = points(1, 0).expand(n, -1)
    for x in (same, points(n, 1)):
        for y in (torch.full((n,), 31.25), torch.linspace(0, 1e-13, n), torch.linspace(-1e9, 1e9, n)):
            posterior = fit(x, y.double(), COLUMNS)
            mean, variance = posterior.mean_and_variance(points(20, 2))
            assert bool(mean.isfinite().all() and variance.isfinite().all() and (variance > 0).all())


def test_cholesky_finds_the_jitter_that_a_singular_covariance_needs() -> None:
    rows = points(4, 0).repeat(3, 1)
    singular = rows @ rows.T
    factor = cholesky(singular)
    torch.testing.assert_close(factor @ factor.T, singular, atol=1e-5, rtol=1e-5)
    clean = singular + torch.eye(12)
    torch.testing.assert_close(cholesky(clean), torch.linalg.cholesky(clean), atol=0, rtol=0)


def test_intervals_hold_what_they_promise_on_functions_of_the_prior() -> None:
    hits = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        x, theta = points(112, seed), logarithms(seed)[0]
        latent = cholesky(covariance(x, x, theta)) @ torch.from_numpy(generator.normal(size=112))
        y = latent + math.exp(theta[-1] / 2) * torch.from_numpy(generator.normal(size=112))
        mean, variance = fit(x[:12], y[:12], COLUMNS).mean_and_variance(x[12:])
        hits.append(float(((latent[12:] - mean).abs() < 1.645 * variance.sqrt()).double().mean()))
    assert 0.84 < np.mean(hits) < 0.96  # nominal .90; standard error about .02


@pytest.mark.skipif(not TABLES.exists(), reason="the tables of real trainings are not beside this checkout")
def test_ranks_real_trainings_and_knows_its_errors() -> None:
    with (TABLES / "nas_bench_macro" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    axes = [f"x_l{layer}" for layer in range(8)]
    space = SearchSpace.from_table(
        [
            {name: int(row[name]) for name in axes} | {c: float(row[c]) for c in ("params", "flops")}
            for row in rows
        ],
        costs=("params", "flops"),
    )
    runs, mean = np.empty((len(space), 3)), np.empty(len(space))
    for row in rows:
        index = space.index(Architecture("table", {name: int(row[name]) for name in axes}))
        runs[index] = [float(row[f"acc_run{run}"]) for run in range(3)]
    mean = runs.mean(axis=1)
    ranks, hits = [], []
    for seed in range(8):
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(space), 24, replace=False)
        rest = np.setdiff1d(np.arange(len(space)), chosen)[::5]
        posterior = fit(space.features[chosen], torch.from_numpy(runs[chosen, seed % 3]), space.columns)
        predicted, _ = posterior.mean_and_variance(space.features[rest])
        ranks.append(kendalltau(predicted.numpy(), mean[rest])[0])
        low, high = (each.numpy() for each in posterior.interval(space.features[rest]))
        again = runs[rest, (seed + 1) % 3]
        hits.append(np.mean((low < again) & (again < high)))
    # a Gaussian process with a linear mean reaches .58 and .84
    assert np.mean(ranks) > 0.68
    assert 0.82 < np.mean(hits) < 0.96


TASKS = (*COLUMNS, Column("×3", "task"), Column("×4", "task"))


def in_task(x: Tensor, *task: float) -> Tensor:
    return torch.cat([x, torch.tensor(task).double().expand(len(x), 2)], dim=1)


def test_tasks_tie_all_but_their_constants() -> None:
    """Bonilla et al. 2007, Eq. 1, from GPyTorch's covariance of one task."""
    x1, x2, theta = points(6, 0), points(7, 1), logarithms(2, columns=7)[0]
    single = gpytorch_covariance(x1, x2, torch.cat([theta[:5], theta[7:]]))
    first, second = np.exp(-1 / theta[5:7].exp().numpy())
    for a, b, tie in (((0, 0), (0, 0), 1.0), ((0, 0), (1, 0), first), ((1, 0), (0, 1), first * second)):
        same = 1.0 if a == b else 0.0
        expected = tie * (single - CONSTANT_VARIANCE) + same * CONSTANT_VARIANCE
        own = covariance(in_task(x1, *a), in_task(x2, *b), theta, TASKS)
        torch.testing.assert_close(own, expected, atol=1e-7, rtol=1e-7)


def test_the_evidence_of_tasks_is_that_of_their_covariance() -> None:
    x = torch.cat([in_task(points(7, 2), 0, 0), in_task(points(8, 3), 1, 0), in_task(points(5, 2), 0, 1)])
    z = torch.from_numpy(np.random.default_rng(3).normal(size=20))
    evidence = Evidence(Surrogate(x, z, TASKS, warp=Warp(z[:0])))

    def density(theta: Tensor) -> float:
        matrix = covariance(x, x, theta, TASKS) + theta[-1].exp() * torch.eye(20).double()
        found = torch.distributions.MultivariateNormal(torch.zeros(20).double(), matrix).log_prob(z)
        return float(found + norm(*TASK_PRIOR).logpdf(theta[5:7]).sum() + rest(theta))

    def rest(theta: Tensor) -> float:
        middle = LENGTHSCALE_PRIOR[0] + 0.5 * math.log(5)
        shape, rate = VARIANCE_PRIOR
        variances = gamma(shape, scale=1 / rate).logpdf(theta[7:9].exp().numpy()) + theta[7:9].numpy()
        priors = norm(middle, LENGTHSCALE_PRIOR[1]).logpdf(theta[:5]).sum() + variances.sum()
        return float(priors + norm(*NOISE_PRIOR).logpdf(theta[9]))

    here, there = logarithms(4, 5, columns=7)
    values, gradients = evidence(torch.stack([here, there]), z.expand(2, -1))
    assert float(values[0] - values[1]) == pytest.approx(density(here) - density(there), rel=1e-9)
    steps = 1e-5 * torch.eye(10).double()
    numeric = [(density(here + step) - density(here - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(gradients[0], numeric, rtol=1e-5, atol=1e-5)


def related(seed: int, rho: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points and two functions on them that correlate by rho."""
    x = points(150, seed)
    theta = torch.tensor([2.0] * 5 + [0.5, 0.5, 0.02], dtype=torch.float64).log()
    factor = cholesky(covariance(x, x, theta) - CONSTANT_VARIANCE)
    generator = np.random.default_rng(seed)
    one, other = (factor @ torch.from_numpy(generator.normal(size=150)) for _ in range(2))
    return x, one, rho * one + math.sqrt(1 - rho**2) * other


@pytest.mark.parametrize(("rho", "helps"), [(1.0, True), (0.0, False)])
def test_a_related_task_helps_and_an_unrelated_one_does_no_harm(rho: float, helps: bool) -> None:
    ratios = []
    for seed in range(6):
        x, source, target = related(seed, rho)
        columns = (*COLUMNS, Column("source", "task"))
        mine, its = (torch.cat([x, torch.full((150, 1), code).double()], dim=1) for code in (0, 1))
        context = Context(its[:60], (source[:60] - source[:60].mean()) / source[:60].std(), 3.0)
        seen, rest = slice(60, 68), slice(68, 150)
        y = 20 + 5 * target  # another shift and unit than the source's
        cold = fit(x[seen], y[seen], COLUMNS)
        warm = fit(mine[seen], y[seen], columns, context=context)
        errors = [
            (posterior.mean_and_variance(at[rest])[0] - y[rest]).square().mean()
            for posterior, at in ((cold, x), (warm, mine))
        ]
        ratios.append(float(errors[1] / errors[0]))
    assert (np.median(ratios) < 0.4) if helps else (np.median(ratios) < 1.15)


def test_without_own_observations_a_related_task_ranks() -> None:
    x, source, _ = related(0, 1.0)
    its = torch.cat([x, torch.ones(150, 1).double()], dim=1)
    mine = torch.cat([x, torch.zeros(150, 1).double()], dim=1)
    context = Context(its[:60], source[:60], 1.0)
    columns = (*COLUMNS, Column("source", "task"))
    posterior = fit(mine[:0], source[:0], columns, context=context)
    assert len(posterior) == 0
    assert kendalltau(posterior.mean_and_variance(mine[60:])[0], source[60:])[0] > 0.7
