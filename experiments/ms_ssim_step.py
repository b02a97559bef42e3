"""Seconds of a whole training step on a CPU with pytorch-msssim, and with `gpnas_trainers.ms_ssim`.

    python experiments/ms_ssim_step.py [-o results/ms_ssim_step.md]

A step is the forward pass, L1 + MS-SSIM, the backward pass, clipping and AdamW, on random patches. Both
losses take turns step by step, and the medians of the processor's time are compared; the library's window
has the same size.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_msssim
import torch
from machine import processor, versions
from torch import Tensor, nn

from gpnas_trainers import build
from gpnas_trainers.ms_ssim import ms_ssim
from gpnas_trainers.recipe import ms_ssim_window

CASES: list[tuple[str, dict[str, Any], int, int]] = [
    ("drn", {"features": 8, "blocks": 1, "stages": 1}, 8, 48),
    ("drn", {"features": 16, "blocks": 4, "stages": 2}, 8, 48),
    ("drn", {"features": 16, "blocks": 4, "stages": 2}, 8, 96),
    ("drn", {"features": 32, "blocks": 4, "stages": 3}, 8, 96),
    ("rcan", {"features": 64, "groups": 2, "blocks": 4}, 2, 96),
]
"""Family, axes, batch, HR patch."""
SCALE = 2
Loss = Callable[[Tensor, Tensor], Tensor]


def libraries(sr: Tensor, hr: Tensor) -> Tensor:
    window = ms_ssim_window(hr.shape[-1])
    found: Tensor = pytorch_msssim.ms_ssim(sr, hr, data_range=1.0, win_size=window)
    return found


def ours(sr: Tensor, hr: Tensor) -> Tensor:
    return ms_ssim(sr, hr, window=ms_ssim_window(hr.shape[-1]))


def step(network: nn.Module, optimizer: torch.optim.Optimizer, lr: Tensor, hr: Tensor, metric: Loss) -> float:
    start = time.process_time()
    optimizer.zero_grad(set_to_none=True)
    sr = network(lr)
    loss = (sr - hr).abs().mean() + 0.1 * (1 - metric(sr, hr))
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return time.process_time() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    options.add_argument("--steps", type=int, default=30, help="of each loss")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# A training step with pytorch-msssim and with our MS-SSIM",
        "",
        f"{processor()}; {versions(('gpnas', 'torch', 'pytorch-msssim'))}; {date.today()}; one thread. "
        f"Medians of {arguments.steps} steps, ×{SCALE}.",
        "",
        "| network | batch × HR patch | pytorch-msssim, ms | ours, ms | the library costs more by |",
        "|---|---|---|---|---|",
    ]
    for family, axes, batch_size, hr_patch in CASES:
        torch.manual_seed(0)
        network = build(family, SCALE, **axes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        hr = torch.rand(batch_size, 3, hr_patch, hr_patch).contiguous(memory_format=torch.channels_last)
        lr = torch.rand(batch_size, 3, hr_patch // SCALE, hr_patch // SCALE)
        lr = lr.contiguous(memory_format=torch.channels_last)
        took: dict[Loss, list[float]] = {libraries: [], ours: []}
        for number in range(arguments.steps + 3):
            for metric, seconds in took.items():
                spent = step(network, optimizer, lr, hr, metric)
                if number >= 3:
                    seconds.append(spent)
        theirs, own = (1000 * median(took[metric]) for metric in (libraries, ours))
        name = f"{family} ({', '.join(map(str, axes.values()))})"
        lines.append(
            f"| {name} | {batch_size} × {hr_patch} | {theirs:.1f} | {own:.1f} | {theirs / own - 1:.0%} |"
        )
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
