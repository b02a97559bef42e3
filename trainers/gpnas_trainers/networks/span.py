"""SPAN, the swift parameter-free attention network.

C. Wan, H. Yu, Z. Li, Y. Chen, Y. Zou, Y. Liu, X. Yin, K. Zuo, "Swift parameter-free attention network for
efficient super-resolution", CVPR workshops 2024. The official code is hongyuanyu/SPAN (Apache 2.0 licence).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, silu

from gpnas_trainers.networks.blocks import RGB_MEAN, RGB_RANGE, bicubic, conv3x3, shrunk


class MergedConvolution(nn.Module):
    """A 3×3 convolution whose kernel is a product of several (`Conv3XC` of the official code).

    The official code trains convolutions of 1×1, 3×3 and 1×1 one after the other, and a 1×1 beside them.
    They are linear, so their kernel is computed first and convolves once, in training too: the same
    function and gradient at a fraction of the cost. For inference the kernel is kept.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sk = nn.Conv2d(inputs, outputs, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, 2 * inputs, 1),
            nn.Conv2d(2 * inputs, 2 * outputs, 3),
            nn.Conv2d(2 * outputs, outputs, 1),
        )
        # not trained, and no part of the weights: what follows from them
        self.register_buffer("weight", torch.zeros(outputs, inputs, 3, 3), persistent=False)
        self.register_buffer("bias", torch.zeros(outputs), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, keys: module.merge())

    def merged(self) -> tuple[Tensor, Tensor]:
        """The one kernel and bias."""
        layers = (*self.conv, self.sk)
        first, middle, last, beside = (layer.weight for layer in layers if isinstance(layer, nn.Conv2d))
        biases = [layer.bias for layer in layers if isinstance(layer, nn.Conv2d) and layer.bias is not None]
        outer, inner = last[:, :, 0, 0], first[:, :, 0, 0]  # (o, 2o), (2i, i)
        kernel = torch.einsum("om,mnyx,ni->oiyx", outer, middle, inner) + pad(beside, (1, 1, 1, 1))
        bias = outer @ (middle.sum((2, 3)) @ biases[0] + biases[1]) + biases[2] + biases[3]
        return kernel, bias

    @torch.no_grad()
    def merge(self) -> None:
        """Keeps the kernel for inference."""
        for kept, made in zip((self.weight, self.bias), self.merged(), strict=True):
            kept.copy_(made)

    def train(self, mode: bool = True) -> MergedConvolution:
        super().train(mode)
        if not mode:
            self.merge()
        return self

    def constants(self) -> dict[str, Tensor]:
        """What official files hold besides the weights."""
        self.merge()
        return {"eval_conv.weight": self.weight, "eval_conv.bias": self.bias}

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, h, w) -> (B, outputs, h, w)
        weight, bias = self.merged() if self.training else (self.weight, self.bias)
        return conv2d(x, weight, bias, padding=1)


class Block(nn.Module):
    """Three convolutions; what they make of the input, plus it, is scaled by an odd function of itself."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.c1_r = MergedConvolution(features, features)
        self.c2_r = MergedConvolution(features, features)
        self.c3_r = MergedConvolution(features, features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, F, h, w)
        first = silu(self.c1_r(x))
        residual = self.c3_r(silu(self.c2_r(first)))
        return (residual + x) * (residual.sigmoid() - 0.5), first


class SPAN(nn.Module):
    """B blocks, of which the first, the last and a part of the last are fused, and a sub-pixel convolution.

    Args:
        scale: 2, 3, 4 or 8.
        features: F, at least 1; 48 and 52 in the originals.
        blocks: B, at least 1; 6.
        image_skip: adds the bicubically upsampled input to the output. Off, as in the original; short
            trainings gain by it.
    """

    mean: Tensor

    def __init__(self, scale: int, features: int, blocks: int, *, image_skip: bool) -> None:
        super().__init__()
        self.scale, self.blocks, self.image_skip = scale, blocks, image_skip
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_1 = MergedConvolution(3, features)
        for place in range(1, blocks + 1):
            setattr(self, f"block_{place}", Block(features))
        self.conv_cat = nn.Conv2d(4 * features, features, 1)
        self.conv_2 = MergedConvolution(features, features)
        last = conv3x3(features, 3 * scale * scale)
        if image_skip:
            shrunk(last)
        self.upsampler = nn.Sequential(last, nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        shallow = self.conv_1((x - self.mean) * RGB_RANGE)
        first, inner = self.block_1(shallow)  # type: ignore[operator]
        h = first
        for place in range(2, self.blocks + 1):
            h, inner = getattr(self, f"block_{place}")(h)
        sr: Tensor = self.upsampler(self.conv_cat(torch.cat((shallow, self.conv_2(h), first, inner), dim=1)))
        if self.image_skip:  # features are in the range of pixels, detail in that of the image
            return sr / RGB_RANGE + bicubic(x, self.scale, training=self.training)
        return sr
