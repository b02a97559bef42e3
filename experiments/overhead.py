"""What the search costs beside the trainings: latency, dispatch, driver memory, busy workers.

    python experiments/overhead.py [--parts start latency dispatch busy peer] [--trials N] [--beside CHECKOUT]

Start: from the typed command, in a process of its own, to the first result, of a training of one step.
Latency: from the moment a suggestion is handed to Tune to the first training step, as the first report
of each trial tells (its arrival less the seconds it has trained; so the report's own way is counted in).
Dispatch and memory: no-op trials, by the real conductor, journal (synced), monitoring and Tune, with a
random engine; two workers. Busy: real trainings of about 30 s, their seconds of training and validation
over workers × wall time.
The peer is Ray Tune as its documentation has it: a function that is given to Tuner with
`Searcher`-less random search, `reuse_actors` left at its default.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from machine import processor, versions

from gpnas import Engine, SearchSpace
from gpnas.data import Rules, prepared_pairs
from gpnas.dispatch import search, session
from gpnas.dispatch.conductor import Event
from gpnas.dispatch.report import TrialReport, to_result
from gpnas.dispatch.request import Means, Request
from gpnas.dispatch.work import Work
from gpnas.journal import Header, Journal, Search
from gpnas.records import Candidate, Progress
from gpnas.run.setup import PSNR, Data, Setup
from gpnas.run.storage import open_storage
from gpnas_trainers.train import Recipe

SPACE = """\
scale: 2
families:
  drn: {features: [8, 12, 16, 20], blocks: [1, 2], stages: [1, 2, 3]}
search: {trials: TRIALS, concurrent: 2, strategy: STRATEGY, validation_images: 1, early_stopping: false}
recipe: {steps: STEPS, batch_size: 8, hr_patch: 48, evaluate_every: 10000, warmup_steps: 5}
"""


PARTS = ("start", "latency", "dispatch", "busy", "peer")
COMMAND = "import sys; from gpnas.cli import main; sys.exit(main())"


def memory() -> tuple[float, float]:
    """MiB that this process holds: with its share of pages that others map, too, and with all of them."""
    text = Path("/proc/self/smaps_rollup").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    proportional, resident = (float(fields[name].split()[0]) / 1024 for name in ("Pss", "Rss"))
    return proportional, resident


class Listener:
    """Notes when what happened."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.latency: dict[str, float] = {}
        self.observed: list[float] = []
        self.memory: list[tuple[float, float]] = []

    def say(self, line: str) -> None: ...

    def preparing(self, what: str, done: int, total: int) -> None: ...

    def started(self, run: Path, trials: int, observed: int, cluster: Any) -> None: ...

    def event(self, event: Event) -> None:
        now, name = time.monotonic(), event.candidate.id
        if event.kind == "started":
            self.begun[name] = now
        elif event.kind == "progress" and name not in self.latency:
            self.latency[name] = now - self.begun[name] - self.seconds(name)
        elif event.kind == "observed":
            self.observed.append(now)
            if len(self.observed) % 50 == 0:
                self.memory.append(memory())

    journal: Path | None = None

    def seconds(self, name: str) -> float:
        assert self.journal is not None
        with Journal.read(self.journal) as journal:
            return journal.progress(name)[-1].seconds


def start(checkout: Path, python: str) -> dict[str, float]:
    """Seconds from the typed command to the first result, after one search that fills the caches."""
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        space = Path(scratch) / "start.yaml"
        space.write_text(_space(trials=1, strategy="mi+kg", steps=1))
        for number in range(6):
            run, begun = Path(scratch) / str(number), time.time()
            command = [python, "-c", COMMAND, "search", "--space", str(space), "--run", str(run)]
            subprocess.run(command, check=True, capture_output=True, cwd=checkout)
            with sqlite3.connect(run / "journal.sqlite") as journal:
                ((ended,),) = journal.execute("SELECT time FROM observations")
            seconds.append(datetime.fromisoformat(ended).timestamp() - begun)
    return {"median": statistics.median(seconds[1:]), "largest": max(seconds[1:])}


