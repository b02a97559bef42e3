"""Reports of searches of several lengths: seconds, bytes, and when a browser paints.

    python experiments/report_speed.py [--trials 16 500 3000]

Each search is of a formula in place of trainings, over 5 × 4 × 2 architectures with three evaluations each;
up to 100 trials are chosen as `gpnas search` chooses, more by chance. `gpnas report` runs in a process of its
own with one thread; its user seconds are counted, its start included. The page is opened three times in
headless Chromium, whose own marks say when it first painted and when all figures were drawn.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from machine import processor

from gpnas import Engine, SearchSpace
from gpnas.ask_tell import AskTell
from gpnas.journal import Header, Journal, Search
from gpnas.records import Candidate, Fidelity, Observation, Progress
from gpnas.run.setup import PSNR
from gpnas.space import CategoricalAxis, Family, IntegerAxis

STEPS = 300
CHOSEN = 100
"""Trials that are chosen by the engine, at most."""
SPACE = SearchSpace(
    [
        Family(
            "net",
            (
                IntegerAxis("width", (4, 8, 12, 16, 20)),
                IntegerAxis("depth", (1, 2, 3, 4)),
                CategoricalAxis("block", ("plain", "residual")),
            ),
        )
    ]
)


def value(candidate: Candidate, noise: random.Random) -> float:
    axes = candidate.architecture.axes
    return (
        28 + math.log(float(axes["width"])) / 4 - (float(axes["depth"]) - 3) ** 2 / 10 + noise.gauss(0, 0.02)
    )


def search(run: Path, trials: int) -> None:
    """A search of so many trials, in a journal as any other."""
    noise = random.Random(0)
    strategy = "mi+kg" if trials <= CHOSEN else "random"
    space = {"fingerprint": SPACE.fingerprint, **SPACE.to_document()}
    header = Header(trials, PSNR, Search(space, strategy, STEPS, 3))
    with Journal.create_or_open(run, header) as journal:
        if strategy == "random":
            candidates = [
                Candidate(
                    f"c{number:04d}",
                    SPACE[noise.randrange(len(SPACE))],
                    Fidelity(STEPS),
                    0,
                    {"phase": "random"},
                )
                for number in range(trials)
            ]
            journal.commit_candidates(candidates)
            for candidate in candidates:
                journal.commit_observation(trained(journal, candidate, noise))
            return
        engine = Engine(SPACE, strategy="mi+kg", trials=trials, steps=STEPS)
        with AskTell(engine, journal, trials=trials) as asked:
            while (candidate := asked.ask()) is not None:
                asked.tell(trained(journal, candidate, noise))


def trained(journal: Journal, candidate: Candidate, noise: random.Random) -> Observation:
    reached = value(candidate, noise)
    attempt = journal.start_attempt(candidate.id)
    for step in (100, 200, 300):
        progress = Progress(attempt, step, reached - 0.2 * (1 - step / STEPS), {}, step / 10)
        journal.record_progress(candidate.id, progress)
    return Observation(candidate, reached, None, 30.0)


def report(run: Path, page: Path) -> float:
    """User seconds of `gpnas report`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-m", "gpnas.cli", "report", str(run), "-o", str(page)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def painted(page: Path) -> tuple[float, float]:
    """Milliseconds until the first paint and until all figures are drawn: medians of three."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory() as profile:
        for each in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
            options.add_argument(each)
        driver: Any = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
        )
        try:
            measured = []
            for _ in range(3):
                driver.get(page.as_uri())
                script = "gpnas.drawn().then(() => arguments[0](performance.now()))"
                drawn = driver.execute_async_script(script)
                first = driver.execute_script(
                    "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
                )
                measured.append((first, drawn))
        finally:
            driver.quit()
    return sorted(first for first, _ in measured)[1], sorted(drawn for _, drawn in measured)[1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--trials", type=int, nargs="+", default=[16, 500, 3_000])
    trials = options.parse_args().trials
    print(f"Measured by `python experiments/report_speed.py` on {processor()}, {date.today()}.\n")
    print("| trials | report, user s | page, MB | first paint, ms | all figures drawn, ms |")
    print("|---|---|---|---|---|")
    for count in trials:
        with tempfile.TemporaryDirectory() as folder:
            run, page = Path(folder) / "run", Path(folder) / "report.html"
            search(run, count)
            seconds = report(run, page)
            first, drawn = painted(page)
            size = page.stat().st_size / 1e6
            print(f"| {count:,} | {seconds:.1f} | {size:.1f} | {first:.0f} | {drawn:.0f} |", flush=True)


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"\n{time.monotonic() - begun:.0f} s in all.", file=sys.stderr)
