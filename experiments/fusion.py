"""Fusing networks of different families: plain average, convex weights, EnsIR's bins, our table and gate.

    python experiments/fusion.py WORK [--steps 1200] [-o results/fusion.md]

City100 ×2 as `members.py` trains on it, the pool of `heterogeneity.py`, from the same folder: what that
experiment has trained is fused here. Sets: the three that end best, and the three kinds of operators.

The networks' outputs on the validation images, one pass each, are fused. Every weight is fitted to four
fifths of these images and judged on the fifth, in turn, so that no image judges what it taught. EnsIR (S. Sun
et al., NeurIPS 2024) is made anew from its paper: per channel and cell of the members' bins of 32 levels, the
weights of a mixture of normal distributions, by EM, as a table. `fine` is our table with intensity left out
and 16 bins each of slope and distance; `any sign` has weights that may be negative, by cells of our table;
`gate, long` is a gate trained four times as long. Intervals: 95 %, bootstrap over images.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from heterogeneity import POOL
from machine import processor, versions
from members import Cache, Floats, Member, alone_of, skipped
from numpy.typing import NDArray

from gpnas.evaluation import bootstrap_intervals
from gpnas.fusing import convex_shares, folds, fused_psnr, table_weights
from gpnas.portfolio import correlations
from gpnas.results.fusing import (
    BINS,
    LEAST,
    STEPS,
    Outputs,
    cell_products,
    edges_of,
    psnr_of,
    trained_gate,
)
from gpnas_trainers import build
from gpnas_trainers.fusion import Gate, Table

SCALE = 2
SETS = (("edsr", "plksr", "nafnet"), ("edsr", "rcan", "plksr"))
BINS_OF = {"intensity": (8, 1, 1), "table": BINS, "fine": (1, 16, 16), "any sign": BINS}
LEVELS, WIDTH, FEW, SAMPLED, ROUNDS = 256, 32, 100, 5_000, 200
"""EnsIR's numbers: levels, those of a bin, pixels below which a cell keeps what it began with, pixels that a
cell is fitted to at most, rounds of EM at most."""


def signed_weights(products: Floats, shares: Floats) -> Floats:  # (I, C, K, K), (K,) -> (C, K)
    """As `table_weights`, of weights that may be negative."""
    cells, count = products.shape[1:3]
    table = np.broadcast_to(shares, (cells, count))
    for _ in range(3):
        errors = np.einsum("icjk,cj,ck->i", products, table, table)
        forms = (products / errors[:, None, None, None]).sum(axis=0)
        pull = forms.mean(axis=0)
        left = forms + pull + 1e-9 * np.trace(pull) * np.eye(count)
        towards = np.linalg.solve(left, np.broadcast_to((pull @ shares)[:, None], (cells, count, 1)))[..., 0]
        level = np.linalg.solve(left, np.ones((cells, count, 1)))[..., 0]
        table = towards + level * ((1 - towards.sum(axis=1)) / level.sum(axis=1))[:, None]
    return np.asarray(table)


def mixture_weights(members: Floats, hr: Floats) -> Floats:  # (K, n), (n,) -> (K,)
    """EnsIR's weights of a cell: those of normal distributions, one for each member, by EM."""
    mean, variance = members.mean(axis=1), members.var(axis=1) + 1e-6
    apart = np.sqrt(((members - members.mean(axis=0)) ** 2).mean(axis=1))
    start = np.exp(1 / (1e-10 + apart) - (1 / (1e-10 + apart)).max())
    weights = start / start.sum()
    if len(hr) < FEW:
        return np.asarray(weights)
    before = -np.inf
    for _ in range(ROUNDS):
        logs = np.log(weights + 1e-300)[:, None] - 0.5 * np.log(2 * np.pi * variance)[:, None]
        logs = logs - (hr - mean[:, None]) ** 2 / (2 * variance[:, None])
        top = logs.max(axis=0)
        total = top + np.log(np.exp(logs - top).sum(axis=0))
        responsible = np.exp(logs - total)
        count = responsible.sum(axis=1) + 1e-12
        weights, mean = count / len(hr), (responsible @ hr) / count
        variance = (responsible * (hr - mean[:, None]) ** 2).sum(axis=1) / count + 1e-6
        if total.mean() - before < 1e-5:
            break
        before = total.mean()
    return np.asarray(weights)


