"""A portfolio is what brute force over real residual images finds."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import gpnas.portfolio
from gpnas.portfolio import choose


def residual_images(n: int = 7, images: int = 3, pixels: int = 400, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(images, n, pixels, generator=generator, dtype=torch.float64)
    common = torch.randn(images, 1, pixels, generator=generator, dtype=torch.float64)
    sizes = torch.linspace(0.02, 0.05, n, dtype=torch.float64)
    return own * sizes[:, None] + 0.02 * common


def products(residuals: torch.Tensor) -> torch.Tensor:
    return residuals @ residuals.transpose(1, 2) / residuals.shape[2]


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_the_choice_is_the_best_average_of_images(k: int) -> None:
    residuals = residual_images()

    def psnr(subset: tuple[int, ...]) -> float:
        average = residuals[:, list(subset)].mean(dim=1)
        return float((-10 * average.square().mean(dim=1).log10()).mean())

    expected = max(itertools.combinations(range(7), k), key=psnr)
    choice = choose(products(residuals), k)
    assert set(choice.members) == set(expected)
    assert choice.psnr == pytest.approx(psnr(expected), abs=1e-9)


def test_heterogeneity_beats_individual_quality() -> None:
    """Two networks with equal errors gain nothing by their average; a worse, different one helps."""
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 1, 1000, generator=generator, dtype=torch.float64)
    residuals = torch.cat([a, a * 1.001, b * 1.1])[None] * 0.03
    assert set(choose(products(residuals), 2).members) == {0, 2}


def test_convex_weights_equal_a_general_solver() -> None:
    gram = products(residual_images())
    choice = choose(gram, 3, convex=True)
    members = gram[:, list(choice.members)][:, :, list(choice.members)].numpy()
    solved = minimize(
        lambda w: np.mean([np.log(w @ product @ w) for product in members]),
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(choice.weights, solved.x, atol=1e-4)
    assert choice.psnr == pytest.approx(-10 / np.log(10) * solved.fun, abs=1e-6)


def test_a_weighted_average_is_never_worse_than_its_best_member() -> None:
    for seed in range(20):
        gram = products(residual_images(seed=seed) * torch.linspace(0.1, 3, 7)[:, None])
        assert choose(gram, 3, convex=True).psnr >= choose(gram, 1).psnr - 1e-12


def test_every_member_keeps_its_least_weight() -> None:
    """A network far worse than another would get no weight; with a least weight the rest is optimal."""
    gram = products(residual_images() * torch.linspace(0.3, 3, 7)[:, None])
    choice = choose(gram, 3, convex=True, least=0.1)
    assert min(choice.weights) == pytest.approx(0.1, abs=1e-6)
    members = gram[:, list(choice.members)][:, :, list(choice.members)].numpy()
    solved = minimize(
        lambda w: np.mean([np.log(w @ product @ w) for product in members]),
        np.full(3, 1 / 3),
        bounds=[(0.1, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(choice.weights, solved.x, atol=1e-4)
    equal = choose(gram, 3, convex=True, least=1 / 3)
    assert equal.psnr == pytest.approx(choose(gram, 3).psnr, abs=1e-12)
    with pytest.raises(ValueError, match="`0 <= least <= 1/k` must hold"):
        choose(gram, 3, convex=True, least=0.5)


def test_swaps_find_what_enumeration_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = 0
    for seed in range(20):
        gram = products(residual_images(seed=seed))
        exact = choose(gram, 3).psnr
        monkeypatch.setattr(gpnas.portfolio, "EXHAUSTIVE", 0)
        greedy = choose(gram, 3).psnr
        monkeypatch.undo()
        assert greedy <= exact + 1e-12
        found += greedy == pytest.approx(exact, abs=1e-12)
    assert found >= 18


def test_what_breaks_a_rule_is_named() -> None:
    gram = products(residual_images())
    with pytest.raises(ValueError, match="`1 <= k <= 7` must hold, but got k=8"):
        choose(gram, 8)
    with pytest.raises(ValueError, match=r"must be \(images, n, n\)"):
        choose(gram[0], 2)
