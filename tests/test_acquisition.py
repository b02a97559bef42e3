"""Scores equal their definitions: closed forms, numerical integrals and BoTorch's."""

import math

import pytest
import torch
from botorch.acquisition.analytic import _log_ei_helper

from gpnas.acquisition import (
    log_expected_improvement,
    log_noisy_expected_improvement,
    log_success_probability,
)
from gpnas.space import Column
from gpnas.surrogate import fit

COLUMNS = (Column("a", "ordered"), Column("b", "ordered"))


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_log_expected_improvement_equals_botorchs() -> None:
    u = torch.linspace(-30, 10, 401, dtype=torch.float64)
    torch.testing.assert_close(
        log_expected_improvement(u, tensor(1.0), tensor(0.0)), _log_ei_helper(u), rtol=1e-9, atol=1e-9
    )


def test_log_expected_improvement_equals_its_integral() -> None:
    mean, stddev, best = 1.2, 0.7, 1.5
    f = torch.linspace(best, mean + 12 * stddev, 400_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((f - mean) / stddev) ** 2) / (stddev * math.sqrt(2 * math.pi))
    integral = torch.trapezoid((f - best) * density, f)
    value = log_expected_improvement(tensor(mean), tensor(stddev), tensor(best)).exp()
    assert float(value) == pytest.approx(float(integral), rel=1e-8)


def test_it_stays_finite_and_monotone_however_far() -> None:
    u = -torch.logspace(0, 6, 300, dtype=torch.float64)
    values = log_expected_improvement(u, tensor(1.0), tensor(0.0))
    assert bool(values.isfinite().all())
    assert bool((values.diff() < 0).all())


def observed() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    y = x.sum(dim=1) + 0.2 * torch.randn(8, generator=generator, dtype=torch.float64)
    return x, y


def test_noisy_expected_improvement_equals_plain_monte_carlo() -> None:
    """E over joint draws of candidate and base values, from the joint posterior itself."""
    x, y = observed()
    posterior = fit(x, y, COLUMNS)
    pending = tensor(0.9, 0.9)[None]
    base = torch.cat([x, pending])
    query = torch.rand(5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scores = log_noisy_expected_improvement(posterior, query, base, seed=0).exp()
    mean, joint = posterior.joint(torch.cat([base, query]))
    factor = torch.linalg.cholesky(joint + 1e-9 * torch.eye(len(mean)))
    normal = torch.randn(400_000, len(mean), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = mean + normal @ factor.T
    best = draws[:, : len(base)].max(dim=1, keepdim=True).values
    expected = (draws[:, len(base) :] - best).clamp_min(0).mean(dim=0)
    torch.testing.assert_close(scores, expected, rtol=0.12, atol=2e-3)


def test_a_pending_point_lowers_the_score_around_it() -> None:
    x, y = observed()
    posterior = fit(x, y, COLUMNS)
    query = tensor(0.95, 0.95)[None]
    without = log_noisy_expected_improvement(posterior, query, x, seed=0)
    with_pending = log_noisy_expected_improvement(posterior, query, torch.cat([x, query + 0.01]), seed=0)
    assert float(with_pending) < float(without) - 0.5


def test_scores_do_not_depend_on_the_unit() -> None:
    """In other units of the objective, every score moves by the same constant."""
    x, y = observed()
    query = torch.rand(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    plain, scaled = (
        log_noisy_expected_improvement(fit(x, unit * y + 30, COLUMNS), query, x, seed=0) for unit in (1, 100)
    )
    torch.testing.assert_close(scaled - plain, torch.full_like(plain, math.log(100)), atol=1e-4, rtol=0)


def test_success_is_certain_until_something_fails_and_then_falls_around_it() -> None:
    nothing = torch.empty(0, 2, dtype=torch.float64)
    query = tensor(0.9, 0.9)[None]
    assert float(log_success_probability(query, nothing, nothing, COLUMNS)) == 0
    near, far = (
        float(log_success_probability(query, nothing, tensor(*at)[None], COLUMNS).exp())
        for at in ((0.9, 0.9), (0.1, 0.1))
    )
    assert near < 0.3 < 0.5 < far


def test_success_is_learned_along_an_axis() -> None:
    """Where the dear half fails, dear ones that were never tried are expected to fail too."""
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fails = x[:, 0] > 0.5
    query = torch.rand(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chance = log_success_probability(query, x[~fails], x[fails], COLUMNS).exp()
    right = (chance < 0.5) == (query[:, 0] > 0.5)
    assert float(right.double().mean()) > 0.9
