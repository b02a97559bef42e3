"""PSNR and SSIM, with every choice stated that papers and tools differ in.

All take images in [0, 1], float, (..., 3, H, W). `border` pixels are dropped on each side first; papers
that report on Set5 and its like drop as many as the scale. `channels` is `rgb`, each channel as it is,
or `y`, the luma of ITU-R BT.601 in its studio range of 16 to 235, as MATLAB's `rgb2ycbcr` gives it.
Values are not rounded to 8 bit.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from gpnas_trainers.ms_ssim import blur, gaussian

Channels = Literal["rgb", "y"]
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""Weights of red, green and blue in Y; besides them stands 16/255."""
WINDOW = 11
"""Side of SSIM's gaussian window."""


def psnr_from_mse(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, 10·log10(1 / mse); infinite for equal images."""
    return math.inf if mse <= 0 else -10 * math.log10(mse)


def psnr(sr: Tensor, hr: Tensor, *, border: int = 0, channels: Channels = "rgb") -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels.

    Args:
        sr, hr: (..., 3, H, W) in [0, 1], of one size.
        border: pixels dropped on each side.
        channels: `rgb` or `y`.

    Raises:
        ValueError: the sizes differ, or the border leaves nothing.
    """
    x, y = _compared(sr, hr, border, channels)
    return psnr_from_mse(float((x - y).square().mean()))


def ssim(sr: Tensor, hr: Tensor, *, border: int = 0, channels: Channels = "rgb") -> float:
    """Structural similarity, mean over channels and positions.

    Wang et al., IEEE TIP 13(4), 2004, Eq. 13: gaussian window of 11×11 with sigma 1.5, K1 = .01,
    K2 = .03, population covariance, only windows that lie inside the image ("valid", as
    scikit-image with gaussian weights and pytorch-msssim; torchmetrics and kornia pad instead).

    Arguments and errors as `psnr`; inside the border H and W must be at least 11.
    """
    x, y = _compared(sr, hr, border, channels)
    height, width = x.shape[-2:]
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}×{WINDOW}, but got {height}×{width}")
    return float(_similarity(x, y).mean())


def _compared(sr: Tensor, hr: Tensor, border: int, channels: Channels) -> tuple[Tensor, Tensor]:
    """What is compared of both, as `_planes`."""
    if sr.shape != hr.shape:
        raise ValueError(f"images must have one size, but got {tuple(sr.shape)} and {tuple(hr.shape)}")
    if not 0 <= 2 * border < min(sr.shape[-2:]):
        height, width = sr.shape[-2:]
        raise ValueError(
            f"a border must leave something of the image, but {border} of {height}×{width} do not"
        )
    inner = slice(border, -border or None)
    return _planes(sr[..., inner, inner], channels), _planes(hr[..., inner, inner], channels)


def _planes(image: Tensor, channels: Channels) -> Tensor:  # (..., 3, H, W) -> (N, H, W) of float64
    image = image.double()
    if channels == "y":
        weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)
        image = (image * weights[:, None, None]).sum(dim=-3, keepdim=True) + 16 / 255
    elif channels != "rgb":
        raise ValueError(f"channels must be rgb or y, but got {channels!r}")
    return image.reshape(-1, *image.shape[-2:])


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """Luminance, contrast and structure of (N, H, W) compared at each window, (N, H-10, W-10)."""
    pairs = ((x, x), (y, y), (x, y))
    mean_x, mean_y = blur((x, y), gaussian(WINDOW))
    square_x, square_y, product = blur((one * other for one, other in pairs), gaussian(WINDOW))
    var_x = square_x - mean_x.square()
    var_y = square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return luminance * (2 * covariance + c2) / (var_x + var_y + c2)
