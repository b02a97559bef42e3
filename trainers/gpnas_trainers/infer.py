"""The multi-level ensemble: networks averaged, over overlapping tiles and eight transforms.

Section 4.3 of Pan et al. 2020. Shapes: B batch, h×w LR pixels, H×W HR pixels, s scale, T tile side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Blend = Literal["distance", "gaussian", "constant"]

PIXELS_AT_ONCE = 120 * 120 * 4
"""LR pixels that go through a network in one batch: bounds memory, whatever the image's size."""


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
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:  # (3, H, W)
    """The super-resolved image, float in [0, 1], on the CPU.

    Each tile is flipped and transposed eight ways, each way goes through each network, and the
    outputs, turned back, clamped to [0, 1] and averaged, are blended where tiles overlap. The image
    itself stays on the CPU; a network sees a few tiles at a time.

    Args:
        networks: at least one, all of this scale; on one device.
        lr: RGB in [0, 1].
        scale: s.
        tile: T, side of a tile in LR pixels, at least 8; 0 takes the whole image as one.
        overlap: LR pixels that neighbouring tiles share, 0 … T-1; the paper: 120 and 60.
        blend: weight of a pixel within its tile, see `tile_weights`.
        self_ensemble: eight ways, else one.
        weights: of the networks, positive; None weighs them equally.
        progress: called with tiles done and all.

    Raises:
        ValueError: an argument out of range.
    """
    if not networks:
        raise ValueError("at least one network must be given, but got none")
    if lr.dim() != 3 or lr.shape[0] != 3 or 0 in lr.shape:
        raise ValueError(f"an image must be (3, height, width), but is {tuple(lr.shape)}")
    if tile and (tile < 8 or not 0 <= overlap < tile):
        raise ValueError(f"`tile >= 8` and `0 <= overlap < tile` must hold, but got {tile} and {overlap}")
    shares = torch.tensor(weights if weights is not None else [1.0] * len(networks))
    if len(shares) != len(networks) or not bool((shares > 0).all()):
        raise ValueError(f"each of {len(networks)} networks needs a positive weight, but got {weights}")
    shares = shares / shares.sum()
    height, width = lr.shape[-2:]
    tile_height, tile_width = (min(tile, side) if tile else side for side in (height, width))
    tops, lefts = _starts(height, tile_height, overlap), _starts(width, tile_width, overlap)
    window = tile_weights(tile_height * scale, tile_width * scale, blend)
    total = torch.zeros(3, height * scale, width * scale)
    norm = torch.zeros(height * scale, width * scale)
    places = [(top, left) for top in tops for left in lefts]
    ways = range(8) if self_ensemble else range(1)
    for number, (top, left) in enumerate(places):
        crop = lr[:, top : top + tile_height, left : left + tile_width]
        sr = _tile(networks, shares, crop, scale, ways)
        top, left = top * scale, left * scale
        rows, columns = slice(top, top + window.shape[0]), slice(left, left + window.shape[1])
        total[:, rows, columns] += sr * window
        norm[rows, columns] += window
        if progress is not None:
            progress(number + 1, len(places))
    return total / norm


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side; the last is moved inwards, so that all have full size."""
    if tile >= side:
        return [0]
    starts = list(range(0, side - tile, tile - overlap))
    return [*starts, side - tile]


def tile_weights(height: int, width: int, blend: Blend) -> Tensor:  # (height, width)
    """Weight of each pixel of a tile by its distance from the centre; positive everywhere.

    `distance` falls linearly along each axis from the centre to nearly 0 at the edge, as a tent, and
    is their product; `gaussian` has a standard deviation of an eighth of the side; `constant` is 1.
    """
    if blend == "constant":
        return torch.ones(height, width)
    axes = []
    for side in (height, width):
        offset = (torch.arange(side) - (side - 1) / 2).abs()
        if blend == "distance":
            axes.append(1 - offset / ((side + 1) / 2))
        else:
            axes.append(torch.exp(-0.5 * (offset / (side / 8)).square()).clamp_min(1e-6))
    return axes[0][:, None] * axes[1][None, :]


def transform(image: Tensor, way: int) -> Tensor:  # (..., H, W)
    """One of the eight symmetries of the square: bits 0 and 1 flip, then bit 2 transposes."""
    if way & 1:
        image = image.flip(-1)
    if way & 2:
        image = image.flip(-2)
    return image.transpose(-1, -2) if way & 4 else image


def untransform(image: Tensor, way: int) -> Tensor:  # (..., H, W)
    """Undoes `transform`."""
    if way & 4:
        image = image.transpose(-1, -2)
    if way & 2:
        image = image.flip(-2)
    return image.flip(-1) if way & 1 else image


def _tile(
    networks: Sequence[nn.Module], shares: Tensor, crop: Tensor, scale: int, ways: range
) -> Tensor:  # (3, s·h, s·w)
    height, width = crop.shape[-2:]
    total = torch.zeros(3, height * scale, width * scale)
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    # ways with and without a transpose have different shapes unless the tile is square
    groups = [list(ways)] if height == width else [[w for w in ways if w < 4], [w for w in ways if w >= 4]]
    device = next(networks[0].parameters()).device
    with torch.inference_mode():
        for group in groups:
            for start in range(0, len(group), at_once):
                chunk = group[start : start + at_once]
                batch = torch.stack([transform(crop, way) for way in chunk])
                batch = batch.to(device, memory_format=torch.channels_last)
                outputs = torch.zeros(())
                for network, share in zip(networks, shares, strict=True):
                    outputs = outputs.to(device) + share.to(device) * network(batch).clamp(0, 1)
                for way, output in zip(chunk, outputs.cpu(), strict=True):
                    total += untransform(output, way)
    return total / len(ways)
