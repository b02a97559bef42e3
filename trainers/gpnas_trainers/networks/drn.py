"""DRN, the deep dense residual network of the paper.

Z. Pan et al., "Real image super resolution via heterogeneous model ensemble using GP-NAS",
ECCV workshops 2020, section 4.1 and Fig. 1. No code was published; this is the most faithful
reading. Not to be confused with the dual regression network, also called DRN elsewhere.

Shapes: L stages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gpnas_trainers.networks.blocks import (
    ChannelAttention,
    bicubic,
    conv3x3,
    nearest_upsampler,
    shrunk,
    signal_kept,
)
from gpnas_trainers.networks.blocks import upsampler as shuffle_upsampler


class DenseResidualBlock(nn.Module):
    """L stages of two convolutions, all concatenated, fused F·L→F, then channel attention.

    Each stage adds its input, and the inter-block skip connection adds the previous block's input.
    """

    def __init__(self, features: int, stages: int, fuse: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                signal_kept(conv3x3(features, features), 0.0),
                nn.ReLU(inplace=True),
                signal_kept(conv3x3(features, features)),
            )
            for _ in range(stages)
        )
        self.fuse = signal_kept(nn.Conv2d(features * stages, features, fuse, padding=fuse // 2))
        self.attention = ChannelAttention(features)

    def forward(self, h: Tensor, previous: Tensor | None) -> Tensor:  # (B, F, h, w), the same or None
        s, outputs = h, []
        for stage in self.stages:
            if previous is not None:
                s = s + previous
            s = stage(s)
            outputs.append(s)
        fused: Tensor = self.attention(self.fuse(torch.cat(outputs, dim=1)))
        return h + fused


class DRN(nn.Module):
    """The paper's network: F features, D blocks of L stages.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, at least 1; the paper's search chose 128.
        blocks: D, at least 1; 18.
        stages: L, at least 1; 3.
        fuse: kernel of the convolution F·L→F, 1 or 3. Not stated in the paper; with 1 the size comes
            close to RCAN's, beside which the paper sets it.
        global_skip: adds the shallow features to the last block's. Not stated; off.
        image_skip: adds the bicubically upsampled input to the output (as VDSR, Kim et al., CVPR
            2016). Not stated; on, since short trainings gain by it.
        upsampler: what makes the paper's "enhanced upsampler" is not stated. `shuffle`, sub-pixel
            convolutions and a last one at HR size, as in EDSR and RCAN (the default); `nearest`, nearest
            neighbours with convolutions between, as in ESRGAN; `direct`, one sub-pixel convolution to the
            image itself (Shi et al., CVPR 2016), the cheapest.
    """

    def __init__(
        self,
        scale: int,
        features: int,
        blocks: int,
        stages: int,
        *,
        fuse: int,
        global_skip: bool,
        image_skip: bool,
        upsampler: str,
    ) -> None:
        super().__init__()
        self.scale, self.global_skip, self.image_skip = scale, global_skip, image_skip
        self.head = signal_kept(conv3x3(3, features))
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            block = DenseResidualBlock(features, stages, fuse)
            shrunk(block.fuse, blocks**-0.5)
            self.blocks.append(block)
        last = signal_kept(conv3x3(features, 3 if upsampler != "direct" else 3 * scale * scale))
        if image_skip:
            shrunk(last, 0.001)
        self.upsampler: nn.Sequential
        self.tail: nn.Module = last
        match upsampler:
            case "shuffle":
                self.upsampler = shuffle_upsampler(scale, features)
            case "nearest":
                self.upsampler = nearest_upsampler(scale, features)
            case _:
                self.upsampler, self.tail = nn.Sequential(), nn.Sequential(last, nn.PixelShuffle(scale))
        for layer in self.upsampler:
            if isinstance(layer, nn.Conv2d):
                signal_kept(layer, 1.0 if upsampler == "shuffle" else 0.2)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        h, previous = self.head(x), None
        shallow = h if self.global_skip else None
        for block in self.blocks:
            h, previous = block(h, previous), h
        del previous  # what is not needed at HR size is not held there
        if shallow is not None:
            h = h + shallow
        sr: Tensor = self.tail(self.upsampler(h))
        if self.image_skip:
            sr = sr + bicubic(x, self.scale, training=self.training)
        return sr
