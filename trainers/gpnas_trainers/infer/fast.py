"""The same networks in fewer operations, for inference on a CPU.

What follows the last activation of a network is linear: convolutions and shuffles of sub-pixels. It is
therefore one convolution, 5×5 at LR size, from F to 3·s² channels, however many convolutions it was: each
of them reaches one pixel of its own size further, which is less than one LR pixel after the first. At ×2
that takes 300·F multiplications per LR pixel instead of 36·F² + 108·F. The zeros that the inner
convolutions see around the image change the outermost LR pixels, so these have kernels of their own.

The last convolution of a dense residual block likewise takes in its share of the fusion.

Shapes: B images, F features, h×w LR pixels, s scale.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pixel_shuffle, pixel_unshuffle

from gpnas_trainers.networks.blocks import (
    RGB_RANGE,
    ChannelAttention,
    LongSkip,
    ResidualChannelAttentionBlock,
    bicubic,
)
from gpnas_trainers.networks.drn import DRN, DenseResidualBlock
from gpnas_trainers.networks.edsr import EDSR
from gpnas_trainers.networks.rcan import RCAN, ResidualGroup

Forward = Callable[[Tensor], Tensor]

REACH = 2
"""LR pixels that the linear end sees on each side."""
SEEN = {"first": slice(None, REACH + 1), "all": slice(None), "last": slice(-REACH - 1, None)}
"""Rows or columns on which the outermost ones depend, and those inside."""
MADE = {"first": slice(None, 1), "all": slice(None), "last": slice(-1, None)}
SIZES = (REACH + 1, 2 * REACH + 1, REACH + 1)
"""Rows or columns of their kernels."""
PLACES = sorted(product(SEEN, repeat=2), key=lambda place: -place.count("all"))
"""Inside, then edges, then corners, as (rows, columns)."""


def fast(network: nn.Module) -> Forward:
    """What computes the same as the network, up to rounding; the network itself where it is unknown.

    Weights that are merged are taken as they are now, the others are shared with the network.
    """
    if type(network) is DRN:
        return _drn(network)
    if type(network) is RCAN:
        return _long_skip(network, _groups(network))
    if type(network) is EDSR:
        return _long_skip(network, network.body)
    return network


def _drn(network: DRN) -> Forward:
    layers = nn.Sequential(network.upsampler, network.tail)
    is_linear = all(isinstance(layer, nn.Conv2d | nn.PixelShuffle) for layer in network.upsampler)
    end = linear_end(layers, network.scale) if is_linear else layers
    blocks = [_dense_block(block) for block in network.blocks]

    def forward(x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        shallow = network.head(x)
        h, previous = shallow, None
        for block in blocks:
            h, previous = block(h, previous), h
        sr = end(h + shallow if network.global_skip else h)
        return bicubic(x, network.scale, training=True).add_(sr) if network.image_skip else sr

    return forward


def _dense_block(block: nn.Module) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A dense residual block whose fusion is a sum over the stages: nothing is concatenated."""
    assert isinstance(block, DenseResidualBlock)
    if block.fuse.kernel_size != (1, 1):
        return block
    *shares, last = block.fuse.weight[:, :, 0, 0].chunk(len(block.stages), dim=1)  # (F, F) each
    *stages, final = block.stages
    assert isinstance(final, nn.Sequential)
    first, merged = final[:-1], deepcopy(final[-1])
    assert isinstance(merged, nn.Conv2d)
    with torch.no_grad():  # what the last stage makes goes nowhere else
        merged.weight.copy_(torch.einsum("of,fikl->oikl", last, merged.weight))
        assert merged.bias is not None
        assert block.fuse.bias is not None
        merged.bias.copy_(last @ merged.bias + block.fuse.bias)

    def forward(h: Tensor, previous: Tensor | None) -> Tensor:  # (B, F, h, w)
        s, sums = h, []
        for stage, share in zip(stages, shares, strict=True):
            s = stage(s if previous is None else s + previous)
            sums.append(linear(s.movedim(1, -1), share).movedim(-1, 1))
        fused: Tensor = merged(first(s if previous is None else s + previous))
        for each in sums:
            fused += each
        return torch.addcmul(h, fused, block.attention.gate(fused.mean((2, 3))))

    return forward


