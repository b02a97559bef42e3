"""Layers that the families of networks share.

Shapes: B images, C channels, H×W pixels, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, in [0, 1]."""
RGB_RANGE = 255.0
"""Pixel range inside the network, as in the published weights."""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3×3 convolution that keeps H×W."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def begin_near_zero(conv: nn.Conv2d, share: float = 0.01) -> nn.Conv2d:
    """The same convolution with fresh weights and biases shrunk to a share of themselves.

    The last one of a network that adds its input's upsampled image: it then begins at that image, and
    not at noise that the first hundreds of steps must take away (as in H. Zhang, Y. Dauphin, T. Ma,
    "Fixup initialization", ICLR 2019, section 3).
    """
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.mul_(share)
    return conv


class ChannelAttention(nn.Module):
    """Channel attention (CA): each channel is scaled by a gate that sees every channel's mean.

    Zhang et al., "Image super-resolution using very deep residual channel attention networks",
    ECCV 2018, Eq. 5-8. The gate's name and order of layers are the official code's.
    """

    def __init__(self, features: int, reduction: int = 16) -> None:
        super().__init__()
        # a narrow network keeps at least one hidden channel
        hidden = max(1, features // reduction)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_du = nn.Sequential(
            nn.Conv2d(features, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, features, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, F, H, W)
        return x * self.conv_du(self.avg_pool(x))


class MeanShift(nn.Conv2d):
    """Adds or subtracts the mean colour; a trainable 1×1 convolution, as in the official weights."""

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, 1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(3)[:, :, None, None])
            assert self.bias is not None
            self.bias.copy_(sign * RGB_RANGE * torch.tensor(RGB_MEAN))


class ResidualChannelAttentionBlock(nn.Module):
    """RCAB: conv, ReLU, conv, channel attention, plus the input (Eq. 9 of the same paper)."""

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(features, features),
            nn.ReLU(inplace=True),
            conv3x3(features, features),
            ChannelAttention(features, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        return x + self.body(x)


def upsampler(scale: int, features: int) -> nn.Sequential:
    """Sub-pixel convolution: conv F→4F and PixelShuffle(2) for each factor of 2, or 9F and 3.

    Shi et al., CVPR 2016; the order of layers is the official RCAN code's.
    """
    layers: list[nn.Module] = []
    if scale == 3:
        layers += [conv3x3(features, 9 * features), nn.PixelShuffle(3)]
    else:
        for _ in range(scale.bit_length() - 1):
            layers += [conv3x3(features, 4 * features), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
