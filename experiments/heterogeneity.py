"""What differing networks are worth at equal cost: one, three of a kind, three of different families.

    python experiments/heterogeneity.py WORK [--scales 2 3 4] [--seeds 5] [--steps 2400] [-o TABLE.md]

City100 (Chen et al., CVPR 2019), 80 pairs to train on and 20 to validate; read from `../shared/data/city100`
beside the repository, and skipped where that is absent. For each scale and seed:

- a pool: one small network of each of five families, about as dear;
- `single`: the best of it; `large`: its family, as wide as keeps the cost of three;
- `same family`: the best one's architecture, trained from three seeds;
- `families`: the best three of different families; `chosen`: the three whose average is best by their errors'
  products, on the other images, among all that keep the cost of `families`.

Each set is averaged plainly, with convex weights and with our table, without and with self-ensemble. Choices
and weights are fitted to four fifths of the validation images and judged on the fifth, in turn. Intervals:
95 %, bootstrap over seeds and over images. All that is trained and judged lies in WORK: the same command goes
on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from fusion import CITY100, POOL
from machine import processor, versions
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from gpnas.fusing import convex_shares, folds, fused_psnr, table_weights
from gpnas.portfolio import correlations
from gpnas.results.fusing import LEAST, Outputs, cell_products, edges_of
from gpnas_trainers import build, cost
from gpnas_trainers.files import replacing
from gpnas_trainers.fusion import Table
from gpnas_trainers.infer import Levels, upscale
from gpnas_trainers.pairs import PairSet, Rules, open_pairs, prepare_folder
from gpnas_trainers.train import Recipe, train

Floats = NDArray[np.float64]
WAYS = ("plain", "convex", "table")
RESAMPLES = 10_000


def gmacs(family: str, axes: dict[str, Any], scale: int) -> float:
    return cost.gmacs(family, scale, 120, 120, **axes)


def widened(family: str, axes: dict[str, Any], scale: int, limit: float) -> dict[str, Any]:
    """The same architecture, as wide as keeps a limit of GMACs."""
    name = "width" if "width" in axes else "features"
    wider = axes
    while gmacs(family, wider | {name: wider[name] + 4}, scale) <= limit:
        wider = wider | {name: wider[name] + 4}
    return wider


class Trainings:
    """Networks of one scale, each trained once."""

    def __init__(self, work: Path, scale: int, steps: int, pairs: PairSet, validation: PairSet) -> None:
        self.work, self.scale, self.steps = work, scale, steps
        self.pairs, self.validation = pairs, validation

    def network(self, family: str, axes: dict[str, Any], seed: int) -> nn.Module:
        sizes = "-".join(str(value) for value in axes.values() if value is not True)
        path = self.work / f"x{self.scale}-{family}-{sizes}-{self.steps}-{seed}.safetensors"
        torch.manual_seed(seed)
        network = build(family, self.scale, **axes)
        if not path.exists():
            recipe = Recipe(
                steps=self.steps,
                batch_size=8,
                hr_patch=32 * self.scale,
                learning_rate=POOL[family][1],
                ms_ssim_weight=0.0,
                ema_decay=0.999,
                precision="float32",
                evaluate_every=self.steps,
            )
            checkpoint = path.with_suffix(".ckpt")
            progress = train(network, self.pairs, self.validation, recipe, seed=seed, checkpoint=checkpoint)
            print(f"{path.stem}: {progress.psnr:.3f} dB", flush=True)
            state = {name: value.contiguous() for name, value in network.state_dict().items()}
            with replacing(path) as temporary:
                save_file(state, temporary)
        network.load_state_dict(load_file(path))
        return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def outputs(self, networks: list[nn.Module], self_ensemble: bool) -> list[Outputs]:
        levels = Levels(0, self_ensemble=self_ensemble)
        made = []
        for index in range(len(self.validation)):
            lr, hr = self.validation.tensors(index)
            sr = torch.stack([upscale([each], lr, self.scale, levels) for each in networks])
            made.append(Outputs(sr, hr))
        return made


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


def one_seed(trainings: Trainings, seed: int) -> dict[str, Any]:
    """Scores of every set, by self-ensemble, way and image; as JSON."""
    scale = trainings.scale
    families = list(POOL)
    networks = [trainings.network(family, POOL[family][0], seed) for family in families]
    plain = trainings.outputs(networks, False)
    gram = products(plain)
    order = np.argsort((10 * np.log10(gram.diagonal(axis1=1, axis2=2))).mean(axis=0), kind="stable").tolist()
    best, prices = families[order[0]], np.array([gmacs(name, POOL[name][0], scale) for name in families])
    limit = float(prices[order[:3]].sum())
    large = trainings.network(best, widened(best, POOL[best][0], scale, limit), seed)
    same = [trainings.network(best, POOL[best][0], seed + shift) for shift in (1000, 2000)]
    every = [*networks, large, *same]
    sets = {
        "single": [order[0]],
        "large": [len(families)],
        "same family": [order[0], len(families) + 1, len(families) + 2],
        "families": order[:3],
    }
    picked = chosen(gram, prices, limit * (1 + 1e-9))
    document: dict[str, Any] = {"best": best, "correlations": correlations(gram).tolist(), "scores": {}}
    for turned in (False, True):
        images = trainings.outputs(every, turned)
        scores = {name: judged(some(images, members)) for name, members in sets.items()}
        scores["chosen"] = {way: [0.0] * len(images) for way in WAYS}
        of_three = {tuple(each): judged(some(images, each)) for each in picked}
        for part, members in zip(folds(len(images)), picked, strict=True):
            for way, place in itertools.product(WAYS, np.flatnonzero(part).tolist()):
                scores["chosen"][way][place] = of_three[tuple(members)][way][place]
        document["scores"]["self-ensemble" if turned else "one pass"] = scores
    return document


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


def rows(scale: int, seeds: list[dict[str, Any]]) -> list[str]:
    """The rows of the table."""
    lines = []
    for passes in ("one pass", "self-ensemble"):
        base = np.array([each["scores"][passes]["single"]["plain"] for each in seeds])
        for name in ("single", "large", "same family", "families", "chosen"):
            for way in WAYS if name not in ("single", "large") else WAYS[:1]:
                values = np.array([each["scores"][passes][name][way] for each in seeds])
                low, high = interval(values - base)
                over = f"{(values - base).mean():+.3f} ({low:+.3f} … {high:+.3f})"
                lines.append(f"| ×{scale} | {passes} | {name} | {way} | {values.mean():.3f} | {over} |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=2400, help="of each training")
    options.add_argument("--images", type=int, help="of validation, at most")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    if not CITY100.is_dir():
        print(f"skipped: there is no {CITY100.name} folder in ../shared/data beside the repository")
        return
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Heterogeneity at equal cost",
        "",
        f"{processor()}, one thread; {versions(('gpnas', 'torch'))}; {date.today()}. City100; "
        f"{arguments.steps} steps each, {arguments.seeds} seeds; PSNR in dB on RGB; over the single network: "
        "mean and 95 % bootstrap interval over seeds and images.",
        "",
        "| scale | passes | networks | fused by | PSNR | over the single network |",
        "|---|---|---|---|---|---|",
    ]
    for scale in arguments.scales:
        rules = Rules(validation_fraction=0.2, max_validation=None)
        folder = prepare_folder(CITY100, arguments.work / f"pairs-x{scale}", scale, rules)
        validation = open_pairs(folder, "validation").head(arguments.images)
        trainings = Trainings(arguments.work, scale, arguments.steps, open_pairs(folder, "train"), validation)
        seeds = []
        for seed in range(arguments.seeds):
            path = arguments.work / f"x{scale}-{arguments.steps}-{len(validation)}-{seed}.json"
            if not path.exists():
                with replacing(path) as temporary:
                    temporary.write_text(json.dumps(one_seed(trainings, seed)), encoding="utf-8")
            seeds.append(json.loads(path.read_text(encoding="utf-8")))
        least = [min(min(row) for row in each["correlations"]) for each in seeds]
        lines += rows(scale, seeds)
        print(f"×{scale}: least correlation of errors {np.mean(least):.3f}", flush=True)
        print("\n".join(lines), flush=True)
        if arguments.output:
            arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
