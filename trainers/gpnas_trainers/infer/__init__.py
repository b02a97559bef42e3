"""The multi-level ensemble of Pan et al. 2020, Sec. 4.3: networks, overlapping tiles, flips and turns.

With f_k the networks and a_k their weights (sum 1), w_t the blending weights of tile t, and T the
eight flips and transposes, the SR value of pixel p is

    sr(p) = Σ_t w_t(p) · Σ_k a_k · mean_T [ T⁻¹ clamp(f_k(T tile_t)) ](p)  /  Σ_t w_t(p),

averaged over the sides of tiles where there are several. Each output is clamped to [0, 1] before
anything is averaged: that brings it closer to any true image, and makes the ensemble of networks exactly
the average of what each network yields alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gpnas_trainers.fusion import Fusion
from gpnas_trainers.infer.blending import BLENDS as BLENDS
from gpnas_trainers.infer.blending import Blend as Blend
from gpnas_trainers.infer.blending import dihedral as dihedral
from gpnas_trainers.infer.blending import normalised_weights as normalised_weights
from gpnas_trainers.infer.blending import tile_starts as tile_starts
from gpnas_trainers.infer.blending import tile_weights as tile_weights
from gpnas_trainers.infer.blending import undo_dihedral as undo_dihedral
from gpnas_trainers.infer.canvas import RowReader as RowReader
from gpnas_trainers.infer.levels import Levels as Levels
from gpnas_trainers.infer.levels import without_outlier as without_outlier
from gpnas_trainers.infer.streaming import Rows as Rows
from gpnas_trainers.infer.streaming import upscale_rows as upscale_rows


def upscale(
    networks: Sequence[nn.Module],
    lr: Tensor,  # (3, h, w)
    scale: int,
    levels: Levels | None = None,
    *,
    weights: Sequence[float] | None = None,
    fusion: Fusion | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The super-resolved image, (3, scale·h, scale·w) in [0, 1], on the device and in the type of `lr`.

    Beside the result, memory holds batches of tiles and the rows of one tile: `lr` may stay on the CPU
    while the networks are on a GPU.

    Args:
        networks: as `upscale_rows` takes them.
        lr: RGB, floats in [0, 1].
        scale: HR pixels per LR pixel.
        levels: of the ensemble; None is `Levels()`, the paper's.
        weights, fusion, batch_size, progress: as `upscale_rows` takes them.

    Raises:
        ValueError: an argument breaks its rule, or a network's output has another size.
    """
    if lr.ndim != 3 or lr.shape[0] != 3 or 0 in lr.shape or not lr.is_floating_point():
        raise ValueError(f"`lr` must be (3, h, w) of floats, but got {tuple(lr.shape)} of {lr.dtype}")
    sr = lr.new_empty(3, scale * lr.shape[1], scale * lr.shape[2])
    for _, top, rows in upscale_rows(
        networks,
        [_Image(lr)],
        scale,
        levels,
        weights=weights,
        fusion=fusion,
        batch_size=batch_size,
        dtype=torch.float64 if lr.dtype == torch.float64 else torch.float32,
        progress=progress,
    ):
        sr[:, top : top + rows.shape[1]] = rows
    return sr


class _Image:
    """An image in memory."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels.detach()
        self.height, self.width = pixels.shape[1:]

    def rows(self, start: int, stop: int) -> Tensor:
        return self._pixels[:, start:stop]
