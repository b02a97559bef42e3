"""Whether everything runs on a GPU, and how fast: one table, within 8 minutes of an H100 or H200.

    python experiments/gpu_check.py [-o results/gpu_check.md]
    python experiments/gpu_check.py --rehearse            # the same on a CPU with tiny networks, no tests

In turn, each part with what is left of the time: the tests marked `gpu`; patches/s of RCAN (64, 10, 20) at
48×48 LR, batch 16, and DRN (128, 18, 3) at 120×120 LR, batch 8, in our loop (as it is, compiled, and in
float32) beside the plain loop of `training_throughput.py`, with the share of the card's bfloat16 peak; peak
memory of a step beside what `gpnas_trainers.cost` tells; and the whole ensemble beside loops over windows
such as a user writes with MONAI, in float32 and bfloat16. Neither Ray nor MONAI is needed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from machine import processor, versions
from torch import Tensor, nn
from training_throughput import BF16_PEAK, Case, plain_loop, seconds_of

from gpnas_trainers import build, cost
from gpnas_trainers.infer import Levels, dihedral, tile_starts, undo_dihedral, upscale
from gpnas_trainers.pairs import PairSet, open_pairs, prepare
from gpnas_trainers.train import Recipe, Training

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 8 * 60
"""Seconds of all."""
TESTS = 180
"""Seconds of the tests at most."""
CASES = (
    Case("RCAN (64, 10, 20)", "rcan", {"features": 64, "groups": 10, "blocks": 20}, 48, 16),
    Case("DRN (128, 18, 3)", "drn", {"features": 128, "blocks": 18, "stages": 3}, 120, 8),
)
TINY = (Case("RCAN (8, 1, 1)", "rcan", {"features": 8, "groups": 1, "blocks": 1}, 24, 2),)
SCALE, TILE, WINDOWS = 2, 120, 16


@dataclass(frozen=True)
class Check:
    """Where, and how long."""

    device: str
    cases: tuple[Case, ...]
    seconds: float
    """Seconds of each loop that is timed."""
    side: int
    """The side of the image that the ensemble upscales, in LR pixels."""

    def network(self, case: Case) -> nn.Module:
        torch.manual_seed(0)
        return build(case.family, case.scale, **case.axes).to(self.device)


def tests() -> str:
    """What pytest says of the tests marked `gpu`, in a line."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/trainers"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TESTS)
    except subprocess.TimeoutExpired:
        return f"not finished after {TESTS} s"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "; ".join([done.stdout.strip().splitlines()[-1], *failed])


def our_speed(check: Check, case: Case, pairs: PairSet, **options: Any) -> tuple[float, int]:
    """Patches per second of our loop, and the most bytes that its tensors took."""
    recipe = Recipe(
        steps=10**6,
        evaluate_every=10**6,
        batch_size=case.batch_size,
        hr_patch=case.scale * case.lr_side,
        learning_rate=1e-4,
        ms_ssim_weight=0.0,
        **options,
    )
    training = Training(check.network(case), pairs, pairs.head(1), recipe, seed=0, device=check.device)
    on_gpu = check.device == "cuda"
    while training.step < 4:  # what is set up or compiled once
        training.advance(0.0)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    before, begun = training.step, time.perf_counter()
    training.advance(check.seconds)
    if on_gpu:
        torch.cuda.synchronize()
    taken = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return (training.step - before) * case.batch_size / taken, peak


def plain_speed(check: Check, case: Case, pairs: PairSet) -> float:
    run = plain_loop(check.network(case), pairs, case, check.device, 8 if check.device == "cuda" else 0)
    run(4)
    steps = max(2, int(4 * check.seconds / seconds_of(run, 4, check.device)))
    return steps * case.batch_size / seconds_of(run, steps, check.device)


def training_rows(check: Check, pairs: PairSet, left: Callable[[], float]) -> list[str]:
    rows = [
        "| network | loop | patches/s | times the plain loop | of the bf16 peak | peak memory | cost.py |",
        "|---|---|---|---|---|---|---|",
    ]
    card = torch.cuda.get_device_name() if check.device == "cuda" else "no GPU"
    peak = next((value for name, value in BF16_PEAK.items() if name in card), None)
    ways: dict[str, dict[str, Any]] = {
        "ours": {},
        "ours, float32 (convolutions in TF32)": {"precision": "float32"},
        "ours, compiled": {"compile": "default"},
    }
    for case in check.cases:
        plain = plain_speed(check, case, pairs)
        rows.append(f"| {case.name} | plain, float32 | {plain:.1f} | 1 | – | – | – |")
        macs = 1e9 * cost.gmacs(case.family, case.scale, case.lr_side, case.lr_side, **case.axes)
        due = cost.training_memory(
            case.family,
            case.scale,
            batch_size=case.batch_size,
            hr_patch=case.scale * case.lr_side,
            ms_ssim=False,
            **case.axes,
        )
        for name, options in ways.items():
            if left() < 60 or (check.device == "cpu" and "compile" in options):
                rows.append(f"| {case.name} | {name} | skipped: no time was left | | | | |")
                continue
            speed, used = our_speed(check, case, pairs, **options)
            share = "–" if peak is None else f"{100 * 6 * macs * speed / peak:.0f} %"
            rows.append(
                f"| {case.name} | {name} | {speed:.1f} | {speed / plain:.2f} | {share} | "
                f"{used / 2**30:.2f} GiB | {due / 2**30:.2f} GiB |"
            )
    return rows


