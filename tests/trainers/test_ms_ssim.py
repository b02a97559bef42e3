"""MS-SSIM against pytorch-msssim on real images, its gradient included."""

import pytest
import torch
from pytorch_msssim import ms_ssim as reference
from skimage import data

from gpnas_trainers.ms_ssim import blur, gaussian, ms_ssim
from gpnas_trainers.recipe import ms_ssim_window


def images(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    photographs = [torch.from_numpy(each).permute(2, 0, 1) for each in (data.chelsea(), data.coffee())]
    hr = torch.stack([each[:, 20 : 20 + height, 40 : 40 + width] for each in photographs]).float() / 255
    noise = 0.05 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    return (hr + noise).clamp(0, 1), hr


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (120, 99), (163, 240)])
def test_value_and_gradient_are_pytorch_msssims(size: tuple[int, int]) -> None:
    sr, hr = images(*size)
    window = ms_ssim_window(min(size))
    ours, theirs = (sr.clone().requires_grad_() for _ in range(2))
    found = ms_ssim(ours.contiguous(memory_format=torch.channels_last), hr, window=window)
    expected = reference(theirs, hr, data_range=1.0, win_size=window)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    found.backward()
    expected.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3 * theirs.grad.abs().max().item(), rtol=1e-3)
    assert ms_ssim(hr, hr, window=window).item() == pytest.approx(1, abs=1e-6)


def test_the_window_sums_as_a_convolution_does() -> None:
    """Both ways, their gradients by finite differences."""
    generator = torch.Generator().manual_seed(0)
    field = torch.rand(2, 9, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    taps = torch.tensor(gaussian(5), dtype=torch.float64)
    expected = torch.nn.functional.conv2d(field[:, None], torch.outer(taps, taps)[None, None])[:, 0]
    torch.testing.assert_close(blur([field], gaussian(5))[0], expected)
    assert torch.autograd.gradcheck(lambda planes: blur([planes], gaussian(3))[0], field)
