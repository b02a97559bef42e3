"""MS-SSIM that can be trained on, as pytorch-msssim computes it, in less time on a CPU.

Shapes: N planes (a channel of an image each), H×W pixels, w taps of the window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first."""
SIGMA = 1.5
"""Standard deviation of the gaussian window, in pixels."""
C1, C2 = 0.01**2, 0.03**2


def ms_ssim(sr: Tensor, hr: Tensor, *, window: int) -> Tensor:
    """Multi-scale structural similarity, a mean over images and channels; a scalar, 1 for equal images.

    Wang, Simoncelli, Bovik, Asilomar 2003, Eq. 7, with the weights of that paper. At each scale only
    windows that lie inside the image count. HR is taken as constant.

    Args:
        sr, hr: (B, C, H, W) in [0, 1].
        window: side of the gaussian window, odd; at the coarsest scale it must fit the image.
    """
    taps = gaussian(window)
    # every channel of every image is compared by itself
    x, y = sr.float().contiguous().flatten(0, 1), hr.float().contiguous().flatten(0, 1)  # (N, H, W)
    product: Tensor | None = None
    for level, weight in enumerate(WEIGHTS):
        if level:
            odd = [side % 2 for side in x.shape[-2:]]
            x, y = (avg_pool2d(planes, 2, padding=odd) for planes in (x, y))
        mean_x, mean_y, squares, cross = blur((x, y, x * x + y * y, x * y), taps)
        both, means = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        similarity = (2 * (cross - both) + C2) / (squares - means + C2)
        if level == len(WEIGHTS) - 1:
            similarity = (2 * both + C1) / (means + C1) * similarity
        factor = similarity.mean(dim=(1, 2)).relu() ** weight
        product = factor if product is None else product * factor
    assert product is not None
    return product.mean()


def gaussian(window: int) -> list[float]:
    """The window's taps; their sum is 1."""
    offsets = torch.arange(window, dtype=torch.float64) - window // 2
    taps = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return (taps / taps.sum()).tolist()


def blur(fields: Iterable[Tensor], taps: list[float]) -> list[Tensor]:
    """Each field (N, H, W) under the window, (N, H-w+1, W-w+1); taken one after the other."""
    # field by field: what is shifted and summed then stays in the cache
    return [_ShiftedSums.apply(field, taps) for field in fields]


class _ShiftedSums(torch.autograd.Function):
    """A separable window as sums of shifted planes; on a CPU no convolution in PyTorch is near as fast."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, taps: list[float]) -> Tensor:  # (N, H, W)
        ctx.taps = taps
        for dim in (1, 2):
            side = field.shape[dim] - len(taps) + 1
            total = field.narrow(dim, 0, side) * taps[0]
            for start, tap in enumerate(taps[1:], 1):
                total.add_(field.narrow(dim, start, side), alpha=tap)
            field = total
        return field

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        for dim in (2, 1):
            shape = list(gradient.shape)
            shape[dim] += len(ctx.taps) - 1
            total = gradient.new_zeros(shape)
            for start, tap in enumerate(ctx.taps):
                total.narrow(dim, start, gradient.shape[dim]).add_(gradient, alpha=tap)
            gradient = total
        return gradient, None
