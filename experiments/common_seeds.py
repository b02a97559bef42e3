"""Whether trainings should share their seeds across architectures.

    python experiments/common_seeds.py [--minutes 20] [--steps 80]
    python experiments/common_seeds.py --report          # only the analysis, from the rows that are there

A training's seed decides which patches it sees in which order, and its first weights. Where several
architectures are trained from one seed, what that seed does to all of them drops out of their
differences. Sixteen DRNs are trained from each of six seeds on the photographs that packages ship, ×2;
a finished training is a row of `results/common_seeds.csv`, so that the command may be
interrupted. `results/common_seeds.md` then holds

- a two-way analysis of variance, architecture by seed, without replication: the noise of trainings from
  seeds of their own, and what is left of it where a seed is common;
- searches replayed on the table at equal budgets: the k-th training of an architecture has the k-th
  seed of the search, common to all architectures, or the k-th of an order of its own. Judged is the
  regret of the recommendation, by the mean over all seeds.

Both are done for the MLPs of `../shared/data/tables` too, where those are.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from numpy.typing import NDArray
from tables import load_table

from gpnas import Architecture, Engine, Observation, SearchSpace
from gpnas_trainers import build
from gpnas_trainers.cost import parameters
from gpnas_trainers.pairs import PairSet, open_pairs, prepare
from gpnas_trainers.train import Recipe, train

RESULTS = Path(__file__).resolve().parent / "results"
ROWS = RESULTS / "common_seeds.csv"
REPORT = RESULTS / "common_seeds.md"
COLUMNS = ["features", "blocks", "stages", "seed", "steps", "psnr", "seconds"]

SCALE = 2
AXES = {"features": (8, 12, 16, 24), "blocks": (1, 3), "stages": (1, 2)}
SEEDS = 6
BUDGETS = (6, 10, 15)  # a search ends once every one of the sixteen was suggested
SEARCHES = 60

Axes = tuple[int, ...]
Values = NDArray[np.float64]


def finished(steps: int) -> dict[tuple[Axes, int], float]:
    """PSNR by architecture and seed; a torn last row is left out."""
    if not ROWS.exists():
        return {}
    with ROWS.open(newline="") as file:
        return {
            (tuple(int(row[name]) for name in AXES), int(row["seed"])): float(row["psnr"])
            for row in csv.DictReader(file)
            if row["seconds"] and int(row["steps"]) == steps
        }


def train_all(steps: int, minutes: float) -> None:
    """Trains what is not in the rows yet, seed by seed."""
    recipe = Recipe(
        steps=steps,
        batch_size=8,
        hr_patch=48,
        learning_rate=6e-3,
        evaluate_every=steps,
        ms_ssim_weight=0.0,
    )
    folder = prepare(None, SCALE)
    pairs = (open_pairs(folder, "train"), open_pairs(folder, "validation"))
    done, deadline = finished(steps), time.monotonic() + 60 * minutes
    for seed in range(SEEDS):
        for architecture in architectures():
            if (architecture, seed) in done:
                continue
            if time.monotonic() >= deadline:
                print("trainings are left; run the same command again")
                return
            row = one_training(architecture, seed, recipe, pairs)
            head = "" if ROWS.exists() else ",".join(COLUMNS) + "\n"
            with ROWS.open("a") as file:
                file.write(head + ",".join(str(value) for value in row) + "\n")
            print(*row, flush=True)


def architectures() -> list[Axes]:
    return [(f, b, s) for f in AXES["features"] for b in AXES["blocks"] for s in AXES["stages"]]


def one_training(
    architecture: Axes, seed: int, recipe: Recipe, pairs: tuple[PairSet, PairSet]
) -> list[object]:
    """A row of `COLUMNS`; seconds are the processor's."""
    begun = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build("drn", SCALE, **dict(zip(AXES, architecture, strict=True)))
    progress = train(network, *pairs, recipe, seed=seed)
    assert progress.psnr is not None
    return [*architecture, seed, recipe.steps, f"{progress.psnr:.5f}", f"{time.process_time() - begun:.2f}"]


def two_way(values: Values) -> tuple[float, float, float]:  # (architectures, seeds)
    """Variances of the seeds' common effect, of the rest, and of the architectures' own means.

    Expected mean squares of a two-way layout without replication (H. Scheffé, "The analysis of variance",
    1959, section 4.2).
    """
    rows, columns = values.shape
    across, down = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = ((values - across - down + values.mean()) ** 2).sum() / ((rows - 1) * (columns - 1))
    seeds = max(0.0, float(down.var(ddof=1) - rest / rows))
    return seeds, float(rest), max(0.0, float(across.var(ddof=1) - rest / columns))


