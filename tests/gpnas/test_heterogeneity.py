"""What a network adds to a portfolio, against averages of residuals made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gpnas import Engine, Observation, SearchSpace
from gpnas.heterogeneity import (
    CORRELATION,
    Disagreement,
    correlations_from,
    leave_one_out,
    log_portfolio_improvement,
    measured_correlation,
    overlaps,
)
from gpnas.portfolio import choose
from gpnas.records import Candidate
from gpnas.space import CategoricalAxis, Column, Family, IntegerAxis

COLUMNS = (Column("features", "ordered"), Column("fuse", "categorical"))


def psnr(residual: Tensor) -> float:
    return float(-10 * residual.square().mean().log10())


def networks(n: int, seed: int) -> Tensor:
    """(n, 500) residuals with much in common."""
    generator = torch.Generator().manual_seed(seed)
    common, own = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((1, 500), (n, 500))
    )
    sizes = 0.03 + 0.01 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return sizes * (common + 0.5 * own)


def correlation_of(residuals: Tensor) -> Tensor:
    gram = residuals @ residuals.T
    return gram / gram.diagonal().sqrt().outer(gram.diagonal().sqrt())


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_a_known_network_adds_what_averages_of_residuals_say(size: int) -> None:
    residuals = networks(9, seed=size)
    trained, candidates = residuals[:5], residuals[5:]
    values = torch.tensor([psnr(each) for each in residuals], dtype=torch.float64)
    correlation = correlation_of(residuals)
    gram = trained @ trained.T / 500
    chosen = list(choose(gram[None], min(size, 5)).members)
    before = psnr(trained[chosen].mean(dim=0))
    expected = []
    for candidate in candidates:
        grown = [[*chosen]] if size > 5 else [[m for m in chosen if m != left] for left in chosen]
        after = [psnr(torch.cat([trained[kept], candidate[None]]).mean(dim=0)) for kept in grown]
        expected.append(max(0.0, max(after) - before))
    own = log_portfolio_improvement(
        values[5:],
        torch.zeros(4).double(),
        values[:5],
        correlation[:5, :5],
        overlaps(correlation, values)[5:, :5],
        size,
    )
    torch.testing.assert_close(own.exp(), torch.tensor(expected).double(), atol=1e-9, rtol=1e-6)


def test_an_uncertain_network_adds_the_mean_over_what_it_may_be() -> None:
    trained = torch.tensor([30.0, 29.5, 29.0], dtype=torch.float64)
    correlation = torch.full((3, 3), 0.9, dtype=torch.float64).fill_diagonal_(1)
    cross = torch.tensor([[0.8, 0.85, 0.9]], dtype=torch.float64)
    mean, stddev = (torch.tensor([each], dtype=torch.float64) for each in (29.2, 0.6))

    def added(value: Tensor) -> Tensor:
        nothing = torch.zeros_like(value)
        crosses = cross.expand(len(value), 3)
        return log_portfolio_improvement(value, nothing, trained, correlation, crosses, 2).exp()

    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = float(added(mean + stddev * normal).mean())
    own = log_portfolio_improvement(mean, stddev, trained, correlation, cross, 2).exp()
    assert float(own) == pytest.approx(expected, rel=0.03)


def test_disagreement_is_learned_from_pairs_and_told_by_distance() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    x[:, 1] = (x[:, 1] > 0.5).double()
    apart = (x[:, None] - x[None]).abs()
    x[1], apart[1], apart[:, 1] = x[0], apart[0], apart[:, 0]  # a replicate
    apart[1, 1] = 0
    truth = 1 - (0.03 + 0.05 * (apart.sum(dim=2) > 0) + 0.2 * apart[..., 0] + 0.1 * (apart[..., 1] > 0))
    truth.fill_diagonal_(1)
    truth[3, 4] = truth[4, 3] = math.nan
    learned = Disagreement.fitted(x, truth, COLUMNS)
    known = ~truth.isnan() & ~torch.eye(12, dtype=torch.bool)
    predicted = learned(x, x, COLUMNS)
    torch.testing.assert_close(predicted[known], truth[known], atol=0.02, rtol=0)
    nothing = Disagreement.fitted(x[:0], truth[:0, :0], COLUMNS)
    assert 0.9 < float(nothing(x[:1], x[1:2], COLUMNS)) < 1


SPACE = SearchSpace(
    [
        Family(
            "net",
            (
                CategoricalAxis("kind", ("a", "b", "c", "d")),
                IntegerAxis("features", tuple(range(1, 7))),
                IntegerAxis("blocks", tuple(range(1, 7))),
            ),
        )
    ]
)


def world(seed: int) -> Tensor:
    """Residuals of every architecture: kinds differ in how good they are, and err alike within."""
    generator = torch.Generator().manual_seed(seed)
    common, kinds, own = (
        torch.randn(n, 600, generator=generator, dtype=torch.float64) for n in (1, 4, len(SPACE))
    )
    peaks = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    worse = 0.25 * torch.randperm(4, generator=generator)
    kind, numbers = SPACE.features[:, 0].long(), SPACE.features[:, 1:]
    residuals = common + 0.6 * kinds[kind] + 0.25 * own
    values = 30 - worse[kind] - 1.5 * (numbers - peaks[kind]).square().sum(dim=1)
    return residuals / residuals.square().mean(dim=1, keepdim=True).sqrt() * 10 ** (-values[:, None] / 20)


def best_average(residuals: Tensor) -> float:
    return choose((residuals @ residuals.T / 600)[None], 3).psnr


def searched(residuals: Tensor, portfolio: int) -> float:
    """PSNR of the best average of three after 16 trials."""
    engine = Engine(SPACE, trials=16, portfolio=portfolio)
    indices: list[int] = []
    done: list[Candidate] = []
    correlation = correlation_of(residuals)
    for _ in range(16):
        (candidate,) = engine.suggest(1)
        index = SPACE.index(candidate.architecture)
        metrics = {
            CORRELATION + each.id: float(correlation[index, other])
            for each, other in zip(done, indices, strict=True)
        }
        engine.observe(Observation(candidate, psnr(residuals[index]), metrics=metrics))
        indices.append(index)
        done.append(candidate)
    return best_average(residuals[sorted(set(indices))])


def test_a_search_for_a_portfolio_comes_nearer_to_the_best_portfolio() -> None:
    plain, aware = [], []
    for seed in range(5):
        residuals = world(seed)
        best = choose_of_kinds(residuals)
        plain.append(best - searched(residuals, 1))
        aware.append(best - searched(residuals, 3))
    assert sum(aware) < 0.75 * sum(plain)


def choose_of_kinds(residuals: Tensor) -> float:
    """The best average of three, each the best of its kind."""
    values = torch.tensor([psnr(each) for each in residuals])
    kind = SPACE.features[:, 0].long()
    leaders = [int(torch.where(kind == k, values, -math.inf).argmax()) for k in range(4)]
    return best_average(residuals[leaders])


def test_correlations_are_read_from_observations() -> None:
    engine = Engine(SPACE)
    a, b, c = engine.suggest(3)
    observations = [
        Observation(a, 30.0),
        Observation(b, 31.0, metrics={"ssim": 0.9, f"{CORRELATION}{a.id}": 0.97}),
        Observation(c, 29.0, metrics={f"{CORRELATION}c9999": 0.5}),
    ]
    found = measured_correlation(observations)
    assert found[0, 1] == found[1, 0] == 0.97
    assert found.diagonal().tolist() == [1.0, 1.0, 1.0]
    assert bool(found[2, :2].isnan().all())


def test_what_distance_explains_is_predicted_of_a_network_left_out() -> None:
    """Correlations that fall with distance exactly; their mean as the prediction errs by their spread."""
    x = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    apart = (x - x.T).abs()
    correlation = 0.95 - 0.2 * apart + 0.05 * torch.eye(9)
    values = torch.full((9,), 28.0, dtype=torch.float64)
    error, guess = leave_one_out(x, correlation, COLUMNS[:1], values)
    assert error < 0.01
    distances = apart[~torch.eye(9, dtype=torch.bool)]
    assert guess == pytest.approx(0.2 * float(distances.std()), rel=0.1)
    correlation[2, 5] = correlation[5, 2] = math.nan  # not measured: not judged by
    assert leave_one_out(x, correlation, COLUMNS[:1], values)[0] < 0.01
    assert all(map(math.isnan, leave_one_out(x[:2], correlation[:2, :2], COLUMNS[:1], values[:2])))


def test_errors_that_contain_each_other_overlap_wholly() -> None:
    """Of e and e + f, with f and e independent, the mean product is that of e with itself."""
    generator = torch.Generator().manual_seed(4)
    e, f = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    residuals = torch.stack([0.03 * e, 0.03 * e + 0.02 * f])
    values = torch.tensor([psnr(each) for each in residuals], dtype=torch.float64)
    correlation = correlation_of(residuals)
    assert float(correlation[0, 1]) == pytest.approx(10 ** (-float(values[0] - values[1]) / 20), abs=2e-3)
    overlap = overlaps(correlation, values)
    torch.testing.assert_close(overlap, torch.ones(2, 2).double(), atol=5e-3, rtol=0)
    torch.testing.assert_close(correlations_from(overlap, values, values), correlation)


def test_correlations_are_predicted_from_differences_in_quality() -> None:
    """Networks of one kind that err alike, the worse ones more."""
    values = torch.linspace(26, 29, 8, dtype=torch.float64)
    correlation = 10 ** (-(values[:, None] - values).abs() / 20)
    x = torch.rand(8, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    error, guess = leave_one_out(x, correlation, COLUMNS[:1], values)
    assert error < 0.005 < 0.04 < guess
