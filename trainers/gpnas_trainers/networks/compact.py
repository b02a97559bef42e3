"""The compact network of Real-ESRGAN, SRVGGNet.

X. Wang, L. Xie, C. Dong, Y. Shan, "Real-ESRGAN: training real-world blind super-resolution with pure
synthetic data", ICCV workshops 2021; the network is published in its code alone (xinntao/Real-ESRGAN, BSD
3-clause licence).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from gpnas_trainers.networks.blocks import conv3x3, shrunk, signal_kept

SLOPE = 0.25
"""Slope of PReLU below 0 before training."""


class Compact(nn.Module):
    """Convolutions with a PReLU after each, a sub-pixel convolution, plus the nearest neighbours.

    All of it works at LR size, so it is fast, and nothing but the last layer depends on the scale.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, at least 1; 64 in the original.
        convolutions: those from F to F features, at least 1; 16 or 32.
    """

    def __init__(self, scale: int, features: int, convolutions: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = []
        for inputs in [3] + [features] * convolutions:
            layers += [signal_kept(conv3x3(inputs, features), SLOPE), nn.PReLU(features, SLOPE)]
        self.body = nn.Sequential(*layers, shrunk(conv3x3(features, 3 * scale * scale)))
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        detail: Tensor = self.upsampler(self.body(x))
        return detail + interpolate(x, scale_factor=self.scale, mode="nearest")
