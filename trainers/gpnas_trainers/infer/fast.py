"""The same networks in fewer operations, for inference on a CPU.

What follows the last activation of a network is linear: convolutions and shuffles of sub-pixels. It is
therefore one convolution, 5×5 at LR size, from F to 3·s² channels, however many convolutions it was: each
of them reaches one pixel of its own size further, which is less than one LR pixel after the first. At ×2
that takes 300·F multiplications per LR pixel instead of 36·F² + 108·F. Only the zeros that the inner
convolutions see around the image are lost by it, so the outermost pixels are made by the network's own
layers, of strips along the edges.

Shapes: B images, F features, h×w LR pixels, s scale.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pixel_shuffle, pixel_unshuffle

from gpnas_trainers.blocks import RGB_RANGE, ChannelAttention, ResidualChannelAttentionBlock, bicubic
from gpnas_trainers.drn import DRN, DenseResidualBlock
from gpnas_trainers.rcan import RCAN, ResidualGroup

Forward = Callable[[Tensor], Tensor]

REACH = 2
"""LR pixels that the linear end sees on each side."""


def fast(network: nn.Module) -> Forward:
    """What computes the same as the network, up to rounding; the network itself where it is unknown.

    The weights of the body are shared with the network, those of its end are taken as they are now.
    """
    if type(network) is DRN:
        return _drn(network)
    if type(network) is RCAN:
        return _rcan(network)
    return network


def _drn(network: DRN) -> Forward:
    end: Forward = nn.Sequential(network.upsampler, network.tail)
    if isinstance(network.upsampler, nn.Sequential) and all(
        isinstance(layer, nn.Conv2d | nn.PixelShuffle) for layer in network.upsampler
    ):
        end = linear_end(nn.Sequential(network.upsampler, network.tail), network.scale)

    def forward(x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        shallow = network.head(x)
        h, previous = shallow, None
        for block in network.blocks:
            assert isinstance(block, DenseResidualBlock)
            h, previous = _dense_block(block, h, previous), h
        sr = end(h + shallow if network.global_skip else h)
        return bicubic(x, network.scale, training=True).add_(sr) if network.image_skip else sr

    return forward


def _dense_block(block: DenseResidualBlock, h: Tensor, previous: Tensor | None) -> Tensor:  # (B, F, h, w)
    """A dense residual block whose last convolution is a sum over the stages: nothing is concatenated."""
    if block.fuse.kernel_size != (1, 1):
        return block(h, previous)
    features, s, fused = h.shape[1], h, None
    for place, stage in enumerate(block.stages):
        if previous is not None:
            s = s + previous
        s = stage(s)
        share = block.fuse.weight[:, place * features : (place + 1) * features]
        bias = block.fuse.bias if fused is None else None
        part = linear(s.movedim(1, -1), share[:, :, 0, 0], bias).movedim(-1, 1)
        fused = part if fused is None else fused.add_(part)
    assert fused is not None
    return torch.addcmul(h, fused, gate(block.attention, fused))


def _rcan(network: RCAN) -> Forward:
    layers = [network.tail] if network.image_skip else [network.tail, network.add_mean]
    end = linear_end(nn.Sequential(*layers), network.scale, RGB_RANGE)

    def forward(x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        shallow = network.head(network.sub_mean(x * RGB_RANGE))
        h = shallow
        for group in list(network.body)[:-1]:
            assert isinstance(group, ResidualGroup)
            inner = h
            for block in list(group.body)[:-1]:
                assert isinstance(block, ResidualChannelAttentionBlock)
                *layers, attention = block.body.children()
                residual = inner
                for layer in layers:
                    residual = layer(residual)
                inner = torch.addcmul(inner, residual, gate(attention, residual))
            h = group.body[-1](inner).add_(h)
        sr = end(network.body[-1](h).add_(shallow))
        return bicubic(x, network.scale, training=True).add_(sr) if network.image_skip else sr

    return forward


def gate(attention: nn.Module, x: Tensor) -> Tensor:  # (B, F, h, w) -> (B, F, 1, 1)
    """What channel attention scales its input by."""
    assert isinstance(attention, ChannelAttention)
    squeeze, excite = attention.conv_du[0], attention.conv_du[2]
    assert isinstance(squeeze, nn.Conv2d)
    assert isinstance(excite, nn.Conv2d)
    hidden = linear(x.mean((2, 3)), squeeze.weight.flatten(1), squeeze.bias).relu_()
    return linear(hidden, excite.weight.flatten(1), excite.bias).sigmoid_()[:, :, None, None]


def linear_end(layers: nn.Sequential, scale: int, divisor: float = 1.0) -> Forward:
    """What computes `layers`, divided, with one convolution: (B, F, h, w) to (B, 3, s·h, s·w).

    Its kernel is read off the answers to impulses.

    Args:
        layers: 3×3 and 1×1 convolutions and pixel shuffles, one after the other.
        scale: s.
        divisor: of the result.
    """
    first = next(layer for layer in layers.modules() if isinstance(layer, nn.Conv2d))
    features = first.in_channels
    edge = 1 if scale in (2, 3) else scale  # HR pixels that see beyond the image, at most
    strip = 2 if scale in (2, 3) else 4  # LR pixels that they depend on, at most
    at = REACH + strip
    impulses = torch.zeros(features + 1, features, 2 * at + 1, 2 * at + 1, dtype=torch.float64)
    impulses[range(features), range(features), at, at] = 1
    answers = pixel_unshuffle(deepcopy(layers).to("cpu", torch.float64)(impulses), scale) / divisor
    answers = answers[:, :, at - REACH : at + REACH + 1, at - REACH : at + REACH + 1]
    bias = answers[-1, :, REACH, REACH]  # of no feature at all
    kernel = (answers[:-1] - bias[:, None, None]).flip(-1, -2).transpose(0, 1)  # (3·s², F, 5, 5)
    kernel = kernel.to(first.weight).contiguous(memory_format=torch.channels_last)
    bias = bias.to(first.weight)

    def forward(h: Tensor) -> Tensor:
        if min(h.shape[2:]) < strip:
            return layers(h) / divisor
        sr = pixel_shuffle(conv2d(h, kernel, bias, padding=REACH), scale)
        sr[:, :, :edge] = layers(h[:, :, :strip])[:, :, :edge] / divisor
        sr[:, :, -edge:] = layers(h[:, :, -strip:])[:, :, -edge:] / divisor
        sr[..., :edge] = layers(h[..., :strip])[..., :edge] / divisor
        sr[..., -edge:] = layers(h[..., -strip:])[..., -edge:] / divisor
        return sr

    return forward
