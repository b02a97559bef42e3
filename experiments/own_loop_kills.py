"""Loops of one's own that are killed: is an observation lost, or a candidate trained twice in silence?

    python experiments/own_loop_kills.py [--kills 200] [--processes 4]

Processes ask and tell on one run folder; each writes to a file beside it, before the search may know, which
attempt it begins, and after `tell` has returned what it told. SIGKILL ends them at random moments, in mid
commit, too, and others take their places. In the end the file and the journal are held against each other.
Writes `results/own_loop_kills.md`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from machine import processor, versions

import gpnas
import gpnas.engine  # loaded once, before processes are forked
from gpnas.journal import Journal
from gpnas.run.cores import use_one_core
from gpnas.space import Family, IntegerAxis, SearchSpace

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("gpnas", "torch", "botorch")
SPACE = SearchSpace([Family("net", tuple(IntegerAxis(name, tuple(range(1, 23))) for name in "abc"))])


def note(notes: Path, *words: object) -> None:
    """Adds a line to the file; the kernel keeps it whatever becomes of the process."""
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)


def worker(run: Path, notes: Path) -> None:
    use_one_core()
    with gpnas.open_search(run) as search:
        while (candidate := search.ask()) is not None:
            note(notes, "began", candidate.id, candidate.attempt)
            time.sleep(random.expovariate(100))
            value = float(sum(int(size) for size in candidate.axes.values()))
            counted = search.tell(candidate, value)
            note(notes, "told", candidate.id, candidate.attempt, value, counted)


def forked(run: Path, notes: Path) -> int:
    child = os.fork()
    if child == 0:
        random.seed(os.getpid())
        status = 1
        try:
            worker(run, notes)
            status = 0
        finally:
            os._exit(status)
    return child


def campaign(folder: Path, kills: int, processes: int) -> dict[str, int]:
    """Counts what went wrong, and what the campaign was."""
    run, notes = folder / "run", folder / "notes"
    gpnas.open_search(run, SPACE, trials=100_000, strategy="random").close()
    generator = random.Random(0)
    children = [forked(run, notes) for _ in range(processes)]
    killed = ended = 0
    while killed < kills:
        time.sleep(generator.uniform(0.0, 0.5))
        place = generator.randrange(processes)
        os.kill(children[place], signal.SIGKILL)
        _, status = os.waitpid(children[place], 0)
        killed += os.WIFSIGNALED(status)
        ended += not os.WIFSIGNALED(status)
        children[place] = forked(run, notes)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with gpnas.open_search(run, trials=len(_read(run)[0]) or 1) as search:  # what was lost is trained
        while (candidate := search.ask()) is not None:
            search.tell(candidate, float(sum(int(size) for size in candidate.axes.values())))
    return judged(run, notes) | {"kills": killed + processes, "processes that ended by an error": ended}


def _read(run: Path) -> tuple[list[gpnas.Candidate], dict[str, float | None]]:
    with Journal.read(run) as journal:
        return journal.candidates(), {each.candidate.id: each.value for each in journal.observations()}


def judged(run: Path, notes: Path) -> dict[str, int]:
    candidates, observed = _read(run)
    with Journal.read(run) as journal:
        attempts = Counter(each.candidate for each in journal.attempts())
        outcomes = Counter(each.outcome for each in journal.attempts())
    lines = [line.split() for line in notes.read_text().splitlines()]
    began = Counter((name, attempt) for kind, name, attempt, *_ in lines if kind == "began")
    told = [line for line in lines if line[0] == "told"]
    trainings = Counter(name for name, _ in began.elements())
    return {
        "candidates": len(candidates),
        "observations": len(observed),
        "trainings begun": sum(began.values()),
        "attempts lost and given again": outcomes["lost"],
        "observations told and lost": sum(observed.get(line[1]) != float(line[3]) for line in told),
        "candidates without an observation": sum(each.id not in observed for each in candidates),
        "attempts begun twice": sum(count > 1 for count in began.values()),
        "trainings of which the journal has no attempt": sum(
            max(0, count - attempts[name]) for name, count in trainings.items()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), options.kills, options.processes)
    command = f"python experiments/own_loop_kills.py --kills {options.kills} --processes {options.processes}"
    lines = [
        "# Loops of one's own, killed",
        "",
        f"`{command}`, {date.today()}, {processor()}, {versions(PACKAGES)}.",
        "",
        "| what | count |",
        "|---|---|",
        *(f"| {name} | {count:,} |" for name, count in counts.items()),
        "",
    ]
    print("\n".join(lines))
    (RESULTS / "own_loop_kills.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
