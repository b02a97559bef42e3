"""The multi-level ensemble against its definition, written out in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gpnas_trainers.infer import (
    BLENDS,
    Blend,
    Levels,
    dihedral,
    normalised_weights,
    tile_starts,
    tile_weights,
    undo_dihedral,
    upscale,
)


class Nearest(nn.Module):
    """Commutes with flips, transposes and crops: tiles and transforms must change nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Lopsided(nn.Module):
    """Knows where in its input a pixel lies and which way is up: nothing cancels by chance."""

    def __init__(self, seed: int, scale: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 3 * scale**2, 3, padding=1).double()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        down = torch.linspace(0, 0.3, x.shape[-2], dtype=x.dtype)[:, None]
        return F.pixel_shuffle(self.conv(x + down) + 0.3, self.scale)


def plain(
    networks: list[nn.Module],
    weights: list[float],
    lr: Tensor,
    scale: int,
    tile: int,
    overlap: int,
    window: str,
) -> np.ndarray:
    """The definition on top of infer.py, in loops over tiles, transforms, networks and pixels."""
    height, width = lr.shape[1:]
    tall, wide = min(height, tile or height), min(width, tile or width)

    def starts(side: int, size: int) -> list[int]:
        found, at = [], 0
        while at + size < side:
            found.append(at)
            at += size - overlap
        return [*found, side - size]

    def weight(i: int, size: int) -> float:
        u = abs((i + 0.5) - size / 2) / (size / 2)
        return {"distance": 1 - u, "gaussian": math.exp(-8 * u * u), "constant": 1.0}[window]

    total = np.zeros((3, scale * height, scale * width))
    norm = np.zeros((scale * height, scale * width))
    for top in starts(height, tall):
        for left in starts(width, wide):
            crop = lr[:, top : top + tall, left : left + wide].numpy()
            mean = np.zeros((3, scale * tall, scale * wide))
            for turns in range(4):
                for mirrored in (False, True):
                    turned = np.rot90(crop, turns, axes=(1, 2))
                    turned = turned[:, :, ::-1] if mirrored else turned
                    for network, share in zip(networks, weights, strict=True):
                        with torch.no_grad():
                            output = network(torch.from_numpy(turned.copy())[None])[0].clamp(0, 1).numpy()
                        output = output[:, :, ::-1] if mirrored else output
                        mean += share / 8 * np.rot90(output, -turns, axes=(1, 2))
            for i in range(scale * tall):
                for j in range(scale * wide):
                    w = weight(i, scale * tall) * weight(j, scale * wide)
                    total[:, scale * top + i, scale * left + j] += w * mean[:, i, j]
                    norm[scale * top + i, scale * left + j] += w
    return total / norm


