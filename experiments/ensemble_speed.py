"""Seconds and memory of the whole ensemble, beside plain loops around MONAI's sliding windows.

    python experiments/ensemble_speed.py speed [--blocks 12] [-o results/ensemble_speed.md]
    python experiments/ensemble_speed.py memory [-o results/ensemble_memory.md]
    python experiments/ensemble_speed.py large [--side 10000] [-o results/ensemble_large.md]

Speed: tiles of 120 LR pixels with half overlap, eight flips and transposes, three small networks. The plain
loops go over networks and transforms and call MONAI's `sliding_window_inference`; each output is clamped, as
ours are, and tiles are blended equally, so that both results are the same, which is asserted to 1e-5. All
have one thread, and its seconds at work are counted, since the machine may be shared. The ways alternate, so
that what else it does strikes all; medians, and the median of the ratios within a turn with its interval by
order statistics, 95 % or more. MONAI is installed as
`experiments/requirements-peers.txt` says.

Memory: one small network and no self-ensemble, and three with it; each image in a process of its own, whose
greatest resident size the kernel saw (VmHWM). `upscale` holds LR and SR as float32; `upscale_rows` reads rows
of 8 bits as they are made and lets finished ones of 8 bits go; the files go through `gpnas upscale`.

Large: an image that does not fit a batch by far, put together of photographs that scikit-image brings,
from disk to disk in the same way, beside a small one of the same kind. Its files lie in a temporary folder
(`TMPDIR`), some 1.5 GB at most, and are removed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from datetime import date
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import processor, versions
from PIL import Image
from torch import Tensor, nn

from gpnas.bundle import Description, Member, write_bundle
from gpnas.records import Architecture
from gpnas_trainers import build
from gpnas_trainers.images import read_header
from gpnas_trainers.infer import Levels, dihedral, undo_dihedral, upscale, upscale_rows

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("drn", {"features": 16, "blocks": 2, "stages": 2}),
    ("drn", {"features": 16, "blocks": 3, "stages": 1}),
    ("rcan", {"features": 16, "groups": 1, "blocks": 2}),
]
SCALE, TILE, SIDE = 2, 120, 150
MEMORY_SIDES = (1000, 4000)
ACROSS = 4
"""Pictures of a mosaic's side."""
SMALL = {"features": 4, "blocks": 1, "stages": 1}


def plain_loops(
    networks: list[nn.Module], lr: Tensor, windows: int, layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """What a user writes with MONAI; so many windows pass a network at once."""
    from monai.inferers import sliding_window_inference

    total = torch.zeros(3, SCALE * lr.shape[1], SCALE * lr.shape[2])
    with torch.inference_mode():
        for network in networks:
            for transform in range(8):
                turned = dihedral(lr, transform)[None].contiguous(memory_format=layout)
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
        "ours": partial(upscale, last, lr, SCALE, Levels(TILE, blend="constant")),
        "MONAI, 1 window at once": partial(plain_loops, networks, lr, 1),
        "MONAI, 4 windows at once": partial(plain_loops, networks, lr, 4),
        "MONAI, 1 window, channels last": partial(plain_loops, last, lr, 1, torch.channels_last),
        "MONAI, 4 windows, channels last": partial(plain_loops, last, lr, 4, torch.channels_last),
    }
    results = [run() for run in ways.values()]
    apart = max(float((each - results[0]).abs().max()) for each in results)
    assert apart <= 1e-5, apart
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(blocks):
        for name, run in ways.items():
            begun = time.process_time()
            run()
            seconds[name].append(time.process_time() - begun)
    lines = [
        f"{SIDE}×{SIDE} LR, tiles of {TILE}, half overlap, ×{SCALE}; {blocks} runs of each way in turn; "
        f"results differ by at most {apart:.1e}. Seconds of the processor. Ratio: a way's seconds by those "
        "of ours in the same turn, median (its interval). Ours keeps channels last and merges layers; "
        "MONAI's loops are shown in "
        "PyTorch's usual layout, as they are usually written, and with channels last.",
        "",
        "| way | median s | times ours |",
        "|---|---|---|",
    ]
    for name, taken in seconds.items():
        ratios = sorted(theirs / our for theirs, our in zip(taken, seconds["ours"], strict=True))
        low, high = interval(ratios)
        ratio = f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f})"
        lines.append(f"| {name} | {statistics.median(taken):.2f} | {ratio} |")
    return lines


