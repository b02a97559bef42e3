"""Images through the ensemble from the top down: what comes out, when, and what was held meanwhile."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpnas_trainers import build
from gpnas_trainers.infer import Blend, Levels, upscale, upscale_rows, without_outlier


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((3, height, width), dtype=np.float32))


def small(seed: int, scale: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build("drn", scale, features=4, blocks=1, stages=1)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return network


class FromTheTop:
    """A source that insists on being read once, in order."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.read = pixels, 0
        self.height, self.width = pixels.shape[1:]

    def rows(self, start: int, stop: int) -> Tensor:
        assert start == self.read
        assert start < stop <= self.height
        self.read = stop
        return self.pixels[:, start:stop]


@pytest.mark.parametrize(
    ("height", "width", "levels"),
    [
        (61, 26, Levels(16, 8)),
        (37, 26, Levels(16, 12, "gaussian")),
        (61, 40, Levels(16, 0, "constant", self_ensemble=False)),
        (37, 26, Levels((16, 24, 10))),
        (12, 70, Levels((16, 24))),
        (70, 12, Levels(16)),
        (20, 20, Levels(0)),
    ],
)
def test_rows_are_those_of_the_whole_image(height: int, width: int, levels: Levels) -> None:
    """Each row comes once, in order; a row comes as soon as no tile reaches it any more; and they are,
    bit for bit, what `upscale` makes of the image in memory."""
    networks, lr = [small(0), small(1)], image(height, width)
    source = FromTheTop(lr)
    made: list[Tensor] = []
    for place, top, rows in upscale_rows(networks, [source], 2, levels, weights=[1, 3], batch_size=1):
        assert place == 0
        assert top == sum(each.shape[1] for each in made)
        made.append(rows)
        if levels.sides != (0,):
            # one row of tiles at work, and those that workers hold
            assert 2 * source.read - top <= 2 * 3 * max(levels.sides)
    whole = upscale(
        networks,
        lr,
        2,
        levels,
        weights=[1, 3],
        batch_size=1,
    )
    assert torch.equal(torch.cat(made, dim=1), whole)


@pytest.mark.parametrize("drop_outlier", [False, True])
@pytest.mark.parametrize(("bits", "kind"), [(8, torch.uint8), (16, torch.uint16)])
def test_levels_in_and_out(bits: int, kind: torch.dtype, drop_outlier: bool) -> None:
    """Those of the LR image stand for their share of the greatest, those of the result are the nearest."""
    networks, limit = [small(0), small(1), small(2)], 2**bits - 1
    lr = (image(45, 70) * limit).round()
    levels = Levels((16, 24), 5, "gaussian", drop_outlier=drop_outlier)
    expected = upscale(networks, lr / limit, 2, levels)
    made = list(upscale_rows(networks, [FromTheTop(lr.to(kind))], 2, levels, bits=bits))
    assert {rows.pixels.dtype for rows in made} == {kind}
    found = torch.cat([rows.pixels for rows in made], dim=1)
    assert torch.equal(found.float(), (expected * limit).round())
    with pytest.raises(ValueError, match="`bits` must be None, 8 or 16, but got 12"):
        next(upscale_rows(networks, [FromTheTop(lr)], 2, levels, bits=12))


@pytest.mark.parametrize("blend", ["distance", "constant"])
def test_several_tile_sizes_are_the_mean_of_each(blend: Blend) -> None:
    lr, networks = image(50, 45), [small(0), small(1)]
    sizes = (16, 20, 33)
    each = [upscale(networks, lr, 2, Levels(tile=tile, blend=blend)) for tile in sizes]
    found = upscale(networks, lr, 2, Levels(tile=sizes, blend=blend))
    torch.testing.assert_close(found, torch.stack(each).mean(0), atol=1e-6, rtol=0)


def test_half_of_each_tile_overlaps_unless_told() -> None:
    lr, networks = image(50, 45), [small(0)]
    assert torch.equal(
        upscale(networks, lr, 2, Levels(tile=20)), upscale(networks, lr, 2, Levels(tile=20, overlap=10))
    )


