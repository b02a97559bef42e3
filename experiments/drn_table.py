"""A table of real trainings: every architecture of a small DRN space, each from several seeds.

    python experiments/drn_table.py [--minutes 45] [--steps 120]

Trains 7 × 4 × 3 = 84 networks (features × blocks × stages) three times on the photographs that
packages ship, ×2, on one thread, and evaluates each once, at the end. A finished training is one row
of `results/drn_trainings.csv`, written at once, so the command may be interrupted and goes on where
it stopped. Once an architecture has all its trainings it stands in `results/drn_table.csv`, which a
search can be simulated on.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from gpnas_trainers import build
from gpnas_trainers.cost import gmacs, parameters
from gpnas_trainers.pairs import PairSet, open_pairs, prepare
from gpnas_trainers.train import Recipe, TrainingError, train

RESULTS = Path(__file__).resolve().parent / "results"
TRAININGS = RESULTS / "drn_trainings.csv"
TABLE = RESULTS / "drn_table.csv"

SCALE = 2
FEATURES = (8, 12, 16, 20, 24, 28, 32)
BLOCKS = (1, 2, 3, 4)
STAGES = (1, 2, 3)
REPLICATES = 3
LR_SIDE = 64
"""Side of the LR image that GMACs are counted on."""

Axes = tuple[int, int, int]
TRAINING_COLUMNS = ["features", "blocks", "stages", "replicate", "steps", "psnr", "ssim", "seconds"]
TABLE_COLUMNS = ["features", "blocks", "stages", "parameters", "gmacs"]


def all_trainings() -> list[tuple[Axes, int]]:
    """Architectures in a fixed shuffled order, so that a part stands for all, and their replicates."""
    listed = [(f, b, s) for f in FEATURES for b in BLOCKS for s in STAGES]
    random.Random(0).shuffle(listed)
    return [(axes, replicate) for axes in listed for replicate in range(REPLICATES)]


def finished(steps: int) -> dict[tuple[Axes, int], dict[str, str]]:
    """Rows of trainings that are done, by architecture and replicate; a torn last row is left out."""
    if not TRAININGS.exists():
        return {}
    rows = {}
    with TRAININGS.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["seconds"] and int(row["steps"]) == steps:
                axes = (int(row["features"]), int(row["blocks"]), int(row["stages"]))
                rows[axes, int(row["replicate"])] = row
    return rows


def append(row: list[object]) -> None:
    """Adds one row by a single write."""
    head = "" if TRAININGS.exists() else ",".join(TRAINING_COLUMNS) + "\n"
    with TRAININGS.open("a") as file:
        file.write(head + ",".join(str(value) for value in row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_table(steps: int) -> int:
    """Writes the architectures whose trainings are all done; returns how many they are."""
    runs: dict[Axes, dict[int, dict[str, str]]] = defaultdict(dict)
    for (axes, replicate), row in finished(steps).items():
        runs[axes][replicate] = row
    whole = {axes: rows for axes, rows in sorted(runs.items()) if len(rows) == REPLICATES}
    temporary = TABLE.with_name(f".{TABLE.name}.{os.getpid()}")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        psnrs = [f"psnr_run{number + 1}" for number in range(REPLICATES)]
        writer.writerow([*TABLE_COLUMNS, *psnrs, "seconds"])
        for axes, rows in whole.items():
            names = dict(zip(("features", "blocks", "stages"), axes, strict=True))
            costs = [
                parameters("drn", SCALE, **names),
                f"{gmacs('drn', SCALE, LR_SIDE, LR_SIDE, **names):.6g}",
            ]
            values = [rows[replicate]["psnr"] for replicate in range(REPLICATES)]
            seconds = sum(float(row["seconds"]) for row in rows.values()) / REPLICATES
            writer.writerow([*axes, *costs, *values, f"{seconds:.2f}"])
    os.replace(temporary, TABLE)
    return len(whole)


def one_training(axes: Axes, replicate: int, recipe: Recipe, pairs: tuple[PairSet, PairSet]) -> list[object]:
    """Trains one architecture from one seed; a row of `TRAINING_COLUMNS`, its seconds the processor's."""
    features, blocks, stages = axes
    # weights and patches differ from architecture to architecture as they do in a search
    seed = ((replicate * 100 + features) * 10 + blocks) * 10 + stages
    begun = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build("drn", SCALE, features=features, blocks=blocks, stages=stages)
    progress = train(network, *pairs, recipe, seed=seed)
    assert progress.psnr is not None
    assert progress.ssim is not None
    seconds = time.process_time() - begun
    return [*axes, replicate, recipe.steps, f"{progress.psnr:.5f}", f"{progress.ssim:.6f}", f"{seconds:.2f}"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=45.0, help="begin no training after so long")
    options.add_argument("--steps", type=int, default=120)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(
        steps=arguments.steps,
        batch_size=8,
        hr_patch=48,
        learning_rate=6e-3,
        evaluate_every=arguments.steps,
    )
    folder = prepare(None, SCALE)
    pairs = (open_pairs(folder, "train"), open_pairs(folder, "validation"))
    RESULTS.mkdir(exist_ok=True)
    done = finished(recipe.steps)
    left = [each for each in all_trainings() if each not in done]
    deadline = time.monotonic() + 60 * arguments.minutes
    for number, (axes, replicate) in enumerate(left):
        if time.monotonic() >= deadline:
            print(f"{len(left) - number} trainings are left; run the same command again")
            break
        try:
            row = one_training(axes, replicate, recipe, pairs)
        except TrainingError as error:
            print(f"{axes} replicate {replicate}: {error}", flush=True)
            continue
        append(row)
        print(f"{len(done) + number + 1}/{len(done) + len(left)}", *row, flush=True)
    print(f"{write_table(recipe.steps)} architectures in {TABLE.name}")


if __name__ == "__main__":
    main()
