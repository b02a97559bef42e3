"""Validation PSNR of one small network of each family, by learning rate.

    python experiments/family_rates.py [--steps 200] [-o results/family_rates.md]

Networks of about 60 to 100 thousand parameters at ×2, on the shipped photographs, with equal patches; those
with an image skip have it. The best rate of each family stands in bold, and the seconds are the processor's.
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import processor, versions

from gpnas_trainers import build, cost
from gpnas_trainers.pairs import open_pairs, prepare
from gpnas_trainers.train import Recipe, TrainingError, train

SCALE, IMAGES = 2, 6
RATES = (5e-4, 1e-3, 2e-3, 4e-3)
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("drn", {"features": 16, "blocks": 4, "stages": 3}),
    ("rcan", {"features": 24, "groups": 1, "blocks": 5, "image_skip": True}),
    ("edsr", {"features": 24, "blocks": 5, "image_skip": True}),
    ("rrdb", {"features": 16, "blocks": 3, "growth": 8, "image_skip": True}),
    ("span", {"features": 16, "blocks": 2, "image_skip": True}),
    ("plksr", {"features": 16, "blocks": 5, "kernel": 13}),
    ("safmn", {"features": 24, "blocks": 6, "image_skip": True}),
    ("nafnet", {"width": 32, "blocks": 7}),
    ("compact", {"features": 32, "convolutions": 7}),
    ("swinir", {"features": 32, "groups": 2, "blocks": 2, "heads": 4, "image_skip": True}),
]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    folder = prepare(None, SCALE, workers=None)
    pairs, validation = open_pairs(folder, "train"), open_pairs(folder, "validation").head(IMAGES)
    lines = [
        "# Learning rates of the families",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}; one thread. PSNR in dB after "
        f"{arguments.steps} steps of 4 patches of 48 HR pixels, {len(validation)} images, one seed.",
        "",
        "| network | parameters | " + " | ".join(f"{rate:g}" for rate in RATES) + " | seconds each |",
        "|---|---|" + "---|" * (len(RATES) + 1),
    ]
    for family, axes in NETWORKS:
        reached, begun = [], time.process_time()
        for rate in RATES:
            torch.manual_seed(0)
            recipe = Recipe(
                steps=arguments.steps, batch_size=4, learning_rate=rate, evaluate_every=arguments.steps
            )
            try:
                psnr = train(build(family, SCALE, **axes), pairs, validation, recipe, seed=0).psnr
            except TrainingError:
                psnr = None
            reached.append(psnr or 0.0)
        seconds = (time.process_time() - begun) / len(RATES)
        shown = [f"**{psnr:.2f}**" if psnr == max(reached) else f"{psnr:.2f}" for psnr in reached]
        name = f"{family} ({', '.join(str(value) for value in axes.values() if value is not True)})"
        count = f"{cost.parameters(family, SCALE, **axes):,}"
        lines.append(f"| {name} | {count} | {' | '.join(shown)} | {seconds:.1f} |")
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
