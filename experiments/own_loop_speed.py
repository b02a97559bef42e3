"""How long a loop of one's own waits for the search.

    python experiments/own_loop_speed.py

Opening a run of 1,000 observations from Python; `gpnas ask` and `gpnas tell` as whole commands at 200
observations, and beside them what Python takes to load PyTorch, which `ask` needs. Medians of five; beside
each the processor's seconds, which a busy machine does not stretch.
Writes `results/own_loop_speed.md`.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from machine import processor, versions

import gpnas
from gpnas.own_search import OwnSearch
from gpnas.space import Family, IntegerAxis, SearchSpace

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("gpnas", "torch", "botorch")
SPACE = SearchSpace([Family("net", tuple(IntegerAxis(name, tuple(range(1, 11))) for name in "abc"))])
TIMES = 5


def filled(run: Path, count: int) -> OwnSearch:
    search = gpnas.open_search(run, SPACE, trials=100)
    with search.journal.writing(keep=True):
        for place in range(count):
            architecture = SPACE[place * 617 % len(SPACE)]
            a, b, c = (float(each) for each in architecture.axes.values())
            search.enter(architecture, 30 - (a - 6) ** 2 / 20 - (b - 3) ** 2 / 30 + c / 10, seconds=60.0)
    return search


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall, and of the processor, this process's children included."""

    def spent() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))

    begun, used = time.perf_counter(), spent()
    call()
    return time.perf_counter() - begun, spent() - used


def command(*arguments: object) -> Callable[[], object]:
    line = [sys.executable, "-m", "gpnas.cli", *map(str, arguments)]
    return lambda: subprocess.run(line, check=True, capture_output=True)


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        large, usual = Path(folder) / "large", Path(folder) / "usual"
        filled(large, 1000).close()
        filled(usual, 200).close()
        opened = [timed(lambda: gpnas.open_search(large).close()) for _ in range(TIMES)]
        rows.append(("open a run of 1,000 observations", opened))
        asked = [timed(command("ask", usual)) for _ in range(TIMES)]
        rows.append(("`gpnas ask` at 200 observations, 1,000 architectures", asked))
        told = [timed(command("tell", usual, f"c{200 + place:04d}", 28.5)) for place in range(TIMES)]
        rows.append(("`gpnas tell` at 200 observations", told))
        loaded = [timed(lambda: subprocess.run([sys.executable, "-c", "import torch"])) for _ in range(TIMES)]
        rows.append(("`import torch` alone, which `ask` needs", loaded))
    lines = [
        "# What a loop of one's own waits for",
        "",
        f"`python experiments/own_loop_speed.py`, {date.today()}, {processor()}, {versions(PACKAGES)}; "
        f"load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores.",
        "",
        "| what | seconds | seconds of the processor |",
        "|---|---|---|",
    ]
    for name, times in rows:
        wall, used = (statistics.median(each) for each in zip(*times, strict=True))
        lines.append(f"| {name} | {wall:.2f} | {used:.2f} |")
    print("\n".join([*lines, ""]))
    (RESULTS / "own_loop_speed.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