def interval(ordered: list[float]) -> tuple[float, float]:
    """Values between which the median lies with a probability of at least 95 %, or the outermost ones."""
    count, drop, beyond = len(ordered), 0, 0.5 ** len(ordered)
    while 2 * (beyond + comb(count, drop + 1) * 0.5**count) <= 0.05:
        drop += 1
        beyond += comb(count, drop) * 0.5**count
    return ordered[drop], ordered[-1 - drop]


class Made:
    """Rows that are made as they are asked for."""

    def __init__(self, side: int) -> None:
        self.height = self.width = side

    def rows(self, start: int, stop: int) -> Tensor:
        return torch.randint(256, (3, stop - start, self.width), dtype=torch.uint8)


def resident() -> int:
    """Bytes at most so far."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def one_image(way: str, side: int, overlap: int) -> None:
    """Bytes before and after, in a process of its own."""
    torch.set_num_threads(1)
    network = build("drn", SCALE, **SMALL)
    levels = Levels(TILE, overlap, blend="constant", self_ensemble=False)
    upscale([network], torch.rand(3, TILE, TILE), SCALE, Levels(tile=TILE, self_ensemble=False))
    before, begun = resident(), time.perf_counter()
    if way == "upscale":
        lr = torch.rand(3, side, side)
        upscale(
            [network], lr, SCALE, Levels(tile=TILE, overlap=overlap, blend="constant", self_ensemble=False)
        )
    elif way == "upscale_rows":
        for _ in upscale_rows([network], [Made(side)], SCALE, levels, bits=8):
            pass
    else:
        from gpnas.cli import main as gpnas

        source, target, *levels = way.split()
        options = ["--tile", str(TILE), "--overlap", str(overlap), "--json"]
        options += (
            {"three": [], "outlier": ["--drop-outlier"]}[levels[0]] if levels else ["--no-self-ensemble"]
        )
        bundle = "bundle-of-three" if levels else "bundle"
        assert gpnas(["upscale", bundle, f"{side}.{source}", "-o", f"sr.{target}", *options]) == 0
    print(before, resident(), time.perf_counter() - begun, flush=True)


def small_bundle(name: str = "bundle", count: int = 1) -> None:
    """A bundle of so many small networks, in the working folder."""
    architecture = Architecture("drn", SMALL)
    networks = [build("drn", SCALE, **SMALL) for _ in range(count)]
    members = [Member(architecture, each.state_dict(), 1 / count, {}, None) for each in networks]
    described = Description(
        scale=SCALE,
        recipe={},
        data={"fingerprint": "0", "validation": ""},
        metrics={"bicubic": 20.0, "best": 20.0, "ensemble": 20.0},
        seed=0,
        versions={},
        machine={},
    )
    write_bundle(Path(name), members, described)


def prepare() -> None:
    """The small network's bundle and smooth images, in the working folder."""
    small_bundle()
    small_bundle("bundle-of-three", 3)
    generator = np.random.default_rng(0)
    for side in MEMORY_SIDES:
        rough = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        image = Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)
        image.save(f"{side}.png")
        image.save(f"{side}.jpg", quality=95)


def mosaic(side: int) -> None:
    """A PNG of sixteen pictures, written four by four: photographs, enlarged, and their mirror images."""
    from skimage import data

    from gpnas_trainers.images import writing

    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.retina()]
    across = side // ACROSS
    with writing(Path(f"{side}.png"), side, side, 8) as write:
        for row in range(ACROSS):
            pictures = []
            for place in range(row * ACROSS, (row + 1) * ACROSS):
                image = Image.fromarray(photographs[place % len(photographs)]).resize(
                    (across, across), Image.Resampling.BICUBIC
                )
                pictures.append(np.asarray(image)[:, :: -1 if place % 2 else 1])
            write(torch.from_numpy(np.concatenate(pictures, axis=1)).permute(2, 0, 1))


def measured(folder: str, *what: str) -> list[float]:
    """What a part of this script prints in a process of its own: `one_image`'s bytes and seconds."""
    command = [sys.executable, str(Path(__file__).resolve()), *what]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    return [float(each) for each in told.splitlines()[-1].split()] if told else []


