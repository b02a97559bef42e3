"""Kills a search at random, again and again, and checks that nothing is lost.

    python experiments/kill_campaign.py [--kills 30] [--trials 16] [--seed 0] [--json]

A search of tiny DRNs, one at a time, is begun; at random moments its driver, the worker that trains or
Ray's raylet is killed with SIGKILL. Where the driver was, the same command is given again; the others it
survives. At each kill the newest checkpoint on the disk is compared with the last word in the journal: what
lies between them is trained again. In the end the journal is compared with that of a search that nobody
killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from machine import processor, versions

from gpnas.dispatch.trial import CHECKPOINT_SECONDS, REPORT_SECONDS
from gpnas.journal import Journal

SPACE = """\
scale: 2
families:
  drn: {features: [8, 12, 16, 20], blocks: [1, 2], stages: [1, 2, 3]}
search: {trials: TRIALS, concurrent: 1, validation_images: 1, early_stopping: false, portfolio: 2}
recipe: {steps: STEPS, batch_size: 4, hr_patch: 48, evaluate_every: 60, warmup_steps: 5}
"""
TARGETS = ("driver", "worker", "raylet")
PATIENCE = 180.0
"""Seconds without any progress after which the search counts as hung."""


def command(folder: Path, run: Path) -> list[str]:
    space = str(folder / "space.yaml")
    return [sys.executable, "-m", "gpnas.cli", "search", "--space", space, "--run", str(run), "--json"]


def processes(session: int, pattern: str) -> list[int]:
    """Processes of one driver, told by its session."""
    listed = ["pgrep", "--session", str(session), "-f", pattern]
    found = subprocess.run(listed, capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def standing(run: Path) -> tuple[int, str | None, int, float]:
    """Observations; the candidate that is trained now, with its last step and seconds in the journal."""
    if not (run / "journal.sqlite").exists():
        return 0, None, 0, 0.0
    with Journal.read(run) as journal, journal.moment():
        observed = len(journal.observations())
        pending = journal.pending()
        if not pending:
            return observed, None, 0, 0.0
        name = pending[0].id
        running = any(attempt.ended is None for attempt in journal.attempts(name))
        rows = journal.progress(name)
        step = max((row.step for row in rows), default=0)
        seconds = max((row.seconds for row in rows), default=0.0)
        return observed, name if running else None, step, seconds


def checkpointed(run: Path, candidate: str) -> tuple[int, float]:
    """Steps and seconds that the newest whole checkpoint of a candidate holds."""
    files = sorted((run / "candidates" / candidate).glob("attempt-*/checkpoint.pt"), key=os.path.getmtime)
    for path in reversed(files):
        try:
            document = torch.load(path, weights_only=True)
        except Exception:
            continue
        return int(document["state"]["step"]), float(document["seconds"])
    return 0, 0.0


def end(process: subprocess.Popen[str]) -> None:
    """Waits until a driver is gone; what it started has three seconds more, as if a person began again."""
    try:
        process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 3
    while (left := processes(process.pid, ".")) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def campaign(folder: Path, kills: int, trials: int, longest: float, seed: int) -> dict[str, Any]:
    """Kills at random until so many kills are done, spread over the candidates; then lets the search end."""
    draw = random.Random(seed)  # of the targets' order, and of seconds between kills
    targets = [each for _ in range(-(-kills // len(TARGETS))) for each in draw.sample(TARGETS, len(TARGETS))]
    run = folder / "killed"
    done: Counter[str] = Counter()
    starts, repeated_steps, repeated_seconds, hung = 0, [], [], 0
    begun = time.monotonic()
    while True:
        process = subprocess.Popen(
            command(folder, run),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        starts += 1
        moved, before = time.monotonic(), standing(run)
        due = None
        while process.poll() is None:
            now = standing(run)
            if now != before:
                moved, before = time.monotonic(), now
            if time.monotonic() - moved > PATIENCE:
                hung += 1
                process.kill()
            allowed = kills * min(now[0] + 1, trials) / trials
            if due is None and now[1] is not None and done.total() < allowed:
                due = time.monotonic() + draw.uniform(0.2, longest)
            if due is not None and time.monotonic() >= due and now[1] is not None:
                target = targets[done.total()]
                pids = {
                    "driver": [process.pid],
                    "worker": processes(process.pid, "ray::(ResourceTrainable|c[0-9])"),
                    "raylet": processes(process.pid, "raylet/raylet "),
                }[target]
                due = None
                if not pids:
                    continue
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                done[target] += 1
                print(f"kill {done.total()}: {target}, {now[0]} observed", file=sys.stderr, flush=True)
                if target == "driver":
                    end(process)
                else:
                    time.sleep(0.3)
                _, name, step, seconds = standing(run)
                if name is not None:
                    kept_step, kept_seconds = checkpointed(run, name)
                    repeated_steps.append(max(0, step - kept_step))
                    repeated_seconds.append(max(0.0, seconds - kept_seconds))
            time.sleep(0.05)
        end(process)
        if process.returncode == 0 and done.total() >= kills:
            break
        if process.returncode == 0:
            raise SystemExit("the search ended before all kills were done; grant more trials")
    return {
        "kills": dict(done),
        "starts": starts,
        "hung": hung,
        "seconds": time.monotonic() - begun,
        "repeated_steps": repeated_steps,
        "repeated_seconds": repeated_seconds,
    }


def content(run: Path) -> list[dict[str, Any]]:
    """What must not depend on kills: candidates, order, decisions, seeds, values."""
    with Journal.read(run) as journal:
        observed = [observation.candidate.id for observation in journal.observations()]
        rows = {each.candidate.id: each for each in journal.observations()}
        return [
            {
                "id": candidate.id,
                "architecture": candidate.architecture.to_json(),
                "seed": candidate.seed,
                "steps": candidate.fidelity.steps,
                "phase": candidate.decision.get("phase"),
                "place": observed.index(candidate.id) if candidate.id in rows else None,
                "psnr": rows[candidate.id].value if candidate.id in rows else None,
                "metrics": dict(rows[candidate.id].metrics) if candidate.id in rows else None,
            }
            for candidate in journal.candidates()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        text = SPACE.replace("TRIALS", str(options.trials)).replace("STEPS", str(options.steps))
        (folder / "space.yaml").write_text(text)
        told = campaign(folder, options.kills, options.trials, options.steps / 150, options.seed)
        subprocess.run(command(folder, folder / "whole"), check=True, capture_output=True)
        killed, whole = content(folder / "killed"), content(folder / "whole")
        with Journal.read(folder / "killed") as journal:
            observed = Counter(each.candidate.id for each in journal.observations())
            attempts = len(journal.attempts())
        told |= {
            "candidates": len(killed),
            "lost": options.trials - len(observed),
            "duplicated": sum(count - 1 for count in observed.values())
            + len(killed)
            - len({json.dumps([row["architecture"], row["seed"]]) for row in killed}),
            "attempts": attempts,
            "equal": killed == whole,
            "interval": CHECKPOINT_SECONDS + REPORT_SECONDS,
        }
    if options.json:
        print(json.dumps(told))
        return
    steps, seconds = told["repeated_steps"], told["repeated_seconds"]
    names = ", ".join(f"{told['kills'].get(target, 0)} of the {target}" for target in TARGETS)
    rows = {
        "kill -9": (f"{sum(told['kills'].values())}: {names}", options.kills),
        "starts of the command": (told["starts"], f"{1 + told['kills'].get('driver', 0)}, no more"),
        f"attempts at {told['candidates']} candidates": (attempts, ""),
        "candidates lost": (told["lost"], 0),
        "candidates duplicated": (told["duplicated"], 0),
        "searches that hung": (told["hung"], 0),
        "trained again at a kill": (
            f"median {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s, {max(steps)} steps",
            f"one checkpoint interval: {told['interval']:.0f} s",
        ),
        "journal equal in content to that of an unkilled search": (told["equal"], True),
        "wall time": (f"{told['seconds']:.0f} s", ""),
    }
    place = (
        f"{processor()}, {os.cpu_count()} cores, {versions(['ray', 'torch'])}, {time.strftime('%Y-%m-%d')}"
    )
    print(f"# Kill campaign\n\n`python experiments/kill_campaign.py`, seed {options.seed}, {place}.\n")
    print("| what | measured | goal |\n|---|---|---|")
    for what, (measured, goal) in rows.items():
        print(f"| {what} | {measured} | {goal} |")


if __name__ == "__main__":
    main()
