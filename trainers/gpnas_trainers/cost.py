"""What an architecture costs: of a built-in family by its numbers, without building it; else counted.

Parameters count every weight and bias. Multiply-accumulates (MACs) count convolutions and products of
matrices in one forward pass, the habit of the field; biases, activations and pooling are left out. Memory
counts what lives from the forward to the backward pass of a training step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gpnas_trainers import counting
from gpnas_trainers.families import NetworkFamily, family_of, label
from gpnas_trainers.families.layers import Layer, pixels

COPIES = 4
"""Numbers per parameter in a training: its value, its gradient, and Adam's two moments."""
KEPT_BY_L1 = 1
"""Images of HR size that L1 keeps for backward: the difference."""
KEPT_BY_MS_SSIM = 7.4
"""Images of HR size that MS-SSIM keeps besides, over its five scales: 7.3 to 7.7, by the patch size."""
TILE = 120
"""LR pixels: the side of the paper's tile, at which GMACs are compared."""


def parameters(family: str | NetworkFamily, scale: int, **axes: Any) -> int:
    """Weights and biases of an architecture, exactly as the built network has them.

    Args and errors are those of `gpnas_trainers.build`.
    """
    family = family_of(family)
    if family.layers is None:
        known = family.known.get(label(axes))
        return counting.parameters(family, scale, axes) if known is None else known[0]
    # layers that do not run, such as a dead mean shift, have parameters all the same
    return sum(each.times * each.parameters for each in _layers(family, scale, axes))


def stored(family: str | NetworkFamily, scale: int, **axes: Any) -> int:
    """Numbers in the state dictionary of an architecture; arguments and errors as `parameters`."""
    family = family_of(family)
    if family.layers is None:
        return counting.stored(family, scale, axes)
    return parameters(family, scale, **axes)


def gmacs(family: str | NetworkFamily, scale: int, lr_height: int, lr_width: int, **axes: Any) -> float:
    """10⁹ multiply-accumulates of one forward pass of one image.

    Args:
        family, scale, axes: as `gpnas_trainers.build` takes them.
        lr_height, lr_width: size of the input in pixels.

    Raises:
        ValueError: as `build`.
    """
    family = family_of(family)
    if family.layers is None:
        known = family.known.get(label(axes)) if lr_height == lr_width == TILE else None
        return counting.macs(family, scale, lr_height, lr_width, axes) / 1e9 if known is None else known[1]
    height, width = (_padded(family, scale, axes, side) for side in (lr_height, lr_width))
    layers = (each for each in _layers(family, scale, axes) if each.runs)
    return sum(each.times * each.multiplications * pixels(each.side, height, width) for each in layers) / 1e9


def training_memory(
    family: str | NetworkFamily,
    scale: int,
    *,
    batch_size: int,
    hr_patch: int,
    ms_ssim: bool = True,
    **axes: Any,
) -> float:
    """Bytes that one training step holds, in float32.

    Weights, gradients, Adam's two moments, and the activations that the network and the loss keep for
    backward. Left out is what lives shorter: the gradients of activations and the workspace of
    convolutions; and what the process takes before any training.

    Args:
        family, scale, axes: as `gpnas_trainers.build` takes them.
        batch_size: patches of a step.
        hr_patch: side of a patch in HR pixels; a multiple of the scale.
        ms_ssim: whether MS-SSIM is a part of the loss.

    Raises:
        ValueError: as `build`.
    """
    family = family_of(family)
    held, kept = 0, 3 * hr_patch**2 * (KEPT_BY_L1 + KEPT_BY_MS_SSIM * ms_ssim)
    if family.layers is None:
        side = hr_patch // scale
        known = family.kept.get((label(axes), side))
        held, per_image = counting.kept(family, scale, side, axes) if known is None else known
        kept += per_image
    else:
        side = _padded(family, scale, axes, hr_patch // scale)
        for each in _layers(family, scale, axes):
            if each.runs:
                # a convolution keeps its input; activations and pixel shuffling work in place or keep none
                seen = each.inputs * each.stride**2 + each.keeps
                kept += each.times * seen * pixels(each.side, side, side)
                held += each.times * each.holds
    numbers = COPIES * parameters(family, scale, **axes) + held + batch_size * kept
    return float(counting.BYTES * round(numbers))


def _layers(family: NetworkFamily, scale: int, axes: dict[str, Any]) -> Iterable[Layer]:
    assert family.layers is not None
    return family.layers(scale, **family.complete(scale, axes))


def _padded(family: NetworkFamily, scale: int, axes: dict[str, Any], side: int) -> int:
    """The side of an LR image once the network has padded it."""
    multiple = family.pads_to(family.complete(scale, axes))
    return math.ceil(side / multiple) * multiple
