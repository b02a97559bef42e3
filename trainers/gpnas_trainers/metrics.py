"""PSNR and SSIM, with every choice stated that papers and tools differ in.

Both take images in [0, 1], float, (..., 3, H, W), RGB as it is. `border` pixels are dropped on
each side first. Values are not rounded to 8 bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WINDOW = 11
"""Side of SSIM's gaussian window."""
SIGMA = 1.5
"""Standard deviation of SSIM's gaussian window, in pixels."""


def psnr_from_mse(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, 10·log10(1 / mse); infinite for equal images."""
    return math.inf if mse <= 0 else -10 * math.log10(mse)


def psnr(sr: Tensor, hr: Tensor, *, border: int = 0) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels.

    Args:
        sr, hr: (..., 3, H, W) in [0, 1], of one size.
        border: pixels dropped on each side.

    Raises:
        ValueError: the sizes differ.
    """
    sr, hr = _cropped(sr, hr, border)
    return psnr_from_mse(float((sr.double() - hr.double()).square().mean()))


def ssim(sr: Tensor, hr: Tensor, *, border: int = 0) -> float:
    """Structural similarity, mean over channels and positions.

    Wang et al., IEEE TIP 13(4), 2004, Eq. 13: gaussian window of 11×11 with sigma 1.5, K1 = .01,
    K2 = .03, population covariance, only windows that lie inside the image ("valid", as
    scikit-image with gaussian weights and pytorch-msssim; torchmetrics and kornia pad instead).

    Args:
        sr, hr: (..., 3, H, W) in [0, 1], of one size, H and W at least 11 inside the border.
        border: pixels dropped on each side.

    Raises:
        ValueError: the sizes differ, or are too small.
    """
    sr, hr = _cropped(sr, hr, border)
    height, width = sr.shape[-2:]
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}×{WINDOW}, but got {height}×{width}")
    x = sr.double().reshape(-1, 1, height, width)
    y = hr.double().reshape(-1, 1, height, width)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x.square()
    var_y = _blur(y * y) - mean_y.square()
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float((luminance * structure).mean())


def _cropped(sr: Tensor, hr: Tensor, border: int) -> tuple[Tensor, Tensor]:
    if sr.shape != hr.shape:
        raise ValueError(f"images must have one size, but got {tuple(sr.shape)} and {tuple(hr.shape)}")
    if border:
        inner = slice(border, -border)
        sr, hr = sr[..., inner, inner], hr[..., inner, inner]
    return sr, hr


def _blur(x: Tensor) -> Tensor:  # (N, 1, H, W) -> (N, 1, H-10, W-10)
    """Along one side and then the other, by shifted sums: no convolution in float64 is near as fast."""
    offsets = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = (window / window.sum()).tolist()
    for dim in (-2, -1):
        size = x.shape[dim] - WINDOW + 1
        blurred = x.narrow(dim, 0, size) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            blurred.add_(x.narrow(dim, start, size), alpha=weight)
        x = blurred
    return x
