"""Ways to fuse networks of different families: one weight for each, EnsIR's bins, our table, a gate.

    python experiments/fusion.py WORK [--steps 800] [--table-only]

City100 (Chen et al., CVPR 2019) at ×2, 80 pairs to train on and 20 to validate, none left out; read from
`../shared/data/city100` beside the repository, and skipped where that is absent. A pool of small networks
of five families is trained (8 patches of 32×32 LR, L1, averaged weights, one seed), one after another; all
that is trained lies in WORK, and the same command goes on where it was stopped, with what is finished there.
A second run with other `--steps` adds networks; sets of at most three are fused.

Then the networks' outputs on the validation images, one pass each, are fused. Every weight is fitted to four
fifths of these images and judged on the fifth, in turn, so that no image judges what it taught. EnsIR (S. Sun
et al., NeurIPS 2024) is made anew from its paper: per channel and cell of the members' bins of 32 levels, the
weights of a mixture of normal distributions, by EM, as a table.

Intervals: 95 %, bootstrap over images. Writes `results/fusion.md`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from gpnas.evaluation import bootstrap_intervals
from gpnas.fusing import convex_shares, folds, fused_psnr, table_weights
from gpnas.portfolio import correlations
from gpnas.results.fusing import (
    BINS,
    LEAST,
    Outputs,
    cell_products,
    edges_of,
    outputs_on,
    psnr_of,
    trained_gate,
)
from gpnas_trainers import build, cost
from gpnas_trainers.files import replacing
from gpnas_trainers.fusion import Gate, Table
from gpnas_trainers.pairs import PairSet, Rules, open_pairs, prepare_folder
from gpnas_trainers.train import Recipe, train

CITY100 = Path(__file__).resolve().parents[2] / "shared/data/city100"
REPORT = Path(__file__).resolve().parent / "results/fusion.md"
SCALE = 2
POOL: dict[str, tuple[dict[str, Any], float]] = {
    "plksr": ({"features": 32, "blocks": 6, "kernel": 13}, 2e-3),
    "nafnet": ({"width": 32, "blocks": 10}, 3e-3),
    "rrdb": ({"features": 16, "blocks": 4, "growth": 8, "image_skip": True}, 2e-3),
    "edsr": ({"features": 40, "blocks": 7, "image_skip": True}, 2e-3),
    "drn": ({"features": 24, "blocks": 5, "stages": 3}, 2e-3),
}
"""Axes and learning rate by family; a step of each takes about as long."""
LEVELS, WIDTH, FEW, SAMPLED, ROUNDS = 256, 32, 100, 5_000, 200
"""EnsIR's numbers: levels, those of a bin, pixels below which a cell keeps what it began with, pixels that a
cell is fitted to at most, rounds of EM at most."""
Floats = NDArray[np.float64]


def train_pool(work: Path, pairs: PairSet, validation: PairSet, steps: int) -> None:
    for family, (axes, rate) in POOL.items():
        weights = work / f"{family}-{steps}.safetensors"
        if weights.exists():
            continue
        torch.manual_seed(0)
        network = build(family, SCALE, **axes)
        recipe = Recipe(
            steps=steps,
            batch_size=8,
            hr_patch=64,
            learning_rate=rate,
            ms_ssim_weight=0.0,
            precision="float32",
            ema_decay=0.999,
            evaluate_every=max(1, steps // 6),
        )
        progress = train(
            network, pairs, validation, recipe, seed=0, checkpoint=work / f"{family}-{steps}.ckpt"
        )
        print(f"{family}: {progress.psnr:.3f} dB, {progress.seconds:.0f} s", flush=True)
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        with replacing(weights) as temporary:
            save_file(state, temporary)


def finished(work: Path) -> list[tuple[str, int]]:
    """Family and steps of each network that was trained to its end."""
    found = (path.stem.rpartition("-") for path in sorted(work.glob("*-*.safetensors")))
    return [(family, int(steps)) for family, _, steps in found if family in POOL and steps.isdigit()]


def images_of(work: Path, members: list[tuple[str, int]], validation: PairSet) -> list[Outputs]:
    """The members' outputs, kept in WORK."""
    every = []
    for family, steps in members:
        path = work / f"{family}-{steps}.outputs"
        if not path.exists():
            network = build(family, SCALE, **POOL[family][0])
            network.load_state_dict(load_file(work / f"{family}-{steps}.safetensors"))
            made = outputs_on([network.eval()], validation)
            with replacing(path) as temporary:
                save_file({f"{place:04d}": each.sr[0] for place, each in enumerate(made)}, temporary)
        every.append(load_file(path))
    hr = [validation.tensors(index)[1] for index in range(len(validation))]
    names = [f"{place:04d}" for place in range(len(hr))]
    return [
        Outputs(torch.stack([each[name] for each in every]), image)
        for name, image in zip(names, hr, strict=True)
    ]


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
    grids = {"intensity": (8, 1, 1), "table": BINS}
    products = {}
    for name, bins in grids.items():
        edges = edges_of(images, plain, bins)
        cells = int(np.prod([len(each) + 1 for each in edges]))
        products[name] = cell_products(images, Table(plain, edges, plain.repeat(cells, 1)))
    whole = products["table"].sum(axis=1)
    alone = -10 * np.log10(whole.diagonal(axis1=1, axis2=2))
    best = int(alone.mean(axis=0).argmax())
    plainly = np.broadcast_to(plain.numpy().astype(np.float64), (1, count))
    held = {"the best alone": alone[:, best], "plain": fused_psnr(whole[:, None], plainly)}
    for name in ("convex", "EnsIR", "intensity", "table", "gate"):
        held[name] = np.empty(len(images))
    for part in folds(len(images)):
        fit = [each for each, judges in zip(images, part, strict=True) if not judges]
        others = [each for each, judges in zip(images, part, strict=True) if judges]
        shares = convex_shares(whole[~part], LEAST / count)
        held["convex"][part] = fused_psnr(whole[part][:, None], shares[None])
        held["EnsIR"][part] = ensir(fit, others, np.random.default_rng(0))
        for name, own in products.items():
            held[name][part] = fused_psnr(own[part], table_weights(own[~part], shares))
        gate = trained_gate(fit, shares, SCALE, 0)
        held["gate"][part] = [psnr_of(gate, each) for each in others]
        print(f"a fifth of the images judged: {held['table'][part].mean():.3f} dB", flush=True)
    shares = convex_shares(whole, LEAST / count)
    held["table, on the images that taught it"] = fused_psnr(
        products["table"], table_weights(products["table"], shares)
    )
    return held


