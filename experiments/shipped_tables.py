"""Makes the table that ships with gpnas, from really trained networks.

    python experiments/shipped_tables.py [--scales 2 3 4] [--each 8] [--minutes 45]

`gpnas/run/tables/families.csv` has networks of every family of the shipped space file `families.yaml`, each
trained once by the recipe that the file gives its family, on the photographs that packages ship: the PSNR
after the last step, and the seconds of one core, validation included. Which sizes of a family are trained is
chosen by mutual information, as in a search of that family alone. A finished training is a row, written at
once; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from itertools import chain, zip_longest
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from gpnas import Architecture, Engine
from gpnas.config import find_space, read_space_file
from gpnas.data import prepared_pairs
from gpnas.results.recommending import IMAGES, shipped_recipes
from gpnas.run.pricing import priced
from gpnas.run.shipped import SPACE
from gpnas.space import SearchSpace
from gpnas_trainers import build
from gpnas_trainers.pairs import MINIMUM_NCC, Rules
from gpnas_trainers.train import train

TABLE = Path(__file__).resolve().parents[1] / "gpnas/run/tables/families.csv"
COLUMNS = ("scale", "family", "axes", "psnr", "seconds")


def planned(scale: int, each: int) -> list[Architecture]:
    """So many architectures of every family, the first of all families first."""
    file = read_space_file(find_space(SPACE))
    limits = file.limits.given()
    chosen = []
    for family in file.search_space().families:
        space = priced(SearchSpace([family]), scale, limits)
        engine = Engine(space, seed=scale, strategy="published", trials=2 * each)
        chosen.append([candidate.architecture for candidate in engine.suggest(min(each, len(space)))])
    return [architecture for architecture in chain(*zip_longest(*chosen)) if architecture is not None]


def text_of(architecture: Architecture) -> str:
    return " ".join(f"{name}={json.dumps(value)}" for name, value in architecture.axes.items())


def make(scale: int, each: int, deadline: float) -> None:
    if not TABLE.exists():
        TABLE.write_text(",".join(COLUMNS) + "\n")
    with TABLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["scale"]) == scale]
    done = {(row["family"], row["axes"]) for row in rows}
    own = shipped_recipes()
    rules = Rules(max(recipe.hr_patch for recipe in own.values()), MINIMUM_NCC)
    pairs = prepared_pairs(None, scale, rules)
    listed = planned(scale, each)
    left = [arch for arch in listed if (arch.family, text_of(arch)) not in done]
    for number, architecture in enumerate(left):
        if time.monotonic() >= deadline:
            print(f"{len(left) - number} trainings of ×{scale} are left; run the same command again")
            return
        family, recipe = architecture.family, own[architecture.family]
        seed = listed.index(architecture)
        torch.manual_seed(seed)
        network = build(family, scale, **architecture.axes)
        begun = time.process_time()
        progress = train(network, pairs.training, pairs.validation.head(IMAGES), recipe, seed=seed)
        seconds = time.process_time() - begun
        row = f"{scale},{family},{text_of(architecture)},{progress.psnr:.3f},{seconds:.1f}"
        with TABLE.open("a") as file:
            file.write(row + "\n")
        print(f"×{scale} {len(listed) - len(left) + number + 1}/{len(listed)}", row, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    options.add_argument("--each", type=int, default=8, help="networks of a family")
    options.add_argument("--minutes", type=float, default=45.0, help="begin no training after so long")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * arguments.minutes
    for scale in arguments.scales:
        make(scale, arguments.each, deadline)


if __name__ == "__main__":
    main()
