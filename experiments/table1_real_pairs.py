"""The paper's Table 1 on real camera pairs: a DRN and an RCAN found by search, an RCAN, pairs, the triple.

    python experiments/table1_real_pairs.py WORK [--scales 2 3 4] [--steps 3000] [--trials 12]

City100 (Chen et al., CVPR 2019) at ×2, ×3 and ×4, 80 pairs to train on and 20 to validate, no pair left out;
read from `../shared/data/city100` beside the repository, skipped where that is absent. For each scale:

1. a search over small DRNs and RCANs (`SPACE`);
2. a pool trained to the end: the best DRN (DRN*) and the best RCAN (RCAN*) of the search by posterior mean, a
   narrow RCAN that nobody searched for, as in the paper, and the next best three;
3. DRN*, RCAN* and RCAN alone, in pairs and all three, plain averages, with and without self-ensemble; the
   triple also with convex weights;
4. of the pool, the three whose average is best by residual products against the three of best PSNR alone.

Weights, and both portfolios, are chosen on three quarters of the validation images and judged on the fourth,
in turn, so that no image judges what it chose.

Intervals: 95 %, bootstrap over images, 10,000 resamples. All that is trained lies in WORK, a run folder each:
the same command goes on where it was stopped. Writes `results/table1_real_pairs.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from numpy.typing import NDArray

from gpnas.dispatch.conductor import Event
from gpnas.dispatch.final import FinalRequest, run_final
from gpnas.dispatch.request import Request
from gpnas.dispatch.search import run_search
from gpnas.evaluation import bootstrap_intervals
from gpnas.journal import Journal
from gpnas.portfolio import choose
from gpnas.records import Architecture
from gpnas.results.choosing import LEAST_SHARE
from gpnas.results.networks import trained_weights
from gpnas.run.storage import storage_in
from gpnas_trainers import build, cost
from gpnas_trainers.infer import Levels, upscale
from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import Rules, bicubic_upscale, open_pairs, prepare_folder

CITY100 = Path(__file__).resolve().parents[2] / "shared/data/city100"
REPORT = Path(__file__).resolve().parent / "results/table1_real_pairs.md"
LR_PATCH = 32
SPACE = """\
scale: {scale}
families:
  drn:
    features: {{low: 16, high: 32, step: 8}}
    blocks: {{low: 2, high: 4}}
    stages: {{low: 1, high: 3}}
  rcan:
    features: {{low: 16, high: 32, step: 8}}
    groups: {{low: 1, high: 3}}
    blocks: {{low: 2, high: 4}}
    image_skip: true