def time_line() -> str:
    """What fusing costs beside the passes of three of the networks, in the processor's seconds."""
    networks = [build(family, SCALE, **POOL[family][0]).eval() for family in ("plksr", "nafnet", "rrdb")]
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


def described(members: list[tuple[str, int]], images: list[Outputs]) -> Iterator[str]:
    """A section of the report."""
    errors = [(each.sr - each.hr).flatten(1).double() for each in images]
    gram = np.stack([(each @ each.T / each.shape[1]).numpy() for each in errors])
    names = [f"{family} ({steps:,} steps)" for family, steps in members]
    yield f"## {', '.join(names)}"
    yield ""
    alone = (-10 * np.log10(gram.diagonal(axis1=1, axis2=2))).mean(axis=0)
    yield "| network | parameters | PSNR | correlation of errors with the others |"
    yield "|---|---|---|---|"
    matrix = correlations(gram)
    for place, (family, steps) in enumerate(members):
        others = ", ".join(f"{matrix[place, each]:.3f}" for each in range(len(members)) if each != place)
        count = cost.parameters(family, SCALE, **POOL[family][0])
        yield f"| {family} ({steps:,} steps) | {count:,} | {alone[place]:.3f} | {others} |"
    held = judged_ways(images)
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
    options.add_argument("--steps", type=int, default=800, help="of each training")
    options.add_argument("--table-only", action="store_true", help="train nothing, take what is finished")
    arguments = options.parse_args()
    if not CITY100.is_dir():
        print(f"skipped: there is no {CITY100.name} folder in ../shared/data beside the repository")
        return
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    rules = Rules(validation_fraction=0.2, max_validation=None)
    folder = prepare_folder(CITY100, arguments.work / "pairs", SCALE, rules)
    pairs, validation = open_pairs(folder, "train"), open_pairs(folder, "validation")
    if not arguments.table_only:
        train_pool(arguments.work, pairs, validation, arguments.steps)
    pool = finished(arguments.work)
    sets = [[each for each in pool if each[1] == steps] for steps in sorted({steps for _, steps in pool})]
    longest = {family: max(steps for name, steps in pool if name == family) for family, _ in pool}
    sets.append(list(longest.items()))
    lines = [
        "# Fusing networks of different families",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}; one thread, one seed.",
        "",
        f"City100 ×{SCALE}, {len(pairs)} pairs to train on, {len(validation)} to validate; PSNR in dB on "
        "RGB, means over the validation images, in brackets 95 % bootstrap intervals over them. Weights were "
        "fitted to four fifths of these images and judged on the fifth, but for the last row of each table. "
        f"`intensity` is our table by intensity alone, `table` by intensity, slope and distance {BINS}.",
        "",
        time_line(),
        "",
    ]
    for members in sets:
        if 1 < len(members) <= 3 and members not in sets[: sets.index(members)]:
            lines += described(members, images_of(arguments.work, members, validation))
            print("\n".join(lines[-12:]), flush=True)
            REPORT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
