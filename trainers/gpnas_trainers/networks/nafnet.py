"""NAFNet for super-resolution of single images.

L. Chen, X. Chu, X. Zhang, J. Sun, "Simple baselines for image restoration", ECCV 2022; the form for
super-resolution is that of X. Chu, L. Chen, W. Yu, "NAFSSR: stereo image super-resolution using NAFNet", CVPR
workshops 2022, without its attention between two views. The official code is megvii-research/NAFNet
(`NAFNetSR`, MIT licence).

Shapes: W width (channels).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gpnas_trainers.networks.blocks import ChannelNorm, conv3x3, named, shrunk


class Block(nn.Module):
    """Two parts, each of normed features and beside a skip connection with a trained factor (Fig. 3c).

    A gate, the product of two halves of the channels, takes the place of activation functions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, 2 * width, 1)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.conv3 = nn.Conv2d(width, width, 1)
        self.conv4 = nn.Conv2d(width, 2 * width, 1)
        self.conv5 = nn.Conv2d(width, width, 1)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # (B, W, h, w)
        y = gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(y * self.sca(y)) * self.beta
        return x + self.conv5(gate(self.conv4(self.norm2(x)))) * self.gamma


class NAFNet(nn.Module):
    """B blocks of one width and one sub-pixel convolution, plus the bilinearly upsampled input.

    Args:
        scale: 2, 3, 4 or 8.
        width: W, at least 1; 48, 64, 96 and 128 in the originals.
        blocks: B, at least 1; 16, 32, 64 and 128.
    """

    def __init__(self, scale: int, width: int, blocks: int) -> None:
        super().__init__()
        self.scale = scale
        self.intro = conv3x3(3, width)
        # `module` is a block that training may leave out, `blk` stands beside the attention between two views
        self.body = nn.Sequential(*(named(module=named(blk=Block(width))) for _ in range(blocks)))
        last = shrunk(conv3x3(width, 3 * scale * scale))
        self.up = nn.Sequential(last, nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        detail: Tensor = self.up(self.body(self.intro(x)))
        return detail + interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


def gate(x: Tensor) -> Tensor:  # (B, 2·C, h, w) -> (B, C, h, w)
    """The product of both halves of the channels."""
    one, other = x.chunk(2, dim=1)
    return one * other