limits: {{parameters: 150e3}}
search: {{trials: {trials}, concurrent: 2, portfolio: 3}}
recipe: {{steps: 250, batch_size: 8, hr_patch: {hr_patch}, learning_rate: 2e-3, evaluate_every: 125}}
"""
NARROW = Architecture("rcan", {"features": 16, "groups": 2, "blocks": 4, "image_skip": True})
"""Not searched for: half as wide and twice as deep as what is, as the original RCAN beside RCAN*."""
POOL = 6
FOLDS = 4
Floats = NDArray[np.float64]


class Lines:
    """Prints what happens."""

    def say(self, line: str) -> None:
        print(line, flush=True)

    def preparing(self, what: str, done: int, total: int) -> None: ...

    def started(self, run: Path, trials: int, observed: int, cluster: object) -> None:
        self.say(f"{run.name}: {observed} of {trials} observed")

    def event(self, event: Event) -> None:
        if event.observation is not None:
            self.say(f"  {event.candidate.architecture} {event.observation.value}")


def found(work: Path, scale: int, trials: int, pairs: Path) -> list[Architecture]:
    """The pool: DRN*, RCAN*, RCAN, then the next best of the search."""
    space = work / f"x{scale}.yaml"
    space.write_text(SPACE.format(scale=scale, trials=trials, hr_patch=LR_PATCH * scale))
    run = work / f"x{scale}-search"
    delivery = run_search(Request(space=str(space), run=run, data=pairs, scale=scale, seed=0), Lines())
    ranked = [each.candidate.architecture for each in delivery.ranking]
    stars = [next(each for each in ranked if each.family == family) for family in ("drn", "rcan")]
    pool = [*stars, NARROW]
    return (pool + [each for each in dict.fromkeys(ranked) if each not in pool])[:POOL]


def trained(work: Path, scale: int, pool: Sequence[Architecture], steps: int, pairs: Path) -> Path:
    run = work / f"x{scale}-final"
    recipe = {
        "steps": steps,
        "batch_size": 8,
        "hr_patch": LR_PATCH * scale,
        "learning_rate": 2e-3,
        "ema_decay": 0.999,
        "evaluate_every": steps // 4,
    }
    names = [
        f"{each.family}:" + ",".join(f"{name}={str(value).lower()}" for name, value in each.axes.items())
        for each in pool
    ]
    request = FinalRequest(
        architectures=tuple(names), run=run, data=pairs, scale=scale, recipe=recipe, seed=0, concurrent=2
    )
    run_final(request, Lines())
    return run


def judged(run: Path, pool: Sequence[Architecture], scale: int, pairs: Path) -> dict[str, Any]:
    """Scores of every image: of bicubic, and of each subset of the pool that is asked for."""
    validation = open_pairs(pairs, "validation")
    networks = []
    with Journal.read(run) as journal:
        candidates = {each.architecture: each for each in journal.candidates()}
    for each in pool:
        network = build(each.family, scale, **each.axes)
        network.load_state_dict(trained_weights(storage_in(run), candidates[each]))
        networks.append(network.eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    subsets = [subset for size in (1, 2, 3) for subset in itertools.combinations(range(3), size)]
    threes = list(itertools.combinations(range(len(pool)), 3))
    gram = torch.zeros(len(validation), len(pool), len(pool), dtype=torch.float64)
    scores: dict[str, Any] = {"bicubic": [], "plain": [], "self": [], "threes": []}
    for index in range(len(validation)):
        lr, hr = validation.tensors(index)
        base = bicubic_upscale(lr, scale)
        scores["bicubic"].append([psnr(base, hr), ssim(base, hr)])
        for name, turned in (("plain", False), ("self", True)):
            outputs = torch.stack(
                [upscale([each], lr, scale, Levels(tile=0, self_ensemble=turned)) for each in networks]
            )
            means = [outputs[list(subset)].mean(dim=0) for subset in subsets]
            scores[name].append([[psnr(sr, hr), ssim(sr, hr)] for sr in means])
            if not turned:
                errors = (outputs - hr).flatten(1).double()
                gram[index] = errors @ errors.T / errors.shape[1]
                scores["threes"].append([psnr(outputs[list(three)].mean(dim=0), hr) for three in threes])
        print(f"judged image {index + 1} of {len(validation)}", flush=True)
    return {
        "pool": [each.to_json() for each in pool],
        "gram": gram.tolist(),
        "parameters": [cost.parameters(each.family, scale, **each.axes) for each in pool],
        **scores,
    }


def chosen_by(gram: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Threes of a pool, by the residual products of some images."""
    alone = (-10 * gram.diagonal(dim1=1, dim2=2).log10()).mean(dim=0)
    return {
        "residuals": tuple(sorted(choose(gram, 3).members)),
        "top 3": tuple(sorted(alone.argsort(descending=True)[:3].tolist())),
    }


def compared(scores: dict[str, Any]) -> tuple[Floats, Floats, int]:
    """PSNR of the chosen average, plain and with weights, over that of the top three, on images that chose
    none of them; times equal."""
    gram = torch.tensor(scores["gram"], dtype=torch.float64)
    values = np.array(scores["threes"])
    threes = list(itertools.combinations(range(gram.shape[1]), 3))
    fold = np.arange(len(gram)) % FOLDS
    differences, top, equal = np.zeros(len(gram)), np.zeros(len(gram)), 0
    for each in range(FOLDS):
        picks = chosen_by(gram[torch.from_numpy(fold != each)])
        columns = [threes.index(picks[name]) for name in ("residuals", "top 3")]
        equal += columns[0] == columns[1]
        held = fold == each
        top[held] = values[held, columns[1]]
        differences[held] = values[held, columns[0]] - top[held]
    return differences, weighed(gram, LEAST_SHARE / 3) - top, equal


def weighed(gram: torch.Tensor, least: float = 0.0) -> Floats:
    """PSNR of each image for the best weighted average of three, in which it has no part."""
    fold = torch.arange(len(gram)) % FOLDS
    found = np.zeros(len(gram))
    for each in range(FOLDS):
        choice = choose(gram[fold != each], 3, convex=True, least=least)
        weights = torch.zeros(gram.shape[1], dtype=gram.dtype)
        weights[list(choice.members)] = torch.tensor(choice.weights, dtype=gram.dtype)
        for image in (fold == each).nonzero().flatten().tolist():
            found[image] = -10 * math.log10(weights @ gram[image] @ weights)
    return found


def interval(values: Floats) -> str:
    low, high = bootstrap_intervals(values[:, None])[0]
    return f"{values.mean():+.3f} ({low:+.3f} … {high:+.3f})"


