"""How many networks an average gets, against brute force and against what is known beforehand."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from gpnas.portfolio import Floats, Limits, ensemble_psnr, frontier
from gpnas.selection import contenders, select

SHARE = 0.1


def products(residuals: Floats) -> Floats:
    return residuals @ residuals.transpose(0, 2, 1) / residuals.shape[2]


def residuals_of(sizes: list[float], common: float, images: int, seed: int, pixels: int = 500) -> Floats:
    """Independent errors of given sizes, and one that all share."""
    generator = np.random.default_rng(seed)
    own = generator.standard_normal((images, len(sizes), pixels)) * np.array(sizes)[:, None]
    return own + common * generator.standard_normal((images, 1, pixels))


def weighed(gram: Floats, subset: tuple[int, ...]) -> tuple[Floats, float]:
    """Best weights of a subset, none below a tenth of an equal share, by SciPy's SLSQP."""
    own, k = gram[:, list(subset)][:, :, list(subset)], len(subset)
    if k == 1:
        return np.ones(1), float(np.mean([-10 * np.log10(each[0, 0]) for each in own]))

    def loss(w: Floats) -> float:
        return float(np.mean([10 * np.log10(w @ each @ w) for each in own]))

    bounds, total = [(SHARE / k, 1)] * k, {"type": "eq", "fun": lambda w: w.sum() - 1}
    starts = [np.full(k, 1 / k), *(np.eye(k) * (1 - SHARE) + SHARE / k)]
    tries = [
        minimize(loss, start, bounds=bounds, constraints=total, options={"ftol": 1e-15}) for start in starts
    ]
    best = min(tries, key=lambda each: each.fun)
    return best.x, -best.fun


def by_hand(gram: Floats, portfolios: list[tuple[int, ...]], cost: Floats) -> tuple[int, ...]:
    """The rule, written down once more: fold by fold, size by size."""
    images = len(gram)
    held: dict[int, list[float]] = {}
    for size in sorted({len(each) for each in portfolios}):
        own = [each for each in portfolios if len(each) == size]
        held[size] = []
        for image in range(images):
            others = gram[[each for each in range(images) if each != image]]
            members = max(own, key=lambda each: weighed(others, each)[1])
            w, _ = weighed(others, members)
            mse = w @ gram[image][np.ix_(members, members)] @ w
            held[size].append(-10 * np.log10(mse))
    best = {
        size: max((e for e in portfolios if len(e) == size), key=lambda e: weighed(gram, e)[1])
        for size in held
    }
    chosen = min(held)
    for size in sorted(held)[1:]:
        gains = np.array(held[size]) - np.array(held[chosen])
        larger, smaller = weighed(gram, best[size])[1], weighed(gram, best[chosen])[1]
        if gains.mean() > gains.std(ddof=1) / len(gains) ** 0.5 and larger > smaller:
            chosen = size
    spent = cost[list(best[chosen])].sum()
    affordable = [each for each in portfolios if cost[list(each)].sum() <= spent]
    return max([best[chosen], *affordable], key=lambda each: weighed(gram, each)[1])


@pytest.mark.parametrize("common", [0.0, 0.3])
def test_the_selection_is_that_of_the_rule_written_down_once_more(common: float) -> None:
    for seed in range(3):
        gram = products(residuals_of([0.03, 0.031, 0.08], common, images=4, seed=seed))
        cost = np.random.default_rng(seed).uniform(1, 3, 3)
        portfolios = [each for k in (1, 2, 3) for each in itertools.combinations(range(3), k)]
        selection = select(gram, portfolios, cost, SHARE)
        assert tuple(sorted(selection.choice.members)) == by_hand(gram, portfolios, cost)


def test_networks_that_err_apart_are_all_taken() -> None:
    """Equal networks with independent errors: an average of k has 10 log10(k) dB more."""
    gram = products(residuals_of([0.05] * 3, 0.0, images=6, seed=0, pixels=4000))
    selection = select(gram, [(0,), (0, 1), (0, 1, 2)], np.ones(3), SHARE)
    assert sorted(selection.choice.members) == [0, 1, 2]
    assert [each.accepted for each in selection.compared] == [True, True]
    assert selection.compared[0].gain == pytest.approx(10 * np.log10(2), abs=0.1)
    assert selection.compared[1].gain == pytest.approx(10 * np.log10(3 / 2), abs=0.1)


def test_a_network_that_adds_nothing_is_left_out() -> None:
    """One whose error is another's, with noise of its own: no weight of it helps."""
    own = residuals_of([0.05, 0.001], 0.0, images=6, seed=1)
    own[:, 1] = 1.2 * own[:, 0] + own[:, 1]
    selection = select(products(own), [(0,), (0, 1)], np.ones(2), SHARE)
    assert selection.choice.members == (0,)
    (compared,) = selection.compared
    assert not compared.accepted
    assert compared.gain < 0  # the least share costs something


def test_a_gain_on_some_images_only_is_within_its_error() -> None:
    """On one image the second network helps a lot, on the others it harms: the mean tells nothing."""
    first = np.array([1.0, 1.0, 1.0, 1.0])
    second = np.array([0.2, 1.6, 1.6, 1.6])
    gram = np.array([[[a, 0.0], [0.0, b]] for a, b in zip(first, second, strict=True)]) * 1e-3
    gram += 0.9 * np.sqrt(first * second)[:, None, None] * (1 - np.eye(2)) * 1e-3
    selection = select(gram, [(0,), (0, 1)], np.ones(2), SHARE)
    (compared,) = selection.compared
    assert compared.error is not None
    assert compared.gain < compared.error
    assert selection.choice.members == (0,)


def test_no_other_portfolio_is_better_and_no_dearer() -> None:
    """Whatever the limits: of the frontier, nothing beats the choice at its cost."""
    for seed in range(8):
        gram = products(residuals_of([0.05, 0.045, 0.04, 0.035, 0.03, 0.03], 0.04, images=4, seed=seed))
        cost = np.array([0.2, 0.3, 0.45, 0.5, 0.8, 0.9])
        for largest in (0.5, 1.0, 1.5, 9.0):
            limits = Limits(cost[:, None], np.array([largest]))
            near = contenders(gram, cost, 3, SHARE, limits)
            choice = select(gram, near, cost, SHARE).choice
            spent = cost[list(choice.members)].sum()
            assert spent <= largest
            for dear, other in frontier(gram, cost, 3, convex=True, share=SHARE, limits=limits):
                assert dear > spent or other.psnr <= choice.psnr + 1e-9
            told = ensemble_psnr(gram, [choice.members], [choice.weights])[0]
            assert told == pytest.approx(choice.psnr, abs=1e-9)
            alone = ensemble_psnr(gram, [[each] for each in range(6) if cost[each] <= spent])
            assert choice.psnr >= alone.max() - 1e-9


def test_a_single_image_tells_no_error() -> None:
    gram = products(residuals_of([0.05, 0.05], 0.0, images=1, seed=0))
    (compared,) = select(gram, [(0,), (0, 1)], np.ones(2), SHARE).compared
    assert compared.error is None
    assert compared.accepted
    with pytest.raises(ValueError, match="no network keeps the limits by itself"):
        contenders(gram, np.ones(2), 2, SHARE, Limits(np.ones((2, 1)), np.array([0.5])))
