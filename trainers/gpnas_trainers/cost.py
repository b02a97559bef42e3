"""What an architecture costs, computed from its numbers without building it.

Parameters count every weight and bias. Multiply-accumulates (MACs) count convolutions of one
forward pass, the habit of the field; biases, activations and pooling are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def parameters(family: str, scale: int, **axes: Any) -> int:
    """Weights and biases of an architecture, exactly as the built network has them.

    Args:
        family: `drn` or `rcan`.
        scale: 2, 3 or 4.
        axes: as `build` takes them.

    Raises:
        ValueError: the family is unknown.
    """
    # a dead attention or mean shift costs parameters all the same, so all layers are listed
    return sum(i * o * k * k + o for i, o, k, _ in _convolutions(family, scale, axes))


def gmacs(family: str, scale: int, lr_height: int, lr_width: int, **axes: Any) -> float:
    """10⁹ multiply-accumulates of one forward pass of one image.

    Args:
        family: `drn` or `rcan`.
        scale: 2, 3 or 4.
        lr_height, lr_width: size of the input in pixels.
        axes: as `build` takes them.

    Raises:
        ValueError: the family is unknown.
    """
    pixels = lr_height * lr_width
    macs = 0
    for inputs, outputs, kernel, resolution in _convolutions(family, scale, axes):
        if resolution is not None:
            macs += inputs * outputs * kernel * kernel * (pixels * resolution or 1)
    return macs / 1e9


_Convolution = tuple[int, int, int, int | None]
"""Input channels, output channels, kernel, and how many times the input's pixels it works on: 0 is the
one pixel that channel attention sees, None a layer that is kept for its name and does not run."""


def _convolutions(family: str, scale: int, axes: dict[str, Any]) -> Iterator[_Convolution]:
    match family:
        case "drn":
            return _drn(scale, **axes)
        case "rcan":
            return _rcan(scale, **axes)
    raise ValueError(f"a family must be one of drn, rcan, but got {family!r}")


def _attention(features: int, reduction: int = 16) -> Iterator[_Convolution]:
    hidden = max(1, features // reduction)
    yield features, hidden, 1, 0
    yield hidden, features, 1, 0


def _upsampler(scale: int, features: int) -> Iterator[_Convolution]:
    if scale == 3:
        yield features, 9 * features, 3, 1
    else:
        for step in range(scale.bit_length() - 1):
            yield features, 4 * features, 3, 4**step
    yield features, 3, 3, scale * scale


def _drn(
    scale: int,
    *,
    features: int,
    blocks: int,
    stages: int,
    fuse: int = 1,
    global_skip: bool = False,
    image_skip: bool = True,
) -> Iterator[_Convolution]:
    yield 3, features, 3, 1
    for _ in range(blocks):
        for _ in range(2 * stages):
            yield features, features, 3, 1
        yield features * stages, features, fuse, 1
        yield from _attention(features)
    yield from _upsampler(scale, features)


def _rcan(
    scale: int, *, features: int, groups: int, blocks: int, reduction: int = 16, image_skip: bool = False
) -> Iterator[_Convolution]:
    yield 3, 3, 1, 1
    yield 3, 3, 1, None if image_skip else scale * scale
    yield 3, features, 3, 1
    for _ in range(groups):
        for _ in range(blocks):
            yield features, features, 3, 1
            yield features, features, 3, 1
            yield from _attention(features, reduction)
        yield features, features, 3, 1
    yield features, features, 3, 1
    yield from _upsampler(scale, features)
