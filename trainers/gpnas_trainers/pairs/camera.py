"""The synthetic camera of Pan et al. 2020, Eq. 1: I_LR = D_s(I_HR * k) + n; and its plain inverse.

Geometry: LR pixel i covers the HR pixels s·i … s·i + s-1, so its centre is at s·i + (s-1)/2. That is
the geometry of an upsampling with align_corners=False and of pixel shuffle: nothing is shifted.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers.pairs.errors import PairsError

if TYPE_CHECKING:
    from torch import Tensor

VARIATION = 0.05
"""Largest relative deviation of a photograph's blur and noise from its camera's."""


@dataclass(frozen=True)
class Camera:
    """The camera that makes LR out of HR photographs.

    One camera serves a whole set, as in a real data set: its blur and noise are drawn once from the
    ranges; each photograph then deviates by at most `VARIATION` (focus, exposure).
    """

    kernel_sigma: tuple[float, float] = (0.5, 0.7)
    """Range of the gaussian kernel's standard deviations along its two axes, in LR pixels (so one
    camera suits every scale); 0 <= low <= high <= 4. The kernel's angle is drawn too."""
    noise_sigma: tuple[float, float] = (0.5, 1.5)
    """Range of the gaussian noise's standard deviation, in 8-bit levels; 0 <= low <= high <= 128."""

    def __post_init__(self) -> None:
        for name, limit in (("kernel_sigma", 4.0), ("noise_sigma", 128.0)):
            try:
                low, high = (float(value) for value in getattr(self, name))
            except (TypeError, ValueError):
                raise PairsError(f"`{name}` must be two numbers, but got {getattr(self, name)!r}") from None
            if not 0 <= low <= high <= limit:
                raise PairsError(
                    f"`0 <= low <= high <= {limit:g}` must hold for `{name}`, but got {low}, {high}"
                )
            object.__setattr__(self, name, (low, high))


def capture(camera: Camera, hr: NDArray[Any], scale: int, *, name: str, seed: int) -> NDArray[Any]:
    """What the camera sees of a photograph: (3, H/scale, W/scale), of the photograph's depth.

    Args:
        camera: ranges of blur and noise.
        hr: (3, H, W), uint8 or uint16; H and W are multiples of the scale.
        scale: HR pixels per LR pixel.
        name: the photograph's; with the seed it decides the deviation and the noise.
        seed: decides the set's kernel and noise.
    """
    of_set = np.random.default_rng([seed, 0])
    sigmas = of_set.uniform(*camera.kernel_sigma, size=2) * scale
    angle = of_set.uniform(0, math.pi)
    noise_sigma = of_set.uniform(*camera.noise_sigma)
    generator = np.random.default_rng([seed, 1, zlib.crc32(name.encode())])
    deviation = 1 + VARIATION * generator.uniform(-1, 1, size=3)
    kernel = gaussian_kernel(sigmas[0] * deviation[0], sigmas[1] * deviation[1], angle)
    # channel by channel, since a photograph in float64 is eight times its size
    lr = np.concatenate([downsample(blur(channel[None].astype(np.float64), kernel), scale) for channel in hr])
    top = np.iinfo(hr.dtype).max  # 257 of 16-bit levels are one of 8
    lr += noise_sigma * (top / 255) * deviation[2] * generator.standard_normal(lr.shape)
    return np.clip(np.rint(lr), 0, top).astype(hr.dtype)


def gaussian_kernel(sigma_along: float, sigma_across: float, angle: float) -> NDArray[np.float64]:
    """(k, k), k odd, sum 1: a gaussian with its own width along each axis, turned by `angle` radians.

    Point-symmetric about its centre, so that it shifts nothing. Widths of 0 give the identity.
    """
    along, across = max(sigma_along, 1e-3), max(sigma_across, 1e-3)
    radius = math.ceil(4 * max(along, across))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    kernel = np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))
    return kernel / kernel.sum()


def blur(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, H, W) convolved with (k, k), k odd; mirrored at the borders (the edge pixel not repeated)."""
    from scipy.signal import oaconvolve  # half a second to import, and only preparation needs it

    radius = kernel.shape[0] // 2
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    return oaconvolve(padded, kernel[None], mode="valid", axes=(1, 2))


def downsample(image: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """D_s: (C, H, W) to (C, H/scale, W/scale), each the mean of scale×scale pixels, as a sensor's cell."""
    channels, height, width = image.shape
    cells = image.reshape(channels, height // scale, scale, width // scale, scale)
    return cells.mean(axis=(2, 4))


def bicubic_upscale(lr: Tensor | NDArray[Any], scale: int) -> Tensor:
    """The baseline: (…, 3, h, w) float in [0, 1] to (…, 3, scale·h, scale·w), clamped to [0, 1].

    PyTorch's bicubic kernel (a = -0.75), align_corners=False; on the device and in the type of `lr`.

    Raises:
        ValueError: `lr` is not of floating point.
    """
    import torch  # see `PairSet.tensors`

    image = torch.as_tensor(lr)
    if not image.is_floating_point() or image.ndim < 3:
        raise ValueError(
            f"an image to upscale must be (…, 3, h, w) of floats in [0, 1], but got "
            f"{tuple(image.shape)} of {image.dtype}"
        )
    flat = image.reshape(-1, *image.shape[-3:])
    up = torch.nn.functional.interpolate(flat, scale_factor=scale, mode="bicubic", align_corners=False)
    return up.clamp(0, 1).reshape(*image.shape[:-2], *up.shape[-2:])
