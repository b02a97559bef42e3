"""What differing networks are worth at equal cost: one, three of a kind, three of different families.

    python experiments/heterogeneity.py WORK [--pool larger] [--scales 2 3 4] [--seeds 3] [-o TABLE.md]

City100 as `members.py` trains on it. For each scale and seed:

- a pool: one network of each of four families, such that they come near each other in PSNR, small ones
  or larger ones;
- `single`: the best of it; `large`: its family, as wide as keeps the cost of three;
- `same family`: the best one's architecture, trained from three seeds;
- `families`: the best three of different families; `chosen`: the three whose average is best by their
  errors' products, on the other images, among all that keep the cost of `families`.

Each set is averaged plainly, with convex weights and with our table, without and (on the first seed) with
self-ensemble. Choices and weights are fitted to four fifths of the validation images and judged on the
fifth, in turn. Intervals: 95 %, bootstrap over seeds and over images. All that is trained lies in WORK: the
same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from machine import processor, versions
from members import Cache, Floats, Member, alone_of, skipped

from gpnas.fusing import convex_shares, folds, fused_psnr, table_weights
from gpnas.portfolio import correlations
from gpnas.results.fusing import LEAST, Outputs, cell_products, edges_of
from gpnas_trainers.fusion import Table

WAYS = ("plain", "convex", "table")
PASSES = ("one pass", "self-ensemble")
RESAMPLES = 10_000
Pool = dict[str, dict[str, int]]
"""The axes of the network of each family."""
POOLS: dict[str, Pool] = {
    "small": {
        "edsr": {"features": 16, "blocks": 3},
        "rcan": {"features": 16, "groups": 1, "blocks": 3},
        "plksr": {"features": 16, "blocks": 3, "kernel": 9},
        "nafnet": {"width": 24, "blocks": 4},
    },
    "larger": {
        "edsr": {"features": 32, "blocks": 5},
        "rcan": {"features": 32, "groups": 1, "blocks": 5},
        "plksr": {"features": 24, "blocks": 5, "kernel": 13},
        "nafnet": {"width": 48, "blocks": 8},
    },
}
WIDTHS = {"nafnet": "width"}
"""The axis of a family that says how wide it is, where that is not `features`."""


def widened(member: Member, limit: float) -> Member:
    """The same architecture, as wide as keeps a limit of GMACs."""
    name = WIDTHS.get(member.family, "features")

    def wider(each: Member) -> Member:
        return replace(each, axes=each.axes | {name: each.axes[name] + 4})

    while wider(member).gmacs <= limit:
        member = wider(member)
    return member


def some(images: list[Outputs], members: list[int]) -> list[Outputs]:
    return [replace(each, sr=each.sr[members]) for each in images]


def products(images: list[Outputs]) -> Floats:  # (I, K, K)
    errors = [(each.sr - each.hr).flatten(1).double() for each in images]
    return np.stack([(each @ each.T / each.shape[1]).numpy() for each in errors])


def judged(images: list[Outputs]) -> dict[str, list[float]]:
    """PSNR of each image by each way to fuse, fitted to others."""
    count = len(images[0].sr)
    whole = products(images)
    if count == 1:
        alone = (-10 * np.log10(whole[:, 0, 0])).tolist()
        return dict.fromkeys(WAYS, alone)
    plain = torch.full((count,), 1 / count)
    edges = edges_of(images, plain)
    cells = int(np.prod([len(each) + 1 for each in edges]))
    by_cell = cell_products(images, Table(plain, edges, plain.repeat(cells, 1)))
    held = {name: np.empty(len(images)) for name in WAYS}
    for part in folds(len(images)):
        shares = convex_shares(whole[~part], LEAST / count)
        held["plain"][part] = fused_psnr(whole[part][:, None], np.full((1, count), 1 / count))
        held["convex"][part] = fused_psnr(whole[part][:, None], shares[None])
        held["table"][part] = fused_psnr(by_cell[part], table_weights(by_cell[~part], shares))
    return {name: values.tolist() for name, values in held.items()}


def chosen(gram: Floats, prices: Floats, limit: float) -> list[list[int]]:
    """The three whose plain average is best on the other images, for each fold that judges."""
    threes = (list(each) for each in itertools.combinations(range(len(prices)), 3))
    subsets = [each for each in threes if prices[each].sum() <= limit]
    found = []
    for part in folds(len(gram)):
        scores = [
            fused_psnr(gram[~part][:, each][:, :, each][:, None], np.full((1, 3), 1 / 3)).mean()
            for each in subsets
        ]
        found.append(subsets[int(np.argmax(scores))])
    return found


@dataclass(frozen=True, eq=False)
class Seed:
    """What the sets of one seed came to."""

    best: Member
    large: Member
    families: tuple[str, ...]
    picked: tuple[tuple[str, ...], ...]
    """Families of `chosen`, by fold."""
    matrix: Floats  # (F, F)
    """Correlations of the pool's errors."""
    alone: Floats  # (F,)
    """PSNR of the pool."""
    scores: dict[tuple[str, str, str], list[float]]
    """PSNR of each image, by passes, set and way to fuse."""


