"""Seconds and memory of the whole ensemble, beside plain loops around MONAI's sliding windows.

    python experiments/ensemble_speed.py [--blocks 3] [-o results/ensemble_speed.md]

Tiles of 120 LR pixels with half overlap, eight flips and transposes, three small networks. The plain loops
go over networks and transforms and call MONAI's `sliding_window_inference`; each output is clamped, as ours
are, and tiles are blended equally, so that both results are the same, which is asserted to 1e-5. All have
one thread. The ways alternate, so that whatever else the machine does strikes all; medians, and the median
of the ratios of neighbours.

Memory: a process of its own for each image, a tiny network, no self-ensemble, an overlap of a fifth; the
greatest resident size that the kernel saw (VmHWM). `upscale` holds LR and SR as float32; `upscale_rows` reads
rows that are made as they are asked for, and its finished rows are dropped.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import processor, versions
from torch import Tensor, nn

from gpnas_trainers import build
from gpnas_trainers.infer import Levels, dihedral, undo_dihedral, upscale, upscale_rows

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("drn", {"features": 16, "blocks": 2, "stages": 2}),
    ("drn", {"features": 16, "blocks": 3, "stages": 1}),
    ("rcan", {"features": 16, "groups": 1, "blocks": 2}),
]
SCALE, TILE, SIDE = 2, 120, 150
MEMORY_SIDES, OVERLAP = (1000, 4000), 24


def plain_loops(networks: list[nn.Module], lr: Tensor, windows: int) -> Tensor:
    """What a user writes with MONAI; so many windows pass a network at once."""
    from monai.inferers import sliding_window_inference

    total = torch.zeros(3, SCALE * lr.shape[1], SCALE * lr.shape[2])
    with torch.inference_mode():
        for network in networks:
            for transform in range(8):
                turned = dihedral(lr, transform)[None].contiguous()
                sr = sliding_window_inference(
                    turned, TILE, windows, lambda x, f=network: f(x).clamp(0, 1), overlap=0.5, mode="constant"
                )
                assert isinstance(sr, Tensor)
                total += undo_dihedral(sr[0], transform)
    return total / (8 * len(networks))


def speed(blocks: int) -> list[str]:
    """Rows of the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    networks = [build(family, SCALE, **axes).eval() for family, axes in NETWORKS]
    last = [deepcopy(each).to(memory_format=torch.channels_last) for each in networks]  # type: ignore[call-overload]
    lr = torch.rand(3, SIDE, SIDE)
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": partial(upscale, last, lr, SCALE, tile=TILE, blend="constant"),
        "MONAI, 1 window at once": partial(plain_loops, networks, lr, 1),
        "MONAI, 4 windows at once": partial(plain_loops, networks, lr, 4),
    }
    results = [run() for run in ways.values()]
    apart = max(float((each - results[0]).abs().max()) for each in results)
    assert apart <= 1e-5, apart
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(blocks):
        for name, run in ways.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    lines = [
        f"{SIDE}×{SIDE} LR, tiles of {TILE}, half overlap, ×{SCALE}; {blocks} runs of each way in turn; "
        f"results differ by at most {apart:.1e}. Ratio: a way's seconds by those of ours in the same turn, "
        "median (least–greatest). Ours keeps channels last and merges layers; MONAI's loops pass NCHW, as "
        "they are usually written, so the ratio holds these differences too.",
        "",
        "| way | median s | times ours |",
        "|---|---|---|",
    ]
    for name, taken in seconds.items():
        ratios = [theirs / our for theirs, our in zip(taken, seconds["ours"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        lines.append(f"| {name} | {statistics.median(taken):.2f} | {spread} |")
    return lines


class Made:
    """Rows that are made as they are asked for."""

    def __init__(self, side: int) -> None:
        self.height = self.width = side

    def rows(self, start: int, stop: int) -> Tensor:
        return torch.rand(3, stop - start, self.width)


def resident() -> int:
    """Bytes at most so far."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def one_image(way: str, side: int) -> None:
    """In a process of its own: bytes before and after."""
    torch.set_num_threads(1)
    network = build("drn", SCALE, features=4, blocks=1, stages=1)
    levels = Levels(TILE, OVERLAP, blend="constant", self_ensemble=False)
    upscale([network], torch.rand(3, TILE, TILE), SCALE, tile=TILE, self_ensemble=False)
    before = resident()
    if way == "upscale":
        lr = torch.rand(3, side, side)
        upscale([network], lr, SCALE, tile=TILE, overlap=OVERLAP, blend="constant", self_ensemble=False)
    else:
        for _ in upscale_rows([network], [Made(side)], SCALE, levels):
            pass
    print(before, resident(), flush=True)


def memory() -> Iterator[str]:
    """Rows of the table."""
    yield from (
        f"Memory, MiB; tiles of {TILE}, overlap {OVERLAP}. Before: after a single tile, which is "
        "what PyTorch and the networks take. Images: LR and SR as float32.",
        "",
        "| way | LR | before | peak | images | peak without images |",
        "|---|---|---|---|---|---|",
    )
    for way in ("upscale", "upscale_rows"):
        for side in MEMORY_SIDES:
            command = [sys.executable, __file__, "--one-image", way, str(side)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            before, peak = (int(each) / 2**20 for each in told)
            images = 12 * side**2 * (1 + SCALE**2) / 2**20 if way == "upscale" else 0
            numbers = f"{before:.0f} | {peak:.0f} | {images:.0f} | {peak - images:.0f}"
            yield f"| `{way}` | {side}×{side} | {numbers} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--blocks", type=int, default=3, help="runs of each way")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    options.add_argument("--one-image", nargs=2, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one_image:
        one_image(arguments.one_image[0], int(arguments.one_image[1]))
        return
    names = "; ".join(f"{family} ({', '.join(map(str, axes.values()))})" for family, axes in NETWORKS)
    lines = [
        "# The ensemble's speed and memory",
        "",
        f"{processor()}, one thread; {versions(('gpnas', 'torch', 'monai'))}; "
        f"{date.today()}. Networks: {names}.",
        "",
    ]
    for part in (speed(arguments.blocks), [""], memory()):
        for line in part:
            lines.append(line)
            print(line, flush=True)
            if arguments.output:
                arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