def image(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((3, height, width))).to(dtype)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"),
    [(13, 17, 8, 4), (9, 20, 12, 5), (7, 6, 12, 6), (11, 11, 8, 0), (10, 14, 0, 60), (16, 16, 8, 7)],
)
def test_upscale_is_its_definition(blend: Blend, height: int, width: int, tile: int, overlap: int) -> None:
    networks: list[nn.Module] = [Lopsided(0, 2), Lopsided(1, 2)]
    lr = image(height, width)
    expected = plain(networks, [0.25, 0.75], lr, 2, tile, overlap, blend)
    found = upscale(
        networks, lr, 2, Levels(tile=tile, overlap=overlap, blend=blend), weights=[1, 3], batch_size=5
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    single = [network.float() for network in networks]
    found = upscale(
        single, lr.float(), 2, Levels(tile=tile, overlap=overlap, blend=blend), weights=[1, 3], batch_size=8
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(("height", "width"), [(50, 70), (32, 32), (5, 90), (33, 31)])
def test_equivariant_network_makes_the_whole_image(height: int, width: int) -> None:
    lr = image(height, width, torch.float32)
    found = upscale([Nearest(), Nearest()], lr, 2, Levels(tile=32, overlap=16))
    torch.testing.assert_close(found, Nearest()(lr), atol=2e-6, rtol=0)
    assert found.min() >= 0
    assert found.max() <= 1


def test_without_levels_it_is_the_network() -> None:
    network = Lopsided(0, 3)
    lr = image(9, 12)
    with torch.no_grad():
        expected = network(lr[None]).clamp(0, 1)[0]
    assert (expected == 0).any()  # so that the clamp matters
    torch.testing.assert_close(upscale([network], lr, 3, Levels(tile=0, self_ensemble=False)), expected)


def test_self_ensemble_commutes_with_flips_and_transposes() -> None:
    """The average over the group is equivariant though the network is not; and so are tiles, where
    their grid is symmetric, as it is for these sides."""
    lr = image(16, 24)
    whole = upscale([Lopsided(0, 2)], lr, 2, Levels(tile=8, overlap=4))
    for transform in range(8):
        turned = upscale([Lopsided(0, 2)], dihedral(lr, transform), 2, Levels(tile=8, overlap=4))
        torch.testing.assert_close(turned, dihedral(whole, transform))


def test_networks_are_averaged_exactly() -> None:
    """So that rows of a table for subsets follow from each network's own image."""
    lr = image(14, 15)
    networks = [Lopsided(seed, 2) for seed in range(3)]
    apart = [upscale([network], lr, 2, Levels(tile=8, overlap=4)) for network in networks]
    together = upscale(networks, lr, 2, Levels(tile=8, overlap=4))
    torch.testing.assert_close(together, torch.stack(apart).mean(0), atol=1e-12, rtol=0)


@given(side=st.integers(1, 200), tile=st.integers(0, 60), share=st.floats(0, 0.99))
def test_tiles_cover_and_weights_sum_to_one(side: int, tile: int, share: float) -> None:
    overlap = int(share * tile)
    size = min(side, tile or side)
    starts = tile_starts(side, tile, overlap)
    assert sorted(set(starts)) == starts
    covered = {at for start in starts for at in range(start, start + size)}
    assert covered == set(range(side))
    for one, two in itertools.pairwise(starts):
        assert one + size - two >= overlap
    for blend in BLENDS:
        total = np.zeros(2 * side)
        for start, weights in normalised_weights(side, tile, overlap, blend, 2):
            assert (weights > 0).all()
            total[2 * start : 2 * (start + size)] += weights.numpy()
        np.testing.assert_allclose(total, 1, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 240])
@pytest.mark.parametrize("blend", BLENDS)
def test_weights_fall_with_the_distance_from_the_centre(blend: Blend, size: int) -> None:
    weights = tile_weights(size, blend)
    torch.testing.assert_close(weights, weights.flip(0))
    assert (weights > 0).all()
    assert (weights.diff()[: (size - 1) // 2] >= 0).all()


def test_half_overlapping_tents_need_no_normalising() -> None:
    """Partition of unity: w(x) + w(x + half a tile) = 1, the law of linear interpolation."""
    tent = tile_weights(240, "distance")
    torch.testing.assert_close(tent[:120] + tent[120:], torch.ones(120, dtype=torch.float64))


def test_the_eight_transforms_are_the_symmetries_of_the_square() -> None:
    square = torch.arange(9).reshape(3, 3)
    mine = {tuple(dihedral(square, transform).flatten().tolist()) for transform in range(8)}
    turned = (np.rot90(pixels, turns) for pixels in (square.numpy(), square.numpy().T) for turns in range(4))
    assert mine == {tuple(pixels.flatten().tolist()) for pixels in turned}
    oblong = torch.arange(12).reshape(3, 4)
    for transform in range(8):
        assert torch.equal(undo_dihedral(dihedral(oblong, transform), transform), oblong)


def test_batches_progress_and_order() -> None:
    sizes: list[int] = []

    class Counting(Nearest):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            assert not self.training
            assert torch.is_inference_mode_enabled()
            return super().forward(x)

    seen: list[tuple[int, int]] = []
    lr = image(20, 20, torch.float32)
    upscale(
        [Counting()], lr, 2, Levels(tile=10, overlap=5), batch_size=7, progress=lambda *at: seen.append(at)
    )
    assert sum(sizes) == 9 * 8
    assert max(sizes) == 7
    assert seen[-1] == (72, 72)
    assert [done for done, _ in seen] == np.cumsum(sorted(sizes, reverse=True)).tolist()
    sizes.clear()
    upscale([Counting()], lr, 2, Levels(tile=0))
    assert sizes == [1] * 8  # whole images one by one


def test_result_is_an_ordinary_tensor() -> None:
    result = upscale([Nearest()], image(8, 8, torch.float32), 2)
    assert not result.is_inference()
    result.mul_(2).requires_grad_()


def test_errors_state_the_rule_and_the_value() -> None:
    lr = image(8, 8)
    for networks, changed, words in (
        ([], {}, "at least one network"),
        ([Nearest()], {"overlap": 60, "tile": 60}, "`0 <= overlap < tile` must hold .* overlap=60, tile=60"),
        ([Nearest()], {"weights": [1, 2]}, "one for each of the 1 networks"),
        ([Nearest()], {"weights": [0]}, "not all 0"),
        ([Nearest()], {"weights": [math.nan]}, "non-negative"),
        ([Nearest()], {"blend": "linear"}, "must be one of distance, gaussian, constant, but got 'linear'"),
        ([Nearest()], {"batch_size": 0}, "`batch_size >= 1` must hold"),
        ([Nearest()], {"tile": (0, 120)}, r"`tile` must be one side .* or 0 .* but got \(0, 120\)"),
        ([Nearest()], {"tile": (96, 96)}, r"several different ones.* but got \(96, 96\)"),
        ([Nearest()], {"tile": (48, 96), "overlap": 48}, "must hold .* overlap=48, tile=48"),
        ([Nearest()] * 2, {"drop_outlier": True}, "one of at least 3 networks .* but got 2"),
        (
            [Nearest()] * 3,
            {"drop_outlier": True, "weights": [1, 0, 1]},
            "one of at least 3 networks with a weight above 0, but got 2",
        ),
        ([Nearest()], {"precision": "half"}, "must be one of float32, bfloat16, float16, but got 'half'"),
        ([Nearest()], {"precision": "float16"}, "float16 needs a GPU"),
        ([Nearest()], {"scale": 3}, r"a network of scale 3 must make \(8, 3, 24, 24\) of \(8, 3, 8, 8\)"),
    ):
        others = {name: changed[name] for name in ("weights", "batch_size") if name in changed}
        levels = {name: value for name, value in changed.items() if name not in (*others, "scale")}
        with pytest.raises(ValueError, match=words):
            upscale(networks, lr, changed.get("scale", 2), Levels(**levels), **others)  # type: ignore[arg-type]
    for wrong in (lr[None], lr[:1], (lr * 255).byte()):
        with pytest.raises(ValueError, match=r"must be \(3, h, w\) of floats"):
            upscale([Nearest()], wrong, 2)
