"""The surrogate against GPyTorch, BoTorch, closed forms and real trainings."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import gpytorch
import numpy as np
import pytest
import torch
from botorch.models.kernels.categorical import CategoricalKernel
from gpytorch.priors import GammaPrior, LogNormalPrior, NormalPrior
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gamma, kendalltau, norm, yeojohnson
from torch import Tensor

from gpnas.records import Architecture
from gpnas.space import Column, SearchSpace
from gpnas.surrogate import (
    CONSTANT_VARIANCE,
    LENGTHSCALE_PRIOR,
    NOISE_PRIOR,
    OWN_SHARE,
    TASK_PRIOR,
    VARIANCE_PRIOR,
    Context,
    Hyperparameters,
    LogPosterior,
    Posterior,
    Warp,
    cholesky,
    covariance,
    fit,
    prior_variance,
)

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


def hyperparameters(seed: int) -> Hyperparameters:
    return Hyperparameters.unpack(np.random.default_rng(seed).normal(-0.5, 0.7, 8))


def gpytorch_covariance(x1: Tensor, x2: Tensor, chosen: Hyperparameters) -> Tensor:
    """The same kernel from parts of GPyTorch and BoTorch."""
    product = torch.ones(len(x1), len(x2), dtype=torch.float64)
    for number, column in enumerate(COLUMNS):
        if column.kind in ("ordered", "cost"):
            kernel = gpytorch.kernels.MaternKernel(nu=2.5).double()
        else:
            kernel = CategoricalKernel().double()
        kernel.lengthscale = chosen.lengthscales[number]
        product = product * kernel(x1[:, [number]], x2[:, [number]]).to_dense()
    linear = gpytorch.kernels.LinearKernel().double()
    linear.variance = 4 * chosen.linear_variance
    main = linear(x1[:, ORDERED] - 0.5, x2[:, ORDERED] - 0.5).to_dense()
    for number in (1, 3):
        codes = torch.nn.functional.one_hot(torch.cat([x1, x2])[:, number].long()).double()
        main = main + chosen.linear_variance * codes[: len(x1)] @ codes[len(x1) :].T
    same = (x1[:, None] == x2[None]).all(dim=2).double()  # an architecture's own part
    own = OWN_SHARE * chosen.noise_variance * same
    return (CONSTANT_VARIANCE + main + chosen.local_variance * product + own).detach()


def test_covariance_is_the_sum_of_gpytorch_kernels() -> None:
    x1, x2 = points(7, 0), points(9, 1)
    for seed in range(3):
        chosen = hyperparameters(seed)
        expected = gpytorch_covariance(x1, x2, chosen)
        # GPyTorch's distances are exact to about 1e-8 where points coincide
        torch.testing.assert_close(covariance(x1, x2, COLUMNS, chosen), expected, atol=1e-7, rtol=1e-7)
        diagonal = covariance(x1, x1, COLUMNS, chosen).diagonal()
        torch.testing.assert_close(prior_variance(x1, COLUMNS, chosen), diagonal)


def test_log_posterior_and_its_gradient_are_autograd_s_of_the_definition() -> None:
    x, z = points(12, 2), torch.from_numpy(np.random.default_rng(3).normal(size=12))
    target = LogPosterior(x, z, COLUMNS)

    def definition(theta: Tensor) -> Tensor:
        lengthscales, (local, linear, noise) = theta[:5].exp(), theta[5:].exp()
        product = torch.ones(12, 12, dtype=torch.float64)
        total = torch.zeros(12, 12, dtype=torch.float64)
        for number in range(5):
            a, b = x[:, number, None], x[None, :, number]
            if number in ORDERED:
                r = math.sqrt(5) * (a - b).abs() / lengthscales[number]
                product = product * (1 + r + r**2 / 3) * torch.exp(-r)
                total = total + (2 * a - 1) * (2 * b - 1)
            else:
                product = product * torch.exp(-(a != b).double() / lengthscales[number])
                total = total + (a == b).double()
        same = (x[:, None] == x[None]).all(dim=2).double()
        matrix = CONSTANT_VARIANCE + linear * total + local * product
        matrix = matrix + noise * (OWN_SHARE * same + torch.eye(12).double())
        evidence = torch.distributions.MultivariateNormal(torch.zeros(12).double(), matrix).log_prob(z)
        # the densities of positive values, times the Jacobian of their logarithms
        prior = LogNormalPrior(LENGTHSCALE_PRIOR[0] + 0.5 * math.log(5), LENGTHSCALE_PRIOR[1])
        gamma, normal = GammaPrior(*VARIANCE_PRIOR), NormalPrior(*NOISE_PRIOR)
        return (
            evidence
            + (prior.log_prob(lengthscales) + theta[:5]).sum()
            + (gamma.log_prob(theta[5:7].exp()) + theta[5:7]).sum()
            + normal.log_prob(theta[7])
        )

    here, there = (torch.from_numpy(hyperparameters(seed).pack()).requires_grad_() for seed in (4, 5))
    (gradient,) = torch.autograd.grad(definition(here), here)
    value, own_gradient = target(here.detach().numpy())
    np.testing.assert_allclose(own_gradient, gradient.numpy(), rtol=1e-5, atol=1e-6)
    # the value is known up to a constant
    difference = float((definition(here) - definition(there)).detach())
    assert value - target(there.detach().numpy())[0] == pytest.approx(difference, rel=1e-6)


def conditioned(x: Tensor, z: Tensor, at: Tensor, chosen: Hyperparameters) -> tuple[np.ndarray, np.ndarray]:
    """Rasmussen & Williams Eq. 2.23-2.24 with a plain inverse."""
    noise = chosen.noise_variance * np.eye(len(x))
    inverse = np.linalg.inv(covariance(x, x, COLUMNS, chosen).numpy() + noise)
    cross = covariance(x, at, COLUMNS, chosen).numpy()
    prior = covariance(at, at, COLUMNS, chosen).numpy()
    return cross.T @ inverse @ z.numpy(), prior - cross.T @ inverse @ cross


def test_posterior_is_the_mixture_of_textbook_posteriors() -> None:
    x, at = points(10, 6), points(6, 7)
    y = torch.from_numpy(np.random.default_rng(8).normal(30.0, 2.0, 10))
    draws = [hyperparameters(seed) for seed in (9, 10, 11)]
    posterior = Posterior(x, y, COLUMNS, draws)
    unit, shift = float(y.std()), float(y.mean())
    moments = [conditioned(x, (y - shift) / unit, at, chosen) for chosen in draws]
    mean = np.mean([each for each, _ in moments], axis=0)
    second = np.mean([each + np.outer(m, m) for m, each in moments], axis=0)
    expected = unit**2 * (second - np.outer(mean, mean))
    own_mean, variance = posterior.mean_and_variance(at)
    np.testing.assert_allclose(own_mean, shift + unit * mean, rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(expected), rtol=1e-7)
    low, high = posterior.interval(at, 0.9)
    noise = np.mean([chosen.noise_variance for chosen in draws])
    half = norm.ppf(0.95) * np.sqrt(np.diag(expected) + unit**2 * noise)
    np.testing.assert_allclose((high - low) / 2, half, rtol=1e-7)
    np.testing.assert_allclose((high + low) / 2, own_mean, rtol=1e-9)


def test_beside_what_was_told_moments_are_the_textbook_s() -> None:
    x, at = points(10, 6), points(6, 7)
    y = torch.from_numpy(np.random.default_rng(8).normal(30.0, 2.0, 10))
    draws = [hyperparameters(seed) for seed in (9, 10, 11)]
    posterior = Posterior(x, y, COLUMNS, draws)
    everything, rows = torch.cat([x, at]), torch.tensor([3, 0, 7])
    moments = [conditioned(x, posterior.warp(y), everything, chosen) for chosen in draws]
    mean = np.mean([each for each, _ in moments], axis=0)
    expected = np.mean([each + np.outer(m, m) for m, each in moments], axis=0) - np.outer(mean, mean)
    own, there, variance, between = posterior.beside(at, rows)
    np.testing.assert_allclose(own, mean[rows], rtol=1e-8)
    np.testing.assert_allclose(there, mean[10:], rtol=1e-8)
    np.testing.assert_allclose(variance, np.diag(expected)[10:], rtol=1e-7)
    np.testing.assert_allclose(between, expected[rows][:, 10:], rtol=1e-6, atol=1e-9)


def test_believing_is_observing_the_mean() -> None:
    x, at, pending = points(10, 6), points(6, 7), points(3, 8)
    y = torch.from_numpy(np.random.default_rng(8).normal(30.0, 2.0, 10))
    draws = [hyperparameters(seed) for seed in (9, 10)]
    posterior = Posterior(x, y, COLUMNS, draws)
    believing = posterior.believing(pending)
    for member, before in zip(believing.members, posterior.members, strict=True):
        mean, _ = before.mean_and_variance(pending)
        expected, spread = conditioned(
            torch.cat([x, pending]), torch.cat([before.z, mean]), at, before.hyperparameters
        )
        own_mean, own_variance = member.mean_and_variance(at)
        np.testing.assert_allclose(own_mean, expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(own_mean, before.mean_and_variance(at)[0], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(own_variance, np.diag(spread), rtol=1e-7)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_warp_is_scipy_s_yeo_johnson_between_standardisations(power: float) -> None:
    y = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 3.0, 40) + 20)
    warp = Warp.of(y, power)
    plain = (y.numpy() - y.numpy().mean()) / y.numpy().std(ddof=1)
    raised = yeojohnson(plain, power)
    expected = (raised - raised.mean()) / raised.std(ddof=1)
    np.testing.assert_allclose(warp(y), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(warp.inverse(warp(y)), y, rtol=1e-12)
    step = 1e-6
    slopes = (warp(y + step) - warp(y - step)) / (2 * step)
    assert warp.log_slope(y) == pytest.approx(float(slopes.log().sum()), rel=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_moments_pass_a_warp_as_numerical_integration_says(power: float) -> None:
    warp = Warp.of(torch.from_numpy(np.random.default_rng(1).normal(30, 2, 20)), power)
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
    x, chosen = points(9, 12), hyperparameters(13)
    y = torch.from_numpy(np.random.default_rng(14).normal(size=9))
    y = (y - y.mean()) / y.std()
    mean, variance = Posterior(x, y, COLUMNS, [chosen]).leave_one_out()
    for left_out in range(9):
        rest = [number for number in range(9) if number != left_out]
        expected, spread = conditioned(x[rest], y[rest], x[[left_out]], chosen)
        assert float(mean[left_out]) == pytest.approx(expected[0], rel=1e-8)
        assert float(variance[left_out]) == pytest.approx(spread[0, 0] + chosen.noise_variance, rel=1e-8)


def test_without_observations_a_fit_is_the_prior_around_its_mode() -> None:
    posterior = fit(torch.empty(0, 5).double(), torch.empty(0).double(), COLUMNS)
    logarithms = np.array([member.hyperparameters.pack() for member in posterior.members])
    middle = LENGTHSCALE_PRIOR[0] + 0.5 * math.log(5)
    np.testing.assert_allclose(logarithms[:, :5].mean(axis=0), middle, atol=0.2)
    np.testing.assert_allclose(logarithms[:, :5].std(axis=0), LENGTHSCALE_PRIOR[1], atol=0.25)
    assert logarithms[:, -1].mean() == pytest.approx(NOISE_PRIOR[0], abs=0.2)


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
        x, chosen = points(112, seed), hyperparameters(seed)
        latent = cholesky(covariance(x, x, COLUMNS, chosen)) @ torch.from_numpy(generator.normal(size=112))
        y = latent + math.sqrt(chosen.noise_variance) * torch.from_numpy(generator.normal(size=112))
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


def with_tasks(seed: int) -> Hyperparameters:
    return Hyperparameters.unpack(np.random.default_rng(seed).normal(-0.5, 0.7, 10))


def test_tasks_tie_all_but_their_constants() -> None:
    """Bonilla et al. 2007, Eq. 1, from GPyTorch's covariance of one task."""
    x1, x2, chosen = points(6, 0), points(7, 1), with_tasks(2)
    alone = Hyperparameters.unpack(np.delete(chosen.pack(), [5, 6]))
    single = gpytorch_covariance(x1, x2, alone)
    first, second = np.exp(-1 / chosen.lengthscales[5:7].numpy())
    for a, b, tie in (((0, 0), (0, 0), 1.0), ((0, 0), (1, 0), first), ((1, 0), (0, 1), first * second)):
        same = 1.0 if a == b else 0.0
        expected = tie * (single - CONSTANT_VARIANCE) + same * CONSTANT_VARIANCE
        own = covariance(in_task(x1, *a), in_task(x2, *b), TASKS, chosen)
        torch.testing.assert_close(own, expected, atol=1e-7, rtol=1e-7)
    x = in_task(x1, 1, 0)
    diagonal = covariance(x, x, TASKS, chosen).diagonal()
    torch.testing.assert_close(prior_variance(x, TASKS, chosen), diagonal)


