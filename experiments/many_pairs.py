"""Pairs as many as the paper had: 19,000, prepared, interrupted, gone on with, and trained on.

    python experiments/many_pairs.py [--pairs 19000] [--side 128] [-o results/many_pairs.md]

HR images of `side` pixels are cut from the photographs that scikit-image and scikit-learn ship, LR images are
means of 2×2 pixels, all as PNG in a temporary folder; five LR files are truncated. `gpnas data prepare` is
killed by SIGKILL when half its time has passed, and run again. Told are its wall time, its greatest memory
(driver and workers added up, from /proc, shared pages counted by share), what it left out, and
what a training on the set then takes: memory, and the loader's share of its time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import processor, versions
from PIL import Image

from gpnas_trainers.pairs import open_pairs, prepare

SCALE = 2
TRUNCATED = 5


def make(folder: Path, count: int, side: int) -> int:
    """Writes the pairs; returns bytes of their pixels."""
    prepared = prepare(None, SCALE, workers=None)
    shipped = [open_pairs(prepared, split) for split in ("train", "validation")]
    for name in ("HR", f"LRx{SCALE}"):
        (folder / name).mkdir(parents=True)
    images = [pairs.image(index)[1].transpose(1, 2, 0) for pairs in shipped for index in range(len(pairs))]
    generator = np.random.default_rng(0)
    for number in range(count):
        image = images[number % len(images)]
        y, x = (int(generator.integers(0, extent - side + 1)) for extent in image.shape[:2])
        hr = image[y : y + side, x : x + side]
        lr = (
            hr.reshape(side // SCALE, SCALE, side // SCALE, SCALE, 3)
            .mean(axis=(1, 3))
            .round()
            .astype(np.uint8)
        )
        for name, pixels in (("HR", hr), (f"LRx{SCALE}", lr)):
            Image.fromarray(pixels).save(folder / name / f"{number:05d}.png", compress_level=1)
    for number in range(0, count, count // TRUNCATED)[:TRUNCATED]:
        path = folder / f"LRx{SCALE}" / f"{number:05d}.png"
        path.write_bytes(path.read_bytes()[:-200])
    return count * 3 * (side**2 + (side // SCALE) ** 2)


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def memory(pid: int) -> int:
    """Bytes of a process and its children, shared pages by share."""
    total = 0
    for each in family(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def run(command: list[str], kill_after: float | None = None) -> tuple[float, int, str]:
    """Seconds, greatest bytes, and what was printed."""
    begun, most = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None:
            with suppress(OSError):
                most = max(most, memory(process.pid))
            if kill_after is not None and time.monotonic() - begun > kill_after:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.2)
        output.seek(0)
        return time.monotonic() - begun, most, output.read()


TRAIN = """
import sys, time, torch
torch.set_num_threads(1)
from gpnas_trainers import build
from gpnas_trainers.pairs import open_pairs
from gpnas_trainers.train import Recipe, Training
pairs, validation = open_pairs(sys.argv[1], "train"), open_pairs(sys.argv[1], "validation")
spent = 0.0
draw = pairs.patches
def timed(*arguments, **named):
    global spent
    begun = time.perf_counter()
    drawn = draw(*arguments, **named)
    spent += time.perf_counter() - begun
    return drawn
pairs.patches = timed
network = build("drn", 2, features=16, blocks=4, stages=2)
recipe = Recipe(steps=400, evaluate_every=400, hr_patch=96)
training = Training(network, pairs, validation.head(4), recipe, seed=0)
begun = time.perf_counter()
training.advance()
seconds = time.perf_counter() - begun
anonymous = [line for line in open("/proc/self/status") if line.startswith("RssAnon")][0].split()[1]
print(spent / seconds, 400 / seconds, int(anonymous) / 1024)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=19_000)
    options.add_argument("--side", type=int, default=128)
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = make(folder / "pairs", arguments.pairs, arguments.side)
        command = [
            sys.executable,
            "-m",
            "gpnas.cli",
            "data",
            "prepare",
            str(folder / "pairs"),
            "--scale",
            "2",
        ]
        command += ["--ncc", "0.9", "--json", "-o"]
        whole, most, text = run([*command, str(folder / "whole")])
        document = json.loads(text)
        killed, _, _ = run([*command, str(folder / "again")], kill_after=whole / 2)
        rest, _, text = run([*command, str(folder / "again")])
        again = json.loads(text)
        assert again["fingerprint"] == document["fingerprint"], "an interrupted preparation gives another set"
        trained = subprocess.run(
            [sys.executable, "-c", TRAIN, document["prepared"]], check=True, capture_output=True, text=True
        )
        share, speed, anonymous = map(float, trained.stdout.split())
    damaged = sum(row["rule"] == "readable" for row in document["excluded"])
    kept = document["split"]["train"] + document["split"]["validation"]
    lines = [
        "# Many pairs",
        "",
        f"{processor()}, {os.cpu_count()} cores; {versions(('gpnas', 'numpy', 'pillow'))}; {date.today()}.",
        "",
        f"{arguments.pairs:,} pairs, HR {arguments.side}×{arguments.side}, ×{SCALE}, "
        f"{size / 2**20:,.0f} MiB of pixels; {TRUNCATED} LR files truncated.",
        "",
        "| what | measured |",
        "|---|---|",
        f"| `gpnas data prepare`, all cores | {whole:.0f} s, {arguments.pairs / whole:.0f} pairs/s |",
        f"| its memory, all processes | {most / 2**20:,.0f} MiB |",
        f"| kept; left out as damaged; by other rules | {kept:,}; {damaged}; "
        f"{len(document['excluded']) - damaged:,} |",
        f"| killed after {killed:.0f} s, the same command again | {rest:.0f} s, the same fingerprint |",
        f"| a training on it (DRN (16, 4, 2), 8 patches of 96): memory of its own | {anonymous:,.0f} MiB |",
        f"| the loader's share of its time, at {speed:.1f} steps/s | {share:.1%} |",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
