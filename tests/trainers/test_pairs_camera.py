"""The synthetic camera against Eq. 1 written out, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.data import astronaut
from skimage.registration import phase_cross_correlation

from gpnas_trainers.pairs import Camera, PairsError, bicubic_upscale
from gpnas_trainers.pairs.camera import blur, capture, downsample, gaussian_kernel

QUIET = (0.0, 0.0)


def test_capture_is_equation_1_written_out() -> None:
    """LR = D_s(HR * k): every LR pixel from its own double sum, in float64."""
    generator = np.random.default_rng(0)
    hr = generator.integers(0, 256, (3, 18, 24), dtype=np.uint8)
    scale, sigma = 3, 0.5
    kernel = gaussian_kernel(sigma * scale, sigma * scale, 0.0)
    radius = len(kernel) // 2
    mirrored = np.pad(hr.astype(np.float64), ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    expected = np.zeros((3, 6, 8))
    for c in range(3):
        for i in range(6):
            for j in range(8):
                for a in range(scale):
                    for b in range(scale):
                        y, x = scale * i + a, scale * j + b
                        window = mirrored[c, y : y + 2 * radius + 1, x : x + 2 * radius + 1]
                        expected[c, i, j] += (window * kernel).sum() / scale**2
    np.testing.assert_allclose(downsample(blur(hr.astype(float), kernel), scale), expected, atol=1e-9)


def test_kernel_is_a_gaussian() -> None:
    kernel = gaussian_kernel(2.0, 2.0, 0.7)
    impulse = np.zeros((41, 41))
    impulse[20, 20] = 1
    other = ndimage.gaussian_filter(impulse, 2.0, truncate=4.0)[12:29, 12:29]
    # scipy cuts to a square likewise; both sum to 1
    np.testing.assert_allclose(kernel, other / other.sum(), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_kernel_has_the_widths_and_the_angle(angle: float) -> None:
    """Second moments: R diag(along², across²) Rᵀ; first moments: zero, so nothing is shifted."""
    along, across = 3.0, 1.5
    kernel = gaussian_kernel(along, across, angle)
    radius = len(kernel) // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    moments = [[(kernel * p * q).sum() for q in (x, y)] for p in (x, y)]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    np.testing.assert_allclose(moments, turn @ np.diag([along**2, across**2]) @ turn.T, atol=0.02)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose([(kernel * x).sum(), (kernel * y).sum()], 0, atol=1e-12)


def test_no_blur_and_no_noise_is_the_mean_of_each_cell() -> None:
    hr = np.random.default_rng(1).integers(0, 256, (3, 12, 8), dtype=np.uint8)
    lr = capture(Camera(QUIET, QUIET), hr, 4, name="x", seed=0)
    blocks = [
        [hr[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean(axis=(1, 2)) for j in range(2)] for i in range(3)
    ]
    np.testing.assert_array_equal(lr, np.rint(np.array(blocks).transpose(2, 0, 1)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_pixels_lie_at_the_centres_of_their_cells(scale: int) -> None:
    """A ramp, 1 level per HR pixel, is unchanged by any symmetric kernel: LR pixel i is its value at
    s·i + (s-1)/2. Bicubic upsampling, align_corners=False, puts it back there: its kernel (a = -0.75)
    ripples around a ramp, but evenly within a cell, whose mean stays."""
    ramp = np.broadcast_to(np.arange(240, dtype=np.float64), (3, 48, 240))
    lr = downsample(blur(ramp, gaussian_kernel(0.6 * scale, 0.4 * scale, 0.5)), scale)
    i = np.arange(240 // scale)
    inside = slice(5, -5)
    np.testing.assert_allclose(lr[0, 4, inside], (scale * i + (scale - 1) / 2)[inside], atol=1e-9)
    back = bicubic_upscale(torch.from_numpy(lr) / 255, scale) * 255
    cells = back[0, 20].reshape(-1, scale).mean(dim=1)
    np.testing.assert_allclose(cells[inside], lr[0, 4, inside], atol=1e-9)
    np.testing.assert_allclose(back[0, 20, 40:-40], ramp[0, 20, 40:-40], atol=0.2)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_no_subpixel_shift_on_a_photograph(scale: int) -> None:
    hr = np.ascontiguousarray(astronaut()[:240, :240].transpose(2, 0, 1))
    lr = capture(Camera(), hr, scale, name="astronaut", seed=3)
    up = bicubic_upscale(torch.from_numpy(lr).double() / 255, scale).numpy().mean(axis=0)
    shift, _, _ = phase_cross_correlation(hr.mean(axis=0) / 255, up, upsample_factor=100)
    assert np.abs(shift).max() <= 0.05  # HR pixels; half an LR pixel would be 1 to 2


def test_noise_is_in_levels() -> None:
    hr = np.full((3, 400, 400), 128, np.uint8)
    lr = capture(Camera(QUIET, (3.0, 3.0)), hr, 2, name="flat", seed=0).astype(np.float64)
    # the photograph's deviation of up to 5 %, and 1/12 for rounding
    assert lr.mean() == pytest.approx(128, abs=0.05)
    assert 0.94 * 3 < math.sqrt(lr.var() - 1 / 12) < 1.06 * 3


def test_one_camera_per_set_and_noise_per_photograph() -> None:
    hr = np.random.default_rng(2).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    one = capture(Camera(), hr, 2, name="one", seed=0)
    np.testing.assert_array_equal(one, capture(Camera(), hr, 2, name="one", seed=0))
    assert (one != capture(Camera(), hr, 2, name="two", seed=0)).any()
    assert (one != capture(Camera(), hr, 2, name="one", seed=1)).any()


def test_camera_checks_itself() -> None:
    assert Camera([0.5, 0.6]).kernel_sigma == (0.5, 0.6)  # type: ignore[arg-type]
    for ranges in ((0.6, 0.5), (-0.1, 0.5), (0.1, 9.0), (0.1, math.nan)):
        with pytest.raises(PairsError, match=r"`0 <= low <= high <= 4` must hold for `kernel_sigma`"):
            Camera(kernel_sigma=ranges)
    with pytest.raises(PairsError, match="must be two numbers"):
        Camera(noise_sigma=1.0)  # type: ignore[arg-type]


def test_bicubic_against_the_kernel_written_out() -> None:
    """Keys' cubic convolution with a = -0.75 on clamped indices, along one axis of a row."""
    row = np.random.default_rng(3).random(9)
    scale, a = 3, -0.75

    def keys(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    expected = []
    for i in range(scale * len(row)):
        centre = (i + 0.5) / scale - 0.5
        first = math.floor(centre) - 1
        taps = [(row[min(max(k, 0), len(row) - 1)], keys(centre - k)) for k in range(first, first + 4)]
        expected.append(min(max(sum(value * weight for value, weight in taps), 0), 1))
    image = torch.from_numpy(np.broadcast_to(row, (3, 5, 9)).copy())
    up = bicubic_upscale(image, scale)
    assert up.shape == (3, 15, 27)
    np.testing.assert_allclose(up[1, 7], expected, atol=1e-12)
    torch.testing.assert_close(bicubic_upscale(image[None, None], scale)[0, 0], up)
    with pytest.raises(ValueError, match="of floats"):
        bicubic_upscale(torch.zeros(3, 4, 4, dtype=torch.uint8), 2)
