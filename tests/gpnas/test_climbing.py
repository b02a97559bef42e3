"""The surrogate's maximiser against SciPy's L-BFGS-B and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear, minimize, rosen, rosen_der

from gpnas.space import Column
from gpnas.surrogate import LogPosterior
from gpnas.surrogate.climbing import climb

Array = NDArray[np.float64]


@pytest.mark.parametrize("seed", range(20))
def test_a_concave_quadratic_within_bounds_ends_at_its_only_maximum(seed: int) -> None:
    generator = np.random.default_rng(seed)
    p = int(generator.integers(1, 9))
    matrix, target = generator.normal(size=(p + 2, p)), generator.normal(size=p + 2)
    bounds = np.sort(generator.normal(size=(p, 2)), axis=1)

    def function(x: Array) -> tuple[float, Array]:
        rest = matrix @ x - target
        return -0.5 * float(rest @ rest), -matrix.T @ rest

    found, value = climb(function, bounds.mean(axis=1), bounds, tolerance=1e-14)
    expected = lsq_linear(matrix, target, bounds=bounds.T, tol=1e-14)
    assert value == pytest.approx(-expected.cost, abs=1e-5)  # its slopes may be 1e-5
    np.testing.assert_allclose(found, expected.x, atol=1e-2)
    np.testing.assert_array_equal(found, found.clip(*bounds.T))


def test_a_curved_valley_is_followed_to_its_end() -> None:
    bounds = np.array([[-2.0, 2.0]] * 4)
    found, _ = climb(lambda x: (-float(rosen(x)), -rosen_der(x)), np.array([-1.2, 1.0] * 2), bounds)
    np.testing.assert_allclose(found, np.ones(4), atol=1e-3)


def test_where_there_is_no_value_it_turns_back() -> None:
    def function(x: Array) -> tuple[float, Array]:  # no value beyond 1, where the first step leads
        return (float(np.log(x[0])) - x[0], 1 / x - 1) if x[0] < 1.5 else (-1e10, np.zeros(1))

    found, _ = climb(function, np.array([1e-3]), np.array([[1e-4, 50.0]]))
    assert found == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("seed", range(24))
def test_hyperparameters_are_as_likely_as_scipy_s(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n, d = int(generator.choice([2, 8, 30])), int(generator.integers(1, 6))
    kinds = [("ordered", "ordered", "categorical")[each] for each in generator.integers(0, 3, d)]
    codes = generator.integers(0, 5, (n, d)).astype(np.float64)
    x = np.where([kind == "ordered" for kind in kinds], codes / 4, codes)
    y = np.sin(3 * x @ generator.normal(size=d)) + 0.3 * generator.normal(size=n)
    z = (y - y.mean()) / y.std()
    columns = [Column(f"axis {number}", kind) for number, kind in enumerate(kinds)]  # type: ignore[arg-type]
    target = LogPosterior(torch.from_numpy(x), torch.from_numpy(z), columns)

    def loss(theta: Array) -> tuple[float, Array]:
        value, gradient = target(theta)
        return -value, -gradient

    ends = [climb(target, start, target.bounds)[1] for start in target.starts()]
    peer = [
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=target.bounds, options={"ftol": 1e-9})
        for start in target.starts()
    ]
    assert max(ends) >= max(-end.fun for end in peer) - 1e-4
