"""What is measured of a pair: agreement of LR with HR at LR's size, their shift, and HR's thumbnail.

All are measured on luma (BT.601) and independently of the depth of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
KERNELS = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
"""The mean of cells, Keys's cubic and the triangle: cameras from sharp to soft."""
SHIFT_WINDOW = 512
"""LR pixels: sides of the part, in the middle, whose shift is measured."""
THUMBNAIL = 16
"""Pixels: sides of the thumbnail that tells photographs apart."""
SAME_PHOTOGRAPH = 0.97
"""Correlation of thumbnails from which on two photographs count as one. Copies that are compressed,
resized, brighter, or cropped by 1 % reach it; the most alike of City100's different scenes reach 0.92."""
_FLAT = 1.0
"""8-bit levels: with a smaller standard deviation a thumbnail shows nothing."""


def luma(image: NDArray[Any]) -> NDArray[np.float32]:
    """(3, H, W) to (H, W), in 8-bit levels."""
    weights = LUMA if image.dtype == np.uint8 else LUMA / np.float32(257)
    return np.einsum("c,chw->hw", weights, image, dtype=np.float32, casting="unsafe")


def shrunk(
    image: NDArray[np.float32], size: tuple[int, int], kernel: Image.Resampling
) -> NDArray[np.float64]:
    """(H, W) resampled to `size` (h, w) with the kernel widened by the factor, as antialiasing demands."""
    resized = Image.fromarray(image).resize((size[1], size[0]), kernel)
    return np.asarray(resized).astype(np.float64)


def ncc(lr: NDArray[Any], hr: NDArray[Any], scale: int) -> float:
    """Normalised cross-correlation of LR with the downsampled HR, -1 … 1, on luma.

    Measured at LR size: at HR size a sharp pair fails for LR's blur, not for its misalignment. For the
    same reason HR is downsampled with kernels from sharp to soft, and the best agreement counts: with the
    mean of cells alone, most of City100's pairs, all of them aligned to 0.3 pixels, would fall below 0.99.
    0 where either image is of one colour.

    Args:
        lr: (3, h, w), uint8 or uint16.
        hr: (3, scale·h, scale·w), uint8 or uint16.
        scale: HR pixels per LR pixel.
    """
    a, b = luma(lr).astype(np.float64), luma(hr)
    assert b.shape == (scale * a.shape[0], scale * a.shape[1])
    return max(correlation(a, shrunk(b, a.shape, kernel)) for kernel in KERNELS)


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's, of two arrays of one shape; 0 where either is constant."""
    a, b = a - a.mean(), b - b.mean()
    # sums of rounding errors are not contrast
    energy = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / energy if energy > 1e-6 * a.size else 0.0


def shift(lr: NDArray[Any], hr: NDArray[Any], scale: int) -> tuple[float, float]:
    """(down, right) in LR pixels: how far LR's content lies from where HR says, by phase correlation.

    To a hundredth, of the middle `SHIFT_WINDOW` pixels at most; windowed, since the frame of a picture
    would vote for no shift at all. On real pairs it is true to about a tenth of a pixel. Arguments as
    for `ncc`.
    """
    from skimage.registration import phase_cross_correlation  # half a second, and only checks need it

    a = luma(lr).astype(np.float64)
    b = shrunk(luma(hr), a.shape, Image.Resampling.BILINEAR)
    top, left = (max(0, (side - SHIFT_WINDOW) // 2) for side in a.shape)
    a, b = (each[top : top + SHIFT_WINDOW, left : left + SHIFT_WINDOW] for each in (a, b))
    if min(a.std(), b.std()) < 1e-6:
        return (0.0, 0.0)
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in a.shape))
    moved, _, _ = phase_cross_correlation(
        (a - a.mean()) * window, (b - b.mean()) * window, upsample_factor=100
    )
    return (round(float(moved[0]), 2) + 0.0, round(float(moved[1]), 2) + 0.0)


def thumbnail(hr: NDArray[Any]) -> NDArray[np.int8] | None:
    """(THUMBNAIL²,): HR's luma, tiny, free of its mean and scaled to ±127; None where nothing shows."""
    tiny = shrunk(luma(hr), (THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).ravel()
    tiny -= tiny.mean()
    if tiny.std() < _FLAT:
        return None
    return np.rint(tiny * (127 / np.abs(tiny).max())).astype(np.int8)


def same_photographs(thumbnails: NDArray[np.int8], block: int = 1024) -> list[list[int]]:
    """Groups of rows, each of two or more, that show the same photograph, by comparison of all with all.

    Groups are transitive: A like B and B like C make one group. Sorted, as are their members.

    Args:
        thumbnails: (n, THUMBNAIL²).
        block: rows that are compared at once, which bounds the memory.
    """
    unit = thumbnails.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    groups: list[list[int]] = []
    for start in range(0, len(unit), block):
        alike = np.argwhere(unit[start : start + block] @ unit.T >= SAME_PHOTOGRAPH)
        alike[:, 0] += start
        groups = [group for group in connected(len(unit), [*links_of(groups), *alike]) if len(group) > 1]
    return groups


def links_of(groups: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Links of each group's first member to its others: enough to make it one group again."""
    return [(group[0], other) for group in groups for other in group[1:]]


def connected(size: int, links: Sequence[Sequence[int]]) -> list[list[int]]:
    """The groups into which links (i, j) join the numbers 0 … size-1; sorted, as are their members."""
    from scipy.sparse import coo_array  # half a second to import, and only splits need it
    from scipy.sparse.csgraph import connected_components

    first, second = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(size, size))
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(connected_components(graph, directed=False)[1].tolist()):
        groups.setdefault(label, []).append(index)
    return list(groups.values())