def large(side: int) -> Iterator[str]:
    """Rows of the table."""
    yield from (
        f"`gpnas upscale`, tiles of {TILE}, ×{SCALE}, no self-ensemble. Before: MiB after a single tile, "
        "which is what PyTorch and the network take. Peak: MiB. Last column: the peak by that of the "
        f"{MEMORY_SIDES[0]}×{MEMORY_SIDES[0]} image.",
        "",
        "| files | overlap | LR | SR | read MB | written MB | SR in memory MB | s | before | peak | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    )
    with tempfile.TemporaryDirectory() as folder:
        for each in (MEMORY_SIDES[0], side):
            measured(folder, "prepare-large", str(each))
        for way, overlap in (("png tif", 24), ("png png", 60)):
            source, target = way.split()
            least = 0.0
            for each in (MEMORY_SIDES[0], side):
                before, peak, seconds = measured(folder, "one-image", way, str(each), str(overlap))
                least = least or peak
                given, made = Path(folder, f"{each}.{source}"), Path(folder, f"sr.{target}")
                header = read_header(made, max_pixels=(SCALE * each) ** 2)
                assert (header.height, header.width) == (SCALE * each, SCALE * each)
                sizes = [given.stat().st_size, made.stat().st_size, 3 * (SCALE * each) ** 2]
                megabytes = " | ".join(f"{size / 1e6:.0f}" for size in sizes)
                made.unlink()
                yield (
                    f"| {source} to {target} | {overlap} | {each}×{each} | {SCALE * each}×{SCALE * each} "
                    f"| {megabytes} | {seconds:.0f} | {before / 2**20:.0f} | {peak / 2**20:.0f} "
                    f"| {peak / least:.2f} |"
                )


def memory() -> Iterator[str]:
    """Rows of the table."""
    yield from (
        f"MiB; tiles of {TILE}, ×{SCALE}. Before: after a single tile, which is what PyTorch and the "
        "network take. Images: LR and SR as float32. `upscale_rows`: of "
        "8 bits, read and made. Last column: the peak without images by that of the "
        f"{MEMORY_SIDES[0]}×{MEMORY_SIDES[0]} image.",
        "",
        "| way | overlap | LR | before | peak | images | peak without images | ratio |",
        "|---|---|---|---|---|---|---|---|",
    )
    ways = [("upscale", 24), ("upscale_rows", 24), ("upscale_rows", 60)]
    ways += [("png png", 24), ("png png", 60), ("jpg tif", 24), ("jpg jpg", 24)]
    ways += [("png png three", 60), ("png png outlier", 60)]
    with tempfile.TemporaryDirectory() as folder:
        measured(folder, "prepare")
        for way, overlap in ways:
            least = 0.0
            for side in MEMORY_SIDES:
                told = measured(folder, "one-image", way, str(side), str(overlap))
                before, peak = (each / 2**20 for each in told[:2])
                images = 12 * side**2 * (1 + SCALE**2) / 2**20 if way == "upscale" else 0
                least = least or peak - images
                name = f"`{way}`" if " " not in way else "`gpnas upscale`, {} to {}".format(*way.split()[:2])
                name += ", three networks, ×8" if way.endswith(("three", "outlier")) else ""
                name += ", `--drop-outlier`" if way.endswith("outlier") else ""
                numbers = f"{before:.0f} | {peak:.0f} | {images:.0f} | {peak - images:.0f}"
                yield f"| {name} | {overlap} | {side}×{side} | {numbers} | {(peak - images) / least:.2f} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "part", choices=("speed", "memory", "large", "one-image", "prepare", "prepare-large")
    )
    options.add_argument("what", nargs="*", help=argparse.SUPPRESS)
    options.add_argument("--blocks", type=int, default=12, help="runs of each way")
    options.add_argument("--side", type=int, default=10_000, help="of the large image, LR pixels")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    match arguments.part:
        case "one-image":
            way, side, overlap = arguments.what
            one_image(way, int(side), int(overlap))
            return
        case "prepare":
            prepare()
            return
        case "prepare-large":
            small_bundle()
            mosaic(int(arguments.what[0]))
            return
        case "speed":
            table: Iterable[str] = speed(arguments.blocks)
            title, used = "The ensemble's speed", "; ".join(map(named, NETWORKS))
        case "large":
            table, title = large(arguments.side), "A large image, from disk to disk"
            used = named(("drn", SMALL))
        case _:
            table, title, used = memory(), "The ensemble's memory", named(("drn", SMALL))
    lines = [
        f"# {title}",
        "",
        f"{processor()}, one thread; {versions(('gpnas', 'torch', 'monai', 'pyvips'))}; {date.today()}. "
        f"Networks: {used}.",
        "",
    ]
    for line in table:
        lines.append(line)
        print(line, flush=True)
        if arguments.output:
            arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def named(network: tuple[str, dict[str, Any]]) -> str:
    family, axes = network
    return f"{family} ({', '.join(map(str, axes.values()))})"


if __name__ == "__main__":
    main()
