"""A portfolio is what brute force over real residual images finds."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

import gpnas.portfolio
from gpnas.portfolio import Choice, Floats, Limits, choose, correlations, ensemble_psnr, frontier


def residual_images(n: int = 7, images: int = 3, pixels: int = 400, seed: int = 0) -> Floats:
    generator = np.random.default_rng(seed)
    own = generator.standard_normal((images, n, pixels))
    common = generator.standard_normal((images, 1, pixels))
    return own * np.linspace(0.02, 0.05, n)[:, None] + 0.02 * common


def products(residuals: Floats) -> Floats:
    return residuals @ residuals.transpose(0, 2, 1) / residuals.shape[2]


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_the_choice_is_the_best_average_of_images(k: int) -> None:
    residuals = residual_images()

    def psnr(subset: tuple[int, ...]) -> float:
        average = residuals[:, list(subset)].mean(axis=1)
        return float((-10 * np.log10((average**2).mean(axis=1))).mean())

    expected = max(itertools.combinations(range(7), k), key=psnr)
    choice = choose(products(residuals), k)
    assert set(choice.members) == set(expected)
    assert choice.psnr == pytest.approx(psnr(expected), abs=1e-9)


def test_heterogeneity_beats_individual_quality() -> None:
    """Two networks with equal errors gain nothing by their average; a worse, different one helps."""
    a, b = np.random.default_rng(1).standard_normal((2, 1000))
    residuals = np.stack([a, a * 1.001, b * 1.1])[None] * 0.03
    assert set(choose(products(residuals), 2).members) == {0, 2}


def solved(gram: Floats, least: float = 0.0) -> tuple[np.ndarray, float]:
    """Weights of all networks and their mean PSNR by SciPy's SLSQP."""
    images, k = gram, gram.shape[1]

    def loss(w: np.ndarray) -> float:
        return float(np.mean([10 * np.log10(w @ product @ w) for product in images]))

    def slopes(w: np.ndarray) -> np.ndarray:
        each = [20 / np.log(10) * (product @ w) / (w @ product @ w) for product in images]
        return np.asarray(np.mean(each, axis=0))

    result = minimize(
        loss,
        np.full(k, 1 / k),
        jac=slopes,
        bounds=[(least, 1)] * k,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(k)},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return result.x, -result.fun


def in_order(choice: Choice) -> list[float]:
    return [weight for _, weight in sorted(zip(choice.members, choice.weights, strict=True))]


