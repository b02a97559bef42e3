"""Weights by cells: what products promise is what pixels hold, and nothing on the simplex is better."""

import numpy as np
import pytest
from scipy.optimize import minimize

from gpnas.fusing import chosen_way, convex_shares, folds, fused_psnr, table_weights
from gpnas.portfolio import choose

CELLS, NETWORKS, IMAGES, PIXELS = 4, 3, 5, 400


def residuals() -> tuple[np.ndarray, np.ndarray]:
    """(I, K, P) of networks of which another is good in each cell, and (I, P) cells."""
    generator = np.random.default_rng(0)
    cells = generator.integers(0, CELLS, (IMAGES, PIXELS))
    common = generator.normal(0, 0.05, (IMAGES, 1, PIXELS))
    own = generator.normal(0, 0.03, (IMAGES, NETWORKS, PIXELS))
    scale = 1 + 2 * ((cells[:, None] + np.arange(NETWORKS)[:, None]) % NETWORKS == 0)
    return common + own * scale, cells


def products(errors: np.ndarray, cells: np.ndarray) -> np.ndarray:
    found = np.zeros((IMAGES, CELLS, NETWORKS, NETWORKS))
    for image in range(IMAGES):
        for cell in range(CELLS):
            part = errors[image][:, cells[image] == cell]
            found[image, cell] = part @ part.T / PIXELS
    return found


def test_psnr_is_that_of_the_pixels() -> None:
    errors, cells = residuals()
    table = np.random.default_rng(1).dirichlet(np.ones(NETWORKS), CELLS)
    fused = np.einsum("ikp,ipk->ip", errors, table[cells])
    expected = -10 * np.log10((fused**2).mean(axis=1))
    np.testing.assert_allclose(fused_psnr(products(errors, cells), table), expected, rtol=1e-12)


def test_weights_are_the_best_on_the_simplex() -> None:
    """Against SLSQP on the mean PSNR itself."""
    found = products(*residuals())
    shares = convex_shares(found.sum(axis=1), 0.0)
    table = table_weights(found, shares, 0.0)
    assert np.allclose(table.sum(axis=1), 1)
    assert table.min() >= 0

    def loss(flat: np.ndarray) -> float:
        return -float(fused_psnr(found, flat.reshape(CELLS, NETWORKS)).mean())

    constraints = [
        {"type": "eq", "fun": lambda flat, cell=cell: flat.reshape(CELLS, NETWORKS)[cell].sum() - 1}
        for cell in range(CELLS)
    ]
    best = minimize(
        loss,
        np.full(CELLS * NETWORKS, 1 / NETWORKS),
        method="SLSQP",
        bounds=[(0, 1)] * (CELLS * NETWORKS),
        constraints=constraints,
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert -loss(table.ravel()) == pytest.approx(-best.fun, abs=1e-5)
    assert fused_psnr(found, table).mean() > fused_psnr(found, np.tile(shares, (CELLS, 1))).mean() + 0.1


def test_a_strong_pull_leaves_the_average() -> None:
    found = products(*residuals())
    shares = convex_shares(found.sum(axis=1), 0.0)
    np.testing.assert_allclose(table_weights(found, shares, 1e6), np.tile(shares, (CELLS, 1)), atol=1e-4)
    weights = [table_weights(found, shares, strength) for strength in (0.0, 0.3, 3.0, 30.0)]
    distances = [np.abs(each - shares).sum() for each in weights]
    assert distances == sorted(distances, reverse=True)


def test_a_cell_without_pixels_has_the_weights_of_the_average() -> None:
    found = products(*residuals())
    shares = convex_shares(found.sum(axis=1), 0.0)
    found[:, 2] = 0
    np.testing.assert_allclose(table_weights(found, shares)[2], shares, atol=1e-6)


def test_one_cell_is_the_convex_average() -> None:
    found = products(*residuals()).sum(axis=1, keepdims=True)
    choice = choose(found[:, 0], NETWORKS, convex=True)
    expected = dict(zip(choice.members, choice.weights, strict=True))
    shares = convex_shares(found[:, 0], 0.0)
    np.testing.assert_allclose(shares, [expected[place] for place in range(NETWORKS)], atol=1e-9)
    np.testing.assert_allclose(
        fused_psnr(found, table_weights(found, shares, 0.0)).mean(), choice.psnr, atol=1e-7
    )


@pytest.mark.parametrize("images", [2, 5, 6, 23])
def test_each_image_is_judged_once(images: int) -> None:
    parts = folds(images)
    assert (np.sum(parts, axis=0) == 1).all()
    assert all(0 < part.sum() < images for part in parts)


def test_a_way_is_chosen_only_where_its_gain_exceeds_its_error() -> None:
    convex = np.array([30.0, 31.0, 29.0, 28.0, 30.5, 32.0])
    sure = convex + np.array([0.02, 0.03, 0.01, 0.02, 0.02, 0.02])
    unsure = sure + np.array([0.5, -0.5, 0.4, -0.4, 0.3, -0.2])
    kind, tried = chosen_way([("convex", convex), ("table", sure), ("gate", unsure)])
    assert kind == "table"
    assert [(each.kind, each.accepted) for each in tried] == [("table", True), ("gate", False)]
    assert tried[0].gain == pytest.approx(0.02)
    assert tried[0].error == pytest.approx(np.std([0.02, 0.03, 0.01, 0.02, 0.02, 0.02], ddof=1) / 6**0.5)
    assert chosen_way([("convex", sure), ("table", convex)])[0] == "convex"
