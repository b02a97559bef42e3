"""Tiles of an image, their blending weights, and the eight flips and transposes.

Blending weights are separable, so their sum over the tiles of a grid is the product of two sums along
an axis. Each tile is therefore added to the result with weights that are already normalised, and no
image of weights is ever kept.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Blend = Literal["distance", "gaussian", "constant"]
BLENDS: tuple[Blend, ...] = ("distance", "gaussian", "constant")

GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the gaussian blending weights, in half tiles: e⁻⁸ at a tile's edge."""


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