def rows_of(scale: int, scores: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Rows of the first and of the second table."""
    names = ["DRN*", "RCAN*", "RCAN"]
    labels = [
        " + ".join(names[place] for place in subset)
        for size in (1, 2, 3)
        for subset in itertools.combinations(range(3), size)
    ]
    bicubic = np.array(scores["bicubic"]).mean(axis=0)
    lines = [f"| ×{scale} | bicubic | {bicubic[0]:.2f} | {bicubic[1]:.4f} | – | – | – |"]
    plain, turned = np.array(scores["plain"]), np.array(scores["self"])
    best = int(plain[:, :3, 0].mean(axis=0).argmax())
    for place, label in enumerate(labels):
        over = "–" if place < 3 else interval(plain[:, place, 0] - plain[:, best, 0])
        cells = [
            f"{each[:, place, 0].mean():.2f} | {each[:, place, 1].mean():.4f}" for each in (plain, turned)
        ]
        lines.append(f"| ×{scale} | {label} | {cells[0]} | {over} | {cells[1]} |")
    gram = torch.tensor(scores["gram"], dtype=torch.float64)
    weights = weighed(gram[:, :3, :3])
    lines.append(
        f"| ×{scale} | {labels[-1]}, weighed | {weights.mean():.2f} | – | "
        f"{interval(weights - plain[:, best, 0])} | – | – |"
    )
    differences, with_weights, equal = compared(scores)
    mean = gram.mean(dim=0)
    correlation = mean / (mean.diagonal()[:, None] * mean.diagonal()).sqrt()
    low = correlation[:3, :3][np.triu_indices(3, 1)].min()
    picks = chosen_by(gram)
    named = {key: ", ".join(str(place + 1) for place in value) for key, value in picks.items()}
    second = [
        f"| ×{scale} | {named['residuals']} | {named['top 3']} | {equal} of {FOLDS} | "
        f"{interval(differences)} | {interval(with_weights)} | {low:.3f} |"
    ]
    return lines, second


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path, help="folder for what is trained")
    options.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    options.add_argument("--steps", type=int, default=3000, help="of the final trainings")
    options.add_argument("--trials", type=int, default=12, help="of each search")
    arguments = options.parse_args()
    if not CITY100.is_dir():
        print("skipped: there is no city100 folder in ../shared/data beside the repository")
        return
    torch.set_num_threads(1)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    first: list[str] = []
    second: list[str] = []
    pools: list[str] = []
    steps: list[str] = []
    for scale in arguments.scales:
        kept = work / f"x{scale}.json"
        if kept.exists():
            scores = json.loads(kept.read_text())
        else:
            pairs = prepare_folder(
                CITY100,
                work / "pairs",
                scale,
                Rules(validation_fraction=0.2, max_validation=None),
                workers=None,
            )
            pool = found(work, scale, arguments.trials, pairs)
            run = trained(work, scale, pool, arguments.steps, pairs)
            scores = judged(run, pool, scale, pairs) | {"steps": arguments.steps}
            kept.write_text(json.dumps(scores))
        steps.append(f"{scores['steps']:,} at ×{scale}")
        rows = rows_of(scale, scores)
        first += rows[0]
        second += rows[1]
        shown = []
        for place, each in enumerate(scores["pool"]):
            axes = ", ".join(str(value) for value in each["axes"].values() if value is not True)
            shown.append(f"{place + 1} {each['family']} ({axes}), {scores['parameters'][place]:,}")
        pools.append(f"- ×{scale}: " + "; ".join(shown))
    text = [
        "# Table 1 on real camera pairs",
        "",
        f"{processor()}, one thread a training; {versions(('gpnas', 'torch', 'ray'))}; {date.today()}.",
        "",
        f"City100, 80 pairs to train on, 20 to validate. Searches of {arguments.trials} trials of 250 steps; "
        f"final trainings of {', '.join(steps)} steps (8 patches of {LR_PATCH}×{LR_PATCH} LR pixels, L1 + "
        "MS-SSIM, averaged weights). PSNR in dB and SSIM on RGB, means over the validation images, on "
        "some of which the searches were judged too. Over the best alone: mean and 95 % bootstrap "
        f"interval over images. Weighed: convex weights, fitted to {FOLDS - 1} of {FOLDS} folds of the "
        "images and judged on the other.",
        "",
        "| scale | networks | PSNR | SSIM | over the best alone | PSNR, self-ensemble | SSIM, likewise |",
        "|---|---|---|---|---|---|---|",
        *first,
        "",
        "The portfolio chosen by residual products against the three of best PSNR alone, from a pool of "
        f"{POOL} networks: chosen on {FOLDS - 1} of {FOLDS} folds of the images, judged on the other.",
        "",
        "| scale | by residuals, on all images | top 3 | the same choice | difference in dB "
        "| chosen and averaged with weights, as delivered "
        "| least correlation of errors of DRN*, RCAN*, RCAN |",
        "|---|---|---|---|---|---|---|",
        *second,
        "",
        "The pools (family, axes, parameters); 1 is DRN*, 2 RCAN*, 3 RCAN:",
        "",
        *pools,
    ]
    REPORT.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
