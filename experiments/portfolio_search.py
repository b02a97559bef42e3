"""Searches for a set beside a search for the best single network, replayed on networks really trained.

    python experiments/portfolio_search.py [--seeds 16] [-o results/portfolio_search.md]

On the table of `family_table.py`, after 8, 16 and 24 trials, the plain average of three networks that each
search would deliver:

- `aware`: `search.portfolio_aware`, the three by their errors' products;
- `single`: a search for the best network, the three chosen afterwards by their errors' products;
- `one per family`: of the same trials the best of each family, the best three of them;
- `random, forward`: random trials, the three by forward selection (S. Zaidi et al., "Neural ensemble search
  for uncertainty estimation and dataset shift", NeurIPS 2021, NES-RS).

Half of the validation images are what a search sees, the other half judges; the halves change places from
seed to seed. Then: how well the correlation of errors is predicted of networks that were left out.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from family_table import AXES, PRODUCTS, TABLE
from machine import processor, versions
from numpy.typing import NDArray

from gpnas import Architecture, Engine, Observation, SearchSpace
from gpnas.heterogeneity import CORRELATION, leave_one_out
from gpnas.portfolio import choose, correlations, ensemble_psnr
from gpnas.records import Strategy

Floats = NDArray[np.float64]
MEMBERS, LOOKS = 3, (8, 16, 24)
SEARCHES = ("aware", "single", "random")
WAYS = ("aware", "single", "one per family", "random, forward")


def table() -> tuple[SearchSpace, Floats]:
    """The space of the first trainings, and the products of their residuals, (I, n, n), in its order."""
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    upper = np.load(PRODUCTS)["upper"].astype(np.float64)
    whole = np.zeros((len(upper), len(rows), len(rows)))
    places = np.triu_indices(len(rows))
    whole[:, places[0], places[1]] = whole[:, places[1], places[0]] = upper
    architectures, costs = [], {}
    for row in rows:
        each = Architecture.parse(f"{row['family']}:{row['axes'].replace(' ', ',')}")
        architectures.append(each)
        costs[each] = {"parameters": float(row["parameters"]), "gmacs": float(row["gmacs"])}
    first = [place for place, row in enumerate(rows) if row["seed"] == "0"]
    spaces = [
        SearchSpace.from_table(
            [dict(architectures[i].axes) for i in first if rows[i]["family"] == name], family=name
        )
        for name in AXES
        if any(rows[i]["family"] == name for i in first)
    ]
    space = SearchSpace.joined(spaces).with_costs(lambda each: costs[each])
    number = {architectures[i]: i for i in first}
    order = [number[each] for each in space]
    return space, whole[:, order][:, :, order]


def looks_of(space: SearchSpace) -> list[int]:
    """Numbers of trials that leave some networks untrained."""
    return [look for look in LOOKS if look < len(space)]


def engine_of(space: SearchSpace, search: str, seed: int, count: int) -> Engine:
    """What chooses the trials of a search."""
    strategy: Strategy = "random" if search == "random" else "mi+kg"
    return Engine(space, seed, strategy, trials=count, portfolio=MEMBERS if search == "aware" else 1)


def trials(space: SearchSpace, gram: Floats, search: str, seed: int) -> list[int]:
    """The networks that a search trains, in order."""
    psnr = -10 * np.log10(gram.diagonal(axis1=1, axis2=2)).mean(axis=0)
    matrix = correlations(gram)
    engine = engine_of(space, search, seed, max(looks_of(space)))
    names: dict[int, str] = {}
    for _ in range(max(looks_of(space))):
        (candidate,) = engine.suggest(1)
        place = space.index(candidate.architecture)
        metrics = {CORRELATION + name: float(matrix[place, other]) for other, name in names.items()}
        engine.observe(Observation(candidate, float(psnr[place]), metrics=metrics, seconds=1.0))
        engine.allow(candidate.architecture, False)  # the table has no other training of it
        names[place] = candidate.id
    return list(names)


def forward(gram: Floats, pool: list[int]) -> list[int]:
    chosen: list[int] = []
    for _ in range(MEMBERS):
        rest = [each for each in pool if each not in chosen]
        values = ensemble_psnr(gram, [[*chosen, each] for each in rest])
        chosen.append(rest[int(np.argmax(values))])
    return chosen


def by_products(gram: Floats, pool: list[int]) -> list[int]:
    return [pool[each] for each in choose(gram[:, pool][:, :, pool], MEMBERS).members]


def one_per_family(families: Sequence[str], gram: Floats, pool: list[int]) -> list[int]:
    """The best three of the best of each family; `families` are those of all networks."""
    psnr = -10 * np.log10(gram.diagonal(axis1=1, axis2=2)).mean(axis=0)
    best: dict[str, int] = {}
    for each in sorted(pool, key=lambda place: -psnr[place]):
        best.setdefault(families[each], each)
    return list(best.values())[:MEMBERS]


def one_seed(space: SearchSpace, gram: Floats, seed: int) -> dict[tuple[str, int], float]:
    """PSNR of the average on the images that judge, by way and trials."""
    seen = np.arange(len(gram)) % 2 == seed % 2
    fit, judge = gram[seen], gram[~seen]
    searched = {search: trials(space, fit, search, seed) for search in SEARCHES}
    found = {}
    for look in looks_of(space):
        pools = {search: made[:look] for search, made in searched.items()}
        sets = (
            by_products(fit, pools["aware"]),
            by_products(fit, pools["single"]),
            one_per_family([each.family for each in space], fit, pools["single"]),
            forward(fit, pools["random"]),
        )
        for way, members in zip(WAYS, sets, strict=True):
            found[way, look] = float(ensemble_psnr(judge, [members])[0])
    everything = list(range(len(space)))
    found["all networks", len(space)] = float(ensemble_psnr(judge, [by_products(fit, everything)])[0])
    alone = -10 * np.log10(fit.diagonal(axis1=1, axis2=2)).mean(axis=0)
    found["the best alone", len(space)] = float(ensemble_psnr(judge, [[int(alone.argmax())]])[0])
    return found


def interval(values: Floats) -> str:
    """Mean and 95 % bootstrap interval over seeds."""
    draws = np.random.default_rng(0).integers(len(values), size=(10_000, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return f"{values.mean():+.4f} ({low:+.4f} … {high:+.4f})"


def predicted(space: SearchSpace, gram: Floats, seeds: int) -> list[str]:
    """Rows on how well correlations are predicted, by the number of networks that are known."""
    matrix, x, lines = torch.from_numpy(correlations(gram)), space.features, []
    psnr = torch.from_numpy(-10 * np.log10(gram.diagonal(axis1=1, axis2=2)).mean(axis=0))
    for count in [count for count in (12, 24) if count < len(space)] + [len(space)]:
        errors = []
        for seed in range(seeds if count < len(space) else 1):
            rows = np.random.default_rng(seed).permutation(len(space))[:count]
            errors.append(leave_one_out(x[rows], matrix[rows][:, rows], space.columns, psnr[rows]))
        own, plain = np.array(errors).T
        ahead = float((own < plain).mean())
        lines.append(f"| {count} | {own.mean():.4f} | {plain.mean():.4f} | {100 * ahead:.0f} % |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=16)
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    space, gram = table()
    seeds = []
    for seed in range(arguments.seeds):
        seeds.append(one_seed(space, gram, seed))
        print(seed, {f"{way} {look}": round(psnr, 3) for (way, look), psnr in seeds[-1].items()}, flush=True)
    lines = [
        "# Searching for a set",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}. {len(space)} networks of "
        f"{len(space.families)} families, {len(gram)} images, {arguments.seeds} seeds; PSNR in dB of the "
        "plain "
        f"average of {MEMBERS} networks, on images that no choice saw; differences in brackets with 95 % "
        "bootstrap "
        "intervals over seeds.",
        "",
        "| delivered by | " + " | ".join(f"{look} trials" for look in looks_of(space)) + " |",
        "|---|" + "---|" * len(looks_of(space)),
    ]
    for way in WAYS:
        cells = []
        for look in looks_of(space):
            own, single = (np.array([each[name, look] for each in seeds]) for name in (way, "single"))
            cells.append(f"{own.mean():.3f}" + ("" if way == "single" else f", {interval(own - single)}"))
        lines.append(f"| {way} | {' | '.join(cells)} |")
    for way in ("all networks", "the best alone"):
        value = np.mean([each[way, len(space)] for each in seeds])
        lines += ["", f"With every network trained, {way}: {value:.3f} dB."]
    lines += [
        "",
        "Root mean square error of the predicted correlations of a network's errors with those of others, "
        "given its PSNR, from those of the others:",
        "",
        "| networks known | surrogate | the others' mean | surrogate ahead |",
        "|---|---|---|---|",
        *predicted(space, gram, arguments.seeds),
    ]
    print("\n".join(lines), flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
