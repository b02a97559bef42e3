"""Whether `gpnas recommend` holds on a data set that is in no shipped table.

    python experiments/recommending.py [--data ../shared/data/city100] [--minutes 20]

City100 (Chen et al., CVPR 2019) at ×2, read from `../shared/data/city100` beside the repository; the shipped
tables are of other photographs. The five architectures that are recommended first, and twenty drawn at random
from the same space, are trained as the table's were, 300 steps each. Compared are the best PSNR of the five,
of the twenty, and of five of the twenty on average; and the foretold with the measured hours, which are the
processor's. A finished training is a row of `results/recommending.csv`, so that the command may be
interrupted; `results/recommending.md` is made anew from the rows at the end of each run.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions

from gpnas.data import prepared_pairs
from gpnas.results.recommending import IMAGES, recommend, shipped_recipes
from gpnas_trainers import build
from gpnas_trainers.pairs import MINIMUM_NCC, Rules
from gpnas_trainers.train import train

CITY100 = Path(__file__).resolve().parents[2] / "shared/data/city100"
RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT = RESULTS / "recommending.csv", RESULTS / "recommending.md"
COLUMNS = ["family", "axes", "rank", "random", "foretold", "seconds", "psnr"]
SCALE = 2
FIRST, RANDOM = 5, 20


def finished() -> list[dict[str, str]]:
    """Rows of trainings; a torn last one is left out."""
    if not ROWS.exists():
        return []
    with ROWS.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["psnr"]]


def train_all(data: Path, minutes: float) -> None:
    deadline = time.monotonic() + 60 * minutes
    listed = recommend(data, 1e6, SCALE, print)["architectures"]
    drawn = set(np.random.default_rng(0).choice(len(listed), RANDOM, replace=False).tolist())
    recipes = shipped_recipes()
    rules = Rules(max(recipe.hr_patch for recipe in recipes.values()), MINIMUM_NCC)
    pairs = prepared_pairs(data, SCALE, rules)
    done = {int(row["rank"]) for row in finished()}
    for rank in [*range(FIRST), *sorted(drawn - set(range(FIRST)))]:
        if rank in done:
            continue
        if time.monotonic() >= deadline:
            print("trainings are left; run the same command again")
            return
        row, axes = listed[rank], listed[rank]["architecture"]["axes"]
        family = row["architecture"]["family"]
        torch.manual_seed(rank)
        network = build(family, SCALE, **axes)
        begun = time.process_time()
        progress = train(network, pairs.training, pairs.validation.head(IMAGES), recipes[family], seed=rank)
        seconds = time.process_time() - begun
        sizes = " ".join(f"{name}={value}" for name, value in axes.items())
        values = [family, sizes, rank, int(rank in drawn), f"{3600 * row['hours']:.2f}", f"{seconds:.2f}"]
        head = "" if ROWS.exists() else ",".join(COLUMNS) + "\n"
        with ROWS.open("a") as file:
            file.write(head + ",".join(map(str, [*values, f"{progress.psnr:.4f}"])) + "\n")
        print(*values, progress.psnr, flush=True)


def report() -> str:
    rows = finished()
    first = [row for row in rows if int(row["rank"]) < FIRST]
    drawn = [row for row in rows if row["random"] == "1"]
    ratios = np.array([float(row["foretold"]) / float(row["seconds"]) for row in rows])
    five = [max(float(row["psnr"]) for row in part) for part in itertools.combinations(drawn, FIRST)] or [
        float("nan")
    ]
    lines = [
        "# Recommendations on a data set that is in no table",
        "",
        f"{processor()}, one thread; {versions(('torch', 'gpnas'))}; {date.today()}. City100, ×{SCALE}, "
        "300 steps.",
        "",
        f"Best PSNR of the {len(first)} that are recommended first: "
        f"{max(float(row['psnr']) for row in first):.3f} dB; of {len(drawn)} drawn at random: "
        f"{max((float(row['psnr']) for row in drawn), default=float('nan')):.3f} dB, of {FIRST} of these on "
        f"average {np.mean(five):.3f} dB. Foretold over measured "
        f"hours of all {len(rows)}: median {np.median(ratios):.2f}, from {ratios.min():.2f} to "
        f"{ratios.max():.2f}; {100 * np.mean(np.abs(ratios - 1) <= 0.25):.0f} % within 25 %.",
        "",
        "| architecture | place | drawn | PSNR, dB | foretold, s | measured, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda each: int(each["rank"])):
        axes = f"{row['family']} {row['axes']}"
        lines.append(
            f"| {axes} | {int(row['rank']) + 1} | {'yes' if row['random'] == '1' else ''} | "
            f"{float(row['psnr']):.3f} | {float(row['foretold']):.1f} | {float(row['seconds']):.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, default=CITY100, help="a folder of pairs")
    options.add_argument("--minutes", type=float, default=20.0, help="begin no training after so long")
    arguments = options.parse_args()
    if not arguments.data.is_dir():
        print(f"skipped: there is no {arguments.data.name} folder in ../shared/data beside the repository")
        return
    torch.set_num_threads(1)
    train_all(arguments.data, arguments.minutes)
    REPORT.write_text(report())
    print(f"wrote {REPORT.name}")


if __name__ == "__main__":
    main()
