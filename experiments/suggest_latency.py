"""How long a suggestion takes, beside Optuna, BoTorch and Ax.

    python experiments/suggest_latency.py [--observations 200] [--peers …]
    python experiments/suggest_latency.py --growth      # gpnas alone, with ever more observations

Each search has observed 200 architectures, drawn at random, of a grid of 22×22×21 = 10,164 or of
100×100×100. Timed is the next suggestion: "after an observation" refits the hyperparameters, "another"
follows at once, as a second worker asks. Medians of five, one thread. Memory is gpnas' resident set
after the first and after the last of 1,000 suggestions with an observation each, on 10,164.

With `--growth` seconds are the processor's, so that other load counts less, and the peak of a process's
memory stands beside them. The first suggestion learns hyperparameters; what is loaded once was loaded before.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import processor, versions
from peers import PACKAGES, PEERS, Peer, quieten
from search_quality import RESULTS, _replace
from tables import Table

from gpnas import Architecture, Engine, Observation, SearchSpace
from gpnas.space import Family, IntegerAxis

SIZES = {"10,164": (22, 22, 21), "1,000,000": (100, 100, 100)}
REPEATS = 5


def grid(sizes: tuple[int, ...]) -> SearchSpace:
    names = ("features", "blocks", "stages")
    axes = [IntegerAxis(n, tuple(range(1, size + 1))) for n, size in zip(names, sizes, strict=True)]
    return SearchSpace([Family("table", tuple(axes))])


def objective(architecture: Architecture) -> float:
    """Smooth, with its best inside, and noisy."""
    f, b, s = (float(value) for value in architecture.axes.values())
    return 30 + math.log(f) - 0.002 * (b - 9) ** 2 - 0.01 * abs(s - 7) + 0.05 * math.sin(37 * f + 11 * b + s)


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def of_engine(space: SearchSpace, count: int) -> tuple[float, float]:
    engine = Engine(space, seed=0, trials=count + 3 * REPEATS)
    engine.design = 0
    chosen = np.random.default_rng(0).choice(len(space), count, replace=False)
    for number, index in enumerate(chosen):
        candidate = engine_candidate(space, int(index), number)
        engine.observe(Observation(candidate, objective(candidate.architecture)))
    after, another = [], []
    for _ in range(REPEATS):
        pending = []
        after.append(timed(lambda pending=pending: pending.extend(engine.suggest(1))))
        another.append(timed(lambda: engine.suggest(1)))
        engine.observe(Observation(pending[0], objective(pending[0].architecture)))
    return statistics.median(after), statistics.median(another)


def engine_candidate(space: SearchSpace, index: int, number: int):  # type: ignore[no-untyped-def]
    from gpnas import Candidate
    from gpnas.records import Fidelity

    return Candidate(f"r{number:04d}", space[index], Fidelity(1), seed=0)


def of_peer(make: Callable[[Table, int, int], Peer], space: SearchSpace, count: int) -> tuple[float, float]:
    table = Table("grid", space, np.zeros((len(space), 1)), "dB", 1.0)
    peer = make(table, 0, count + 3 * REPEATS)
    for _ in range(count):  # at first at random, as the package starts; then its own suggestions
        index = peer.ask()
        peer.tell(index, objective(space[index]))
    after, another = [], []
    for _ in range(REPEATS):
        asked: list[int] = []
        after.append(timed(lambda asked=asked: asked.append(peer.ask())))
        another.append(timed(lambda asked=asked: asked.append(peer.ask())))
        for index in asked:
            peer.tell(index, objective(space[index]))
    return statistics.median(after), statistics.median(another)


def growth(counts: Iterable[int]) -> Iterator[str]:
    """A row for each number of observations: first, after one more (median), another at once, peak memory."""
    space = grid(SIZES["10,164"])
    of_engine(space, 12)
    for count in counts:
        engine = Engine(space, seed=0, trials=count + REPEATS)
        engine.design = 0
        chosen = np.random.default_rng(0).choice(len(space), count + REPEATS, replace=False)
        spent: list[tuple[float, float]] = []
        for number, index in enumerate(chosen):
            if number >= count:
                begun = time.process_time()
                engine.suggest(1)
                middle = time.process_time()
                engine.suggest(1)
                spent.append((middle - begun, time.process_time() - middle))
            candidate = engine_candidate(space, int(index), number)
            engine.observe(Observation(candidate, objective(candidate.architecture)))
        after, another = (statistics.median(column) for column in zip(*spent[1:], strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        yield f"| {count:,} | {spent[0][0]:.2f} | {after:.2f} | {another:.3f} | {peak:.2f} |"


def memory(suggestions: int) -> tuple[float, float]:
    """GiB resident after 50 suggestions, when all code has run, and after the last."""
    space = grid(SIZES["10,164"])
    engine = Engine(space, seed=0, trials=suggestions)
    found = []
    for number in range(suggestions):
        (candidate,) = engine.suggest(1)
        engine.observe(Observation(candidate, objective(candidate.architecture)))
        if number + 1 in (50, suggestions):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found.append(pages * resource.getpagesize() / 2**30)
    return found[0], found[1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--observations", type=int, default=200)
    options.add_argument("--suggestions", type=int, default=1_000, help="over which memory is watched")
    options.add_argument(
        "--peers", nargs="*", choices=list(PEERS), default=["optuna-tpe", "optuna-gp", "botorch", "ax"]
    )
    options.add_argument("--growth", action="store_true", help="gpnas with ever more observations alone")
    arguments = options.parse_args()
    quieten()
    if arguments.growth:
        head = "| observations | first, s | after one more, s | another, s | peak memory, GiB |"
        lines = [
            "# Latency of a suggestion with ever more observations",
            "",
            f"{processor()}, one thread; {versions(('torch', 'botorch'))}; "
            f"{date.today()}. 10,164 architectures; seconds of the processor.",
            "",
            head,
            "|---|---|---|---|---|",
        ]
        for row in growth((200, 500, 1_000, 2_000)):
            print(row, flush=True)
            lines.append(row)
        _replace(RESULTS / "suggest_growth.md", "\n".join(lines) + "\n")
        return
    known = versions(("torch", "gpytorch", "scipy", *PACKAGES.values()))
    lines: list[str] = []

    def say(line: str = "") -> None:
        print(line, flush=True)
        lines.append(line)

    say("# Latency of a suggestion")
    say(f"\n{processor()}, one thread; {known}; {date.today()}. {arguments.observations} observations.")
    say(f"Load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores when it began.")
    say("\n| search | architectures | after an observation, s | another, s |\n|---|---|---|---|")
    for name, sizes in SIZES.items():
        space = grid(sizes)
        len(space.features)  # made once per search
        after, another = of_engine(space, arguments.observations)
        say(f"| gpnas | {name} | {after:.3f} | {another:.3f} |")
        for peer in arguments.peers:
            if peer == "botorch" and len(space) > 100_000:
                say(f"| {peer} | {name} | – | – |")  # it scores every row
                continue
            try:
                after, another = of_peer(PEERS[peer], space, arguments.observations)
            except ImportError as error:
                print(f"{peer} is skipped: {error}", flush=True)
                continue
            say(f"| {peer} | {name} | {after:.3f} | {another:.3f} |")
    if arguments.suggestions:
        first, last = memory(arguments.suggestions)
        say(
            f"\nMemory of gpnas over {arguments.suggestions} suggestions and observations, GiB: {first:.2f} "
            f"after 50, {last:.2f} at the end."
        )
    _replace(RESULTS / "suggest_latency.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