def windows(networks: list[nn.Module], lr: Tensor) -> Tensor:
    """Loops over networks, transforms and windows of half overlap, as MONAI's sliding windows make them."""
    device = next(networks[0].parameters()).device
    total = torch.zeros(3, SCALE * lr.shape[1], SCALE * lr.shape[2], device=device)
    with torch.inference_mode():
        for network in networks:
            for transform in range(8):
                turned = dihedral(lr, transform).to(device)
                sr = torch.zeros(3, *(SCALE * side for side in turned.shape[1:]), device=device)
                count = torch.zeros_like(sr[:1])
                starts = [
                    (top, left)
                    for top in tile_starts(turned.shape[1], TILE, TILE // 2)
                    for left in tile_starts(turned.shape[2], TILE, TILE // 2)
                ]
                for first in range(0, len(starts), WINDOWS):
                    some = starts[first : first + WINDOWS]
                    tiles = torch.stack([turned[:, y : y + TILE, x : x + TILE] for y, x in some])
                    for (y, x), output in zip(some, network(tiles).clamp(0, 1), strict=True):
                        rows = slice(SCALE * y, SCALE * y + output.shape[1])
                        columns = slice(SCALE * x, SCALE * x + output.shape[2])
                        sr[:, rows, columns] += output
                        count[:, rows, columns] += 1
                total += undo_dihedral(sr / count, transform)
    return total / (8 * len(networks))


def ensemble_rows(check: Check) -> list[str]:
    networks = [check.network(case).eval() for case in check.cases]
    lr = torch.rand(3, check.side, check.side, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[], Tensor]] = {
        "loops over windows, float32": lambda: windows(networks, lr),
        "ours, float32": lambda: upscale(networks, lr, SCALE, Levels(TILE, blend="constant")),
        "ours, bfloat16": lambda: upscale(
            networks, lr, SCALE, Levels(TILE, blend="constant", precision="bfloat16")
        ),
    }
    rows = ["| ensemble | seconds | times faster | largest difference |", "|---|---|---|---|"]
    seconds, results = {}, {}
    for name, run in ways.items():
        run()
        begun = time.perf_counter()
        results[name] = run().cpu()
        seconds[name] = time.perf_counter() - begun
    first = next(iter(ways))
    for name in ways:
        apart = float((results[name] - results[first]).abs().max())
        rows.append(f"| {name} | {seconds[name]:.2f} | {seconds[first] / seconds[name]:.2f} | {apart:.1e} |")
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    options.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny networks")
    arguments = options.parse_args()
    if not torch.cuda.is_available() and not arguments.rehearse:
        print("skipped: PyTorch finds no GPU on this machine; --rehearse tries the script itself")
        return
    begun = time.monotonic()

    def left() -> float:
        return LIMIT - (time.monotonic() - begun)

    check = Check("cpu", TINY, 1.0, 150) if arguments.rehearse else Check("cuda", CASES, 12.0, 480)
    place = processor() if arguments.rehearse else torch.cuda.get_device_name()
    lines = [
        "# What a GPU makes of it",
        "",
        f"{place}; {versions(('gpnas', 'torch'))}; {date.today()}. ×{SCALE}, L1; random weights.",
        "",
    ]
    if not arguments.rehearse:
        lines += [f"Tests marked `gpu`: {tests()}.", ""]
    pairs = open_pairs(prepare(None, SCALE, workers=None), "train")
    lines += [*training_rows(check, pairs, left), ""]
    names = " and ".join(case.name for case in check.cases)
    lines += [
        f"The ensemble of {names}: {check.side}×{check.side} LR, tiles of {TILE}, eight transforms.",
        "",
    ]
    lines += ensemble_rows(check)
    text = "\n".join([*lines, "", f"{time.monotonic() - begun:.0f} s in all.", ""])
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
