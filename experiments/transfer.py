"""What a finished search is worth to the next one, on tables of real trainings.

    python experiments/transfer.py [--seeds 20] [--procs 2]

Warm: a search on one data set of HPOBench's MLPs, warmed up by 40 random trainings on another.
Unrelated: the same with the source's values shuffled, so that they tell nothing; it must be no worse
than the cold search by more than noise. The DRN table is warmed up by trainings of its own space with
another seed, the best that a source can be. Median regret (quartiles) of what is recommended, of
searches over the same replicates.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import product

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import processor, versions
from peers import quieten
from search_quality import RESULTS, _replace, spread
from tables import Table, load_table

from gpnas import Engine, Observation
from gpnas.records import Source

TRIALS = (1, 5, 10, 20)
SOURCE = 40
PAIRS = (
    ("phoneme", "car"), ("phoneme", "vehicle"), ("car", "phoneme"),
    ("car", "vehicle"), ("vehicle", "phoneme"), ("vehicle", "car"), ("drn", "drn"),
)  # fmt: skip
"""Table that is searched, and the one that a search was finished on."""


def source_of(table: Table, seed: int, *, shuffled: bool) -> Source:
    """Random trainings of a table, as another search would have left them."""
    generator = np.random.default_rng((seed, 3))
    chosen = generator.choice(len(table.space), SOURCE, replace=False)
    values = table.runs[chosen, generator.integers(table.runs.shape[1], size=SOURCE)]
    if shuffled:
        generator.shuffle(values)
    return Source(table.name, tuple(table.space[int(i)] for i in chosen), tuple(map(float, values)))


def regrets(names: tuple[str, str], kind: str, seed: int) -> list[float]:
    """After each of `TRIALS`, of the architecture that would be delivered."""
    quieten()
    target, other = (load_table(name) for name in names)
    assert target is not None
    assert other is not None
    sources = [] if kind == "cold" else [source_of(other, seed, shuffled=kind == "unrelated")]
    engine = Engine(target.space, seed, trials=max(TRIALS), sources=sources)
    draws = np.random.default_rng((seed, 1)).permuted(
        np.tile(np.arange(target.runs.shape[1]), (len(target.space), 1)), axis=1
    )
    visits = np.zeros(len(target.space), dtype=int)
    found = []
    for number in range(1, max(TRIALS) + 1):
        (candidate,) = engine.suggest(1)
        index = target.space.index(candidate.architecture)
        run = draws[index, visits[index] % target.runs.shape[1]]
        visits[index] += 1
        engine.observe(Observation(candidate, float(target.runs[index, run])))
        if number in TRIALS:
            best = target.space.index(engine.recommend()[0].architecture)
            found.append(float(target.mean.max() - target.mean[best]))
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--procs", type=int, default=2)
    arguments = options.parse_args()
    pairs = [pair for pair in PAIRS if all(load_table(name) for name in pair)]
    cases = list(product(pairs, ("cold", "warm", "unrelated")))
    lines = [
        "# Transfer from a finished search",
        "",
        f"{processor()}; {versions(('gpnas', 'torch', 'scipy'))}; {date.today()}. {arguments.seeds} seeds; "
        f"a source of {SOURCE} random trainings; median regret (quartiles), 10⁻³ of the table's unit.",
        "",
        "| searched | source | search | " + " | ".join(f"{trials} trials" for trials in TRIALS) + " |",
        "|---|---|---|" + "---|" * len(TRIALS),
    ]
    with ProcessPoolExecutor(arguments.procs) as pool:
        jobs = [
            [pool.submit(regrets, pair, kind, seed) for seed in range(arguments.seeds)]
            for pair, kind in cases
        ]
        for (pair, kind), row in zip(cases, jobs, strict=True):
            found = np.array([job.result() for job in row])
            cells = [spread([str(value) for value in column], 1000, 1) for column in found.T]
            lines.append(f"| {pair[0]} | {pair[1]} | {kind} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    _replace(RESULTS / "transfer.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
