"""Scores against numerical integration, BoTorch and plain Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement
from torch import Tensor

from gpnas.acquisition import (
    LogKnowledgeGradient,
    LogNoisyExpectedImprovement,
    log_knowledge_gradient,
    log_success_probability,
    success_labels,
)
from gpnas.space import Column
from gpnas.surrogate import Surrogate, Warp, fit, likeliest

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


def mixture(noise: float, members: int = 3) -> Surrogate:
    y = torch.tensor([29.0, 31.0, 30.2, 30.9, 28.0], dtype=torch.float64)
    generator = np.random.default_rng(1)
    draws = [np.append(generator.normal(-0.5, 0.5, 5), math.log(noise)) for _ in range(members)]
    return Surrogate(points(5, 0), y, COLUMNS, torch.from_numpy(np.stack(draws)))


@pytest.mark.parametrize("members", [3, 4, 16])
def test_noisy_expected_improvement_is_plain_monte_carlo_over_all_that_is_unknown(members: int) -> None:
    model = mixture(0.2, members)
    pending, candidates = points(2, 2), points(6, 3)
    base = torch.cat([model.x, pending])
    generator = torch.Generator().manual_seed(4)
    improvements = torch.zeros(6, dtype=torch.float64)
    for mean, joint in zip(*model.joint(torch.cat([base, candidates])), strict=True):
        factor = torch.linalg.cholesky(joint + 1e-9 * torch.eye(13))
        normal = torch.randn(1_200_000 // members, 13, generator=generator, dtype=torch.float64)
        values = mean + normal @ factor.T
        best = values[:, :7].max(dim=1, keepdim=True).values
        improvements += (values[:, 7:] - best).clamp_min(0).mean(dim=0) / members
    own = LogNoisyExpectedImprovement(model, base, seed=5, draws=4096 // members)(candidates[:, None]).exp()
    torch.testing.assert_close(own, improvements, rtol=0.03, atol=1e-4)


def test_without_noise_it_is_botorch_s_expected_improvement_over_the_best_observation() -> None:
    model = mixture(noise=1e-5)
    candidates = points(6, 6)[:, None]
    unit = float(model.y.std())
    expected = LogExpectedImprovement(model, best_f=model.y.max())(candidates).exp() / unit
    own = LogNoisyExpectedImprovement(model, model.x, seed=7)(candidates).exp()
    torch.testing.assert_close(own, expected, rtol=0.05, atol=1e-3)


def test_a_pending_architecture_leaves_little_to_gain_at_its_place() -> None:
    x = torch.linspace(0, 1, 41).double()[:, None].repeat(1, 3)
    x[:, 1] = 0
    observed = torch.tensor([0, 10, 30, 40])
    y = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    model = fit(x[observed], y, COLUMNS)
    alone = LogNoisyExpectedImprovement(model, x[observed], seed=8)(x[:, None])
    best = int(alone.argmax())
    base = torch.cat([x[observed], x[[best]]])
    beside = LogNoisyExpectedImprovement(model, base, seed=8)(x[:, None])
    assert float(beside[best]) < float(alone[best]) - 3
    assert int(beside.argmax()) != best


def test_knowledge_gradient_is_the_integral_over_the_next_observation() -> None:
    """Each imagined observation is added to the data and the best posterior mean read off."""
    whole = mixture(noise=0.2)
    model = Surrogate(whole.x, whole.y, COLUMNS, whole.theta[:1])
    candidates = torch.cat([points(4, 3), model.x[[1]]])  # a replicate among them
    before = model.latent(model.x)[0].max()
    z, identity = model.warp.latent(model.y), Warp(model.y[:0])
    normal = torch.special.ndtri((torch.arange(100).double() + 0.5) / 100)
    expected = []
    for candidate in candidates:
        mean, variance = model.latent(candidate[None])
        trained = torch.cat([model.x, candidate[None]])
        best = 0.0
        outcomes = mean + (variance + model.noise).sqrt() * normal
        for outcome in outcomes:
            after = Surrogate(trained, torch.cat([z, outcome[None]]), COLUMNS, model.theta, identity)
            best += float(after.latent(trained)[0].max()) / len(outcomes)
        expected.append(best - float(before))
    own = LogKnowledgeGradient(model, model.x[:5])(candidates[:, None]).exp()
    torch.testing.assert_close(own, tensor(*expected), rtol=0.08, atol=5e-3)
    assert int(own.argmax()) == int(tensor(*expected).argmax())


@pytest.mark.parametrize("distance", [0.5, 3.0, 6.0, 12.0])
def test_knowledge_gradient_knows_rare_outcomes(distance: float) -> None:
    """Of lines a + b Z it is E[max] less the largest a, also where no share of outcomes turns their order."""
    own, noise = tensor(0.4, 0.1, 0.0), 0.3
    variance, slopes = 0.2, tensor(0.1, 0.05, -0.02)
    outcome = math.sqrt(variance + noise)
    mean = 0.4 - distance * (variance / outcome - 0.1)  # overtakes the first where Z is this far out
    found = log_knowledge_gradient(own, tensor(mean), tensor(variance), slopes[:, None] * outcome, noise)
    z = np.linspace(-40, 40, 4_000_001)
    best = np.full_like(z, -np.inf)
    for start, rise in zip([*own.tolist(), mean], [*slopes.tolist(), variance / outcome], strict=True):
        best = np.maximum(best, start + rise * z)
    gained = best - float(own[0]) - float(slopes[0]) * z
    expected = float(np.log(np.trapezoid(gained * np.exp(-z * z / 2) / math.sqrt(2 * math.pi), z)))
    if distance < 1:  # by the shares of outcomes
        assert float(found) == pytest.approx(expected, abs=0.05)
    else:  # by the one that overtakes, of four
        assert expected - math.log(4) <= float(found) <= expected + 1e-6


def test_a_replicate_of_what_is_known_for_certain_is_worth_nothing() -> None:
    model = mixture(noise=1e-5)
    gradient = LogKnowledgeGradient(model, model.x[:5])
    assert bool((gradient(model.x[:, None]).exp() < 1e-3).all())


def test_scores_do_not_depend_on_the_unit() -> None:
    x, y = observed()
    query = torch.rand(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    plain, scaled = (
        LogNoisyExpectedImprovement(fit(x, unit * y + 30, PLAIN), x, seed=0)(query[:, None])
        for unit in (1, 100)
    )
    torch.testing.assert_close(scaled, plain, atol=1e-4, rtol=0)


def chance(x: Tensor, succeeded: Tensor, failed: Tensor) -> Tensor:
    """The chance of success, as learned from what succeeded and failed."""
    model = likeliest(*success_labels(succeeded, failed), PLAIN)
    return log_success_probability(model, x).exp()


def test_success_falls_around_what_failed() -> None:
    nothing = torch.empty(0, 2, dtype=torch.float64)
    query = tensor(0.9, 0.9)[None]
    near, far = (float(chance(query, nothing, tensor(*at)[None])) for at in ((0.9, 0.9), (0.1, 0.1)))
    assert near < 0.3 < 0.5 < far


def test_success_is_learned_along_an_axis() -> None:
    """Where the dear half fails, dear ones that were never tried are expected to fail too."""
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fails = x[:, 0] > 0.5
    query = torch.rand(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    right = (chance(query, x[~fails], x[fails]) < 0.5) == (query[:, 0] > 0.5)
    assert float(right.double().mean()) > 0.9
