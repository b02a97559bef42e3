"""SAFMN, the spatially-adaptive feature modulation network.

L. Sun, J. Dong, J. Tang, J. Pan, "Spatially-adaptive feature modulation for efficient image
super-resolution", ICCV 2023. The official code is sunny2109/SAFMN (Apache 2.0 licence).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, gelu, interpolate

from gpnas_trainers.networks.blocks import ChannelNorm, bicubic, conv3x3, named, shrunk

LEVELS = 4
"""Parts of the features; each but the first sees the image at half the size of the one before."""


class Modulation(nn.Module):
    """SAFM: features are multiplied by what depthwise convolutions see at four sizes (Eq. 3-6)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        part = features // LEVELS
        self.mfr = nn.ModuleList(nn.Conv2d(part, part, 3, padding=1, groups=part) for _ in range(LEVELS))
        self.aggr = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        found = []
        for level, (conv, part) in enumerate(zip(self.mfr, x.chunk(LEVELS, dim=1), strict=True)):
            seen = conv(largest(part, 2**level))
            found.append(interpolate(seen, size=x.shape[-2:], mode="nearest") if level else seen)
        return gelu(self.aggr(torch.cat(found, dim=1))) * x


class Block(nn.Module):
    """Modulation and mixer, each of normed features and beside a skip connection (Eq. 8).

    The mixer (CCM) is a 3×3 convolution to more channels, GELU, and back (Eq. 7).
    """

    def __init__(self, features: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * features
        self.norm1, self.norm2 = ChannelNorm(features), ChannelNorm(features)
        self.safm = Modulation(features)
        mixer = nn.Sequential(conv3x3(features, wide), nn.GELU(), nn.Conv2d(wide, features, 1))
        self.ccm = named(ccm=mixer)

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        x = x + self.safm(self.norm1(x))
        return x + self.ccm(self.norm2(x))


class SAFMN(nn.Module):
    """B blocks of modulation and mixing, and one sub-pixel convolution.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, a multiple of 4; 36 in the original, 128 in its large form.
        blocks: B, at least 1; 8 and 16.
        expansion: channels of the mixer in F, at least 1; 2.
        image_skip: adds the bicubically upsampled input to the output. Off, as in the original; short
            trainings gain by it.
    """

    def __init__(self, scale: int, features: int, blocks: int, *, expansion: int, image_skip: bool) -> None:
        super().__init__()
        self.scale, self.image_skip = scale, image_skip
        self.to_feat = conv3x3(3, features)
        self.feats = nn.Sequential(*(Block(features, expansion) for _ in range(blocks)))
        last = conv3x3(features, 3 * scale * scale)
        self.to_img = nn.Sequential(shrunk(last) if image_skip else last, nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        h = self.to_feat(x)
        sr: Tensor = self.to_img(h + self.feats(h))
        return sr + bicubic(x, self.scale, training=self.training) if self.image_skip else sr


def largest(x: Tensor, factor: int) -> Tensor:  # (B, C, h, w) -> (B, C, h // factor, w // factor)
    """The largest values of windows that cover the image, as adaptive pooling takes them; at least one."""
    if factor == 1:
        return x
    if not torch.compiler.is_exporting():
        return adaptive_max_pool2d(x, [max(1, side // factor) for side in x.shape[-2:]])
    # ONNX has no such operation: rows, then columns, are gathered for each window, some of them twice
    for dim in (-2, -1):
        side = x.shape[dim]
        count = torch.sym_max(1, side // factor)
        places = torch.arange(count, device=x.device)
        first, end = places * side // count, ((places + 1) * side + count - 1) // count
        offsets = torch.arange(2 * factor, device=x.device)
        rows = torch.minimum(first[:, None] + offsets, end[:, None] - 1)
        x = x.index_select(dim, rows.flatten()).unflatten(dim, (count, 2 * factor)).amax(dim=dim)
    return x
