"""Patches per second of our training loop, beside a plain PyTorch loop.

    python experiments/training_throughput.py [--blocks 12] [--steps 25] [-o results/training_throughput.md]

The plain loop is written as RCAN's official code trains (yulunzhang/RCAN, itself EDSR's): float32, NCHW,
a `DataLoader` that crops, turns and converts decoded images one by one, Adam, L1, the loss read at every
step. Ours is `gpnas_trainers.train.Training`. Both train the same network from the same weights on the
same images and have the same loss, L1; further rows give ours with its default loss, which has MS-SSIM
besides, and in bfloat16. The loops alternate in short blocks, so that whatever else the machine does strikes
both; medians over blocks, and the median of the ratios of neighbours.

Where there is a GPU: RCAN 64/10/20 at 48×48 LR, batch 16, and DRN 128/18/3 at 120×120 LR, both ×2, ours in
bfloat16, with the share of the card's peak that the convolutions reach (a backward pass counts as two
forward passes).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gpnas_trainers import build, cost
from gpnas_trainers.pairs import PairSet, open_pairs, prepare
from gpnas_trainers.train import Recipe, Training

BF16_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Multiply-adds as two operations per second, dense bfloat16, from the makers' data sheets."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and the batches it is trained on."""

    name: str
    family: str
    axes: dict[str, int]
    lr_side: int
    batch_size: int
    scale: int = 2


ON_CPU = [Case("DRN (16, 4, 2)", "drn", {"features": 16, "blocks": 4, "stages": 2}, 32, 8)]
ON_GPU = [
    Case("RCAN (64, 10, 20)", "rcan", {"features": 64, "groups": 10, "blocks": 20}, 48, 16),
    Case("DRN (128, 18, 3)", "drn", {"features": 128, "blocks": 18, "stages": 3}, 120, 8),
]


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Decoded images (H, W, 3), of which each item is a random patch, as the official code's dataset."""

    def __init__(self, pairs: PairSet, lr_side: int, items: int) -> None:
        images = [pairs.image(index) for index in range(len(pairs))]
        self._images = [
            tuple(np.ascontiguousarray(each.transpose(1, 2, 0)) for each in pair) for pair in images
        ]
        self._side, self._scale, self._items = lr_side, pairs.scale, items

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        lr, hr = self._images[index % len(self._images)]
        side, scale = self._side, self._scale
        x = random.randrange(lr.shape[1] - side + 1)
        y = random.randrange(lr.shape[0] - side + 1)
        patches = [
            lr[y : y + side, x : x + side],
            hr[scale * y : scale * (y + side), scale * x : scale * (x + side)],
        ]
        horizontally, vertically, turned = (random.random() < 0.5 for _ in range(3))
        tensors = []
        for patch in patches:
            if horizontally:
                patch = patch[:, ::-1]
            if vertically:
                patch = patch[::-1]
            if turned:
                patch = patch.transpose(1, 0, 2)
            tensor = torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1))).float()
            tensors.append(tensor / 255)
        return tensors[0], tensors[1]


def plain_loop(
    network: nn.Module, pairs: PairSet, case: Case, device: str, workers: int
) -> Callable[[int], None]:
    """So many steps of the plain loop."""
    network = network.to(device).train()
    loader = DataLoader(
        Patches(pairs, case.lr_side, 1000 * case.batch_size),
        case.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=device == "cuda",
        persistent_workers=workers > 0,
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    loss_of = nn.L1Loss()
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def run(steps: int) -> None:
        for lr, hr in itertools.islice(batches, steps):
            lr, hr = lr.to(device), hr.to(device)
            optimizer.zero_grad()
            loss = loss_of(network(lr), hr)
            assert loss.item() < 1e8
            loss.backward()
            optimizer.step()

    return run


def our_loop(
    network: nn.Module, pairs: PairSet, case: Case, device: str, **options: Any
) -> Callable[[int], None]:
    """So many steps of ours."""
    recipe = Recipe(
        steps=10**6,
        evaluate_every=10**6,
        batch_size=case.batch_size,
        hr_patch=case.scale * case.lr_side,
        learning_rate=1e-4,
        **options,
    )
    training = Training(network, pairs, pairs.head(1), recipe, seed=0, device=device)

    def run(steps: int) -> None:
        last = training.step + steps
        while training.step < last:
            training._one_step()  # as `advance` does, which would look at the losses at its end
        training._guard.look()

    return run


def seconds_of(run: Callable[[int], None], steps: int, device: str) -> float:
    begun = time.perf_counter()
    run(steps)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measured(case: Case, pairs: PairSet, device: str, blocks: int, steps: int) -> Iterator[str]:
    """Rows of the table."""
    precision = "bfloat16" if device == "cuda" else "float32"

    def network() -> nn.Module:
        torch.manual_seed(0)
        return build(case.family, case.scale, **case.axes)

    workers = min(8, os.cpu_count() or 1) if device == "cuda" else 0
    loops = {
        "plain loop, L1": plain_loop(network(), pairs, case, device, workers),
        "ours, L1": our_loop(network(), pairs, case, device, ms_ssim_weight=0.0, precision=precision),
        "ours, L1 + MS-SSIM": our_loop(network(), pairs, case, device, precision=precision),
    }
    if device == "cpu":
        loops["ours, L1, bfloat16"] = our_loop(
            network(), pairs, case, device, ms_ssim_weight=0.0, precision="bfloat16"
        )
    for run in loops.values():
        run(max(3, steps // 5))
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(blocks):
        for name, run in loops.items():
            seconds[name].append(seconds_of(run, steps, device))
    plain = seconds["plain loop, L1"]
    for name, taken in seconds.items():
        speed = statistics.median(steps * case.batch_size / each for each in taken)
        ratios = [theirs / each for theirs, each in zip(plain, taken, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        share = "–"
        if device == "cuda":
            card = torch.cuda.get_device_name()
            peak = next((value for key, value in BF16_PEAK.items() if key in card), None)
            if peak is not None:
                macs = 1e9 * cost.gmacs(case.family, case.scale, case.lr_side, case.lr_side, **case.axes)
                share = f"{100 * 3 * 2 * macs * speed / peak:.0f} %"
        size = f"{case.batch_size} × {case.lr_side}×{case.lr_side}"
        yield f"| {case.name} | {size} | {device} | {name} | {speed:.1f} | {spread} | {share} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="a folder of pairs; without it, packages' photographs")
    options.add_argument("--blocks", type=int, default=12, help="of each loop")
    options.add_argument("--steps", type=int, default=25, help="of a block")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    pairs = open_pairs(prepare(arguments.data, 2, workers=None), "train")
    lines = ["# Training throughput", ""]
    place = processor()
    if torch.cuda.is_available():
        place += f", {torch.cuda.get_device_name()}"
    lines += [
        f"{place}, one thread; {versions(('gpnas', 'torch'))}; {date.today()}. ×2, batches of LR patches; "
        f"{arguments.blocks} blocks of {arguments.steps} steps each, loops in turn. Faster: "
        "the median (least–greatest) of the ratios of neighbouring blocks.",
        "",
        "| network | batch | on | loop | patches/s | times the plain loop | of the bf16 peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in ON_CPU:
        lines += measured(case, pairs, "cpu", arguments.blocks, arguments.steps)
    if torch.cuda.is_available():
        for case in ON_GPU:
            lines += measured(case, pairs, "cuda", arguments.blocks, arguments.steps)
    else:
        names = " and ".join(case.name for case in ON_GPU)
        lines += ["", f"{names}: skipped, since PyTorch finds no GPU on this machine."]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
