"""Short trainings on real camera pairs: PSNR that 400 steps reach, and what the loader takes of them.

    python experiments/real_pairs.py [--steps 400]

DRNs on City100 ×2 (Chen et al., CVPR 2019), 80 pairs to train on and 20 to validate, no pair left out:
L1, Adam at 2e-3 falling along a cosine, batches of 8 LR patches of 32×32, 400 steps, one thread. Beside it,
in the same run and on the same pairs, a plain PyTorch loop with the same settings (`training_throughput.py`
has it), whose networks begin as PyTorch leaves them; and what such a loop had reached before, on validation
pairs that are not known. The pairs are read from
`../shared/data/city100` beside the repository; where that is absent, it says so and ends. Writes
`results/real_pairs.md`.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import processor, versions
from torch.utils.data import DataLoader
from training_throughput import Patches

from gpnas_trainers import build
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import PairSet, Rules, bicubic_upscale, open_pairs
from gpnas_trainers.pairs.folder import prepare_folder
from gpnas_trainers.train import Recipe, evaluate, train

CITY100 = Path(__file__).resolve().parents[2] / "shared/data/city100"
REPORT = Path(__file__).resolve().parent / "results/real_pairs.md"
SCALE = 2
KNOWN = {(8, 1, 1): 25.74, (16, 1, 1): 25.86, (16, 2, 2): 26.14, (24, 2, 2): 26.39, (16, 4, 2): 26.57}
"""PSNR in dB that the plain loop reached, and its bicubic, on 20 pairs of its own choice."""
KNOWN_BICUBIC = 25.49
SEEDS = (0, 1)


def plain_training(axes: dict[str, int], pairs: PairSet, recipe: Recipe, seed: int) -> torch.nn.Module:
    """A network as the plain loop trains it, without warm-up, clipping or a start near the bicubic image."""
    torch.manual_seed(seed)
    random.seed(seed)
    network = build("drn", SCALE, **axes)
    network.tail.reset_parameters()  # type: ignore[operator, union-attr]
    side = recipe.hr_patch // SCALE
    loader = DataLoader(
        Patches(pairs, side, recipe.steps * recipe.batch_size), recipe.batch_size, shuffle=True
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    for lr, hr in loader:
        optimizer.zero_grad()
        torch.nn.functional.l1_loss(network(lr), hr).backward()
        optimizer.step()
        schedule.step()
    return network


class Timed:
    """Pairs that count the seconds spent on drawing patches."""

    def __init__(self, pairs: PairSet) -> None:
        self.pairs, self.seconds = pairs, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pairs, name)

    def patches(self, *arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        drawn = self.pairs.patches(*arguments, **named)
        self.seconds += time.perf_counter() - begun
        return drawn


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=400)
    arguments = options.parse_args()
    if not CITY100.is_dir():
        print(f"skipped: there is no {CITY100.name} folder in ../shared/data beside the repository")
        return
    torch.set_num_threads(1)
    recipe = Recipe(
        steps=arguments.steps,
        batch_size=8,
        hr_patch=64,
        learning_rate=2e-3,
        ms_ssim_weight=0.0,
        evaluate_every=arguments.steps,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = prepare_folder(CITY100, name, SCALE, Rules(validation_fraction=0.2, max_validation=None))
        pairs, validation = open_pairs(folder, "train"), open_pairs(folder, "validation")
        bicubic = []
        for index in range(len(validation)):
            lr, hr = validation.tensors(index)
            bicubic.append(psnr(bicubic_upscale(lr, SCALE), hr))
        below = sum(bicubic) / len(bicubic)
        lines = [
            "# Short trainings on real camera pairs",
            "",
            f"{processor()}, one thread; {versions(('gpnas', 'torch'))}; {date.today()}.",
            "",
            f"City100 ×{SCALE}, {len(pairs)} pairs to train on, {len(validation)} to validate; "
            f"{recipe.steps} steps; seeds {', '.join(map(str, SEEDS))}. Bicubic reaches {below:.2f} dB on "
            f"these validation pairs, and {KNOWN_BICUBIC:.2f} on those of the earlier trainings, which are "
            "not known; of those, the gain over bicubic is what can be compared.",
            "",
            "| DRN (F, D, L) | ours, dB | plain loop, dB | over bicubic: ours | plain loop | earlier "
            "| loader's share | steps/s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for axes, known in KNOWN.items():
            reached, plain, share, speed = [], [], [], []
            named = dict(zip(("features", "blocks", "stages"), axes, strict=True))
            for seed in SEEDS:
                plain.append(evaluate(plain_training(named, pairs, recipe, seed), validation)[0])
                torch.manual_seed(seed)
                network = build("drn", SCALE, **named)
                timed = Timed(pairs)
                progress = train(network, timed, validation.head(None), recipe, seed=seed)  # type: ignore[arg-type]
                assert progress.psnr is not None
                reached.append(progress.psnr)
                share.append(timed.seconds / progress.seconds)
                speed.append(recipe.steps / progress.seconds)
            values = [" / ".join(f"{value:.2f}" for value in each) for each in (reached, plain)]
            gains = [" / ".join(f"{value - below:+.2f}" for value in each) for each in (reached, plain)]
            lines.append(
                f"| {axes} | {' | '.join(values)} | {' | '.join(gains)} | "
                f"{known - KNOWN_BICUBIC:+.2f} | {max(share):.1%} | {min(speed):.1f} |"
            )
            print(lines[-1], flush=True)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
