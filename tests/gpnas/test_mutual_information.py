"""Greedy mutual information equals brute force from its definition."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from gpnas.mutual_information import gains as all_gains
from gpnas.mutual_information import greedy_design

Array = NDArray[np.float64]


def matern(x: Array, lengthscale: float) -> Array:
    r = np.sqrt(5) * np.abs(x[:, None] - x[None]) / lengthscale
    return (1 + r + r * r / 3) * np.exp(-r)


def brute_force(
    covariance: Array, k: int, forced: Sequence[int] = (), candidates: Sequence[int] | None = None
) -> tuple[list[int], list[float]]:
    """½ log [Var(y|A) / Var(y|U)] from conditional variances, every point anew (Krause et al., Eq. 7)."""
    n, chosen = len(covariance), list(forced)

    def variance(y: int, given: list[int]) -> float:
        if not given:
            return float(covariance[y, y])
        solved = np.linalg.solve(covariance[np.ix_(given, given)], covariance[given, y])
        return float(covariance[y, y] - covariance[y, given] @ solved)

    picks, gains = [], []
    for _ in range(k):
        gain = np.full(n, -np.inf)
        for y in range(n):
            if y not in chosen and (candidates is None or y in candidates):
                rest = [u for u in range(n) if u not in chosen and u != y]
                gain[y] = 0.5 * np.log(variance(y, chosen) / variance(y, rest))
        pick = int(np.argmax(gain >= gain.max() - 1e-9))
        picks.append(pick)
        gains.append(float(gain[pick]))
        chosen.append(pick)
    return picks, gains


def grid(regular: bool, seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    axes = [np.linspace(0, 1, m) if regular else np.sort(generator.random(m)) for m in (6, 5, 4)]
    return [matern(x, lengthscale) for x, lengthscale in zip(axes, (0.4, 0.7, 1.0), strict=True)]


def kron(factors: Sequence[Array]) -> Array:
    product: Array = np.ones((1, 1))
    for factor in factors:
        product = np.asarray(np.kron(product, factor))
    return product


@pytest.mark.parametrize("noise", [1e-1, 1e-4, 1e-6])
@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("restricted", [True, False])
def test_points_and_gains_equal_brute_force(noise: float, regular: bool, restricted: bool) -> None:
    factors = grid(regular)
    whole = kron(factors)
    forced = (3, 77, 50) if restricted else ()
    candidates = [index for index in range(0, 120, 2) if index not in forced] if restricted else None
    expected = brute_force(whole + noise * np.eye(120), 8, forced, candidates)
    for given in (factors, [whole], [factors[0], kron(factors[1:])]):
        picks, gains = greedy_design(given, noise, 8, forced, candidates=candidates)
        assert picks == expected[0]
        np.testing.assert_allclose(gains, expected[1], atol=1e-9)


def test_each_gain_is_the_difference_of_two_determinants() -> None:
    """F(A ∪ y) - F(A) for every y, F from determinants alone."""
    noise, forced, candidates = 0.05, [3, 77, 50], [3, 10, 64, 119]
    whole = kron(grid(False)) + noise * np.eye(120)

    def information(chosen: list[int]) -> float:
        rest = [index for index in range(120) if index not in chosen]
        parts = [np.linalg.slogdet(whole[np.ix_(part, part)])[1] for part in (chosen, rest)]
        return 0.5 * float(sum(parts))

    found = all_gains(grid(False), noise, forced, candidates=candidates)
    for index in (10, 64, 119):
        expected = information([*forced, index]) - information(forced)
        assert found[index] == pytest.approx(expected, abs=1e-9)
    assert np.isneginf(np.delete(found, [10, 64, 119])).all()


def test_the_sum_of_gains_is_the_mutual_information() -> None:
    """F(A) = ½ [log|Σ_AA| + log|Σ_UU| - log|Σ|] from determinants alone."""
    noise = 0.05
    whole = kron(grid(False)) + noise * np.eye(120)
    picks, gains = greedy_design(grid(False), noise, 10)
    rest = [index for index in range(120) if index not in picks]
    logdet = [np.linalg.slogdet(whole[np.ix_(part, part)])[1] for part in (picks, rest, list(range(120)))]
    assert sum(gains) == pytest.approx(0.5 * (logdet[0] + logdet[1] - logdet[2]), abs=1e-9)


def test_it_stops_where_more_points_tell_less() -> None:
    picks, gains = greedy_design([matern(np.linspace(0, 1, 12), 0.3)], 0.1, 12)
    assert len(picks) < 12
    assert min(gains) >= 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": []}, "at least one covariance"),
        ({"factors": [np.eye(3)[:2]]}, "must be a square matrix"),
        ({"factors": [np.triu(np.ones((3, 3)))]}, "must be symmetric"),
        ({"factors": [-np.eye(2), np.eye(2)]}, "positive semi-definite, but factor 0 has the eigenvalue -1"),
        ({"factors": [-np.eye(2)]}, "positive semi-definite"),
        ({"noise_variance": 0.0}, "`noise_variance > 0` must hold, but got 0.0"),
        ({"k": 4}, "`0 <= k <= 3` must hold, but got k=4"),
        ({"forced": [1, 1]}, "forced points must differ"),
        ({"candidates": [9]}, "candidates must lie in"),
    ],
)
def test_what_breaks_a_rule_is_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"factors": [np.eye(3)], "noise_variance": 0.1, "k": 2}
    with pytest.raises(ValueError, match=message):
        greedy_design(**(arguments | change))  # type: ignore[arg-type]
