"""Memory that a training step takes at its peak, beside what `gpnas_trainers.cost` says.

    python experiments/memory.py [-o results/memory.md]

On a CPU: every allocation and release of tensor memory, as PyTorch's profiler reports them, summed up;
the peak of the sum, above what lived before, which is counted by hand (weights and
moments). On a GPU: `torch.cuda.max_memory_allocated`. The step is the second of
`gpnas_trainers.train.Training`, whose copy of the last good weights, on the CPU, is not counted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import processor, versions
from torch.profiler import ProfilerActivity, profile

from gpnas_trainers import build, cost
from gpnas_trainers.pairs import open_pairs, prepare
from gpnas_trainers.train import Recipe, Training

CASES: list[tuple[str, int, dict[str, Any], int, int]] = [
    ("drn", 2, {"features": 16, "blocks": 4, "stages": 2}, 8, 64),
    ("drn", 2, {"features": 32, "blocks": 4, "stages": 3}, 8, 96),
    ("drn", 4, {"features": 32, "blocks": 2, "stages": 2}, 4, 128),
    ("drn", 2, {"features": 128, "blocks": 6, "stages": 3}, 2, 96),
    ("rcan", 2, {"features": 32, "groups": 2, "blocks": 4}, 8, 96),
    ("rcan", 3, {"features": 64, "groups": 3, "blocks": 6}, 2, 144),
    ("dual_regression", 4, {"features": 8, "blocks": 4}, 4, 128),
]
"""Family, scale, axes, batch, HR patch."""


def peak(run: Callable[[], object]) -> int:
    """Bytes of tensors at the peak of a call, above what lives when it begins."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [each for each in profiled.profiler.kineto_results.events() if each.name() == "[memory]"]  # type: ignore[union-attr]
    most = now = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def row(family: str, axes: dict[str, Any], scale: int, batch: str, told: float, measured: float) -> str:
    name = f"{family} ({', '.join(map(str, axes.values()))})"
    mebi = 2**20
    numbers = f"{told / mebi:.1f} | {measured / mebi:.1f} | {told / measured:.2f}"
    return f"| {name} | {scale} | {batch} | {numbers} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = [
        "# Memory of a training step",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}; on the {device}. MiB.",
        "",
        "The loss is L1 + MS-SSIM.",
        "",
        "| network | scale | batch × HR patch | told | measured | told/measured |",
        "|---|---|---|---|---|---|",
    ]
    for family, scale, axes, batch_size, hr_patch in CASES:
        torch.manual_seed(0)
        folder = prepare(None, scale, workers=None)
        pairs, validation = open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)
        network = build(family, scale, **axes)
        recipe = Recipe(steps=10, batch_size=batch_size, hr_patch=hr_patch)
        training = Training(network, pairs, validation, recipe, seed=0, device=device)
        training.advance(0.0)
        # the gradients of the step before are released in it, so they do not live before
        own = 4 * sum(parameter.numel() for parameter in network.parameters())
        gradients = 4 * sum(each.numel() for each in network.parameters() if each.grad is not None)
        network.zero_grad(set_to_none=True)
        measured = peak(partial(training.advance, 0.0)) + own + 2 * gradients
        setting = {"batch_size": batch_size, "hr_patch": hr_patch}
        told = cost.training_memory(family, scale, **setting, **axes)
        lines.append(row(family, axes, scale, f"{batch_size} × {hr_patch}", told, measured))
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