def latency(folder: Path) -> dict[str, float]:
    """Seconds from suggestion to first step, of the first trial of each worker and of the others."""
    (folder / "latency.yaml").write_text(_space(trials=20, strategy="mi+kg", steps=160))
    listener = Listener()
    listener.journal = folder / "latency"
    search.run_search(Request(str(folder / "latency.yaml"), run=folder / "latency"), listener)
    values = list(listener.latency.values())
    return {
        "first": max(values[:2]),
        "median": statistics.median(values[2:]),
        "largest": max(values[2:]),
        "trials": len(values),
    }


def _space(*, trials: int, strategy: str, steps: int) -> str:
    return SPACE.replace("TRIALS", str(trials)).replace("STRATEGY", strategy).replace("STEPS", str(steps))


def dispatch(folder: Path, trials: int) -> dict[str, float]:
    """No-op trials per second, and the driver's memory over them."""
    from ray import tune

    class NoOp(tune.Trainable):
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

        def step(self) -> dict[str, Any]:
            return to_result(TrialReport("done", 1, Progress(1, 1, 20.0, {"loss": 0.0, "ssim": 0.5}, 0.0)))

    class NoWork(Work):
        trainable = NoOp  # type: ignore[assignment]

        def memory(self, candidate: Candidate) -> float:
            return 0.0

    space = SearchSpace.from_table([{"a": a, "b": b} for a in range(64) for b in range(64)])
    engine = Engine(space, seed=0, strategy="random", trials=trials, steps=1)
    listener = Listener()
    listener.latency = {f"c{number:04d}": 0.0 for number in range(trials + 1)}
    run = folder / "dispatch"
    setup = Setup(2, Recipe().to_json(), Data("", "", "none", None), 1)
    pairs = prepared_pairs(None, 2, Rules())
    header = Header(trials, PSNR, Search({}, "random", 1, 2), setup.to_json(), concurrent=2)
    work = NoWork(run, setup, pairs, open_storage(str(run)), Means(), header)
    with Journal.create_or_open(run, work.header) as journal:
        session.Session(work, lambda: engine, journal, listener).run()
        assert len(journal.observations()) == trials
    seen = listener.observed
    tenth = max(1, len(seen) // 10)
    return {
        "trials": len(seen),
        "rate": (len(seen) - tenth) / (seen[-1] - seen[tenth - 1]),
        "rate_last": tenth / (seen[-1] - seen[-1 - tenth]),
        **dict(zip(("memory_50", "resident_50"), listener.memory[0], strict=True)),
        **dict(
            zip(
                ("memory_500", "resident_500"), listener.memory[min(9, len(listener.memory) - 1)], strict=True
            )
        ),
        **dict(zip(("memory_end", "resident_end"), listener.memory[-1], strict=True)),
    }


def busy(folder: Path) -> dict[str, float]:
    """Share of two workers' time in which they train, to the end of the last trial but one."""
    (folder / "busy.yaml").write_text(_space(trials=12, strategy="mi+kg", steps=1300))
    listener = Listener()
    listener.journal = folder / "busy"
    search.run_search(Request(str(folder / "busy.yaml"), run=folder / "busy"), listener)
    with Journal.read(folder / "busy") as journal:
        seconds = [each.seconds for each in journal.observations()]
    ends = sorted(listener.observed)
    offered = 2 * (ends[-1] - min(listener.begun.values())) - (ends[-1] - ends[-2])
    starting = sum(list(listener.latency.values())[:2])
    return {
        "mean": statistics.mean(seconds),
        "share": sum(seconds) / (offered - starting),
        "share_with_start": sum(seconds) / offered,
    }


PEER = """
import sys, time, os
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = sys.argv[1]
import ray
from ray import tune
def train(config):
    import torch
    tune.report({"begun": time.time(), "psnr": 0.0})
ray.init(address="local", num_cpus=2, object_store_memory=200 * 2**20, log_to_driver=False)
begun = time.monotonic()
tuner = tune.Tuner(train, param_space={"a": tune.uniform(0, 1)},
    tune_config=tune.TuneConfig(num_samples=int(sys.argv[2]), metric="psnr", mode="max"),
    run_config=tune.RunConfig(storage_path=sys.argv[3], verbose=0))
results = tuner.fit()
fields = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
print(len(results), time.monotonic() - begun, *(float(fields[n].split()[0]) / 1024 for n in ("Pss", "Rss")))
"""


def peer(folder: Path, trials: int) -> dict[str, float]:
    """Trials per second of plain Ray Tune, and its driver's memory in the end."""
    done = subprocess.run(
        [sys.executable, "-c", PEER, "0", str(trials), str(folder / "peer")], capture_output=True, text=True
    )
    count, seconds, proportional, resident = done.stdout.split()[-4:]
    return {
        "trials": int(count),
        "rate": int(count) / float(seconds),
        "memory_end": float(proportional),
        "resident_end": float(resident),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS[1:])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--beside", type=Path, help="a checkout of another commit, with a .venv of its own")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    options = parser.parse_args()
    if options.only is None:
        print(report(options.trials, options.beside, tuple(options.parts)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        match options.only:
            case "latency":
                found = latency(folder)
            case "dispatch":
                found = dispatch(folder, options.trials)
            case "busy":
                found = busy(folder)
            case _:
                found = peer(folder, min(100, options.trials))
    print(json.dumps(found), flush=True)


def measured(checkout: Path, trials: int, parts: tuple[str, ...]) -> dict[str, Any]:
    """What a checkout's own script finds, each part in a process of its own, since memory is measured."""
    found = {}
    python = checkout / ".venv" / "bin" / "python"
    interpreter = str(python) if python.exists() else sys.executable
    for part in parts:
        if part == "start":
            found[part] = start(checkout, interpreter)
        else:
            command = [interpreter, "experiments/overhead.py", "--only", part, "--trials", str(trials)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=checkout)
            found[part] = json.loads(done.stdout.splitlines()[-1])
        print(checkout.name, part, found[part], file=sys.stderr, flush=True)
    return found


def cells(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table: what, measured, goal."""
    rows: list[tuple[str, str, str]] = []
    if began := found.get("start"):
        took = f"median {began['median']:.1f} s, largest {began['largest']:.1f} s"
        rows.append(("from the command to the first result, of one step", took, "at most 1.5 s more"))
    if first := found.get("latency"):
        reused = f"median {1000 * first['median']:.0f} ms, largest {1000 * first['largest']:.0f} ms"
        rows += [
            ("from suggestion to first training step, reused worker", reused, "100 ms"),
            ("the same, a worker's first trial (its process starts)", f"{first['first']:.1f} s", ""),
        ]
    if work := found.get("dispatch"):
        rows += [
            (f"no-op candidates per second, {work['trials']} of them", f"{work['rate']:.0f}", "10"),
            ("the last tenth of them", f"{work['rate_last']:.0f}", ""),
        ]
        for word, key, goal in (
            ("driver's memory after 50 trials, resident (in proportion)", "50", ""),
            ("after 500", "500", "the same, at most 429 MiB (450 MB)"),
            ("in the end", "end", ""),
        ):
            rows.append((word, f"{work[f'resident_{key}']:.0f} ({work[f'memory_{key}']:.0f}) MiB", goal))
    if full := found.get("busy"):
        share = f"{full['share']:.1%}; from the first suggestion on {full['share_with_start']:.1%}"
        what = "two workers train, of their time once begun"
        rows.append((what, f"{share}; trials of {full['mean']:.0f} s", "95 %"))
    if plain := found.get("peer"):
        rows += [
            ("Ray Tune alone, a function, no journal, trials per second", f"{plain['rate']:.1f}", ""),
            ("its driver in the end", f"{plain['resident_end']:.0f} ({plain['memory_end']:.0f}) MiB", ""),
        ]
    return rows


def report(trials: int, beside: Path | None, parts: tuple[str, ...]) -> str:
    """The table; with another checkout beside it, what that one's own script finds stands in front."""
    here = Path(__file__).resolve().parents[1]
    columns = [cells(measured(each, trials, parts)) for each in ([beside] if beside else []) + [here]]
    place = (
        f"{processor()}, {os.cpu_count()} cores, {versions(['ray', 'torch'])}, {time.strftime('%Y-%m-%d')}"
    )
    options = f" --beside, which is {_commit(beside)}" if beside else ""
    lines = [f"# Overhead of the search\n\n`python experiments/overhead.py`{options}, {place}.\n"]
    heads = (["before"] if beside else []) + ["measured"]
    lines += [f"| what | {' | '.join(heads)} | goal |", "|---|" + "---|" * (len(heads) + 1)]
    for rows in zip(*columns, strict=True):
        lines.append(f"| {rows[0][0]} | {' | '.join(row[1] for row in rows)} | {rows[0][2]} |")
    return "\n".join(lines)


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
