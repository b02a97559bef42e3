"""Pairs that lie whole in the memory of a device, from which patches are drawn without a copy.

The same draws as `PairSet.patches` give the same patches: a crop that is mirrored and transposed is read
from the flat pixels with strides that may be negative, all patches of a batch at once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnas_trainers.pairs.prepared import Draw, PairSet

SHARE = 0.25
"""The largest part of a device's free memory that a resident set may take."""


class ResidentPairs:
    """What a `PairSet` draws patches from, with a copy of all of its pixels on a device."""

    def __init__(self, pairs: PairSet, device: torch.device | str) -> None:
        self._pairs, self._device = pairs, torch.device(device)
        images = [image for index in range(len(pairs)) for image in pairs.stored(index)]
        deep = any(image.dtype != np.uint8 for image in images)
        self._top = 65535 if deep else 255
        self._starts = np.cumsum([0, *(image.size for image in images)])
        # uint16 cannot be gathered on every device; its bits as int16 can
        kind = torch.int16 if deep else torch.uint8
        self._flat = torch.empty(int(self._starts[-1]), dtype=kind, device=device)
        for start, image in zip(self._starts.tolist(), images, strict=False):
            if deep:
                levels = image.astype(np.uint16) * np.uint16(257 if image.dtype == np.uint8 else 1)
                pixels = torch.from_numpy(levels.view(np.int16).reshape(-1))
            else:
                pixels = torch.from_numpy(image.reshape(-1).copy())
            self._flat[start : start + image.size] = pixels

    def patches(
        self, batch_size: int, hr_patch: int, generator: np.random.Generator, *, rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """The patches that `PairSet.patches` would give, on the device."""
        draw = self._pairs.draw(batch_size, hr_patch, generator, rows=rows)
        side = hr_patch // self._pairs.scale
        return self._crops(draw, 0, side, 1), self._crops(draw, 1, hr_patch, self._pairs.scale)

    def _crops(self, draw: Draw, which: int, side: int, scale: int) -> Tensor:  # (B, 3, side, side)
        shapes = scale * np.array(self._pairs.shapes)[draw.index]  # (B, 2)
        start, strides = strided(shapes, scale * draw.corner, draw.transform, side)
        start = start + self._starts[2 * draw.index + which]
        place = torch.from_numpy(np.column_stack([start, strides])).to(self._device, non_blocking=True)
        first, by_channel, down, across = place.T[..., None, None, None]
        along = torch.arange(side, device=self._device)
        channels = torch.arange(3, device=self._device)
        index = first + by_channel * channels[:, None, None] + down * along[:, None] + across * along
        taken = self._flat[index].to(torch.float32)
        if self._top > 255:
            taken = torch.where(taken < 0, taken + 65536, taken)
        return taken.div_(self._top)


def strided(
    shapes: NDArray[np.int64],  # (B, 2)
    corners: NDArray[np.int64],  # (B, 2)
    transforms: NDArray[np.int64],  # (B,)
    side: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # (B,), (B, 3)
    """The offset of each crop's first pixel in its image (3, H, W), and the strides of its three axes.

    Args:
        shapes: (H, W) of each image.
        corners: (y, x) of each crop in its image.
        transforms: 0 … 7, as `dihedral` takes them.
        side: of the crops, in pixels.
    """
    height, width = shapes.T
    y, x = corners.T
    rows, columns = transforms & 1, transforms >> 1 & 1
    start = (y + rows * (side - 1)) * width + x + columns * (side - 1)
    down, across = (1 - 2 * rows) * width, 1 - 2 * columns
    turned = (transforms >> 2 & 1).astype(bool)
    strides = [height * width, np.where(turned, across, down), np.where(turned, down, across)]
    return start, np.column_stack(strides)


def resident(pairs: PairSet, device: torch.device | str) -> PairSet | ResidentPairs:
    """The pairs, on the device where they take at most a quarter of its free memory; else as they are.

    The memory of a CPU holds mapped files already, so pairs stay as they are there.
    """
    if torch.device(device).type != "cuda" or not isinstance(pairs, PairSet):
        return pairs
    free, _ = torch.cuda.mem_get_info(device)
    return ResidentPairs(pairs, device) if pairs.bytes <= SHARE * free else pairs