def test_images_share_batches_and_stay_apart() -> None:
    sizes: list[tuple[int, ...]] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small(0)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape))
            return self.network(x)

    shapes = [(9, 14), (14, 9), (9, 14), (30, 30), (9, 14), (16, 16)]
    images = [image(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    made: dict[int, list[Tensor]] = {}
    levels = Levels(tile=16)
    for place, _, rows in upscale_rows(
        [Watched()], [FromTheTop(each) for each in images], 2, levels, batch_size=16
    ):
        made.setdefault(place, []).append(rows)
    for place, each in enumerate(images):
        expected = upscale([small(0)], each, 2, Levels(tile=16))
        torch.testing.assert_close(torch.cat(made[place], dim=1), expected, atol=1e-6, rtol=0)
    # 4 oblong images in 8 orientations fill two batches, 9 + 1 square tiles five
    assert sorted(sizes) == sorted([(16, 3, 9, 14), (16, 3, 14, 9)] + 5 * [(16, 3, 16, 16)])


def test_the_number_of_threads_changes_no_bit() -> None:
    lr, networks, threads = image(40, 50), [small(0), small(1)], torch.get_num_threads()
    made = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            made.append(upscale(networks, lr, 2, Levels(tile=16), batch_size=3))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_a_network_of_weight_0_is_not_used() -> None:
    class Refusing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    lr = image(20, 20)
    alone = upscale([small(0)], lr, 2)
    assert torch.equal(upscale([Refusing(), small(0)], lr, 2, weights=[0, 2]), alone)


def outlier_by_hand(outputs: np.ndarray, weights: list[float]) -> np.ndarray:
    """Pixel by pixel: sort each channel, take the middle, leave out whoever is farthest."""
    count, _, height, width = outputs.shape
    result = np.zeros(outputs.shape[1:])
    for y, x in itertools.product(range(height), range(width)):
        colours = [outputs[k, :, y, x].astype(np.float64) for k in range(count)]
        median = [float(np.median([colour[c] for colour in colours])) for c in range(3)]
        distances = [sum((colour[c] - median[c]) ** 2 for c in range(3)) for colour in colours]
        kept = [k for k in range(count) if k != distances.index(max(distances))]
        for k in kept:
            result[:, y, x] += weights[k] * colours[k] / sum(weights[j] for j in kept)
    return result


@pytest.mark.parametrize("count", [3, 4, 5])
def test_outlier_against_a_loop_over_pixels(count: int) -> None:
    outputs = torch.stack([image(9, 11, seed=seed) for seed in range(count)])
    weights = [0.1 + 0.2 * k for k in range(count)]
    found = without_outlier(outputs.double(), weights)
    np.testing.assert_allclose(found.numpy(), outlier_by_hand(outputs.double().numpy(), weights), atol=1e-12)


def test_whole_results_are_compared_for_an_outlier() -> None:
    """After tiles and self-ensemble, that is: as if each network had made its own image first."""
    lr, networks = image(40, 25), [small(seed) for seed in range(4)]
    apart = np.stack([upscale([network], lr, 2, Levels(tile=16)).numpy() for network in networks])
    weights = [0.4, 0.3, 0.2, 0.1]
    found = upscale(networks, lr, 2, Levels(tile=16, drop_outlier=True), weights=weights)
    np.testing.assert_allclose(found.numpy(), outlier_by_hand(apart, weights), atol=1e-6)


def test_one_wild_network_of_three_leaves_no_trace() -> None:
    class Wild(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 3, 2 * x.shape[2], 2 * x.shape[3])

    lr, sane = 0.4 * image(24, 24), small(0)
    found = upscale([sane, Wild(), sane], lr, 2, Levels(drop_outlier=True))
    torch.testing.assert_close(found, upscale([sane], lr, 2), atol=1e-6, rtol=0)


def test_a_batch_without_memory_goes_in_halves() -> None:
    class Narrow(nn.Module):
        def __init__(self, most: int) -> None:
            super().__init__()
            self.most, self.network = most, small(0)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > self.most:
                raise torch.OutOfMemoryError("no memory")
            return self.network(x)

    lr = image(40, 40)
    expected = upscale([small(0)], lr, 2, Levels(tile=16))
    found = upscale([Narrow(3)], lr, 2, Levels(tile=16), batch_size=16)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    with pytest.raises(torch.OutOfMemoryError, match="a tile of 16×16 must fit the memory of cpu"):
        upscale([Narrow(0)], lr, 2, Levels(tile=16))


def test_bfloat16_is_close_and_not_equal() -> None:
    """It has 8 significant bits: a result differs by a few 2⁻⁹."""
    lr, network = image(32, 32), small(0)
    exact, half = upscale([network], lr, 2), upscale([network], lr, 2, Levels(precision="bfloat16"))
    assert half.dtype == torch.float32
    assert 0 < (exact - half).abs().max() < 0.02


def test_pixels_that_are_no_numbers_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3, 2 * x.shape[2], 2 * x.shape[3]), torch.nan)

    with pytest.raises(ValueError, match="Broken must make finite pixels, but in bfloat16 it did not"):
        upscale([Broken()], image(8, 8), 2, Levels(precision="bfloat16"))
    with pytest.raises(ValueError, match="Broken must make finite pixels, but in float32 it did not"):
        upscale([Broken()], image(8, 8), 2)


def resident(what: str) -> int:
    """Bytes: VmRSS are now, VmHWM at most since they were last forgotten."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0])


def test_pixels_that_no_tile_reaches_again_are_not_held_as_sums() -> None:
    """Of a row of tiles of 120 with half overlap 60 rows wait as sums and the others as bytes, beside their
    LR pixels: what the kernel counts at most is far below the sums of all 120."""
    height, width = 300, 12_000

    class Grey:
        def __init__(self) -> None:
            self.height, self.width = height, width

        def rows(self, start: int, stop: int) -> Tensor:
            return torch.full((3, stop - start, width), 128, dtype=torch.uint8)

    class Enlarged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.interpolate(x, scale_factor=2)

    levels = Levels(self_ensemble=False)
    upscale([Enlarged()], image(300, 300), 2, Levels(self_ensemble=False))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for each in upscale_rows([Enlarged()], [Grey()], 2, levels, bits=8):
        assert (each.pixels[:, :, ::50] == 128).all()
        del each
    sums, levels_of_8_bits = 12 * 2 * 2 * width, 3 * 2 * 2 * width  # bytes of an LR row
    due = 60 * sums + 60 * levels_of_8_bits + 120 * 3 * width
    assert resident("VmHWM") - before < 1.25 * due < 0.87 * 120 * sums
