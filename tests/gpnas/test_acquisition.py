"""Scores against numerical integration, BoTorch and plain Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import _log_ei_helper
from scipy.integrate import quad
from torch import Tensor

from gpnas.acquisition import (
    log_expected_improvement,
    log_knowledge_gradient,
    log_noisy_expected_improvement,
    log_success_probability,
)
from gpnas.space import Column
from gpnas.surrogate import Hyperparameters, Member, Posterior, fit

COLUMNS = (Column("features", "ordered"), Column("fuse", "categorical"), Column("parameters", "cost"))


PLAIN = (Column("a", "ordered"), Column("b", "ordered"))


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def observed() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    y = x.sum(dim=1) + 0.2 * torch.randn(8, generator=generator, dtype=torch.float64)
    return x, y


def points(n: int, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    x = generator.uniform(size=(n, 3))
    x[:, 1] = generator.integers(0, 2, n)
    return torch.from_numpy(x)


@pytest.mark.parametrize(
    ("mean", "stddev", "best"), [(0.0, 1.0, 0.0), (2.0, 0.5, 1.0), (-1.0, 2.0, 1.5), (3.0, 1.0, -4.0)]
)
def test_expected_improvement_is_its_integral(mean: float, stddev: float, best: float) -> None:
    def integrand(f: float) -> float:
        density = math.exp(-0.5 * ((f - mean) / stddev) ** 2) / (stddev * math.sqrt(2 * math.pi))
        return (f - best) * density

    expected, _ = quad(integrand, best, max(best, mean) + 12 * stddev)
    score = log_expected_improvement(torch.tensor(mean).double(), torch.tensor(stddev).double(), best)
    assert float(score.exp()) == pytest.approx(expected, rel=1e-9)


def test_expected_improvement_is_stable_as_botorch_s_far_below_the_best() -> None:
    u = torch.cat([torch.linspace(-60, 8, 500), -torch.logspace(0, 7, 100)]).double()
    own = log_expected_improvement(u, torch.ones_like(u), 0.0)
    torch.testing.assert_close(own, _log_ei_helper(u), rtol=1e-6, atol=1e-9)
    assert bool((own.diff()[:499] > 0).all())


def mixture(noise: float) -> Posterior:
    x = points(5, 0)
    y = torch.tensor([29.0, 31.0, 30.2, 30.9, 28.0], dtype=torch.float64)
    generator = np.random.default_rng(1)
    draws = [
        Hyperparameters.unpack(np.append(generator.normal(-0.5, 0.5, 5), math.log(noise))) for _ in range(3)
    ]
    return Posterior(x, y, COLUMNS, draws)


def test_noisy_expected_improvement_is_plain_monte_carlo_over_all_that_is_unknown() -> None:
    posterior = mixture(noise=0.2)
    pending, candidates = points(2, 2), points(6, 3)
    base = torch.cat([posterior.x, pending])
    generator = torch.Generator().manual_seed(4)
    improvements = torch.zeros(6, dtype=torch.float64)
    everything = torch.cat([base, candidates])
    for member in posterior.members:
        mean, _, joint = member.joint(everything, everything)
        factor = torch.linalg.cholesky(joint + 1e-9 * torch.eye(13))
        normal = torch.randn(400_000, 13, generator=generator, dtype=torch.float64)
        values = mean + normal @ factor.T
        best = values[:, :7].max(dim=1, keepdim=True).values
        improvements += (values[:, 7:] - best).clamp_min(0).mean(dim=0) / 3
    own = log_noisy_expected_improvement(posterior, candidates, base, seed=5, draws=1024).exp()
    torch.testing.assert_close(own, improvements, rtol=0.03, atol=1e-4)


def test_without_noise_it_is_expected_improvement_over_the_best_observation() -> None:
    posterior = mixture(noise=1e-5)
    candidates = points(6, 6)
    expected = torch.zeros(6, dtype=torch.float64)
    for member in posterior.members:
        mean, variance = member.mean_and_variance(candidates)
        expected += log_expected_improvement(mean, variance.sqrt(), member.z.max()).exp() / 3
    own = log_noisy_expected_improvement(posterior, candidates, posterior.x, seed=7).exp()
    torch.testing.assert_close(own, expected, rtol=0.05, atol=1e-3)


def test_a_pending_architecture_leaves_little_to_gain_at_its_place() -> None:
    x = torch.linspace(0, 1, 41).double()[:, None].repeat(1, 3)
    x[:, 1] = 0
    observed = torch.tensor([0, 10, 30, 40])
    y = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    posterior = fit(x[observed], y, COLUMNS)
    alone = log_noisy_expected_improvement(posterior, x, x[observed], seed=8)
    best = int(alone.argmax())
    base = torch.cat([x[observed], x[[best]]])
    beside = log_noisy_expected_improvement(posterior, x, base, seed=8)
    assert float(beside[best]) < float(alone[best]) - 3
    assert int(beside.argmax()) != best


def test_knowledge_gradient_is_the_integral_over_the_next_observation() -> None:
    """Each imagined observation is added to the data and the best posterior mean read off."""
    (chosen,) = mixture(noise=0.2).members[:1]
    y = torch.tensor([29.0, 31.0, 30.2, 30.9, 28.0], dtype=torch.float64)
    posterior = Posterior(chosen.x, y, COLUMNS, [chosen.hyperparameters])
    candidates = torch.cat([points(4, 3), chosen.x[[1]]])  # a replicate among them
    before = posterior.latent(chosen.x)[0].max()
    noise = chosen.hyperparameters.noise_variance
    normal = torch.special.ndtri((torch.arange(2_000).double() + 0.5) / 2_000)
    expected = []
    for candidate in candidates:
        mean, variance = posterior.latent(candidate[None])
        trained = torch.cat([chosen.x, candidate[None]])
        best = 0.0
        outcomes = mean + (variance + noise).sqrt() * normal
        for outcome in outcomes:
            after = Member(trained, torch.cat([chosen.z, outcome[None]]), COLUMNS, chosen.hyperparameters)
            best += float(after.mean_and_variance(trained)[0].max()) / len(outcomes)
        expected.append(best - float(before))
    own = log_knowledge_gradient(posterior, candidates, torch.arange(5)).exp()
    torch.testing.assert_close(own, tensor(*expected), rtol=0.08, atol=5e-3)
    assert int(own.argmax()) == int(tensor(*expected).argmax())


def test_a_replicate_of_what_is_known_for_certain_is_worth_nothing() -> None:
    posterior = mixture(noise=1e-5)
    assert bool((log_knowledge_gradient(posterior, posterior.x, torch.arange(5)).exp() < 1e-3).all())


def test_scores_do_not_depend_on_the_unit() -> None:
    x, y = observed()
    query = torch.rand(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    plain, scaled = (
        log_noisy_expected_improvement(fit(x, unit * y + 30, PLAIN), query, x, seed=0) for unit in (1, 100)
    )
    torch.testing.assert_close(scaled, plain, atol=1e-4, rtol=0)


def test_success_is_certain_until_something_fails_and_then_falls_around_it() -> None:
    nothing = torch.empty(0, 2, dtype=torch.float64)
    query = tensor(0.9, 0.9)[None]
    assert float(log_success_probability(query, nothing, nothing, PLAIN)) == 0
    near, far = (
        float(log_success_probability(query, nothing, tensor(*at)[None], PLAIN).exp())
        for at in ((0.9, 0.9), (0.1, 0.1))
    )
    assert near < 0.3 < 0.5 < far


def test_success_is_learned_along_an_axis() -> None:
    """Where the dear half fails, dear ones that were never tried are expected to fail too."""
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fails = x[:, 0] > 0.5
    query = torch.rand(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chance = log_success_probability(query, x[~fails], x[fails], PLAIN).exp()
    right = (chance < 0.5) == (query[:, 0] > 0.5)
    assert float(right.double().mean()) > 0.9
