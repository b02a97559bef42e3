"""Whether a search knows when it is done.

    python experiments/stopping.py [--seeds 20] [--tables drn car …]

gpnas searches tables of real trainings, forty trials each, a random tenth of the networks left out under each
seed. After each it says what stopping now would lose: an expected regret, and a bound that the regret
exceeds with a probability of 10 %. The true regret is the table's best mean over replicates less the mean of
the recommended network. Counted is how often the true regret lies under the bound; and for limits of
`search.stop_below`, how many trainings would have been saved, and what the recommendation then lost beside
that of all forty. The best mean over a few replicates is lucky, so that true regrets are overstated where
trainings are noisy. A finished search is appended to `results/stopping.csv` and not run again, so that the
command may be interrupted and extended; `results/stopping.md` is made from all of them.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import defaultdict
from datetime import date
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import processor, versions
from peers import PACKAGES, quieten
from search_quality import RESULTS, _replace
from tables import TABLES, Table, load_table

from gpnas import Engine, Observation
from gpnas.records import SETTLED

ROWS = RESULTS / "stopping.csv"
COLUMNS = ["table", "seed", "trials", "expected", "bound", "regret"]
BUDGET = 40
JUDGED = (8, 12, 16, 20, 24, 32, 40)
LIMITS = (0.25, 0.5, 1.0, 2.0)
"""Limits of `stop_below`, in standard deviations between two trainings of one network."""


class Moment(NamedTuple):
    """A search after one more observation, in the table's own unit."""

    expected: float
    bound: float
    regret: float


def searched(table: Table, seed: int) -> list[Moment]:
    engine, generator = Engine(table.space, seed, trials=BUDGET), np.random.default_rng((seed, 6))
    moments = []
    for _ in range(BUDGET):
        (candidate,) = engine.suggest(1)
        index = table.space.index(candidate.architecture)
        value = float(table.runs[index, generator.integers(table.runs.shape[1])])
        engine.observe(Observation(candidate, value))
        prospect = engine.prospect()
        assert prospect is not None
        chosen = table.space.index(engine.recommend()[0].architecture)
        moments.append(Moment(prospect.regret, prospect.bound, float(table.mean.max() - table.mean[chosen])))
    return moments


def read_searches() -> dict[str, dict[int, list[Moment]]]:
    """Finished searches by table and seed; a torn last one is left out."""
    found: dict[str, dict[int, dict[int, Moment]]] = defaultdict(lambda: defaultdict(dict))
    if ROWS.exists():
        with ROWS.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["regret"]:
                    moment = Moment(float(row["expected"]), float(row["bound"]), float(row["regret"]))
                    found[row["table"]][int(row["seed"])][int(row["trials"])] = moment
    return {
        name: {seed: list(each.values()) for seed, each in searches.items() if len(each) == BUDGET}
        for name, searches in found.items()
    }


def append(name: str, seed: int, moments: list[Moment]) -> None:
    """Adds a search by a single write."""
    lines = [] if ROWS.exists() else [",".join(COLUMNS)]
    for trials, each in enumerate(moments, 1):
        lines.append(f"{name},{seed},{trials}," + ",".join(f"{value:.4g}" for value in each))
    with ROWS.open("a") as file:
        file.write("\n".join(lines) + "\n")


def noise(table: Table) -> float:
    """Standard deviation between two trainings of one network."""
    return float(table.runs.var(axis=1, ddof=1).mean() ** 0.5)


def under(searches: list[list[Moment]], trials: int) -> str:
    held = [each[trials - 1].regret <= each[trials - 1].bound for each in searches]
    return f"{100 * np.mean(held):.0f}"


def stopped(moments: list[Moment], limit: float) -> int:
    """Trainings until the search ends."""
    for number, each in enumerate(moments, 1):
        if number >= SETTLED and max(each.bound, each.expected) < limit:
            return number
    return BUDGET


def report(found: dict[str, tuple[Table, list[list[Moment]]]]) -> list[str]:
    known = versions(("torch", "gpytorch", "botorch", *PACKAGES.values()))
    everything = [each for _, searches in found.values() for each in searches]
    lines = [
        "# What stopping loses, foretold and true",
        "",
        f"{processor()}, one thread; {known}; {date.today()}. {len(everything)} searches of {BUDGET} trials.",
        "",
        "## Searches whose true regret lies under the 90 % bound, %",
        "",
        "| table | " + " | ".join(f"{trials} trials" for trials in JUDGED) + " |",
        "|" + "---|" * (len(JUDGED) + 1),
    ]
    for name, (_, searches) in found.items():
        lines.append(f"| {name} | " + " | ".join(under(searches, trials) for trials in JUDGED) + " |")
    lines.append("| all | " + " | ".join(under(everything, trials) for trials in JUDGED) + " |")
    lines += ["", "## Foretold and true regret, means", "", "| table | trials | foretold | bound | true |"]
    lines.append("|---|---|---|---|---|")
    for name, (table, searches) in found.items():
        for trials in (12, 20, 40):
            means = table.factor * np.mean([each[trials - 1] for each in searches], axis=0)
            cells = " | ".join(f"{value:.3g}" for value in means)
            lines.append(f"| {name} ({table.unit}) | {trials} | {cells} |")
    lines += [
        "",
        "## `search.stop_below`",
        "",
        "Limits are multiples of the standard deviation between two trainings of one network. *Saved*: "
        "trainings of forty, mean. *Lost*: true regret at the end less that after forty, mean. *Under*: "
        "ended searches whose true regret lies under the bound, %.",
        "",
        "| table | limit | ended | saved | true regret | lost | under |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (table, searches) in found.items():
        for limit in LIMITS:
            ends = [stopped(each, limit * noise(table)) for each in searches]
            at = [each[end - 1] for each, end in zip(searches, ends, strict=True)]
            lost = np.mean([now.regret - each[-1].regret for now, each in zip(at, searches, strict=True)])
            early = [now for now, end in zip(at, ends, strict=True) if end < BUDGET]
            held = f"{100 * np.mean([now.regret <= now.bound for now in early]):.0f}" if early else "–"
            lines.append(
                f"| {name} ({table.unit}) | {limit:g}: {table.factor * limit * noise(table):.3g} | "
                f"{len(early)} of {len(searches)} | {BUDGET - np.mean(ends):.1f} | "
                f"{table.factor * np.mean([now.regret for now in at]):.3g} | {table.factor * lost:.3g} | "
                f"{held} |"
            )
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    options.add_argument("--minutes", type=float, default=60.0, help="begin no search after so long")
    arguments = options.parse_args()
    quieten()
    done, deadline = read_searches(), time.monotonic() + 60 * arguments.minutes
    for seed in range(arguments.seeds):  # seed by seed, so that an interrupted run tells something of each
        for name in arguments.tables:
            if seed in done.get(name, {}) or time.monotonic() >= deadline:
                continue
            table = load_table(name, seed)
            if table is not None:
                append(name, seed, searched(table, seed))
                print(name, seed, flush=True)
    found = {}
    for name, searches in read_searches().items():
        table = load_table(name)
        if table is not None:
            found[name] = table, list(searches.values())
    _replace(RESULTS / "stopping.md", "\n".join(report(found)) + "\n")


if __name__ == "__main__":
    main()