def cells_of(sr: torch.Tensor) -> NDArray[np.int64]:  # (K, y, x) -> (y, x)
    bins = (sr * (LEVELS - 1) / WIDTH).long().clamp(0, LEVELS // WIDTH - 1)
    cell = torch.zeros_like(bins[0])
    for each in bins:
        cell = cell * (LEVELS // WIDTH) + each
    return cell.numpy()


def ensir(fit: list[Outputs], judged: list[Outputs], generator: np.random.Generator) -> Floats:
    """PSNR in dB of images that are fused by what EnsIR learns of others."""
    count = len(fit[0].sr)
    cells = (LEVELS // WIDTH) ** count
    tables = np.full((3, cells, count), 1 / count)
    for channel in range(3):
        place = np.concatenate([cells_of(each.sr[:, channel]).ravel() for each in fit])
        values = np.concatenate([each.sr[:, channel].flatten(1).numpy() for each in fit], axis=1)
        hr = np.concatenate([each.hr[channel].flatten().numpy() for each in fit])
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        for first, last in itertools.pairwise([*starts.tolist(), len(order)]):
            own = order[first:last]
            if len(own) > SAMPLED:
                own = generator.choice(own, SAMPLED, replace=False)
            scaled = (
                (LEVELS - 1) * values[:, own].astype(np.float64),
                (LEVELS - 1) * hr[own].astype(np.float64),
            )
            tables[channel, place[order[first]]] = mixture_weights(*scaled)
    found = []
    for each in judged:
        weights = [tables[channel][cells_of(each.sr[:, channel])] for channel in range(3)]
        fused = np.einsum("cyxk,kcyx->cyx", np.stack(weights), each.sr.numpy()).clip(0, 1)
        found.append(-10 * np.log10(((fused - each.hr.numpy()) ** 2).mean()))
    return np.array(found)


def judged_ways(images: list[Outputs]) -> dict[str, Floats]:
    """PSNR in dB of each image by each way, which was fitted to others."""
    count = len(images[0].sr)
    plain = torch.full((count,), 1 / count)
    products = {}
    for name, bins in BINS_OF.items():
        edges = edges_of(images, plain, bins)
        cells = int(np.prod([len(each) + 1 for each in edges]))
        products[name] = cell_products(images, Table(plain, edges, plain.repeat(cells, 1)))
    whole = products["table"].sum(axis=1)
    alone = -10 * np.log10(whole.diagonal(axis1=1, axis2=2))
    best = int(alone.mean(axis=0).argmax())
    plainly = np.broadcast_to(plain.numpy().astype(np.float64), (1, count))
    held = {"the best alone": alone[:, best], "plain": fused_psnr(whole[:, None], plainly)}
    for name in ("convex", "EnsIR", *BINS_OF, "gate", "gate, long"):
        held[name] = np.empty(len(images))
    for part in folds(len(images)):
        fit = [each for each, judges in zip(images, part, strict=True) if not judges]
        others = [each for each, judges in zip(images, part, strict=True) if judges]
        shares = convex_shares(whole[~part], LEAST / count)
        held["convex"][part] = fused_psnr(whole[part][:, None], shares[None])
        held["EnsIR"][part] = ensir(fit, others, np.random.default_rng(0))
        for name, own in products.items():
            weights = signed_weights if name == "any sign" else table_weights
            held[name][part] = fused_psnr(own[part], weights(own[~part], shares))
        for name, steps in (("gate", STEPS), ("gate, long", 4 * STEPS)):
            gate = trained_gate(fit, shares, SCALE, 0, steps)
            held[name][part] = [psnr_of(gate, each) for each in others]
        print(f"a fifth of the images judged: {held['table'][part].mean():.3f} dB", flush=True)
    shares = convex_shares(whole, LEAST / count)
    held["table, on the images that taught it"] = fused_psnr(
        products["table"], table_weights(products["table"], shares)
    )
    return held


def time_line() -> str:
    """What fusing costs beside the passes of three of the networks, in the processor's seconds."""
    pool = [Member(family, axes, 1) for family, axes in POOL.items() if family != "rcan"]
    networks = [build(each.family, SCALE, **each.whole_axes).eval() for each in pool]
    last = [each.to(memory_format=torch.channels_last) for each in networks]  # type: ignore[call-overload]
    shares, counts = torch.full((3,), 1 / 3), [bins - 1 for bins in BINS]
    edges = [
        torch.linspace(low, high, count)
        for low, high, count in zip((0.2, 0.05, 0.005), (0.8, 0.3, 0.03), counts, strict=True)
    ]
    ways = {"table": Table(shares, edges, shares.repeat(int(np.prod(BINS)), 1)), "gate": Gate(shares, SCALE)}
    lr, taken = torch.rand(1, 3, 120, 120), []
    with torch.inference_mode():
        for _ in range(8):
            times = [time.process_time()]
            outputs = [each(lr).clamp(0, 1) for each in last]
            times.append(time.process_time())
            for way in ways.values():
                way(outputs)
                times.append(time.process_time())
            taken.append(np.diff(times))
    passes, *others = np.median(taken[1:], axis=0)
    told = ", ".join(
        f"the {name} {100 * each / passes:.1f} %" for name, each in zip(ways, others, strict=True)
    )
    return f"Fusing a tile of 120×120 LR takes, of the seconds of three networks' passes: {told}."


def described(cache: Cache, members: list[Member]) -> Iterator[str]:
    """A section of the report."""
    gram, matrix = cache.products(members), correlations(cache.products(members))
    yield f"## {', '.join(each.family for each in members)}"
    yield ""
    alone = alone_of(gram).mean(axis=0)
    yield "| network | parameters | PSNR | correlation of errors with the others |"
    yield "|---|---|---|---|"
    for place, each in enumerate(members):
        others = ", ".join(f"{matrix[place, other]:.3f}" for other in range(len(members)) if other != place)
        sizes = ", ".join(str(value) for value in each.axes.values())
        yield f"| {each.family} ({sizes}) | {each.parameters:,} | {alone[place]:.3f} | {others} |"
    held = judged_ways(cache.outputs(members))
    yield ""
    yield "| fused by | PSNR | over the best alone | over convex |"
    yield "|---|---|---|---|"
    for name, values in held.items():
        columns = np.column_stack([values - held["the best alone"], values - held["convex"]])
        low_high = bootstrap_intervals(columns)
        shown = [
            f"{mean:+.3f} ({low:+.3f} … {high:+.3f})"
            for mean, (low, high) in zip(columns.mean(axis=0), low_high, strict=True)
        ]
        yield f"| {name} | {values.mean():.3f} | {' | '.join(shown)} |"
    yield ""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--steps", type=int, default=1200, help="of each training")
    options.add_argument("--images", type=int, help="of validation, at most, in a WORK of their own")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    if skipped():
        return
    cache = Cache(arguments.work, arguments.images)
    pool = {family: Member(family, axes, arguments.steps) for family, axes in POOL.items()}
    count = len(cache.pairs(SCALE)[1])
    lines = [
        "# Fusing networks of different families",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}; one thread, one seed.",
        "",
        f"City100 ×{SCALE}, 80 pairs to train on, {count} to validate; {arguments.steps} steps each; PSNR in "
        "dB on RGB, means over the validation images, in brackets 95 % bootstrap intervals over them. "
        "Weights were fitted to four fifths of these images and judged on the fifth, but for the last row of "
        f"each table. `intensity` is our table by intensity alone, `table` by intensity, slope and distance "
        f"{BINS}, `fine` by slope and distance {BINS_OF['fine'][1:]}, `any sign` by the cells of `table` "
        "with weights that may be negative; `gate, long` is trained four times as long.",
        "",
        time_line(),
        "",
    ]
    for names in SETS:
        lines += described(cache, [pool[name] for name in names])
        print("\n".join(lines), flush=True)
        if arguments.output:
            arguments.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
