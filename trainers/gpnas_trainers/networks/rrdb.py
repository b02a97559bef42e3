"""The residual-in-residual dense network (RRDB) of ESRGAN.

X. Wang et al., "ESRGAN: enhanced super-resolution generative adversarial networks", ECCV workshops 2018,
section 3.1. The official code is taken to be its authors' BasicSR (Apache 2.0 licence).

Shapes: G growth, u unshuffling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pixel_unshuffle

from gpnas_trainers.families.layers import factors
from gpnas_trainers.networks.blocks import bicubic, conv3x3, reflected, shrunk, signal_kept

DAMPING = 0.2
"""Factor of every residual."""
SLOPE = 0.2
"""Slope of LeakyReLU below 0."""


class DenseBlock(nn.Module):
    """Five convolutions, each of all before it; the last gives the residual (Fig. 4)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = signal_kept(conv3x3(features, growth), SLOPE)
        self.conv2 = signal_kept(conv3x3(features + growth, growth), SLOPE)
        self.conv3 = signal_kept(conv3x3(features + 2 * growth, growth), SLOPE)
        self.conv4 = signal_kept(conv3x3(features + 3 * growth, growth), SLOPE)
        self.conv5 = signal_kept(conv3x3(features + 4 * growth, features))

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        found = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            found.append(leaky_relu(conv(torch.cat(found, dim=1)), SLOPE, inplace=True))
        return torch.add(x, self.conv5(torch.cat(found, dim=1)), alpha=DAMPING)


class Block(nn.Module):
    """Three dense blocks, whose result is again a residual."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=DAMPING)


class RRDB(nn.Module):
    """The generator of ESRGAN: B blocks with F features, upsampled by nearest neighbours.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, at least 1; 64 in the original.
        blocks: B, at least 1; 23.
        growth: G, at least 1; 32.
        unshuffle: u, 1 or 2; with 2 the network works at half of the LR size, as Real-ESRGAN's for ×2.
        image_skip: adds the bicubically upsampled input to the output. Off, as in the original; short
            trainings gain by it.
    """

    def __init__(
        self, scale: int, features: int, blocks: int, growth: int, *, unshuffle: int, image_skip: bool
    ) -> None:
        super().__init__()
        self.scale, self.unshuffle, self.image_skip = scale, unshuffle, image_skip
        self.steps = factors(scale) + factors(unshuffle)
        self.conv_first = conv3x3(3 * unshuffle**2, features)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        self.conv_body = conv3x3(features, features)
        for step in range(len(self.steps)):
            setattr(self, f"conv_up{step + 1}", signal_kept(conv3x3(features, features), SLOPE))
        self.conv_hr = signal_kept(conv3x3(features, features), SLOPE)
        self.conv_last = conv3x3(features, 3)
        for conv in (self.conv_first, self.conv_body, self.conv_last):
            signal_kept(conv)
        if image_skip:
            shrunk(self.conv_last, 0.001)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        h = self.conv_first(pixel_unshuffle(reflected(x, 2), 2) if self.unshuffle == 2 else x)
        h = h + self.conv_body(self.body(h))
        for step, factor in enumerate(self.steps):
            conv = getattr(self, f"conv_up{step + 1}")
            h = leaky_relu(conv(interpolate(h, scale_factor=factor, mode="nearest")), SLOPE, inplace=True)
        sr: Tensor = self.conv_last(leaky_relu(self.conv_hr(h), SLOPE, inplace=True))
        if self.unshuffle == 2:
            sr = sr[..., : self.scale * x.shape[-2], : self.scale * x.shape[-1]]
        return sr + bicubic(x, self.scale, training=self.training) if self.image_skip else sr
