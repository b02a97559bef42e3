"""Layers that the families of networks share.

Shapes: B images, C channels, H×W pixels, F features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm, linear

from gpnas_trainers.families.layers import factors

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, in [0, 1]."""
RGB_RANGE = 255.0
"""Pixel range inside the network, as in the published weights."""
SMALL = 256
"""Pixels: up to this side a product with a matrix upsamples faster than taps do."""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3×3 convolution that keeps H×W."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def named(**layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, under the names that weights have of them."""
    return nn.Sequential(OrderedDict(layers))


def shrunk(conv: nn.Conv2d, share: float = 0.01) -> nn.Conv2d:
    """The same convolution with fresh weights and biases shrunk to a share of themselves.

    The last one of a network that adds its input's upsampled image: it then begins at that image, and
    not at noise that the first hundreds of steps must take away (as in H. Zhang, Y. Dauphin, T. Ma,
    "Fixup initialization", ICLR 2019, section 3). And the last one of each of B residual blocks, to a share
    of B^-1/2, so that together they add no more than the signal that they are added to.
    """
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.mul_(share)
    return conv


def signal_kept(conv: nn.Conv2d, slope: float = 1.0) -> nn.Conv2d:
    """The same convolution with fresh weights that hand on as much variance as they get, and biases of 0.

    PyTorch's own leave a third of it, so that after some layers the signal of a network is less than its
    biases, and the first hundred steps are spent on its return (K. He et al., "Delving deep into rectifiers",
    ICCV 2015, Eq. 14).

    Args:
        slope: of the leaky ReLU that follows, below 0; 0 for a plain one, 1 where none does.
    """
    nn.init.kaiming_normal_(conv.weight, a=slope)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
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
        return x * self.gate(self.avg_pool(x).flatten(1))

    def gate(self, means: Tensor) -> Tensor:  # (B, F) -> (B, F, 1, 1)
        """What channels of these means are scaled by."""
        # on one pixel a 1×1 convolution is a product of matrices, which takes half the time on a CPU
        squeeze, excite = self.conv_du[0], self.conv_du[2]
        assert isinstance(squeeze, nn.Conv2d)
        assert isinstance(excite, nn.Conv2d)
        hidden = linear(means, squeeze.weight.flatten(1), squeeze.bias).relu()
        return linear(hidden, excite.weight.flatten(1), excite.bias).sigmoid()[:, :, None, None]


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


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel (J. L. Ba et al., arXiv 1607.06450)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:  # (B, F, h, w)
        normed = layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, 1e-6)
        return normed.movedim(-1, 1)


def reflected(x: Tensor, multiple: int) -> Tensor:  # (B, C, h, w) -> (B, C, H, W)
    """The image with rows below and columns at the right, mirrored, up to multiples of a number.

    An image that is smaller than what must be added gets its first row or column repeated.
    """
    for dim in (-2, -1):
        side = x.shape[dim]
        if not torch.compiler.is_exporting() and side % multiple == 0:
            continue
        x = mirrored(x, dim, (side + multiple - 1) // multiple * multiple)
    return x


def mirrored(x: Tensor, dim: int, size: int) -> Tensor:
    """An image, mirrored at its end until it is so large; beyond that the first row or column is repeated."""
    places = torch.arange(size, device=x.device)
    return x.index_select(dim, torch.minimum(places, (2 * x.shape[dim] - 2 - places).clamp(min=0)))


def upsampler(scale: int, features: int) -> nn.Sequential:
    """Sub-pixel convolution: conv F→4F and PixelShuffle(2) for each factor of 2, or 9F and 3.

    Shi et al., CVPR 2016; the order of layers is the official RCAN code's.
    """
    layers: list[nn.Module] = []
    for factor in factors(scale):
        layers += [conv3x3(features, factor * factor * features), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


def nearest_upsampler(scale: int, features: int) -> nn.Sequential:
    """Nearest neighbours, convolution and LeakyReLU for each factor, then one such convolution more.

    A. Odena, V. Dumoulin, C. Olah, "Deconvolution and checkerboard artifacts", Distill 2016; the layers are
    those of ESRGAN (Wang et al., ECCV workshops 2018).
    """
    layers: list[nn.Module] = []
    for factor in factors(scale):
        layers += [nn.Upsample(scale_factor=factor, mode="nearest"), conv3x3(features, features)]
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*layers, conv3x3(features, features), nn.LeakyReLU(0.2, inplace=True))


def bicubic(x: Tensor, scale: int, *, training: bool) -> Tensor:  # (B, 3, h, w) -> (B, 3, s·h, s·w)
    """The bicubically upsampled image: R. Keys, IEEE ASSP 29(6), 1981, with a = -0.75, edges repeated.

    Args:
        training: small images on a CPU may be upsampled by products of matrices, in a sixth of the time;
            they differ in rounding alone. Else PyTorch's own operation is used, which exports know.
    """
    by_matrix = training and not (torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type))
    if by_matrix and x.device.type == "cpu" and x.dtype == torch.float32 and max(x.shape[-2:]) <= SMALL:
        down, across = (_bicubic_matrix(side, scale) for side in x.shape[-2:])
        return down @ (x.contiguous() @ across.T)
    return interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _bicubic_matrix(side: int, scale: int) -> Tensor:  # (s·side, side)
    """The matrix of bicubic upsampling along one side: its columns are upsampled unit vectors."""
    units = torch.eye(side)[:, None, :, None].expand(side, 1, side, 1)
    columns = interpolate(units, scale_factor=(float(scale), 1.0), mode="bicubic", align_corners=False)
    return columns[:, 0, :, 0].T.contiguous()


class LongSkip(nn.Module):
    """A network of residual parts with a skip around them all, named as the authors of EDSR and RCAN do."""

    def __init__(self, scale: int, features: int, residual: Iterable[nn.Module], *, image_skip: bool) -> None:
        """Args:
        scale: 2, 3, 4 or 8.
        features: of the parts, at least 1.
        residual: the parts, which are taken once the head is made.
        image_skip: adds the bicubically upsampled input to the output.
        """
        super().__init__()
        self.scale, self.image_skip = scale, image_skip
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Sequential(conv3x3(3, features))
        self.body = nn.Sequential(*residual, conv3x3(features, features))
        last = conv3x3(features, 3)
        self.tail = nn.Sequential(upsampler(scale, features), shrunk(last) if image_skip else last)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        h = self.head(self.sub_mean(x * RGB_RANGE))
        sr: Tensor = self.tail(h + self.body(h))
        if self.image_skip:
            # the network then adds detail alone, so the mean colour is not added again
            return sr / RGB_RANGE + bicubic(x, self.scale, training=self.training)
        return self.add_mean(sr) / RGB_RANGE
