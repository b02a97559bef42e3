"""Searches for a set beside a search for the best single network, each training what it chooses.

    python experiments/portfolio_live.py WORK [--seeds 3] [-o results/portfolio_live.md]

As `portfolio_search.py`, which replays them on a table, but over every architecture of
`search_spaces/families.yaml` of at most 60 thousand parameters: each is trained when it is chosen, as
`members.py` trains on City100 ×2, 300 steps. What was trained lies in WORK: the same command goes on where
it was stopped, and searches that choose the same train it once.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import numpy as np
from family_table import AXES, STEPS
from machine import processor, versions
from members import Cache, Floats, Member, alone_of, skipped
from portfolio_search import (
    LOOKS,
    MEMBERS,
    SEARCHES,
    WAYS,
    by_products,
    engine_of,
    forward,
    interval,
    one_per_family,
)

from gpnas import Architecture, Observation, SearchSpace
from gpnas.config import load_space
from gpnas.heterogeneity import CORRELATION
from gpnas.portfolio import correlations, ensemble_psnr

MOST_PARAMETERS = 60e3


def member_of(architecture: Architecture) -> Member:
    axes = {name: architecture.axes[name] for name in AXES[architecture.family]}
    return Member(architecture.family, axes, STEPS)


def costs_of(architecture: Architecture) -> dict[str, float]:
    return {"parameters": float(member_of(architecture).parameters)}


def trained(cache: Cache, space: SearchSpace, search: str, seed: int, seen: Floats) -> list[Member]:
    """The networks that a search trains, in order; it sees some of the validation images."""
    engine = engine_of(space, search, seed, max(LOOKS))
    members: list[Member] = []
    names: list[str] = []
    for _ in range(max(LOOKS)):
        (candidate,) = engine.suggest(1)
        members.append(member_of(candidate.architecture))
        gram = cache.products(members)[seen]
        newest = correlations(gram)[-1]
        metrics = {CORRELATION + name: float(newest[place]) for place, name in enumerate(names)}
        psnr = float(alone_of(gram)[:, -1].mean())
        engine.observe(Observation(candidate, psnr, metrics=metrics, seconds=1.0))
        engine.allow(candidate.architecture, False)  # one training of each, as in the table
        names.append(candidate.id)
        print(f"{search} {seed}: {candidate.architecture} {psnr:.3f}", flush=True)
    return members


def one_seed(cache: Cache, space: SearchSpace, seed: int) -> dict[tuple[str, int], tuple[float, float]]:
    """PSNR, on the images that judge, of the average and of the network that is best on the others, by way
    and trials."""
    images = np.arange(len(cache.pairs(2)[1]))
    seen = images % 2 == seed % 2
    searched = {search: trained(cache, space, search, seed, seen) for search in SEARCHES}
    searched["one per family"] = searched["single"]
    searched["random, forward"] = searched.pop("random")
    found = {}
    for way, members in searched.items():
        whole = cache.products(members)
        for look in LOOKS:
            fit, judge = whole[seen][:, :look, :look], whole[~seen][:, :look, :look]
            pool = list(range(look))
            if way == "one per family":
                chosen = one_per_family([each.family for each in members], fit, pool)
            else:
                chosen = (forward if way == "random, forward" else by_products)(fit, pool)
            best = int(alone_of(fit).mean(axis=0).argmax())
            value = float(ensemble_psnr(judge, [chosen])[0])
            found[way, look] = value, float(alone_of(judge)[:, best].mean())
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    if skipped():
        return
    cache = Cache(arguments.work)
    space = load_space("families.yaml").with_costs(costs_of, {"parameters": MOST_PARAMETERS})
    seeds = [one_seed(cache, space, seed) for seed in range(arguments.seeds)]
    lines = [
        "# Searching for a set, live",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}. {len(space):,} architectures of "
        f"{len(space.families)} families, each trained when it is chosen; {arguments.seeds} seeds; PSNR in "
        f"dB of the plain average of {MEMBERS} networks, on 10 images that no choice saw; differences in "
        "brackets with 95 % bootstrap intervals over seeds; `alone`: the best network of the same trials.",
        "",
        "| delivered by | " + " | ".join(f"{look} trials" for look in LOOKS) + " |",
        "|---|" + "---|" * len(LOOKS),
    ]
    for way in WAYS:
        cells = []
        for look in LOOKS:
            own, single = (np.array([each[name, look][0] for each in seeds]) for name in (way, "single"))
            alone = np.mean([each[way, look][1] for each in seeds])
            ahead = "" if way == "single" else f", {interval(own - single)}"
            cells.append(f"{own.mean():.3f}{ahead}; alone {alone:.3f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    print("\n".join([*lines, ""]), flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
