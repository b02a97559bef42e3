"""What an architecture costs, computed from its numbers without building it.

Parameters count every weight and bias. Multiply-accumulates (MACs) count convolutions of one
forward pass, the habit of the field; biases, activations and pooling are left out. Memory counts
what lives from the forward to the backward pass of a training step.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

from gpnas_trainers.blocks import factors

BYTES = 4
"""Of a float32 number, in which networks are trained."""
COPIES = 4
"""Numbers per parameter in a training: its value, its gradient, and Adam's two moments."""
KEPT_BY_L1 = 1
"""Images of HR size that L1 keeps for backward: the difference."""
KEPT_BY_MS_SSIM = 7.4
"""Images of HR size that MS-SSIM keeps besides, over its five scales: 7.3 to 7.7, by the patch size."""


def parameters(family: str, scale: int, **axes: Any) -> int:
    """Weights and biases of an architecture, exactly as the built network has them.

    Args:
        family: `drn`, `rcan` or `dual_regression`.
        scale: 2, 3, 4 or 8.
        axes: as `build` takes them.

    Raises:
        ValueError: the family is unknown, or has no such scale.
    """
    return sum(_numbers(family, scale, axes))


def has_parameters(count: int, family: str, scale: int, **axes: Any) -> bool:
    """Whether an architecture has so many `parameters`; those beyond them are not counted, and may be any.

    Args:
        count: weights and biases.
        family, scale, axes: as `parameters`; they must have passed `gpnas_trainers.check`.
    """
    so_far = 0
    for each in _numbers(family, scale, axes):
        so_far += each
        if so_far > count:
            return False
    return so_far == count


def gmacs(family: str, scale: int, lr_height: int, lr_width: int, **axes: Any) -> float:
    """10⁹ multiply-accumulates of one forward pass of one image.

    Args:
        family: `drn`, `rcan` or `dual_regression`.
        scale: 2, 3, 4 or 8.
        lr_height, lr_width: size of the input in pixels.
        axes: as `build` takes them.

    Raises:
        ValueError: the family is unknown, or has no such scale.
    """
    pixels = lr_height * lr_width
    macs = 0
    for each in _convolutions(family, scale, axes):
        if each.resolution is not None:
            macs += each.inputs * each.outputs * each.kernel**2 * (pixels * each.resolution or 1)
    return macs / 1e9


