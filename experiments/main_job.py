"""The main job, measured: wall time, busy share of the workers, memory, and what it delivers.

    python experiments/main_job.py [--trials 16] [--data DIR] [--picture FILE]

Runs `gpnas search --space drn.yaml` in a temporary run folder and prints a Markdown table. The busy
share is the sum of the trials' training and validation seconds over workers × wall time, from the
first trial's start to the last trial's end, as the journal has them. Memory is the sum of
proportional set sizes over the driver, Ray and the trials, twice a second. The picture shows a
validation photograph: LR, bicubic, the delivered ensemble, HR.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date, datetime
from pathlib import Path

import torch
from machine import processor
from PIL import Image

from gpnas.bundle import read_bundle
from gpnas.ensemble import load_networks
from gpnas.evaluation import evaluation_pairs
from gpnas.journal import Journal
from gpnas_trainers.infer import upscale
from gpnas_trainers.pairs import bicubic_upscale


def memory_of_session(session: int) -> float:
    """Proportional set size in MiB of all processes of a session."""
    total = 0
    listed = subprocess.run(["pgrep", "--session", str(session)], capture_output=True, text=True)
    for pid in listed.stdout.split():
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def busy_share(run: Path) -> tuple[float, float]:
    """Busy share of the workers, and the wall time in seconds that it refers to."""
    with Journal.read(run) as journal:
        attempts = journal.attempts()
        started = min(datetime.fromisoformat(attempt.started) for attempt in attempts)
        ended = max(datetime.fromisoformat(attempt.ended) for attempt in attempts if attempt.ended)
        seconds = sum(observation.seconds for observation in journal.observations())
        wall = (ended - started).total_seconds()
        # an attempt is entered at its first report, when it has trained about a second
        return min(1.0, seconds / (journal.header.concurrent * wall)), wall


def picture(path: Path, target: Path, *, side: int = 48, zoom: int = 2) -> None:
    """Writes crops of the first validation photograph side by side."""
    bundle = read_bundle(path)
    (pairs,) = evaluation_pairs(bundle, None, print)
    lr, hr = pairs.tensors(0)
    weights = [member.weight for member in bundle.members]
    sr = upscale(load_networks(bundle), lr, bundle.scale, weights=weights)
    enlarged = lr.repeat_interleave(bundle.scale, dim=1).repeat_interleave(bundle.scale, dim=2)
    y, x = (bundle.scale * (length - side) // 2 for length in lr.shape[1:])
    views = [enlarged, bicubic_upscale(lr, bundle.scale), sr, hr]
    row = torch.cat([view[:, y : y + 2 * side, x : x + 2 * side] for view in views], dim=2)
    row = row.repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2)
    Image.fromarray((row * 255).round().byte().permute(1, 2, 0).contiguous().numpy()).save(target)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--trials", type=int, default=16)
    options.add_argument("--data", type=Path)
    options.add_argument("--picture", type=Path, help="PNG to write")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "gpnas.cli", "search", "--space", "drn.yaml", "--json"]
        command += ["--run", str(run), "--trials", str(arguments.trials)]
        command += ["--data", str(arguments.data)] if arguments.data else []
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory_of_session(process.pid))
            time.sleep(0.5)
        wall = time.monotonic() - begun
        assert process.stdout is not None
        result = json.loads(process.stdout.read())
        share, trials_wall = busy_share(run)
        if arguments.picture is not None:
            picture(run / "bundle", arguments.picture)
    psnr = result["psnr"]
    print(f"{processor()}, {os.cpu_count()} cores, {date.today()}\n")
    print("| what | measured |\n|---|---|")
    print(f"| trials observed / failed | {result['trials']['observed']} / {result['trials']['failed']} |")
    print(f"| wall time of the command | {wall:.0f} s |")
    print(f"| of which trials | {trials_wall:.0f} s |")
    print(f"| busy share of the workers | {share:.0%} |")
    print(f"| peak memory in all | {peak / 1024:.2f} GiB |")
    print(f"| bicubic | {psnr['bicubic']:.2f} dB |")
    print(f"| best network | {psnr['best']:.2f} dB |")
    print(f"| portfolio, averaged | {psnr['average']:.3f} dB |")
    print(f"| portfolio, and over eight transforms | {psnr['ensemble']:.3f} dB |")


if __name__ == "__main__":
    main()