@pytest.mark.parametrize("common", [0.5, 0.97, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("spread", [0.1, 1.0])
@pytest.mark.parametrize("k", [3, 6])
def test_convex_weights_equal_a_general_solver(common: float, spread: float, k: int) -> None:
    """However much of their errors the networks share; some of the weights are none, or the least."""
    generator = np.random.default_rng(0)
    for _ in range(3):
        shared = generator.standard_normal((5, 1, 2000))
        own = generator.standard_normal((5, k, 2000))
        sizes = 1 + spread * np.arange(k)[:, None]
        gram = products(0.05 * (common**0.5 * shared + (1 - common) ** 0.5 * sizes * own))
        for least in (0.0, 0.1 / k):
            choice = choose(gram, k, convex=True, least=least)
            weights, psnr = solved(gram, least)
            assert choice.psnr == pytest.approx(psnr, abs=1e-6)
            np.testing.assert_allclose(in_order(choice), weights, atol=1e-4)
            told = ensemble_psnr(gram, [range(k)], [in_order(choice)])[0]
            assert told == pytest.approx(choice.psnr, abs=1e-12)


def test_the_weights_of_a_choice_equal_a_general_solvers() -> None:
    gram = products(residual_images())
    choice = choose(gram, 3, convex=True)
    members = sorted(choice.members)
    weights, psnr = solved(gram[:, members][:, :, members])
    np.testing.assert_allclose(in_order(choice), weights, atol=1e-4)
    assert choice.psnr == pytest.approx(psnr, abs=1e-6)


def test_networks_of_which_each_is_best_for_one_image() -> None:
    """The objective has several minima then; what is found is as good as any on a grid."""
    sizes = np.array([[0.1, 1.0, 1.0], [1.0, 0.1, 1.0], [1.0, 1.0, 0.1], [0.1, 0.9, 1.0]])
    gram = products(residual_images(n=3, images=4) * sizes[:, :, None])
    grid = np.array([(a, b, 200 - a - b) for a in range(201) for b in range(201 - a)]) / 200
    best = ensemble_psnr(gram, np.tile(np.arange(3), (len(grid), 1)), grid).max()
    assert choose(gram, 3, convex=True).psnr >= float(best) - 1e-9


def test_equal_networks_share_their_weight() -> None:
    gram = products(residual_images(n=3)[:, [0, 1, 1, 2]])
    choice = choose(gram, 4, convex=True)
    weights, psnr = solved(gram[:, [0, 1, 3]][:, :, [0, 1, 3]])
    assert choice.psnr == pytest.approx(psnr, abs=1e-6)
    found = in_order(choice)
    np.testing.assert_allclose([found[0], found[1] + found[2], found[3]], weights, atol=1e-4)


def test_a_weighted_average_is_never_worse_than_its_best_member() -> None:
    for seed in range(20):
        gram = products(residual_images(seed=seed) * np.linspace(0.1, 3, 7)[:, None])
        assert choose(gram, 3, convex=True).psnr >= choose(gram, 1).psnr - 1e-12


def test_every_member_keeps_its_least_weight() -> None:
    """A network far worse than another would get no weight; with a least weight the rest is optimal."""
    gram = products(residual_images() * np.linspace(0.3, 3, 7)[:, None])
    choice = choose(gram, 3, convex=True, least=0.1)
    assert min(choice.weights) == pytest.approx(0.1, abs=1e-6)
    members = sorted(choice.members)
    weights, _ = solved(gram[:, members][:, :, members], 0.1)
    np.testing.assert_allclose(in_order(choice), weights, atol=1e-4)
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


def test_the_weights_of_two_are_those_of_the_closed_form() -> None:
    """On one image, w = (g22 - g12) / (g11 + g22 - 2 g12), where that lies in [0, 1]."""
    for seed in range(10):
        gram = products(residual_images(n=2, images=1, seed=seed))
        (g11, g12), (_, g22) = gram[0].tolist()
        weight = min(1.0, max(0.0, (g22 - g12) / (g11 + g22 - 2 * g12)))
        choice = choose(gram, 2, convex=True)
        found = choice.weights[choice.members.index(0)]
        assert found == pytest.approx(weight, abs=1e-6)
        mse = weight**2 * g11 + 2 * weight * (1 - weight) * g12 + (1 - weight) ** 2 * g22
        assert choice.psnr == pytest.approx(-10 * np.log10(mse), abs=1e-9)


COSTS = np.array([[3.0, 1.0], [1.0, 5.0], [4.0, 1.0], [1.5, 2.0], [5.0, 9.0], [2.6, 6.0], [0.9, 3.0]])


@pytest.mark.parametrize("enumerated", [True, False])
@pytest.mark.parametrize("largest", [(9.0, 9.0), (6.0, 12.0), (4.45, 11.0)])
def test_limits_hold_for_the_members_together(
    monkeypatch: pytest.MonkeyPatch, enumerated: bool, largest: tuple[float, float]
) -> None:
    """Against all subsets that keep them; greedily, the choice keeps them too and is seldom worse."""
    if not enumerated:
        monkeypatch.setattr(gpnas.portfolio, "EXHAUSTIVE", 0)
    same = 0
    for seed in range(10):
        gram = products(residual_images(seed=seed))
        allowed = [
            subset
            for subset in itertools.combinations(range(7), 3)
            if (COSTS[list(subset)].sum(axis=0) <= largest).all()
        ]
        best = max(choose(gram[:, s][:, :, s], 3).psnr for s in map(list, allowed))
        choice = choose(gram, 3, limits=Limits(COSTS, np.array(largest)))
        assert tuple(sorted(choice.members)) in allowed
        assert choice.psnr <= best + 1e-9
        same += choice.psnr == pytest.approx(best, abs=1e-9)
    assert same == 10 if enumerated else same >= 7
    with pytest.raises(ValueError, match="no 3 of the 7 networks keep the limits together"):
        choose(gram, 3, limits=Limits(COSTS, np.array([3.0, 50.0])))


def test_the_frontier_holds_all_that_no_other_beats() -> None:
    gram, cost = products(residual_images()), COSTS[:, 0]
    every = [
        (float(cost[list(s)].sum()), choose(gram[:, list(s)][:, :, list(s)], k).psnr)
        for k in (1, 2, 3)
        for s in itertools.combinations(range(7), k)
    ]
    expected = sorted(
        (c, p) for c, p in every if not any((d <= c and q > p) or (d < c and q >= p) for d, q in every)
    )
    found = frontier(gram, cost, 3)
    assert [c for c, _ in found] == pytest.approx([c for c, _ in expected])
    assert [choice.psnr for _, choice in found] == pytest.approx([p for _, p in expected])
    limited = frontier(gram, cost, 3, limits=Limits(COSTS[:, 1:], np.array([6.0])))
    assert all(COSTS[list(choice.members), 1].sum() <= 6 for _, choice in limited)
    weighed = frontier(gram, cost, 3, convex=True)
    for spent, choice in found:
        assert max(each.psnr for least, each in weighed if least <= spent + 1e-9) >= choice.psnr - 1e-9


def test_the_frontier_of_many_networks_is_close_to_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gram, cost = products(residual_images()), COSTS[:, 0]
    exact = frontier(gram, cost, 3)
    monkeypatch.setattr(gpnas.portfolio, "EXHAUSTIVE", 0)
    near = frontier(gram, cost, 3)
    assert [choice.psnr for _, choice in near] == sorted(choice.psnr for _, choice in near)
    assert near[-1][1].psnr == pytest.approx(exact[-1][1].psnr, abs=1e-9)
    for spent, choice in near:
        # nothing is better than what is exact at the same cost
        assert choice.psnr <= max(each.psnr for least, each in exact if least <= spent + 1e-9) + 1e-9


def test_correlations_are_those_of_numpy() -> None:
    """The errors have no mean, so that uncentred correlations are theirs."""
    residuals = residual_images(images=1)
    residuals -= residuals.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(correlations(products(residuals)), np.corrcoef(residuals[0]), atol=1e-12)


def test_what_breaks_a_rule_is_named() -> None:
    gram = products(residual_images())
    with pytest.raises(ValueError, match="`1 <= k <= 7` must hold, but got k=8"):
        choose(gram, 8)
    with pytest.raises(ValueError, match=r"must be \(images, n, n\)"):
        choose(gram[0], 2)