def training_memory(
    family: str, scale: int, *, batch_size: int, hr_patch: int, ms_ssim: bool = True, **axes: Any
) -> float:
    """Bytes that one training step holds, in float32.

    Weights, gradients, Adam's two moments, and the activations that the network and the loss keep for
    backward. Left out is what lives shorter: the gradients of activations and the workspace of
    convolutions; and what the process takes before any training.

    Args:
        family: `drn`, `rcan` or `dual_regression`.
        scale: 2, 3, 4 or 8.
        batch_size: patches of a step.
        hr_patch: side of a patch in HR pixels; a multiple of the scale.
        ms_ssim: whether MS-SSIM is a part of the loss.
        axes: as `build` takes them.

    Raises:
        ValueError: the family is unknown, or has no such scale.
    """
    pixels = (hr_patch // scale) ** 2
    kept = 3 * hr_patch**2 * (KEPT_BY_L1 + KEPT_BY_MS_SSIM * ms_ssim)
    for each in _convolutions(family, scale, axes):
        if each.resolution is not None:
            # a convolution keeps its input; activations and pixel shuffling work in place or keep none
            kept += each.inputs * (pixels * each.resolution * each.stride**2 or 1)
            # attention's product keeps both of its factors
            kept += each.scaled * (pixels * each.scaled_resolution + 1)
    return float(BYTES * round(COPIES * parameters(family, scale, **axes) + batch_size * kept))


def inference_memory(
    family: str, scale: int, lr_height: int, lr_width: int, *, batch_size: int = 1, **axes: Any
) -> float:
    """Bytes that one forward pass holds at its peak, in float32: weights, the input, and what lives at once.

    Left out are the workspace of convolutions, and what the process takes before. Half as much, weights
    aside, is held in half precision.

    Args:
        family: `drn`, `rcan` or `dual_regression`.
        scale: 2, 3, 4 or 8.
        lr_height, lr_width: size of an input in pixels, such as a tile.
        batch_size: inputs that pass at once.
        axes: as `build` takes them.

    Raises:
        ValueError: the family is unknown, or has no such scale.
    """
    own = parameters(family, scale, **axes)  # also refuses what does not exist
    match family:
        case "drn":
            live = _drn_live(scale, **axes)
        case "rcan":
            live = _rcan_live(scale, **axes)
        case _:
            live = _dual_regression_live(scale, **axes)
    return float(BYTES * (own + batch_size * lr_height * lr_width * (3 + max(live))))


# Numbers per LR pixel that live at once, at the moments when they may be most. The caller of a module
# holds its input until it returns; a sequence holds the input and output of its current layer besides.


def _upsampler_live(scale: int, features: int) -> Iterator[float]:
    """Beside the input."""
    size = 1
    for step, factor in enumerate(factors(scale)):
        before = size * size if step else 0
        size *= factor
        yield features * (before + size * size)  # convolution
        yield features * 2 * size * size  # shuffling


def _drn_live(
    scale: int,
    *,
    features: int,
    blocks: int,
    stages: int,
    fuse: int = 1,
    global_skip: bool = False,
    image_skip: bool = True,
    upsampler: str = "shuffle",
) -> Iterator[float]:
    held = 1 + (blocks > 1) + (global_skip and blocks > 2)  # h, the previous block's input, f
    yield features * (held + (stages - 1) + (blocks > 1) + 2)  # the last stage's second convolution
    yield features * (held + 2 * stages + 1)  # outputs, concatenated, fused
    held = 1 + global_skip
    image = 3 * scale * scale
    match upsampler:
        case "shuffle":
            yield from (features * held + each for each in _upsampler_live(scale, features))
        case "nearest":
            # of each step two images of features: upsampled and convolved
            yield features * (held + 2 * scale * scale)
    inputs = features * (scale * scale if upsampler != "direct" else 0)
    yield features * held + inputs + image  # the last convolution
    yield features * held + image * (2 + image_skip)  # shuffled, or the bicubic image and the sum


def _rcan_live(
    scale: int, *, features: int, groups: int, blocks: int, reduction: int = 16, image_skip: bool = False
) -> Iterator[float]:
    held = 1 + (groups > 1) + (blocks > 1)  # inputs of the body, the group and the block
    yield 6 + features * (held + 2)
    image = 3 * scale * scale
    # the head's output and the body's sum
    yield from (features * 2 + each for each in _upsampler_live(scale, features))
    yield features * (2 + scale * scale) + image
    yield features * 1 + 3 * image


def _dual_regression_live(scale: int, *, features: int, blocks: int) -> Iterator[float]:
    phases = scale.bit_length() - 1
    full = scale * scale
    image = 3 * full
    yield 2 * image + features * full  # upsampled image and head
    width, size = features, float(full)
    copies = float(image)  # the upsampled image lives to the end
    for _ in range(phases):
        copies += width * size  # the way up needs it
        yield copies + width * size / 4 + 2 * width * size / 4
        width, size = 2 * width, size / 4
    found = width * size
    inputs = width
    for _ in range(phases):
        yield copies + found + inputs * size * 3  # attention blocks: beside their input, two
        outputs = width // 2
        yield copies + found + inputs * size * (1 + 4 + 4)  # shuffling
        yield copies + found + inputs * size * (1 + 4) + outputs * 4 * size
        size *= 4
        inputs = 2 * outputs
        yield copies + found + outputs * size + inputs * size
        found += inputs * size
        width = outputs
    yield copies + found + 3 * image


class _Convolution(NamedTuple):
    inputs: int
    """Channels."""
    outputs: int
    """Channels."""
    kernel: int
    """Side."""
    resolution: int | None
    """How many times the LR pixels it gives: 0 is the one pixel that channel attention sees, None a
    layer that is kept for its name and does not run."""
    scaled: int = 0
    """Channels that its output scales one by one, each of `scaled_resolution` times the LR pixels."""
    scaled_resolution: int = 1
    stride: int = 1
    bias: bool = True


def _numbers(family: str, scale: int, axes: dict[str, Any]) -> Iterator[int]:
    """Weights and biases of each layer."""
    # a dead attention or mean shift costs parameters all the same, so all layers are listed
    for each in _convolutions(family, scale, axes):
        yield each.inputs * each.outputs * each.kernel**2 + each.outputs * each.bias


def _convolutions(family: str, scale: int, axes: dict[str, Any]) -> Iterator[_Convolution]:
    match family:
        case "drn":
            return _drn(scale, **axes)
        case "rcan":
            return _rcan(scale, **axes)
        case "dual_regression":
            if scale == 3:
                raise ValueError("a scale of dual_regression must be one of 2, 4, 8, but got 3")
            return _dual_regression(scale, **axes)
    raise ValueError(f"a family must be one of drn, rcan, dual_regression, but got {family!r}")


def _attention(features: int, reduction: int = 16, resolution: int = 1) -> Iterator[_Convolution]:
    hidden = max(1, features // reduction)
    yield _Convolution(features, hidden, 1, 0)
    yield _Convolution(hidden, features, 1, 0, features, resolution)


def _upsampler(scale: int, features: int) -> Iterator[_Convolution]:
    size = 1
    for factor in factors(scale):
        yield _Convolution(features, factor * factor * features, 3, size * size)
        size *= factor
    yield _Convolution(features, 3, 3, scale * scale)


def _drn(
    scale: int,
    *,
    features: int,
    blocks: int,
    stages: int,
    fuse: int = 1,
    global_skip: bool = False,
    image_skip: bool = True,
    upsampler: str = "shuffle",
) -> Iterator[_Convolution]:
    yield _Convolution(3, features, 3, 1)
    for _ in range(blocks):
        for _ in range(2 * stages):
            yield _Convolution(features, features, 3, 1)
        yield _Convolution(features * stages, features, fuse, 1)
        yield from _attention(features)
    match upsampler:
        case "shuffle":
            yield from _upsampler(scale, features)
        case "nearest":
            for size in accumulate(factors(scale), mul):
                yield _Convolution(features, features, 3, size * size)
            yield _Convolution(features, features, 3, scale * scale)
            yield _Convolution(features, 3, 3, scale * scale)
        case _:
            yield _Convolution(features, 3 * scale * scale, 3, 1)


def _rcan(
    scale: int, *, features: int, groups: int, blocks: int, reduction: int = 16, image_skip: bool = False
) -> Iterator[_Convolution]:
    yield _Convolution(3, 3, 1, 1)
    yield _Convolution(3, 3, 1, None if image_skip else scale * scale)
    yield _Convolution(3, features, 3, 1)
    for _ in range(groups):
        for _ in range(blocks):
            yield _Convolution(features, features, 3, 1)
            yield _Convolution(features, features, 3, 1)
            yield from _attention(features, reduction)
        yield _Convolution(features, features, 3, 1)
    yield _Convolution(features, features, 3, 1)
    yield from _upsampler(scale, features)


def _dual_regression(scale: int, *, features: int, blocks: int) -> Iterator[_Convolution]:
    phases = scale.bit_length() - 1
    widths = [features * 2**phase for phase in range(phases + 1)]
    yield _Convolution(3, 3, 1, scale * scale)
    yield _Convolution(3, 3, 1, scale * scale)
    yield _Convolution(3, features, 3, scale * scale)
    for phase, width in enumerate(widths[:-1]):
        pixels = (scale >> (phase + 1)) ** 2
        yield _Convolution(width, width, 3, pixels, stride=2, bias=False)
        yield _Convolution(width, 2 * width, 3, pixels, bias=False)
    # images of the smaller sizes are made in a dual training alone
    yield _Convolution(widths[-1], 3, 3, None)
    inputs = widths[-1]
    for phase, outputs in enumerate(reversed(widths[:-1])):
        pixels = 4**phase
        for _ in range(blocks):
            yield _Convolution(inputs, inputs, 3, pixels)
            yield _Convolution(inputs, inputs, 3, pixels)
            yield from _attention(inputs, resolution=pixels)
        yield _Convolution(inputs, 4 * inputs, 3, pixels)
        yield _Convolution(inputs, outputs, 1, 4 * pixels)
        inputs = 2 * outputs
        yield _Convolution(inputs, 3, 3, 4 * pixels if phase == phases - 1 else None)
