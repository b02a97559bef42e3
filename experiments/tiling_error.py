"""How far images made of tiles are from the image that the network makes of the whole.

    python experiments/tiling_error.py [--steps 300] [-o results/tiling_error.md] [--picture seams.png]

One network, briefly trained on the packages' photographs, without self-ensemble; the validation photographs,
tiles of 48 LR pixels, all ways of blending, overlaps of 0, 1/4, 1/2 and 3/4 of the tile. Channel attention
averages over what it is given, so a tile's result differs from the whole image's everywhere, not only near
the tile's edge.

The picture shows a part of the first validation photograph as the whole image's result, and beside it, for
each way of blending at an overlap of 1/4, the difference to it, 32 times as large, on grey.
"""

from __future__ import annotations

import argparse
import os
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from gpnas_trainers import build
from gpnas_trainers.infer import BLENDS, Levels, upscale
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import open_pairs, prepare
from gpnas_trainers.train import Recipe, Training

SCALE, TILE = 2, 48
AXES = {"features": 16, "blocks": 2, "stages": 2}
AMPLIFIED, PART = 32, (slice(20, 290), slice(130, 420))  # in HR pixels
SHOWN = 1  # quarter of a tile


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=300, help="of the training")
    options.add_argument("--images", type=int, default=4, help="validation photographs at most")
    options.add_argument("--picture", type=Path, help="a PNG file")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = prepare(None, SCALE, workers=None)
    pairs, validation = open_pairs(folder, "train"), open_pairs(folder, "validation").head(arguments.images)
    network = build("drn", SCALE, **AXES)
    recipe = Recipe(steps=arguments.steps, batch_size=4, hr_patch=48, evaluate_every=arguments.steps)
    training = Training(network, pairs, validation, recipe, seed=0)
    for _ in range(arguments.steps):
        training.advance(0.0)
    images = [validation.tensors(i) for i in range(len(validation))]
    wholes = [upscale([training.network], lr, SCALE, Levels(tile=0, self_ensemble=False)) for lr, _ in images]
    count = len(images)
    to_hr = sum(psnr(whole, hr) for whole, (_, hr) in zip(wholes, images, strict=True)) / count
    lines = [
        "# Tiles beside the whole image",
        "",
        f"{processor()}, one thread; {versions(('gpnas', 'torch'))}; {date.today()}. DRN "
        f"({', '.join(map(str, AXES.values()))}), ×{SCALE}, {arguments.steps} steps; {count} photographs, "
        f"tiles of {TILE} LR pixels, no self-ensemble. Differences to the whole image's result in 8-bit "
        "levels: root mean square over images, and the greatest. PSNR against HR; "
        f"the whole image's is {to_hr:.3f} dB.",
        "",
        "| overlap | blend | RMS | greatest | PSNR, dB |",
        "|---|---|---|---|---|",
    ]
    shown = [("whole", wholes[0])]
    for quarters in range(4):
        for blend in BLENDS:
            squares = greatest = decibels = 0.0
            for whole, (lr, hr) in zip(wholes, images, strict=True):
                overlap = quarters * TILE // 4
                sr = upscale(
                    [training.network],
                    lr,
                    SCALE,
                    Levels(tile=TILE, overlap=overlap, blend=blend, self_ensemble=False),
                )
                if quarters == SHOWN and whole is wholes[0]:
                    shown.append((blend, 0.5 + AMPLIFIED * (sr - whole)))
                apart = 255 * (sr - whole).abs().double()
                squares += float(apart.square().mean()) / count
                greatest = max(greatest, float(apart.max()))
                decibels += psnr(sr, hr) / count
            row = f"| {quarters}/4 | {blend} | {squares**0.5:.3f} | {greatest:.2f} | {decibels:.3f} |"
            lines.append(row)
            print(row, flush=True)
    text = "\n".join(lines) + "\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    if arguments.picture:
        Image.fromarray(side_by_side(shown)).save(arguments.picture)


def side_by_side(views: list[tuple[str, Tensor]]) -> NDArray[np.uint8]:
    """A part of each view, with its name above."""
    height, width = (part.stop - part.start for part in PART)
    page = Image.new("RGB", (len(views) * (width + 8) - 8, height + 18), "white")
    for place, (name, view) in enumerate(views):
        left = place * (width + 8)
        levels = (255 * view[:, PART[0], PART[1]].clamp(0, 1)).round().byte().permute(1, 2, 0)
        page.paste(Image.fromarray(levels.contiguous().numpy()), (left, 18))
        text = name if place == 0 else f"{name}, {AMPLIFIED} times the difference"
        ImageDraw.Draw(page).text((left + 2, 2), text, fill="black", font_size=12)
    return np.asarray(page)


if __name__ == "__main__":
    main()
