"""Where a training stands, and how good its network is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import PairSet


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    loss: float
    """Loss of the last step."""
    psnr: float | None
    """Validation PSNR in dB, right after a validation; else None."""
    ssim: float | None
    """Validation SSIM, likewise."""
    seconds: float
    """Training and validation time, over all attempts."""
    done: bool
    """All steps are done and validated."""
    learning_rate: float = math.nan
    """Learning rate of the last step."""
    notes: tuple[str, ...] = ()
    """Lines about what the training had to do to go on, since its last report."""


def evaluate(network: nn.Module, pairs: PairSet, device: torch.device | str = "cpu") -> tuple[float, float]:
    """Mean PSNR in dB and mean SSIM over pairs; outputs clamped to [0, 1], not rounded, no border."""
    network.eval()
    psnrs, ssims = [], []
    with torch.inference_mode():
        for index in range(len(pairs)):
            lr, hr = pairs.tensors(index, device)
            sr = network(lr[None].contiguous(memory_format=torch.channels_last)).clamp(0, 1)[0]
            psnrs.append(psnr(sr, hr))
            ssims.append(ssim(sr, hr))
    network.train()
    return sum(psnrs) / len(psnrs), sum(ssims) / len(ssims)
