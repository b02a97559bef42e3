"""The multi-level ensemble of Pan et al. 2020, Sec. 4.3: networks, overlapping tiles, flips and turns.

With f_k the networks and a_k their weights (sum 1), w_t the blending weights of tile t, and T the
eight flips and transposes, the SR value of pixel p is

    sr(p) = Σ_t w_t(p) · Σ_k a_k · mean_T [ T⁻¹ clamp(f_k(T tile_t)) ](p)  /  Σ_t w_t(p).

Each output is clamped to [0, 1] before anything is averaged: that brings it closer to any true image,
and makes the ensemble of networks exactly the average of what each network yields alone.

Blending weights are separable, so their sum over the tiles of a grid is the product of two sums along
an axis. Each tile is therefore added to the result with weights that are already normalised, and no
image of weights is ever kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Blend = Literal["distance", "gaussian", "constant"]
BLENDS: tuple[Blend, ...] = ("distance", "gaussian", "constant")

GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the gaussian blending weights, in half tiles: e⁻⁸ at a tile's edge."""


def upscale(
    networks: Sequence[nn.Module],
    lr: Tensor,  # (3, h, w)
    scale: int,
    *,
    tile: int = 120,
    overlap: int = 60,
    blend: Blend = "distance",
    self_ensemble: bool = True,
    weights: Sequence[float] | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The super-resolved image, (3, scale·h, scale·w) in [0, 1], on the device and in the type of `lr`.

    Beside the result, memory holds one batch of tiles: `lr` may stay on the CPU while the networks are
    on a GPU. The defaults are the paper's.

    Args:
        networks: at least one; each maps (B, 3, y, x) to (B, 3, scale·y, scale·x), on the device and in
            the type of its own parameters. They are switched to evaluation mode.
        lr: RGB, floats in [0, 1].
        scale: HR pixels per LR pixel.
        tile: side of the tiles in LR pixels; 0 takes the whole image at once. Where the image is
            smaller than a tile, the tile is as large as the image.
        overlap: LR pixels that neighbouring tiles share; below `tile`. The last tile is shifted inwards
            until it fits, so that all tiles have one size.
        blend: how tiles are weighted, as `tile_weights`.
        self_ensemble: average over the eight flips and transposes of each tile.
        weights: a_k, one per network, non-negative; divided by their sum. None: all equal.
        batch_size: tiles, in any orientation, that pass a network at once; whole images pass one by one.
        progress: called with forward passes of a tile done and all, after each batch.

    Raises:
        ValueError: an argument breaks its rule, or a network's output has another size.
    """
    _check(networks, lr, tile, overlap, blend, batch_size)
    shares = _shares(networks, weights)
    height, width = lr.shape[1:]
    rows, columns = (
        [(start, share.to(lr)) for start, share in normalised_weights(side, tile, overlap, blend, scale)]
        for side in (height, width)
    )
    tall, wide = (min(side, tile or side) for side in (height, width))
    sr = lr.new_zeros(3, scale * height, scale * width)
    transforms = range(8) if self_ensemble else range(1)
    done, every = 0, len(rows) * len(columns) * len(transforms) * len(networks)
    for network in networks:
        network.eval()
    with torch.inference_mode():
        for batch in _batches(len(rows), len(columns), transforms, batch_size if tile else 1, tall == wide):
            tiles = torch.stack(
                [
                    dihedral(lr[:, y : y + tall, x : x + wide], transform)
                    for (y, _), (x, _), transform in (
                        (rows[row], columns[column], transform) for row, column, transform in batch
                    )
                ]
            )
            mean = torch.zeros(())
            for network, share in zip(networks, shares, strict=True):
                mean = mean + share * _forward(network, tiles, scale)
                done += len(batch)
                if progress is not None:
                    progress(done, every)
            for (row, column, transform), output in zip(batch, mean, strict=True):
                (y, down), (x, across) = rows[row], columns[column]
                area = sr[:, scale * y : scale * (y + tall), scale * x : scale * (x + wide)]
                window = (down / len(transforms))[:, None] * across
                area += window * undo_dihedral(output, transform)
    return sr.clamp_(0, 1)  # rounding alone can leave the range


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along an axis of `side` pixels: every `tile - overlap`, the last shifted inwards."""
    if tile == 0 or side <= tile:
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def tile_weights(size: int, blend: Blend) -> Tensor:
    """Blending weights along one axis of a tile, (size,) float64, all positive; both axes multiply.

    With u the distance of a pixel from the tile's centre in half tiles, 0 … 1 - 1/size:
    `distance` is 1 - u (a tent, which vanishes towards the edge, so that no seam is left where a tile
    ends), `gaussian` is exp(-u² / (2 · 0.25²)), `constant` is 1.
    """
    u = ((2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1).abs()
    match blend:
        case "distance":
            return 1 - u
        case "gaussian":
            return torch.exp(-(u**2) / (2 * GAUSSIAN_WIDTH**2))
        case _:
            return torch.ones_like(u)


def normalised_weights(
    side: int, tile: int, overlap: int, blend: Blend, scale: int
) -> list[tuple[int, Tensor]]:
    """Each tile's start (LR pixels) along an axis and its weights (HR pixels), which sum to 1 per pixel."""
    starts = tile_starts(side, tile, overlap)
    size = scale * min(side, tile or side)
    weights = tile_weights(size, blend)
    total = torch.zeros(scale * side, dtype=torch.float64)
    for start in starts:
        total[scale * start : scale * start + size] += weights
    return [(start, weights / total[scale * start : scale * start + size]) for start in starts]


def dihedral(image: Tensor, transform: int) -> Tensor:
    """(…, y, x) turned: bit 0 of `transform` flips rows, bit 1 flips columns, bit 2 then transposes."""
    dims = [dim for bit, dim in ((1, -2), (2, -1)) if transform & bit]
    image = image.flip(dims) if dims else image
    return image.transpose(-1, -2) if transform & 4 else image


def undo_dihedral(image: Tensor, transform: int) -> Tensor:
    """The inverse of `dihedral`."""
    image = image.transpose(-1, -2) if transform & 4 else image
    dims = [dim for bit, dim in ((1, -2), (2, -1)) if transform & bit]
    return image.flip(dims) if dims else image


def _batches(
    rows: int, columns: int, transforms: Sequence[int], batch_size: int, square: bool
) -> Iterator[list[tuple[int, int, int]]]:
    """All (row, column, transform), in batches of one shape: oblong tiles do not mix with transposed ones."""
    groups = [transforms] if square else [[t for t in transforms if t < 4], [t for t in transforms if t >= 4]]
    for group in groups:
        batch = []
        for row in range(rows):
            for column in range(columns):
                for transform in group:
                    batch.append((row, column, transform))
                    if len(batch) == batch_size:
                        yield batch
                        batch = []
        if batch:
            yield batch


def _forward(network: nn.Module, tiles: Tensor, scale: int) -> Tensor:
    """What the network makes of (B, 3, y, x), clamped, on the device and in the type of `tiles`."""
    like = next(network.parameters(), tiles)
    given = tiles.to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)
    output = network(given)
    expected = (*tiles.shape[:2], scale * tiles.shape[2], scale * tiles.shape[3])
    if output.shape != expected:
        raise ValueError(
            f"a network of scale {scale} must make {expected} of {tuple(tiles.shape)}, "
            f"but {type(network).__name__} made {tuple(output.shape)}"
        )
    return output.clamp(0, 1).to(tiles)


def _shares(networks: Sequence[nn.Module], weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * len(networks) if weights is None else [float(weight) for weight in weights]
    fine = len(given) == len(networks) and all(math.isfinite(weight) and weight >= 0 for weight in given)
    if not fine or sum(given) <= 0:
        raise ValueError(
            f"`weights` must be non-negative, not all 0, and one for each of the {len(networks)} networks, "
            f"but got {given}"
        )
    return [weight / sum(given) for weight in given]


def _check(
    networks: Sequence[nn.Module], lr: Tensor, tile: int, overlap: int, blend: str, batch_size: int
) -> None:
    if not networks:
        raise ValueError("there must be at least one network, but got none")
    if lr.ndim != 3 or lr.shape[0] != 3 or 0 in lr.shape or not lr.is_floating_point():
        raise ValueError(f"`lr` must be (3, h, w) of floats, but got {tuple(lr.shape)} of {lr.dtype}")
    if tile < 0 or (tile > 0 and not 0 <= overlap < tile):
        raise ValueError(
            f"`0 <= overlap < tile` must hold (or tile=0, the whole image), but got overlap={overlap}, "
            f"tile={tile}"
        )
    if blend not in BLENDS:
        raise ValueError(f"`blend` must be one of {', '.join(BLENDS)}, but got {blend!r}")
    if batch_size < 1:
        raise ValueError(f"`batch_size >= 1` must hold, but got {batch_size}")
