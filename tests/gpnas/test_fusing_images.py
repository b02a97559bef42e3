"""Fusion as it is learned: on images whose members are better than one another where a table can know it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from gpnas.fusing import FEWEST
from gpnas.results import fusing
from gpnas.results.fusing import Outputs, cell_products, edges_of, fused_by, psnr_of, trained_gate, why
from gpnas_trainers.fusion import Table


def images(count: int, seed: int = 0, apart: float = 3.0) -> list[Outputs]:
    """The first network errs more where it is dark, the second where it is bright; the third everywhere."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        hr = gaussian_filter(generator.random((3, 60, 72)), (0, 4, 4))
        hr = (hr - hr.min()) / (hr.max() - hr.min())
        dark = (hr.mean(axis=0) < 0.5).astype(float)
        scales = [1 + (apart - 1) * dark, apart - (apart - 1) * dark, np.full_like(dark, (1 + apart) / 2)]
        sr = [hr + 0.02 * scale * generator.normal(size=hr.shape) for scale in scales]
        made.append(Outputs(torch.from_numpy(np.stack(sr)).float().clamp(0, 1), torch.from_numpy(hr).float()))
    return made


def test_products_by_cells_are_those_of_the_pixels() -> None:
    given = images(2)
    shares = torch.tensor([0.2, 0.3, 0.5])
    edges = edges_of(given, shares, (3, 2, 2))
    table = Table(shares, edges, torch.rand(12, 3, generator=torch.Generator().manual_seed(0)))
    table.table /= table.table.sum(dim=1, keepdim=True)
    found = cell_products(given, table)
    for image, each in enumerate(given):
        fused = table(list(each.sr[:, None]))[0]
        mse = float((fused - each.hr).double().square().mean())
        weights = table.table.double().numpy()
        assert np.einsum("cjk,cj,ck->", found[image], weights, weights) == pytest.approx(mse, rel=1e-5)
        counts = np.bincount(table.cells(list(each.sr[:, None])).flatten().numpy(), minlength=12)
        assert (counts > 0).all()


def test_bins_hold_equal_parts_of_the_pixels() -> None:
    given = images(3)
    shares = torch.full((3,), 1 / 3)
    edges = edges_of(given, shares, (4, 1, 5))
    assert [len(each) for each in edges] == [3, 0, 4]
    grey = torch.cat([each.sr.mean(dim=(0, 1)).flatten() for each in given])
    for edge, part in zip(edges[0].tolist(), (0.25, 0.5, 0.75), strict=True):
        assert float((grey <= edge).double().mean()) == pytest.approx(part, abs=0.01)


def test_what_is_learned_holds_on_images_that_were_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "STEPS", 10)
    fused = fused_by(images(8), 2)
    assert fused.kind in ("table", "gate")
    assert fused.fusion is not None
    assert fused.tried[0].kind == "table"
    assert fused.tried[0].accepted
    unseen = images(6, seed=1)
    plain = Table(fused.fusion.shares, [torch.empty(0)] * 3, fused.fusion.shares[None])
    gains = [psnr_of(fused.fusion, each) - psnr_of(plain, each) for each in unseen]
    promised = sum(each.gain for each in fused.tried if each.accepted)
    assert promised > 0.3
    assert np.mean(gains) == pytest.approx(promised, rel=0.2)
    assert f"table {fused.tried[0].gain:+.4f} ± " in why(fused)
    assert fused.to_json()["images"] == 8
    assert fused.stored is not None
    assert fused.stored.gain == pytest.approx(promised)


def test_where_no_pixel_tells_anything_one_weight_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "STEPS", 5)
    fused = fused_by(images(FEWEST, apart=1.0), 2)
    assert fused.kind == "convex"
    assert fused.fusion is None
    assert fused.stored is None
    assert [each.accepted for each in fused.tried] == [False, False]
    assert why(fused).startswith("fused by one weight per network; on images that it was not fitted to")


def test_few_images_are_not_learned_from() -> None:
    fused = fused_by(images(FEWEST - 1), 2)
    assert (fused.kind, fused.tried) == ("convex", ())
    assert why(fused) == (
        "fused by one weight per network: 5 validation images are too few to learn more, which takes 6"
    )


def test_a_gate_learns_and_is_a_function_of_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "STEPS", 60)
    given = images(4)
    shares = np.full(3, 1 / 3)
    one, other = (trained_gate(given, shares, 2, seed=3) for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    plain = Table(torch.full((3,), 1 / 3), [torch.empty(0)] * 3, torch.full((1, 3), 1 / 3))
    (unseen,) = images(1, seed=9)
    assert psnr_of(one, unseen) > psnr_of(plain, unseen) + 0.2
