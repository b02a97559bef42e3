"""Learning curves of real trainings: what each architecture of a small DRN space reached on its way.

    nice -n 10 python experiments/learning_curves.py [--minutes 45]

Trains 7 × 4 × 3 = 84 networks (features × blocks × stages) on the photographs that
packages ship, ×2, with one recipe, on one thread, and evaluates each on the way. A finished
training is a block of rows in `results/learning_curves.csv`, written at once, so the command may be
interrupted and goes on where it stopped. Every architecture is trained once before any is again.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from drn_table import BLOCKS, FEATURES, SCALE, STAGES, Axes, all_trainings

from gpnas_trainers import build
from gpnas_trainers.pairs import PairSet, open_pairs, prepare
from gpnas_trainers.train import Progress, Recipe, Training, TrainingError, train

CURVES = Path(__file__).resolve().parent / "results/learning_curves.csv"
COLUMNS = ["features", "blocks", "stages", "replicate", "step", "psnr", "ssim", "seconds"]
RECIPE = Recipe(steps=300, batch_size=8, hr_patch=48, learning_rate=6e-3, evaluate_every=25)
"""How each is trained."""
IMAGES = 10
"""Validation images at most, as in a search."""


def read() -> dict[tuple[Axes, int], list[dict[str, str]]]:
    """Rows of the trainings that are done, by architecture and replicate; a torn one is left out."""
    curves: dict[tuple[Axes, int], list[dict[str, str]]] = {}
    if CURVES.exists():
        with CURVES.open(newline="") as file:
            for row in csv.DictReader(file):
                axes = (int(row["features"]), int(row["blocks"]), int(row["stages"]))
                curves.setdefault((axes, int(row["replicate"])), []).append(row)
    points = RECIPE.steps // RECIPE.evaluate_every
    return {key: rows for key, rows in curves.items() if len(rows) == points and rows[-1]["seconds"]}


def append(rows: list[list[object]]) -> None:
    """Adds a training's rows by a single write."""
    head = "" if CURVES.exists() else ",".join(COLUMNS) + "\n"
    with CURVES.open("a") as file:
        file.write(head + "".join(",".join(str(value) for value in row) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def one_curve(axes: Axes, replicate: int, pairs: tuple[PairSet, PairSet]) -> list[list[object]]:
    """Trains one architecture from one seed; rows of `COLUMNS`, their seconds the processor's."""
    features, blocks, stages = axes
    # weights and patches differ from architecture to architecture as they do in a search
    seed = ((replicate * 100 + features) * 10 + blocks) * 10 + stages
    begun = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build("drn", SCALE, features=features, blocks=blocks, stages=stages)
    rows: list[list[object]] = []

    def watch(_: Training, progress: Progress) -> None:
        if progress.psnr is not None:
            seconds = time.process_time() - begun
            numbers = [f"{progress.psnr:.5f}", f"{progress.ssim:.6f}", f"{seconds:.2f}"]
            rows.append([*axes, replicate, progress.step, *numbers])

    train(network, *pairs, RECIPE, seed=seed, watchers=[watch])
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=45.0, help="begin no training after so long")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    folder = prepare(None, SCALE)
    pairs = (open_pairs(folder, "train"), open_pairs(folder, "validation").head(IMAGES))
    done = read()
    listed = sorted(all_trainings(), key=lambda training: training[1])  # stable: shuffled, by replicate
    assert len(listed) % (len(FEATURES) * len(BLOCKS) * len(STAGES)) == 0
    left = [each for each in listed if each not in done]
    deadline = time.monotonic() + 60 * arguments.minutes
    for number, (axes, replicate) in enumerate(left):
        if time.monotonic() >= deadline:
            print(f"{len(left) - number} trainings are left; run the same command again")
            break
        try:
            rows = one_curve(axes, replicate, pairs)
        except TrainingError as error:
            print(f"{axes} replicate {replicate}: {error}", flush=True)
            continue
        append(rows)
        print(f"{len(done) + number + 1}/{len(listed)}", *rows[-1], flush=True)


if __name__ == "__main__":
    main()
