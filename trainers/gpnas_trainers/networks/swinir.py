"""SwinIR, the Swin transformer for image restoration.

J. Liang, J. Cao, G. Sun, K. Zhang, L. Van Gool, R. Timofte, "SwinIR: image restoration using Swin
transformer", ICCV workshops 2021. The official code is JingyunLiang/SwinIR (Apache 2.0 licence).

Shapes: h×w LR pixels padded to windows, W side of a window, N = W² pixels of one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gpnas_trainers.families.swinir import EXPANSION, HR_FEATURES
from gpnas_trainers.networks.blocks import RGB_MEAN, bicubic, conv3x3, named, reflected, shrunk
from gpnas_trainers.networks.blocks import upsampler as shuffle_upsampler

MASKED = -100.0
"""Added to the attention between pixels that are no neighbours in the image."""
OFFICIAL_WINDOWS = 8
"""Windows along each side of the images for which official files hold their masks."""


class WindowAttention(nn.Module):
    """Attention of each pixel to all of its window, with a trained bias for each offset (Eq. 4)."""

    relative_position_index: Tensor

    def __init__(self, features: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        places = torch.arange(window)
        apart = places[:, None] - places[None, :] + window - 1  # (W, W), 0 … 2·W - 2
        index = apart[:, None, :, None] * (2 * window - 1) + apart[None, :, None, :]
        self.register_buffer("relative_position_index", index.reshape(window**2, window**2), persistent=False)
        self.qkv, self.proj = nn.Linear(features, 3 * features), nn.Linear(features, features)

    def constants(self) -> dict[str, Tensor]:
        """What official files hold besides the weights."""
        return {"relative_position_index": self.relative_position_index}

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # (windows, N, F), (windows of one, N, N)
        count, pixels, features = x.shape
        parts = self.qkv(x).view(count, pixels, 3, self.heads, features // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]  # (windows, heads, N, F / heads)
        score = (query * (features // self.heads) ** -0.5) @ key.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index]  # (N, N, heads)
        score = score + bias.permute(2, 0, 1)
        if mask is not None:
            score = score.unflatten(0, (-1, mask.shape[0])) + mask[:, None]
            score = score.flatten(0, 1)
        mixed = (score.softmax(dim=-1) @ value).transpose(1, 2).reshape(count, pixels, features)
        return self.proj(mixed)


class Block(nn.Module):
    """Attention and mixer, each of normed features and beside a skip connection (Eq. 5).

    Every other block moves its windows by half of their side, so that what they see overlaps.
    """

    def __init__(self, features: int, window: int, heads: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        wide = EXPANSION * features
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attn = WindowAttention(features, window, heads)
        self.mlp = named(fc1=nn.Linear(features, wide), act=nn.GELU(), fc2=nn.Linear(wide, features))

    def constants(self) -> dict[str, Tensor]:
        """What official files hold besides the weights."""
        side = OFFICIAL_WINDOWS * self.window
        return {"attn_mask": mask(side, side, self.window, self.shift)} if self.shift else {}

    def forward(self, x: Tensor) -> Tensor:  # (B, h, w, F)
        _, height, width, _ = x.shape
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        hidden = mask(height, width, self.window, self.shift, x.device) if self.shift else None
        y = joined(self.attn(windows(y, self.window), hidden), height, width, self.window)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class Group(nn.Module):
    """RSTB: blocks and a convolution beside a skip connection (Eq. 6)."""

    def __init__(self, features: int, blocks: int, window: int, heads: int) -> None:
        super().__init__()
        shifts = (window // 2 if place % 2 else 0 for place in range(blocks))
        inner = nn.Sequential(*(Block(features, window, heads, shift) for shift in shifts))
        self.residual_group = named(blocks=inner)
        self.conv = conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:  # (B, h, w, F)
        residual: Tensor = self.conv(self.residual_group(x).movedim(-1, 1))
        return x + residual.movedim(1, -1)


class SwinIR(nn.Module):
    """Groups of transformer blocks between convolutions.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, a multiple of `heads`; 60 in the lightweight original, 180 in the classical one.
        groups: at least 1; 4 and 6.
        blocks: blocks of a group, at least 1; 6.
        heads: parts of the features with attention of their own; 6.
        window: W, at least 1; 8. Images are padded to multiples of it.
        upsampler: `direct`, one sub-pixel convolution to the image, as in the lightweight original;
            `shuffle`, sub-pixel convolutions of 64 features and a last one at HR size, as in the classical.
        image_skip: adds the bicubically upsampled input to the output. Off, as in the original; short
            trainings gain by it.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int,
        features: int,
        groups: int,
        blocks: int,
        *,
        heads: int,
        window: int,
        upsampler: str,
        image_skip: bool,
    ) -> None:
        super().__init__()
        self.scale, self.window, self.kind, self.image_skip = scale, window, upsampler, image_skip
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = conv3x3(3, features)
        self.patch_embed = named(norm=nn.LayerNorm(features))
        self.layers = nn.Sequential(*(Group(features, blocks, window, heads) for _ in range(groups)))
        self.norm = nn.LayerNorm(features)
        self.conv_after_body = conv3x3(features, features)
        if upsampler == "direct":
            last = conv3x3(features, 3 * scale * scale)
            self.upsample = nn.Sequential(last, nn.PixelShuffle(scale))
        else:
            last = conv3x3(HR_FEATURES, 3)
            self.conv_before_upsample = nn.Sequential(conv3x3(features, HR_FEATURES))
            self.upsample = shuffle_upsampler(scale, HR_FEATURES)
            self.conv_last = last
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if image_skip:
            shrunk(last)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        shallow = self.conv_first(reflected(x, self.window) - self.mean)
        deep = self.norm(self.layers(self.patch_embed(shallow.movedim(1, -1)))).movedim(-1, 1)
        h = self.conv_after_body(deep) + shallow
        if self.kind == "direct":
            sr = self.upsample(h)
        else:
            sr = self.conv_last(self.upsample(leaky_relu(self.conv_before_upsample(h), inplace=True)))
        sr = sr[..., : self.scale * x.shape[-2], : self.scale * x.shape[-1]]
        # with a skip the network adds detail alone, so the mean colour is not added again
        return sr + (bicubic(x, self.scale, training=self.training) if self.image_skip else self.mean)


def windows(x: Tensor, side: int) -> Tensor:  # (B, h, w, F) -> (windows, N, F)
    """The pixels of each window, row by row, image by image."""
    parts = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, rows, W, columns, W, F)
    return parts.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def joined(x: Tensor, height: int, width: int, side: int) -> Tensor:  # (windows, N, F) -> (B, h, w, F)
    """The image of which these are the windows."""
    parts = x.unflatten(1, (side, side)).unflatten(0, (-1, height // side, width // side))
    return parts.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def mask(
    height: int, width: int, side: int, shift: int, device: torch.device | None = None
) -> Tensor:  # (windows of an image, N, N)
    """What keeps pixels of moved windows from seeing others that come from the image's other end."""
    rows, columns = (
        (torch.arange(length, device=device) >= length - side).int()
        + (torch.arange(length, device=device) >= length - shift).int()
        for length in (height, width)
    )
    regions = (3 * rows[:, None] + columns)[None, :, :, None]
    labels = windows(regions, side)[..., 0]  # (windows, N)
    return (labels[:, None] != labels[:, :, None]).float() * MASKED
