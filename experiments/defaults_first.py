"""Searches that begin with the published network, scaled to the space, beside searches that do not.

    python experiments/defaults_first.py [--seeds 8]

On the DRN table of `tables.py`, under each seed without a random tenth of its networks: the median regret of
the recommendation, in thousandths of a dB, after 2, 4, 8 and 12 trainings.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tables import Table, load_table

from gpnas import Architecture, Engine, Observation, SearchSpace
from gpnas.run.defaults import defaults_of
from gpnas_trainers import FAMILIES

LOOKS = (2, 4, 8, 12)


def default_of(space: SearchSpace) -> tuple[Architecture, ...]:
    published = {axis.name: axis.published for axis in FAMILIES["drn"].axes if axis.published}
    return defaults_of(space, {space.families[0].name: published}, published=False)


def regrets(table: Table, defaults: tuple[Architecture, ...], seed: int) -> list[float]:
    """After each number of trainings."""
    space, runs = table.space, table.runs
    engine = Engine(space, seed, trials=20, defaults=defaults)
    rng = np.random.default_rng(seed)
    draws = rng.permuted(np.tile(np.arange(runs.shape[1]), (len(space), 1)), axis=1)
    asked: dict[int, int] = {}
    found = []
    for number in range(1, max(LOOKS) + 1):
        (candidate,) = engine.suggest(1)
        place = space.index(candidate.architecture)
        asked[place] = asked.get(place, -1) + 1
        value = runs[place, draws[place, asked[place] % runs.shape[1]]]
        engine.observe(Observation(candidate, float(value), seconds=1.0))
        if number in LOOKS:
            best = space.index(engine.recommend()[0].architecture)
            found.append(float(table.mean.max() - table.mean[best]) * table.factor)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=8)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[list[float]]] = {"with": [], "without": []}
    for seed in range(arguments.seeds):
        table = load_table("drn", seed)
        if table is None:
            return
        rows["with"].append(regrets(table, default_of(table.space), seed))
        rows["without"].append(regrets(table, (), seed))
    print("| default first | " + " | ".join(f"{look} trainings" for look in LOOKS) + " |")
    print("|---|" + "---|" * len(LOOKS))
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in np.median(values, axis=0)) + " |")


if __name__ == "__main__":
    main()
