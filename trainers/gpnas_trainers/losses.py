"""Training losses: the paper's, L1 and MS-SSIM mixed (section 5), and that of dual regression."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_msssim
import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from gpnas_trainers.ms_ssim import ms_ssim
from gpnas_trainers.recipe import ms_ssim_window

CHARBONNIER = 1e-3
"""ε of Charbonnier's loss, in the range of 0 to 1.

W.-S. Lai et al., "Deep Laplacian pyramid networks for fast and accurate super-resolution", CVPR 2017.
"""


def pixel_loss(sr: Tensor, hr: Tensor, kind: str) -> Tensor:
    """A mean over pixels, a scalar: of |d| (`l1`), of d² (`l2`), or of √(d² + ε²) (`charbonnier`)."""
    if kind == "charbonnier":
        return (mse_loss(sr, hr, reduction="none") + CHARBONNIER**2).sqrt().mean()
    return mse_loss(sr, hr) if kind == "l2" else l1_loss(sr, hr)


def mixed_loss(
    sr: Tensor, hr: Tensor, *, l1_weight: float, ms_ssim_weight: float, pixels: str = "l1"
) -> Tensor:
    """l1_weight·L1 + ms_ssim_weight·(1 - MS-SSIM), a scalar.

    Args:
        sr, hr: (B, 3, H, W), HR in [0, 1].
        l1_weight, ms_ssim_weight: the paper does not publish its own.
        pixels: the loss that takes the place of L1, as `pixel_loss` names it.

    Raises:
        ValueError: patches too small for MS-SSIM.
    """
    loss = l1_weight * pixel_loss(sr, hr, pixels)
    if ms_ssim_weight:
        window = ms_ssim_window(min(hr.shape[-2:]))
        if sr.device.type == "cpu":
            similarity = ms_ssim(sr, hr, window=window)
        else:
            similarity = pytorch_msssim.ms_ssim(sr.float(), hr.float(), data_range=1.0, win_size=window)
        loss = loss + ms_ssim_weight * (1 - similarity)
    return loss


def dual_regression_loss(
    outputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    returned: Sequence[Tensor],
    *,
    dual_weight: float = 0.1,
) -> Tensor:
    """L1 over images of all sizes, plus how far they are from the smaller ones when mapped back.

    Guo et al., CVPR 2020, Eq. 3, over all sizes as in the official code. A scalar.

    Args:
        outputs: the network's images, LR size first, each (B, 3, H, W) and twice the one before.
        targets: the true images of the same sizes; the first is the input itself.
        returned: what the dual networks make of all outputs but the first, in order.
        dual_weight: λ; 0.1 in the paper.
    """
    primal = sum(l1_loss(sr, hr) for sr, hr in zip(outputs, targets, strict=True))
    dual = sum(l1_loss(lr, true) for lr, true in zip(returned, targets[:-1], strict=True))
    return torch.as_tensor(primal + dual_weight * dual)
