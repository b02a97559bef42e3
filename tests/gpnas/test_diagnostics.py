"""Leave-one-out diagnostics equal refits, one observation at a time, by other means."""

import dataclasses
import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.preprocessing import OneHotEncoder
from torch import Tensor

from gpnas.diagnostics import LEAST, PENALTIES, Quality, design_matrix, diagnose, ridge_leave_one_out
from gpnas.space import Column
from gpnas.surrogate import Surrogate, Warp, fit

COLUMNS = (Column("a", "ordered"), Column("b", "cost"), Column("c", "categorical"))


def data(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    x[:, 2] = torch.randint(3, (n,), generator=generator).double()
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return x, 20 + 3 * x[:, 0] + torch.sin(6 * x[:, 1]) + 0.5 * (x[:, 2] == 1) + 0.2 * noise


def logarithms(*lengthscales: float, linear: float = 0.5, noise: float = 0.1, local: float = 0.7) -> Tensor:
    """One draw of the hyperparameters, (p,)."""
    return torch.tensor([*lengthscales, local, linear, noise], dtype=torch.float64).log()


def posterior(n: int, power: float = 1.0) -> Surrogate:
    """A posterior with two draws of the hyperparameters."""
    draws = torch.stack([logarithms(0.4, 0.6, 1.0), logarithms(1.0, 0.3, 2.0, noise=0.2)])
    x, y = data(n)
    return Surrogate(x, y, COLUMNS, draws, Warp(y, power))


def test_one_hot_columns_are_those_of_scikit_learn() -> None:
    x, _ = data(20)
    codes = OneHotEncoder(sparse_output=False).fit_transform(x[:, 2:].numpy())
    np.testing.assert_array_equal(design_matrix(x, COLUMNS).numpy(), np.hstack([x[:, :2].numpy(), codes]))


@pytest.mark.parametrize("n", [4, 9, 30])
def test_the_ridge_is_that_of_refits_without_each_observation(n: int) -> None:
    """Scikit-learn's, with the penalty whose refits err least."""
    x, y = data(n)
    matrix = design_matrix(x, COLUMNS)
    mean, variance, penalty = ridge_leave_one_out(matrix, y)

    def refits(alpha: float) -> np.ndarray:
        ridge = Ridge(alpha=alpha, solver="cholesky")
        return np.asarray(cross_val_predict(ridge, matrix.numpy(), y.numpy(), cv=LeaveOneOut()))

    np.testing.assert_allclose(mean.numpy(), refits(penalty), rtol=1e-8)
    losses = {float(alpha): ((refits(float(alpha)) - y.numpy()) ** 2).sum() for alpha in PENALTIES[::4]}
    assert ((refits(penalty) - y.numpy()) ** 2).sum() <= min(losses.values()) * (1 + 1e-9)

    # the predictive variance of a Bayesian linear model that has not seen the observation
    design = np.hstack([np.ones((n, 1)), matrix.numpy()])
    shrink = penalty * np.diag([0.0] + [1.0] * matrix.shape[1])
    factors = []
    for i in range(n):
        rest = np.delete(design, i, axis=0)
        factors.append(1 + design[i] @ np.linalg.pinv(rest.T @ rest + shrink) @ design[i])
    np.testing.assert_allclose(
        variance.numpy() / float(variance[0]), np.array(factors) / factors[0], rtol=1e-8
    )
    # the likeliest noise: no other scale makes what was left out likelier
    errors = (y - mean).numpy()
    density = [norm.logpdf(errors, scale=np.sqrt(variance.numpy() * s)).sum() for s in (0.98, 1.0, 1.02)]
    assert density[1] > max(density[0], density[2])


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5])
def test_the_surrogates_density_is_the_slope_of_its_distribution_function(power: float) -> None:
    """The unit is the objective's own: each observation is left out, the rest conditioned on anew."""
    n = 12
    whole = posterior(n, power)
    z, identity = whole.warp.latent(whole.y), Warp(whole.y[:0])
    step = 1e-5
    logs, inside, means = [], [], []
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        others = Surrogate(whole.x[rest], z[rest], COLUMNS, whole.theta, identity)
        mean, variance = (float(each) for each in others.latent(whole.x[[i]]))
        normal = norm(mean, math.sqrt(variance + others.noise))

        def below(value: float, normal: Any = normal) -> float:
            return float(normal.cdf(float(whole.warp.latent(torch.tensor([value], dtype=torch.float64)))))

        value = float(whole.y[i])
        logs.append(math.log((below(value + step) - below(value - step)) / (2 * step)))
        inside.append(0.05 <= below(value) <= 0.95)
        means.append(mean)
    found = diagnose(whole).surrogate
    assert found is not None
    assert found.nlpd == pytest.approx(-np.mean(logs), abs=1e-6)
    assert found.coverage == pytest.approx(np.mean(inside))
    assert found.tau == pytest.approx(kendalltau(means, whole.y.numpy()).statistic)


