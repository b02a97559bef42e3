"""PSNR and SSIM against other libraries, on photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import color, data
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from gpnas_trainers.metrics import Channels, psnr, ssim


@pytest.fixture(scope="module", params=["coffee", "chelsea"])
def images(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """A photograph and its blurred, noisy likeness, (3, H, W)."""
    hr = getattr(data, request.param)()[:211, :290] / 255
    noise = np.random.default_rng(0).normal(0, 0.01, hr.shape)
    sr = (gaussian(hr, 1.0, channel_axis=2) + noise).clip(0, 1)
    return tensor(sr), tensor(hr)


def tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) to (C, H, W)."""
    return torch.from_numpy(np.moveaxis(image, 2, 0).copy())


def planes(image: Tensor, border: int, channels: Channels) -> np.ndarray:
    """As scikit-image takes it, (H, W, C) in [0, 1]."""
    inner = np.moveaxis(image.numpy(), 0, 2)[border : -border or None, border : -border or None]
    return color.rgb2ycbcr(inner)[..., :1] / 255 if channels == "y" else inner


@pytest.mark.parametrize("channels", ["rgb", "y"])
@pytest.mark.parametrize("border", [0, 4])
def test_psnr_and_ssim_are_scikit_images(
    images: tuple[Tensor, Tensor], border: int, channels: Channels
) -> None:
    sr, hr = (planes(image, border, channels) for image in images)
    assert psnr(*images, border=border, channels=channels) == pytest.approx(
        peak_signal_noise_ratio(hr, sr, data_range=1), abs=1e-6
    )
    _, every = structural_similarity(
        hr, sr, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert ssim(*images, border=border, channels=channels) == pytest.approx(
        every[5:-5, 5:-5].mean(), abs=1e-6
    )


def test_what_cannot_be_measured_is_refused(images: tuple[Tensor, Tensor]) -> None:
    sr, hr = images
    with pytest.raises(ValueError, match="one size"):
        psnr(sr[..., 1:], hr)
    with pytest.raises(ValueError, match=r"a border must leave something of the image, but 106 of 211×290"):
        psnr(sr, hr, border=106)
    with pytest.raises(ValueError, match="channels must be rgb or y, but got 'luma'"):
        psnr(sr, hr, channels="luma")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="SSIM needs images of at least 11×11, but got 10×290"):
        ssim(sr[:, :10], hr[:, :10])
