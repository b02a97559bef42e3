"""RCAN, the residual channel attention network.

Y. Zhang et al., "Image super-resolution using very deep residual channel attention networks",
ECCV 2018. Layers are named as in the official code (yulunzhang/RCAN), so that published weights
load unchanged and ours open in other tools.

Shapes: B images, F features, h×w LR pixels, s scale.
"""

from __future__ import annotations

from torch import Tensor, nn

from gpnas_trainers.networks.blocks import (
    RGB_RANGE,
    MeanShift,
    ResidualChannelAttentionBlock,
    begin_near_zero,
    bicubic,
    conv3x3,
    upsampler,
)


class ResidualGroup(nn.Module):
    """Some RCABs, a convolution, and the short skip connection (Eq. 3-4)."""

    def __init__(self, features: int, blocks: int, reduction: int) -> None:
        super().__init__()
        rcabs = [ResidualChannelAttentionBlock(features, reduction) for _ in range(blocks)]
        self.body = nn.Sequential(*rcabs, conv3x3(features, features))

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        return x + self.body(x)


class RCAN(nn.Module):
    """The residual channel attention network: G groups of B blocks with F features.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, at least 1; 64 in the original, 128 in the paper's RCAN*.
        groups: G, at least 1; 10, and 5.
        blocks: blocks of a group, at least 1; 20, and 10.
        reduction: of channels inside channel attention.
        image_skip: adds the bicubically upsampled input to the output. Off, as in the original; short
            trainings gain by it.
    """

    def __init__(
        self,
        scale: int,
        features: int,
        groups: int,
        blocks: int,
        *,
        reduction: int,
        image_skip: bool,
    ) -> None:
        super().__init__()
        self.scale, self.image_skip = scale, image_skip
        self.sub_mean = MeanShift(-1)
        self.add_mean = MeanShift(1)
        self.head = nn.Sequential(conv3x3(3, features))
        residual_groups = [ResidualGroup(features, blocks, reduction) for _ in range(groups)]
        self.body = nn.Sequential(*residual_groups, conv3x3(features, features))
        last = conv3x3(features, 3)
        self.tail = nn.Sequential(upsampler(scale, features), begin_near_zero(last) if image_skip else last)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        h = self.head(self.sub_mean(x * RGB_RANGE))
        sr: Tensor = self.tail(h + self.body(h))
        if self.image_skip:
            # the network then adds detail alone, so the mean colour is not added again
            return sr / RGB_RANGE + bicubic(x, self.scale, training=self.training)
        return self.add_mean(sr) / RGB_RANGE