def test_a_surrogate_that_is_a_ridge_is_measured_alike() -> None:
    """A linear term alone, with the ridge's penalty and noise: equal in everything."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(14, 2, generator=generator, dtype=torch.float64)
    # little noise, so that the constant's variance of 1 is as good as a free intercept
    y = 20 + 3 * x[:, 0] + 1e-4 * torch.randn(14, generator=generator, dtype=torch.float64)
    _, variance, penalty = ridge_leave_one_out(x, y)
    hat = np.hstack([np.ones((14, 1)), x.numpy()])
    hat = hat @ np.linalg.inv(hat.T @ hat + penalty * np.diag([0.0, 1.0, 1.0])) @ hat.T
    noise = float((variance * torch.from_numpy(1 - hat.diagonal()))[0]) / float(y.var())
    # what is an architecture's own is noise to a linear model
    linear = logarithms(50.0, 50.0, local=1e-14, linear=noise / penalty / 4, noise=0.75 * noise)
    found = diagnose(Surrogate(x, y, COLUMNS[:2], linear[None]))
    assert found.surrogate is not None
    assert found.ridge is not None
    assert found.surrogate.tau == found.ridge.tau
    assert found.surrogate.coverage == found.ridge.coverage
    assert found.surrogate.nlpd == pytest.approx(found.ridge.nlpd, abs=1e-4)


def test_ranks_are_compared_pair_by_pair() -> None:
    whole = posterior(15)
    y = whole.y.round(decimals=0)  # ties
    found = diagnose(Surrogate(whole.x, y, COLUMNS, whole.theta)).ridge
    mean = ridge_leave_one_out(design_matrix(whole.x, COLUMNS), y)[0]
    signs = [
        (np.sign(float(mean[i] - mean[j])), np.sign(float(y[i] - y[j])))
        for i, j in combinations(range(15), 2)
    ]
    agreeing = sum(a * b for a, b in signs)
    expected = agreeing / math.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))
    assert found is not None
    assert found.tau == pytest.approx(expected)


def test_another_unit_shifts_both_alike() -> None:
    x, y = data(16)
    here, there = (diagnose(fit(x, values, COLUMNS)) for values in (y, 1000 * y - 7))
    assert here.surrogate is not None and there.surrogate is not None  # noqa: PT018
    assert here.ridge is not None and there.ridge is not None  # noqa: PT018
    for one, other in ((here.surrogate, there.surrogate), (here.ridge, there.ridge)):
        assert other.nlpd - one.nlpd == pytest.approx(math.log(1000), abs=1e-6)
        assert other.tau == pytest.approx(one.tau)
        assert other.coverage == one.coverage
    assert there.advantage == pytest.approx(here.advantage, abs=1e-6)


def test_who_predicts_better_is_told() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(40, 3, generator=generator, dtype=torch.float64)
    x[:, 2] = 0.0
    noise = 0.05 * torch.randn(40, generator=generator, dtype=torch.float64)
    curved = diagnose(fit(x, torch.sin(6 * x[:, 0]) + noise, COLUMNS))
    assert curved.warning is None
    assert curved.advantage is not None
    assert curved.advantage > 0
    # a straight line, seen by a surrogate that takes every architecture for an island
    straight = Surrogate(x, 3 * x[:, 0] + noise, COLUMNS, logarithms(0.05, 0.05, 0.05, linear=1e-4)[None])
    found = diagnose(straight)
    assert found.warning is not None
    assert "predicts worse" in found.warning
    assert found.summary.endswith("the surrogate predicts worse")
    assert len(found.warning.splitlines()) == 1
    assert found.advantage is not None
    assert found.surrogate is not None
    assert found.ridge is not None
    assert found.advantage == pytest.approx(found.ridge.nlpd - found.surrogate.nlpd)


def test_predictors_alike_within_noise_are_no_reason_to_warn() -> None:
    """Without any signal neither is better, whichever is ahead by chance."""
    alike = []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(24, 3, generator=generator, dtype=torch.float64)
        x[:, 2] = 0.0
        found = diagnose(fit(x, torch.randn(24, generator=generator, dtype=torch.float64), COLUMNS))
        assert found.advantage is not None
        assert found.advantage_error is not None
        within = abs(found.advantage) <= 2 * found.advantage_error
        assert found.summary.endswith("within noise the two predict alike") == within
        assert within or found.advantage > 0 or found.warning is not None
        alike.append(within)
    assert sum(alike) >= 4


def test_too_little_to_judge_is_said() -> None:
    few = diagnose(posterior(LEAST - 1))
    assert (few.surrogate, few.ridge, few.warning) == (None, None, None)
    assert few.summary == f"leave-one-out: needs at least {LEAST} observations, there are {LEAST - 1}"
    assert diagnose(posterior(LEAST)).surrogate is not None
    x, _ = data(10)
    same = diagnose(Surrogate(x, torch.full((10,), 3.0).double(), COLUMNS, logarithms(1, 1, 1)[None]))
    assert same.surrogate is None
    assert same.to_json()["summary"] == "leave-one-out: needs observations that differ"


def test_a_share_of_pairs_in_the_right_order_is_told_for_a_rank_correlation() -> None:
    """Counted: leave-one-out predictions beside the values that they foretell."""
    seen = posterior(12)
    latent, _ = seen.leave_one_out()
    z = seen.warp.latent(seen.y)
    pairs = [(i, j) for i in range(12) for j in range(i)]
    right = sum(bool((latent[i] - latent[j]) * (z[i] - z[j]) > 0) for i, j in pairs) / len(pairs)
    assert f" {right:.0%} of all pairs come in the right order" in diagnose(seen).in_words
    few = diagnose(posterior(LEAST - 1))
    assert few.in_words == few.summary
    backwards = dataclasses.replace(diagnose(seen), surrogate=Quality(-0.2, 0.0, 0.9))
    assert "does not foretell" in backwards.in_words
