"""The dual regression network.

Y. Guo et al., "Closed-loop matters: dual regression networks for single image super-resolution",
CVPR 2020. The official code is guoyongcs/DRN: its authors call it DRN too; here `drn` is another network.

Shapes: s = 2^P.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gpnas_trainers.networks.blocks import (
    RGB_RANGE,
    MeanShift,
    ResidualChannelAttentionBlock,
    conv3x3,
    upsampler,
)

SLOPE = 0.2
"""Slope of LeakyReLU below 0."""


class Down(nn.Module):
    """Halves height and width: convolution of stride 2, LeakyReLU, convolution; without biases."""

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.dual_module = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(inputs, features, 3, stride=2, padding=1, bias=False),
                nn.LeakyReLU(SLOPE, inplace=True),
            ),
            nn.Conv2d(features, outputs, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H/2, W/2)
        return self.dual_module(x)


def duals(scale: int, features: int) -> nn.ModuleList:
    """The dual networks, one per factor of 2: each maps an SR image to the next smaller size.

    They serve in training alone and are no part of the network.
    """
    return nn.ModuleList(Down(3, features, 3) for _ in range(scale.bit_length() - 1))


class DualRegression(nn.Module):
    """A U-Net from the upsampled input down to LR size, and up again with channel attention.

    Args:
        scale: 2, 4 or 8.
        features: F at HR size, doubled by each halving; in the originals DRN-S and DRN-L 16 and 20
            at ×4, 8 and 10 at ×8.
        blocks: attention blocks of each size, at least 1; 30 and 40 at ×4, 30 and 36 at ×8.
    """

    def __init__(self, scale: int, features: int, blocks: int) -> None:
        super().__init__()
        self.scale, self.phases = scale, scale.bit_length() - 1
        widths = [features * 2**phase for phase in range(self.phases + 1)]  # HR size to LR size
        self.sub_mean = MeanShift(-1)
        self.head = conv3x3(3, features)
        self.down = nn.ModuleList(Down(n, n, 2 * n) for n in widths[:-1])
        self.up_blocks = nn.ModuleList()
        inputs = widths[-1]
        for outputs in reversed(widths[:-1]):
            attention = [ResidualChannelAttentionBlock(inputs, 16) for _ in range(blocks)]
            self.up_blocks.append(
                nn.Sequential(*attention, upsampler(2, inputs), nn.Conv2d(inputs, outputs, 1))
            )
            inputs = 2 * outputs  # with what comes from the way down
        self.tail = nn.ModuleList(conv3x3(n, 3) for n in [widths[-1], *reversed(widths[1:])])
        self.add_mean = MeanShift(1)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        return self._image(self.phases, self._features(x)[-1])

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Images at all sizes, LR first: (B, 3, h, w), (B, 3, 2h, 2w), … (B, 3, s·h, s·w)."""
        return [self._image(level, h) for level, h in enumerate(self._features(x))]

    def duals(self) -> nn.ModuleList:
        """Fresh dual networks of this network's scale and width."""
        return duals(self.scale, self.head.out_channels)

    def _features(self, x: Tensor) -> list[Tensor]:
        """Features from which the images of all sizes are made, LR first."""
        x = interpolate(x * RGB_RANGE, scale_factor=self.scale, mode="bicubic", align_corners=False)
        h = self.head(self.sub_mean(x))
        copies = []
        for down in self.down:
            copies.append(h)
            h = down(h)
        found = [h]
        for up, copy in zip(self.up_blocks, reversed(copies), strict=True):
            h = torch.cat((up(h), copy), dim=1)
            found.append(h)
        return found

    def _image(self, level: int, h: Tensor) -> Tensor:
        return self.add_mean(self.tail[level](h)) / RGB_RANGE