def test_log_posterior_of_tasks_is_that_of_their_covariance() -> None:
    x = torch.cat([in_task(points(7, 2), 0, 0), in_task(points(8, 3), 1, 0), in_task(points(5, 2), 0, 1)])
    z = torch.from_numpy(np.random.default_rng(3).normal(size=20))
    target = LogPosterior(x, z, TASKS)

    def density(theta: np.ndarray) -> float:
        chosen = Hyperparameters.unpack(theta)
        matrix = covariance(x, x, TASKS, chosen) + chosen.noise_variance * torch.eye(20).double()
        evidence = torch.distributions.MultivariateNormal(torch.zeros(20).double(), matrix).log_prob(z)
        middle = LENGTHSCALE_PRIOR[0] + 0.5 * math.log(5)
        priors = norm(middle, LENGTHSCALE_PRIOR[1]).logpdf(theta[:5]).sum()
        priors += norm(*TASK_PRIOR).logpdf(theta[5:7]).sum() + norm(*NOISE_PRIOR).logpdf(theta[9])
        shape, rate = VARIANCE_PRIOR
        priors += (gamma(shape, scale=1 / rate).logpdf(np.exp(theta[7:9])) + theta[7:9]).sum()
        return float(evidence) + float(priors)

    here, there = with_tasks(4).pack(), with_tasks(5).pack()
    value, gradient = target(here)
    assert value - target(there)[0] == pytest.approx(density(here) - density(there), rel=1e-9)
    step = 1e-5
    numeric = [(density(here + step * e) - density(here - step * e)) / (2 * step) for e in np.eye(10)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)


def related(seed: int, rho: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points and two functions on them that correlate by rho."""
    x = points(150, seed)
    chosen = Hyperparameters(torch.full((5,), 2.0).double(), 0.5, 0.5, 0.02)
    factor = cholesky(covariance(x, x, COLUMNS, chosen) - CONSTANT_VARIANCE)
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