def one_seed(cache: Cache, sizes: Pool, scale: int, steps: int, seed: int, seeds: int, turned: int) -> Seed:
    pool = [Member(family, axes, steps, scale, seed) for family, axes in sizes.items()]
    gram = cache.products(pool)
    alone = alone_of(gram).mean(axis=0)
    order = np.argsort(-alone, kind="stable").tolist()
    best, prices = pool[order[0]], np.array([each.gmacs for each in pool])
    limit = float(prices[order[:3]].sum()) * (1 + 1e-9)
    large = widened(best, limit)
    # other seeds' trainings serve, so that with three seeds the set is the same for all
    others = sorted(other for other in range(max(3, seeds)) if other != seed)[:2]
    every = [*pool, large, *(replace(best, seed=other) for other in others)]
    sets = {
        "single": [order[0]],
        "large": [len(pool)],
        "same family": [order[0], len(pool) + 1, len(pool) + 2],
        "families": order[:3],
    }
    picked = chosen(gram, prices, limit)
    scores: dict[tuple[str, str, str], list[float]] = {}
    for passes in PASSES[: 2 if seed < turned else 1]:
        images = cache.outputs(every, passes == "self-ensemble")
        for name, members in sets.items():
            for way, values in judged(some(images, members)).items():
                scores[passes, name, way] = values
        of_three = {tuple(each): judged(some(images, each)) for each in picked}
        for way in WAYS:
            values = np.zeros(len(images))
            for part, members in zip(folds(len(images)), picked, strict=True):
                values[part] = np.array(of_three[tuple(members)][way])[part]
            scores[passes, "chosen", way] = values.tolist()
    names = list(sizes)
    return Seed(
        best,
        large,
        tuple(names[place] for place in order[:3]),
        tuple(tuple(names[place] for place in each) for each in picked),
        correlations(gram),
        alone,
        scores,
    )


