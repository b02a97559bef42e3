"""EDSR, the enhanced deep residual network.

B. Lim, S. Son, H. Kim, S. Nah, K. M. Lee, "Enhanced deep residual networks for single image
super-resolution", CVPR workshops 2017. The official code is sanghyun-son/EDSR-PyTorch (MIT licence).
"""

from __future__ import annotations

from torch import Tensor, nn

from gpnas_trainers.networks.blocks import LongSkip, conv3x3

DAMPING = 0.1
"""Factor of the residuals in the authors' large network (section 3.3)."""


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, a constant factor, plus the input (Fig. 2c)."""

    def __init__(self, features: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(
            conv3x3(features, features), nn.ReLU(inplace=True), conv3x3(features, features)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        residual: Tensor = self.body(x)
        return x + (residual if self.factor == 1 else residual * self.factor)


class EDSR(LongSkip):
    """The enhanced deep residual network: B blocks with F features.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, at least 1; 64 in the baseline, 256 in the large network.
        blocks: B, at least 1; 16 and 32.
        damped: multiplies residuals by 0.1, without which the large network did not train.
        image_skip: adds the bicubically upsampled input to the output. Off, as in the original; short
            trainings gain by it.
    """

    def __init__(self, scale: int, features: int, blocks: int, *, damped: bool, image_skip: bool) -> None:
        factor = DAMPING if damped else 1
        residual = (ResidualBlock(features, factor) for _ in range(blocks))
        super().__init__(scale, features, residual, image_skip=image_skip)
