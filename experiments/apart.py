"""Members of an average that are kept apart: seeds, losses, bootstrap samples, negative correlation.

    python experiments/apart.py WORK [--steps 800] [--members 3] [-o results/apart.md]

City100 (Chen et al., CVPR 2019) at ×2, 80 pairs to train on and 20 to validate; read from
`../shared/data/city100` beside the repository, and skipped where that is absent. Members of one architecture
are trained in each of these ways, with equal total steps: `seeds` alone; each with another `losses` (L1,
Charbonnier, L2 after L1, and with MS-SSIM); each on a `bootstrap` sample; and `negative correlation`
(strengths 0, 0.5 and 0.9) over the last quarter of the steps, after three quarters as `seeds` has them. The
plain average counts: its PSNR on the validation images, over that of `seeds`, with a 95 % bootstrap interval
over images.

All that is trained lies in WORK; the same command goes on where it was stopped, a member at a time.
"""

from __future__ import annotations

import argparse
import os
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from safetensors.torch import load_file, save_file
from torch import nn

from gpnas.evaluation import bootstrap_intervals
from gpnas.portfolio import correlations, ensemble_psnr
from gpnas.results.fusing import outputs_on
from gpnas_trainers import build
from gpnas_trainers.files import replacing
from gpnas_trainers.negative_correlation import fine_tune
from gpnas_trainers.pairs import PairSet, Rules, open_pairs, prepare_folder
from gpnas_trainers.train import Recipe, train

CITY100 = Path(__file__).resolve().parents[2] / "shared/data/city100"
SCALE = 2
FAMILY, AXES = "drn", {"features": 24, "blocks": 3, "stages": 2}
LOSSES: tuple[dict[str, Any], ...] = (
    {"pixel_loss": "l1"},
    {"pixel_loss": "charbonnier"},
    {"pixel_loss": "l2_after_l1"},
    {"pixel_loss": "l1", "ms_ssim_weight": 0.1},
)
STRENGTHS = (0.0, 0.5, 0.9)


def recipe(steps: int, **changes: Any) -> Recipe:
    settings = {"ms_ssim_weight": 0.0, "ema_decay": 0.999, "precision": "float32", "evaluate_every": steps}
    return Recipe(steps=steps, batch_size=8, hr_patch=64, learning_rate=2e-3, **(settings | changes))


def fresh(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build(FAMILY, SCALE, **AXES)


def kept(path: Path, network: nn.Module) -> None:
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary)


def trained(path: Path, seed: int, how: Recipe, pairs: PairSet, validation: PairSet) -> nn.Module:
    """A member, from its file where it was trained before."""
    network = fresh(seed)
    if not path.exists():
        train(network, pairs, validation, how, seed=seed, checkpoint=path.with_suffix(".ckpt"))
        kept(path, network)
    network.load_state_dict(load_file(path))
    return network.eval()


def ways(
    work: Path, steps: int, members: int, pairs: PairSet, validation: PairSet
) -> dict[str, list[nn.Module]]:
    """The members of each way."""
    settings: dict[str, list[dict[str, Any]]] = {
        "seeds": [{}] * members,
        "losses": [LOSSES[place % len(LOSSES)] for place in range(members)],
        "bootstrap": [{"images": "bootstrap"}] * members,
    }
    made = {
        name: [
            trained(
                work / f"{name}-{steps}-{seed}.safetensors", seed, recipe(steps, **each), pairs, validation
            )
            for seed, each in enumerate(given)
        ]
        for name, given in settings.items()
    }
    most = steps - steps // 4
    for strength in STRENGTHS:
        name = f"negative correlation, {strength:g}"
        paths = [work / f"ncl-{strength:g}-{steps}-{seed}.safetensors" for seed in range(members)]
        networks = [
            trained(work / f"seeds-{most}-{seed}.safetensors", seed, recipe(most), pairs, validation)
            for seed in range(members)
        ]
        if not all(path.exists() for path in paths):
            tuned = recipe(steps - most, learning_rate=2e-4, warmup_steps=0)
            fine_tune(networks, pairs, tuned, strength=strength, seed=members)
            for path, network in zip(paths, networks, strict=True):
                kept(path, network)
        for path, network in zip(paths, networks, strict=True):
            network.load_state_dict(load_file(path))
        made[name] = networks
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--steps", type=int, default=800, help="of each member, in all")
    options.add_argument("--members", type=int, default=3)
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    if not CITY100.is_dir():
        print(f"skipped: there is no {CITY100.name} folder in ../shared/data beside the repository")
        return
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    rules = Rules(validation_fraction=0.2, max_validation=None)
    folder = prepare_folder(CITY100, arguments.work / "pairs", SCALE, rules)
    pairs, validation = open_pairs(folder, "train"), open_pairs(folder, "validation")
    lines = [
        "# Members kept apart",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}. City100 ×{SCALE}, {len(pairs)} "
        f"pairs to train on, {len(validation)} to validate; {arguments.members} members of {FAMILY} {AXES}, "
        f"{arguments.steps} steps each; PSNR in dB on RGB, in brackets 95 % bootstrap intervals over images.",
        "",
        "| members | alone, mean | average | over seeds | mean correlation of errors |",
        "|---|---|---|---|---|",
    ]
    base = None
    for name, networks in ways(arguments.work, arguments.steps, arguments.members, pairs, validation).items():
        errors = [(each.sr - each.hr).flatten(1).double() for each in outputs_on(networks, validation)]
        gram = np.stack([(each @ each.T / each.shape[1]).numpy() for each in errors])
        every = [list(range(arguments.members))]
        values = np.array([float(ensemble_psnr(each[None], every)[0]) for each in gram])
        base = values if base is None else base
        (low, high), mean = bootstrap_intervals((values - base)[:, None])[0], float((values - base).mean())
        matrix = correlations(gram)
        apart = float(matrix[~np.eye(len(matrix), dtype=bool)].mean())
        alone = float((-10 * np.log10(gram.diagonal(axis1=1, axis2=2))).mean())
        over = f"{mean:+.4f} ({low:+.4f} … {high:+.4f})"
        lines.append(f"| {name} | {alone:.3f} | {values.mean():.3f} | {over} | {apart:.4f} |")
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