def replayed(space: SearchSpace, values: Values, search: int, *, common: bool) -> list[float]:
    """Regrets after each of `BUDGETS` trainings; the same search has the same order of seeds either way."""
    generator = np.random.default_rng((search, 0 if common else 1))
    order = np.random.default_rng((search, 2)).permutation(values.shape[1])
    engine, visits = Engine(space, search, trials=max(BUDGETS)), defaultdict[int, int](int)
    own = {index: generator.permutation(values.shape[1]) for index in range(len(space))}
    mean, regrets = values.mean(axis=1), []
    for trials in range(1, max(BUDGETS) + 1):
        (candidate,) = engine.suggest(1)
        index = space.index(candidate.architecture)
        seeds = order if common else own[index]
        engine.observe(Observation(candidate, float(values[index, seeds[visits[index] % len(seeds)]])))
        visits[index] += 1
        if trials in BUDGETS:
            chosen = space.index(engine.recommend()[0].architecture)
            regrets.append(float(mean.max() - mean[chosen]))
    return regrets


def trained_drns(steps: int) -> tuple[SearchSpace, Values]:
    """The DRNs, and their PSNR in 10⁻³ dB from each seed that all of them were trained from."""
    done = finished(steps)
    seeds = [s for s in range(SEEDS) if all((each, s) in done for each in architectures())]
    rows = [dict(zip(AXES, each, strict=True)) for each in architectures()]
    space = SearchSpace.from_table(
        [row | {"parameters": parameters("drn", SCALE, **row)} for row in rows], costs=["parameters"]
    )
    values = np.empty((len(space), len(seeds)))
    for each, row in zip(architectures(), rows, strict=True):
        values[space.index(Architecture("table", row))] = [1000 * done[each, seed] for seed in seeds]
    return space, values


def report(steps: int, searches: int) -> str:
    found = {"DRN, 10⁻³ dB": trained_drns(steps)}
    for name in ("phoneme", "car", "vehicle"):
        table = load_table(name)
        if table is not None:
            found[f"{name}, {table.unit}"] = table.space, table.factor * table.runs
    lines = [
        "# Common seeds and seeds of one's own",
        "",
        f"{processor()}; {versions(('torch', 'gpnas'))}; {date.today()}. DRNs of {steps} steps, ×{SCALE}; "
        "MLPs of HPOBench, each column of which is of one seed.",
        "",
        "Standard deviations: between architectures; of a training from its own seed; of one from a seed "
        "that all share. Regret of the recommendation: mean over searches, and the paired difference with "
        f"its standard error. Searches replayed: {searches}.",
        "",
        "| table | networks × seeds | between | own seed | common seed | trainings | regret, own seeds | "
        "common seeds | common less own |",
        "|" + "---|" * 9,
    ]
    for name, (space, values) in found.items():
        common, rest, between = two_way(values)
        first = f"| {name} | {len(space)} × {values.shape[1]} | {between**0.5:.1f} | "
        first += f"{(common + rest) ** 0.5:.1f} | {rest**0.5:.1f} |"
        if not searches:
            lines.append(f"{first} – | – | – | – |")
            continue
        pairs = np.array(
            [[replayed(space, values, each, common=way) for way in (False, True)] for each in range(searches)]
        )
        for place, trials in enumerate(BUDGETS):
            own, shared = pairs[:, 0, place], pairs[:, 1, place]
            apart = shared - own
            lines.append(
                f"{first} {trials} | {own.mean():.2f} | {shared.mean():.2f} | {apart.mean():.2f} "
                f"({apart.std(ddof=1) / searches**0.5:.2f}) |"
            )
            first = "| | | | | |"
        print("\n".join(lines[-len(BUDGETS) :]), flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=20.0, help="begin no training after so long")
    options.add_argument("--steps", type=int, default=80)
    options.add_argument("--searches", type=int, default=SEARCHES, help="0 replays none")
    options.add_argument("--report", action="store_true", help="train nothing")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        train_all(arguments.steps, arguments.minutes)
    REPORT.write_text(report(arguments.steps, arguments.searches))
    print(f"wrote {REPORT.name}")


if __name__ == "__main__":
    main()
