"""Training losses: the paper's, L1 and MS-SSIM mixed (section 5), and that of dual regression."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_msssim
import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from gpnas_trainers.ms_ssim import ms_ssim
from gpnas_trainers.recipe import ms_ssim_window


def mixed_loss(sr: Tensor, hr: Tensor, *, l1_weight: float, ms_ssim_weight: float) -> Tensor:
    """l1_weight·L1 + ms_ssim_weight·(1 - MS-SSIM), a scalar.

    Args:
        sr, hr: (B, 3, H, W), HR in [0, 1].
        l1_weight, ms_ssim_weight: the paper does not publish its own.

    Raises:
        ValueError: patches too small for MS-SSIM.
    """
    loss = l1_weight * l1_loss(sr, hr)
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
