"""Members of an average that are kept apart: seeds, losses, bootstrap samples, negative correlation.

    python experiments/apart.py WORK [--steps 600] [--members 3] [-o results/apart.md]

City100 ×2 as `members.py` trains on it. Members of one architecture are trained in each of these ways, with
equal total steps: `seeds` alone; each with another of the `losses` (L1, Charbonnier, L2 after L1), or the
last with MS-SSIM; each on a `bootstrap` sample; and `together`, by negative correlation of a strength (0,
0.5 and 0.9) over the last quarter of the steps, after three quarters as `seeds` has them. The plain average
counts: its PSNR on the validation images, over that of `seeds`, with a 95 % bootstrap interval over images.

All that is trained lies in WORK; the same command goes on where it was stopped, a member at a time.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor, versions
from members import Cache, Member, alone_of, skipped

from gpnas.evaluation import bootstrap_intervals
from gpnas.portfolio import correlations, ensemble_psnr
from gpnas_trainers.negative_correlation import fine_tune

FAMILY, AXES = "edsr", {"features": 16, "blocks": 3}
LOSSES: tuple[dict[str, Any], ...] = ({}, {"pixel_loss": "charbonnier"}, {"pixel_loss": "l2_after_l1"})
MS_SSIM: dict[str, Any] = {"ms_ssim_weight": 0.1}
STRENGTHS = (0.0, 0.5, 0.9)


def ways(cache: Cache, steps: int, count: int) -> dict[str, list[Member]]:
    """The members of each way, trained."""

    def members(steps: int, *changes: dict[str, Any]) -> list[Member]:
        return [
            Member(FAMILY, AXES, steps, seed=seed, changes=changes[seed % len(changes)])
            for seed in range(count)
        ]

    made = {
        "seeds": members(steps, {}),
        "losses": members(steps, *LOSSES),
        "losses, the last with MS-SSIM": members(steps, *LOSSES[:2], MS_SSIM),
        "bootstrap": members(steps, {"images": "bootstrap"}),
    }
    most = steps - steps // 4
    for strength in STRENGTHS:
        # a change of what is no setting tells these apart by name
        tuned = [replace(each, changes={"together": strength}) for each in made["seeds"]]
        paths = [cache.folder / f"{each.name}.safetensors" for each in tuned]
        if not all(path.exists() for path in paths):
            networks = [cache.network(each) for each in members(most, {})]
            recipe = replace(tuned[0], steps=steps - most, changes={"learning_rate": 2e-4, "warmup_steps": 0})
            pairs, _ = cache.pairs(2)
            fine_tune(networks, pairs, recipe.recipe, strength=strength, seed=count)
            for path, network in zip(paths, networks, strict=True):
                cache.keep(path, network)
        made[f"together, strength {strength:g}"] = tuned
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--steps", type=int, default=600, help="of each member, in all")
    options.add_argument("--members", type=int, default=3)
    options.add_argument("--images", type=int, help="of validation, at most, in a WORK of their own")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    if skipped():
        return
    cache = Cache(arguments.work, arguments.images)
    lines = [
        "# Members kept apart",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}. City100 ×2, 80 pairs to train "
        "on, 20 to "
        f"validate; {arguments.members} members of {FAMILY} {AXES}, {arguments.steps} steps each; PSNR in "
        "dB on "
        "RGB, in brackets 95 % bootstrap intervals over images.",
        "",
        "| members | alone, mean | average | over seeds | mean correlation of errors |",
        "|---|---|---|---|---|",
    ]
    base = None
    for name, members in ways(cache, arguments.steps, arguments.members).items():
        gram = cache.products(members)
        every = [list(range(arguments.members))]
        values = np.array([float(ensemble_psnr(each[None], every)[0]) for each in gram])
        base = values if base is None else base
        (low, high), mean = bootstrap_intervals((values - base)[:, None])[0], float((values - base).mean())
        matrix = correlations(gram)
        apart = float(matrix[~np.eye(len(matrix), dtype=bool)].mean())
        over = f"{mean:+.4f} ({low:+.4f} … {high:+.4f})"
        lines.append(f"| {name} | {alone_of(gram).mean():.3f} | {values.mean():.3f} | {over} | {apart:.4f} |")
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
