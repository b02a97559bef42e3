"""PLKSR, the network of partial large kernels.

D. Lee, S. Yun, Y. Ro, "Partial large kernel CNNs for efficient super-resolution", arXiv 2404.11848, 2024.
The official code is dslisleedh/PLKSR (MIT licence), whose slip of the pen in the name of a layer is kept.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

from gpnas_trainers.networks.blocks import conv3x3, shrunk, signal_kept

PART = 9
"""Side of the parts in which a large kernel is computed while it is trained on a CPU."""
LARGE = 13
"""Side of the largest kernel whose gradient oneDNN computes fast; beyond it takes ten times as long."""


class PartialLargeKernel(nn.Module):
    """A K×K convolution of the first features; the others pass (section 3.3)."""

    def __init__(self, features: int, kernel: int) -> None:
        super().__init__()
        self.conv = signal_kept(nn.Conv2d(features, features, kernel, padding=kernel // 2))

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        count = self.conv.in_channels
        in_parts = self.training and x.device.type == "cpu" and self.conv.kernel_size[0] > LARGE
        convolve = self._in_parts if in_parts and not torch.compiler.is_compiling() else self.conv
        return torch.cat((convolve(x[:, :count]), x[:, count:]), dim=1)

    def _in_parts(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        """The same convolution as a sum over parts of its kernel, which differs in rounding alone."""
        (h, w), side = x.shape[-2:], self.conv.kernel_size[0]
        padded, found = pad(x, (side // 2,) * 4), None
        for top, left in itertools.product(range(0, side, PART), repeat=2):
            part = self.conv.weight[..., top : top + PART, left : left + PART]
            bottom, right = top + h + part.shape[-2] - 1, left + w + part.shape[-1] - 1
            summand = conv2d(
                padded[..., top:bottom, left:right], part, self.conv.bias if found is None else None
            )
            found = summand if found is None else found + summand
        assert found is not None
        return found


class ElementAttention(nn.Module):
    """Features times the sigmoid of a convolution of them (section 3.4)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.f = nn.Sequential(signal_kept(conv3x3(features, features)), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        return x * self.f(x)


class Block(nn.Module):
    """Mixer of channels, partial large kernel, attention and a 1×1 convolution beside a skip connection."""

    def __init__(self, features: int, kernel: int, split: int, attention: bool) -> None:
        super().__init__()
        self.channe_mixer = nn.Sequential(
            signal_kept(conv3x3(features, 2 * features)),
            nn.GELU(),
            signal_kept(conv3x3(2 * features, features)),
        )
        self.lk = PartialLargeKernel(max(1, features // split), kernel)
        self.attn = ElementAttention(features) if attention else nn.Identity()
        self.refine = signal_kept(nn.Conv2d(features, features, 1))

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        return x + self.refine(self.attn(self.lk(self.channe_mixer(x))))


class PLKSR(nn.Module):
    """B blocks and one sub-pixel convolution, plus the nearest neighbours.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, at least 1; 64 in the original.
        blocks: B, at least 1; 28, and 12 in its tiny form.
        kernel: K, odd; 17, and 13 in its tiny form.
        split: S, at least 1: one feature in so many, and at least one, goes through the large kernel; 4.
        attention: whether blocks have attention; its tiny form has none.
    """

    def __init__(
        self, scale: int, features: int, blocks: int, *, kernel: int, split: int, attention: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        last = shrunk(conv3x3(features, 3 * scale * scale))
        inner = [Block(features, kernel, split, attention) for _ in range(blocks)]
        for block in inner:
            shrunk(block.refine, blocks**-0.5)
        self.feats = nn.Sequential(signal_kept(conv3x3(3, features)), *inner, last)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        return pixel_shuffle(self.feats(x) + x.repeat_interleave(self.scale**2, dim=1), self.scale)
