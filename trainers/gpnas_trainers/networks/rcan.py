"""RCAN, the residual channel attention network.

Y. Zhang et al., "Image super-resolution using very deep residual channel attention networks",
ECCV 2018. The official code is yulunzhang/RCAN.
"""

from __future__ import annotations

from torch import Tensor, nn

from gpnas_trainers.networks.blocks import LongSkip, ResidualChannelAttentionBlock, conv3x3


class ResidualGroup(nn.Module):
    """Some RCABs, a convolution, and the short skip connection (Eq. 3-4)."""

    def __init__(self, features: int, blocks: int, reduction: int) -> None:
        super().__init__()
        rcabs = [ResidualChannelAttentionBlock(features, reduction) for _ in range(blocks)]
        self.body = nn.Sequential(*rcabs, conv3x3(features, features))

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        return x + self.body(x)


class RCAN(LongSkip):
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
        self, scale: int, features: int, groups: int, blocks: int, *, reduction: int, image_skip: bool
    ) -> None:
        residual = (ResidualGroup(features, blocks, reduction) for _ in range(groups))
        super().__init__(scale, features, residual, image_skip=image_skip)