def _groups(network: RCAN) -> Forward:
    """The residual groups, and the convolution behind them."""

    def forward(shallow: Tensor) -> Tensor:  # (B, F, h, w)
        h = shallow
        for group in list(network.body)[:-1]:
            assert isinstance(group, ResidualGroup)
            inner = h
            for block in list(group.body)[:-1]:
                assert isinstance(block, ResidualChannelAttentionBlock)
                *layers, attention = block.body
                assert isinstance(attention, ChannelAttention)
                residual = inner
                for layer in layers:
                    residual = layer(residual)
                inner = torch.addcmul(inner, residual, attention.gate(residual.mean((2, 3))))
            h = group.body[-1](inner).add_(h)
        return network.body[-1](h)

    return forward


def _long_skip(network: LongSkip, body: Forward) -> Forward:
    """The network with this in place of its body, and the upsampler and what follows as one convolution."""
    layers = [network.tail] if network.image_skip else [network.tail, network.add_mean]
    end = linear_end(nn.Sequential(*layers), network.scale, RGB_RANGE)

    def forward(x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        shallow = network.head(network.sub_mean(x * RGB_RANGE))
        sr = end(body(shallow).add_(shallow))
        return bicubic(x, network.scale, training=True).add_(sr) if network.image_skip else sr

    return forward


def linear_end(layers: nn.Sequential, scale: int, divisor: float = 1.0) -> Forward:
    """What computes `layers`, divided, with one convolution: (B, F, h, w) to (B, 3, s·h, s·w).

    Args:
        layers: 3×3 and 1×1 convolutions and pixel shuffles, one after the other.
        scale: s.
        divisor: of the result.
    """
    (inner, inner_bias), *outer = _kernels(layers, scale, divisor)

    def forward(h: Tensor) -> Tensor:
        if min(h.shape[2:]) < 2 * REACH + 1:
            return layers(h) / divisor
        cells = conv2d(h, inner, inner_bias, padding=REACH)  # (B, 3·s², h, w)
        for place, (kernel, bias) in zip(PLACES[1:], outer, strict=True):
            y, x = place
            padding = [REACH if each == "all" else 0 for each in place]
            cells[..., MADE[y], MADE[x]] = conv2d(h[..., SEEN[y], SEEN[x]], kernel, bias, padding=padding)
        return _shuffle(cells, scale)

    return forward


def _kernels(layers: nn.Sequential, scale: int, divisor: float) -> list[tuple[Tensor, Tensor]]:
    """Kernel and bias of the LR pixels of each of `PLACES`.

    A kernel is how a sub-pixel depends on the features: what the transposed layers make of an impulse
    there. An image of 11×11 has one LR pixel of each kind whose neighbourhoods do not touch.
    """
    steps = [each for each in layers.modules() if isinstance(each, nn.Conv2d | nn.PixelShuffle)]
    like = next(layers.parameters())
    dtype = torch.float64 if scale < 8 else like.dtype  # 192 impulses would take ten seconds
    side, count = 4 * REACH + 3, 3 * scale * scale
    at = slice(None, None, 2 * REACH + 1)  # 0, 5 and 10
    impulses = torch.zeros(count, count, side, side, dtype=dtype)
    impulses[range(count), range(count), at, at] = 1.0 / divisor
    kernels = pixel_shuffle(impulses, scale)
    for step in reversed(steps):
        if isinstance(step, nn.PixelShuffle):
            kernels = pixel_unshuffle(kernels, step.upscale_factor)
        else:
            weight = step.weight.to("cpu", dtype).transpose(0, 1).flip(-1, -2)
            kernels = conv2d(kernels, weight, padding=weight.shape[-1] // 2)
    nothing = torch.zeros_like(kernels[:1])
    biases = pixel_unshuffle(deepcopy(layers).to("cpu", dtype)(nothing), scale)[0, :, at, at] / divisor
    parts = [each.split(SIZES, dim=3) for each in kernels.to(like).split(SIZES, dim=2)]
    found = []
    for place in PLACES:
        y, x = (list(SEEN).index(each) for each in place)
        found.append((parts[y][x].contiguous(memory_format=torch.channels_last), biases[:, y, x].to(like)))
    return found


def _shuffle(cells: Tensor, scale: int) -> Tensor:  # (B, 3·s², h, w) -> (B, 3, s·h, s·w)
    """The same as `pixel_shuffle`, which takes twice as long from channels last."""
    count, _, h, w = cells.shape
    parts = cells.view(count, 3, scale, scale, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(count, 3, scale * h, scale * w)