def interval(values: Floats) -> tuple[float, float]:  # (seeds, images)
    """95 % of the mean's resamples, over seeds and over images."""
    generator = np.random.default_rng(0)
    seeds, images = values.shape
    means = [
        values[generator.integers(seeds, size=seeds)][:, generator.integers(images, size=images)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def rows(scale: int, seeds: Sequence[Seed]) -> list[str]:
    """The rows of the table."""
    lines = []
    for passes in PASSES:
        told = [each for each in seeds if (passes, "single", "plain") in each.scores]
        if not told:
            continue
        singles, larges = (
            np.array([each.scores[passes, name, "plain"] for each in told]) for name in ("single", "large")
        )
        for name in ("single", "large", "same family", "families", "chosen"):
            for way in WAYS if name not in ("single", "large") else WAYS[:1]:
                values = np.array([each.scores[passes, name, way] for each in told])
                shown = [f"×{scale}", passes, name, way, f"{values.mean():.3f}"]
                for base in (singles, larges):
                    low, high = interval(values - base)
                    shown.append(f"{(values - base).mean():+.3f} ({low:+.3f} … {high:+.3f})")
                lines.append(f"| {' | '.join(shown)} |")
    return lines


def pool_lines(pool: Pool, scale: int, seeds: Sequence[Seed]) -> list[str]:
    """The pool, its PSNR and the correlations of its errors, means over seeds."""
    alone = np.mean([each.alone for each in seeds], axis=0)
    matrix = np.mean([each.matrix for each in seeds], axis=0)
    lines = []
    for place, (family, axes) in enumerate(pool.items()):
        member = Member(family, axes, 1, scale)
        sizes = ", ".join(str(value) for value in axes.values())
        others = ", ".join(f"{matrix[place, other]:.3f}" for other in range(len(pool)) if other != place)
        costs = f"{member.parameters:,} | {member.gmacs:.2f}"
        lines.append(f"| ×{scale} | {family} ({sizes}) | {costs} | {alone[place]:.3f} | {others} |")
    return lines


def story(pool: Pool, scale: int, seeds: Sequence[Seed]) -> str:
    """Which networks the sets were."""
    least = [
        each.matrix[np.ix_(*[[list(pool).index(name) for name in each.families]] * 2)].min() for each in seeds
    ]
    sets = sorted({", ".join(each.families) for each in seeds})
    picked = sorted({", ".join(sorted(three)) for each in seeds for three in each.picked})
    larges = sorted(
        {
            f"{each.large.family} {tuple(each.large.axes.values())} of {each.large.gmacs:.2f} GMACs"
            for each in seeds
        }
    )
    return (
        f"×{scale}, {len(seeds)} seed{'s' * (len(seeds) > 1)}: `families` {'; '.join(sets)}, least "
        "correlation "
        f"within them {np.mean(least):.3f}; `chosen` {'; '.join(picked)}; `large` {'; '.join(larges)}."
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--pool", choices=sorted(POOLS), default="small", help="sizes of the networks")
    options.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    options.add_argument("--seeds", type=int, nargs="+", default=[3, 1, 1], help="of each scale, in turn")
    options.add_argument("--steps", type=int, default=1200, help="of each training")
    options.add_argument("--turned", type=int, default=1, help="seeds judged with self-ensemble, too")
    options.add_argument("--images", type=int, help="of validation, at most, in a WORK of their own")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    if skipped():
        return
    cache, pools, table, stories = Cache(arguments.work, arguments.images), [], [], []
    pool = POOLS[arguments.pool]
    for scale, count in zip(arguments.scales, arguments.seeds, strict=False):
        seeds = [
            one_seed(cache, pool, scale, arguments.steps, seed, count, arguments.turned)
            for seed in range(count)
        ]
        pools += pool_lines(pool, scale, seeds)
        table += rows(scale, seeds)
        stories.append(story(pool, scale, seeds))
        lines = [
            "# Heterogeneity at equal cost",
            "",
            f"{processor()}, one thread; {versions(('gpnas', 'torch'))}; {date.today()}. City100, 80 pairs "
            "to "
            f"train on, 20 to validate; {arguments.steps} steps of 8 patches of 24×24 LR each; PSNR in dB on "
            "RGB, GMACs at 120×120 LR; in brackets 95 % bootstrap intervals over seeds and images.",
            "",
            "| scale | network | parameters | GMACs | PSNR | correlation of errors with the others |",
            "|---|---|---|---|---|---|",
            *pools,
            "",
            *(line for each in stories for line in (each, "")),
            "| scale | passes | networks | fused by | PSNR | over `single` | over `large` |",
            "|---|---|---|---|---|---|---|",
            *table,
        ]
        print("\n".join(lines), flush=True)
        if arguments.output:
            arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
