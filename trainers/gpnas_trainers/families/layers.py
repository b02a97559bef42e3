"""The layers of a network as numbers, from which its costs follow without building it.

A family lists its layers for given axes. Equal layers are one entry with `times`, so that costs take as
long for a million blocks as for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import accumulate
from operator import mul
from typing import NamedTuple

Side = int | Fraction
"""Height and width of a layer's output, in those of the LR image. 0 stands for a single pixel."""


class Layer(NamedTuple):
    """Equal layers of a network: what each holds, multiplies, and keeps for the backward pass."""

    inputs: int = 0
    """Channels."""
    outputs: int = 0
    """Channels."""
    kernel: int = 1
    """Side of the kernel in pixels."""
    side: Side = 1
    runs: bool = True
    """Whether the layer takes part in a forward pass; some are kept for their name alone."""
    groups: int = 1
    stride: int = 1
    bias: bool = True
    learned: bool = True
    """Whether it has parameters; a product of two activations has none."""
    numbers: int = 0
    """Trained numbers besides weight and bias, such as those of a norm."""
    keeps: int = 0
    """Numbers per output pixel kept for the backward pass besides the input."""
    holds: int = 0
    """Numbers kept for the backward pass once, whatever the batch."""
    times: int = 1
    """How many of them the network has."""

    @property
    def parameters(self) -> int:
        """Trained numbers of one of them."""
        return (self.multiplications + self.outputs * self.bias) * self.learned + self.numbers

    @property
    def multiplications(self) -> int:
        """Multiply-accumulates per output pixel."""
        return self.inputs // self.groups * self.outputs * self.kernel**2


def pixels(side: Side, height: int, width: int) -> int:
    """Pixels of a layer's output for an LR image of this size."""
    return int(height * side) * int(width * side) or 1


def repeated(times: int, layers: Iterable[Layer]) -> Iterator[Layer]:
    """All of the layers, so many times."""
    return (each._replace(times=times * each.times) for each in layers)


def factors(scale: int) -> list[int]:
    """The steps in which features are upsampled: 3, or factors of 2."""
    return [3] if scale == 3 else [2] * (scale.bit_length() - 1)


def channel_attention(features: int, reduction: int = 16, side: Side = 1) -> Iterator[Layer]:
    """Two 1×1 convolutions on one pixel; the product keeps both of its factors."""
    hidden = max(1, features // reduction)
    yield Layer(features, hidden, side=0)
    yield Layer(hidden, features, side=0, keeps=features)
    yield Layer(side=side, keeps=features)


def shuffling_upsampler(scale: int, features: int) -> Iterator[Layer]:
    """A convolution and a pixel shuffle for each factor, then a last convolution to the image."""
    side = 1
    for factor in factors(scale):
        yield Layer(features, factor * factor * features, 3, side)
        side *= factor
    yield Layer(features, 3, 3, scale)


def nearest_upsampler(scale: int, features: int) -> Iterator[Layer]:
    """Nearest neighbours and a convolution for each factor, then two convolutions more."""
    for side in accumulate(factors(scale), mul):
        yield Layer(features, features, 3, side)
    yield Layer(features, features, 3, scale)
    yield Layer(features, 3, 3, scale)
