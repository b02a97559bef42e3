"""What weights to begin with are worth: final trainings begun with those of a search, beside fresh ones.

    python experiments/warm_start.py

DRNs on City100 (Chen et al., CVPR 2019) in `../shared/data/city100` beside the repository, or where that
is absent on the shipped photographs. Each network is first trained as a search trains it (200 steps), then
further with the same recipe and other patches, from those weights and from fresh ones, for equally many
further steps; and at ×3, from the weights at ×2 and from fresh ones. Writes `results/warm_start.md`.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import processor, versions
from torch import Tensor

from gpnas_trainers import build
from gpnas_trainers.pairs import open_pairs, prepare_folder, prepare_photographs
from gpnas_trainers.train import Recipe, train

CITY100 = Path(__file__).resolve().parents[2] / "shared/data/city100"
REPORT = Path(__file__).resolve().parent / "results/warm_start.md"
SEARCH_STEPS, FURTHER = 200, (200, 600)
NETWORKS = ((8, 1, 1), (12, 2, 1))
SEEDS = (0, 1)
IMAGES = 8
RECIPE = Recipe(steps=SEARCH_STEPS, evaluate_every=100_000)


def trained(
    folder: Path, scale: int, axes: tuple[int, ...], steps: int, seed: int, initial: dict[str, Tensor] | None
) -> tuple[float, dict[str, Tensor]]:
    """PSNR in dB and weights after so many steps."""
    torch.manual_seed(seed)
    network = build("drn", scale, **dict(zip(("features", "blocks", "stages"), axes, strict=True)))
    validation = open_pairs(folder, "validation").head(IMAGES)
    progress = train(
        network,
        open_pairs(folder, "train"),
        validation,
        replace(RECIPE, steps=steps),
        seed=seed,
        initial=initial,
    )
    assert progress.psnr is not None
    return progress.psnr, network.state_dict()


def measured(
    folders: dict[int, Path], axes: tuple[int, ...], seed: int
) -> list[tuple[str, int, float, float]]:
    """Rows of what, further steps, PSNR from fresh weights, and from given ones."""
    torch.set_num_threads(1)
    _, weights = trained(folders[2], 2, axes, SEARCH_STEPS, seed, None)
    rows = []
    for scale, steps in ((2, FURTHER[0]), (2, FURTHER[1]), (3, FURTHER[0])):
        what = "×2, from the search" if scale == 2 else "×3, from ×2"
        fresh, _ = trained(folders[scale], scale, axes, steps, seed + 100, None)
        warm, _ = trained(folders[scale], scale, axes, steps, seed + 100, weights)
        rows.append((what, steps, fresh, warm))
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        if CITY100.is_dir():
            folders = {scale: prepare_folder(CITY100, name, scale) for scale in (2, 3)}
        else:
            folders = {scale: prepare_photographs(name, scale) for scale in (2, 3)}
        jobs = [(axes, seed) for axes in NETWORKS for seed in SEEDS]
        with ProcessPoolExecutor(2) as pool:
            found = list(pool.map(measured, [folders] * len(jobs), *zip(*jobs, strict=True)))
        count = len(open_pairs(folders[2], "validation").head(IMAGES))
    data = "City100" if CITY100.is_dir() else "the shipped photographs"
    lines = [
        "# Weights to begin with",
        "",
        f"{processor()}, one thread per training; {versions(('gpnas', 'torch'))}; {date.today()}.",
        "",
        f"{data}, {count} validation pairs; the search trained {SEARCH_STEPS} steps; the recipe's defaults.",
        "",
        "| DRN (F, D, L) | seed | begun | further steps | fresh, dB | warm, dB | difference, dB |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    differences = []
    for (axes, seed), rows in zip(jobs, found, strict=True):
        for what, steps, fresh, warm in rows:
            differences.append(warm - fresh)
            network = ", ".join(map(str, axes))
            lines.append(
                f"| ({network}) | {seed} | {what} | {steps} | {fresh:.3f} | {warm:.3f} "
                f"| {warm - fresh:+.3f} |"
            )
    better = sum(each > 0 for each in differences)
    lines += [
        "",
        f"Warm was better in {better} of {len(differences)}, by "
        f"{sum(differences) / len(differences):+.3f} dB in the mean "
        f"(least {min(differences):+.3f}, most {max(differences):+.3f}).",
    ]
    REPORT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
