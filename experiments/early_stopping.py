"""What early stopping saves and what it costs, replayed on learning curves of real trainings.

    python experiments/early_stopping.py [--seeds 12] [--trials 16 32] [--every 25 50 100 150]

A search of two workers runs on the architectures of `results/learning_curves.csv`; a trial takes the
seconds that its training took and reports what that reached. Each rule sees the same searches (seeds),
and each may stop a trial at any of its evaluations. A stopped trial's predicted final value is
observed alike whatever rule stopped it. There is one training of each architecture, so the search
(`mi+nei`) trains none twice. Results go to `results/early_stopping.md`.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from learning_curves import RECIPE, read
from machine import processor, versions

from gpnas import Candidate, Engine, Observation, SearchSpace, early_stopping
from gpnas.early_stopping import Curve
from gpnas.records import Stop
from gpnas_trainers.cost import gmacs, parameters

REPORT = Path(__file__).resolve().parent / "results/early_stopping.md"
EVALUATION = 8.0
"""Steps that take as long as one evaluation: measured, 7 to 9 for these networks and images."""
WORKERS = 2
BEST = 3
"""Networks of a portfolio."""
LAST = RECIPE.steps


@dataclass(frozen=True)
class Table:
    """One training of each architecture."""

    space: SearchSpace
    curves: list[Curve]
    seconds: list[Mapping[int, float]]
    """Step to the processor's seconds since the start."""

    @property
    def finals(self) -> np.ndarray:
        return np.array([curve[LAST] for curve in self.curves])


def load() -> Table:
    """Every architecture that has a curve, its first replicate."""
    found = {axes: rows for (axes, replicate), rows in read().items() if replicate == 0}
    listed = []
    for features, blocks, stages in found:
        axes = {"features": features, "blocks": blocks, "stages": stages}
        costs = {"parameters": parameters("drn", 2, **axes), "gmacs": gmacs("drn", 2, 64, 64, **axes)}
        listed.append(axes | costs)
    space = SearchSpace.from_table(listed, costs=["parameters", "gmacs"])
    rows = [found[tuple(space[index].axes[name] for name in ("features", "blocks", "stages"))]
            for index in range(len(space))]  # fmt: skip
    return Table(
        space,
        [{int(row["step"]): float(row["psnr"]) for row in each} for each in rows],
        [{int(row["step"]): float(row["seconds"]) for row in each} for each in rows],
    )


def part(table: Table, seed: int) -> Table:
    """Three quarters of the architectures at random: searches of one table would be too much alike."""
    count = len(table.space)
    kept = sorted(random.Random(seed).sample(range(count), 3 * count // 4))
    costs = table.space.costs
    space = SearchSpace.from_table(
        [
            {**table.space[index].axes, **{name: float(cost[index]) for name, cost in costs.items()}}
            for index in kept
        ],
        costs=list(costs),
    )
    places = [table.space.index(architecture) for architecture in space]
    return Table(space, [table.curves[each] for each in places], [table.seconds[each] for each in places])


Rule = Callable[[Sequence[Curve], Sequence[Curve], Curve, tuple[float, float] | None], bool]
"""Whether to stop, given the finished curves, all curves (the running ones' prefixes too), the
running one, and the surrogate's prediction."""


def never(finished: Sequence[Curve], every: Sequence[Curve], running: Curve, prior: object) -> bool:
    return False


def median(finished: Sequence[Curve], every: Sequence[Curve], running: Curve, prior: object) -> bool:
    """D. Golovin et al., "Google Vizier", KDD 2017, section 3.2.2: worse at best than the median of the
    finished ones' averages so far."""
    if len(finished) < early_stopping.LEAST_FINISHED:
        return False
    step = max(running)
    averages = [np.mean([value for at, value in each.items() if at <= step]) for each in finished]
    return max(running.values()) < np.median(averages)


def rungs(factor: int) -> Rule:
    """L. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020, as Ray Tune has
    it: at each rung the best 1/factor of all that came so far go on."""
    steps = [step for step in (LAST // factor**power for power in (3, 2, 1)) if step >= 25]

    def rule(finished: Sequence[Curve], every: Sequence[Curve], running: Curve, prior: object) -> bool:
        step = max(running)
        crossed = [rung for rung in steps if rung <= step]
        before = max((each for each in running if each < step), default=0)
        if not crossed or crossed[-1] <= before:
            return False
        there = [each[step] for each in every if step in each]
        return running[step] < np.quantile(there, 1 - 1 / factor)

    return rule


def model(chance: float, *, surrogate: bool = True) -> Rule:
    def rule(
        finished: Sequence[Curve], every: Sequence[Curve], running: Curve, prior: tuple[float, float] | None
    ) -> bool:
        found = early_stopping.outlook(
            finished, running, last=LAST, best=BEST, prior=prior if surrogate else None
        )
        return found is not None and found.chance < chance

    return rule


RULES: dict[str, Rule] = {
    "none": never,
    "median rule": median,
    "rungs, best half": rungs(2),
    "rungs, best third": rungs(3),
    "curve alone, P < 0.05": model(0.05, surrogate=False),
    "curve and surrogate, P < 0.01": model(0.01),
    "curve and surrogate, P < 0.02": model(0.02),
    "curve and surrogate, P < 0.05": model(0.05),
    "curve and surrogate, P < 0.1": model(0.1),
    "curve and surrogate, P < 0.2": model(0.2),
}
FEW_RULES = ("none", "median rule", "curve and surrogate, P < 0.05")
"""Those replayed also with other evaluations than every `EVERY` steps."""
EVERY = 50


@dataclass(frozen=True)
class Outcome:
    """One search."""

    steps: float
    """Share of the steps of its trials that were trained."""
    time: float
    """The time it took, evaluations included, beside that of its trials evaluated at the end alone."""
    best: float
    """Regret in dB of the best finished network."""
    top: float
    """Regret in dB of the mean of the `BEST` best finished networks."""
    winner: bool
    """Whether a stopped training would have been the best of the search."""
    chosen: int
    """Stopped trainings that would have been among its `BEST` best."""


def search(table: Table, rule: Rule, seed: int, trials: int, every: int) -> Outcome:
    """Replays one search of `WORKERS` workers."""
    engine = Engine(table.space, seed=seed, strategy="mi+nei", trials=trials, steps=LAST)
    whole = [{step: value for step, value in curve.items() if step % every == 0} for curve in table.curves]
    running: dict[str, tuple[Candidate, int, dict[int, float]]] = {}
    done: list[tuple[int, int]] = []  # index, step at the end
    prefixes: dict[str, dict[int, float]] = {}
    events: list[tuple[float, str]] = []

    def start(now: float) -> None:
        if len(done) + len(running) < trials:
            (candidate,) = engine.suggest(1)
            index = table.space.index(candidate.architecture)
            running[candidate.id] = (candidate, index, {})
            prefixes[candidate.id] = running[candidate.id][2]
            heapq.heappush(events, (now + table.seconds[index][every], candidate.id))

    for _ in range(WORKERS):
        start(0.0)
    while events:
        now, name = heapq.heappop(events)
        candidate, index, curve = running[name]
        step = max(curve, default=0) + every
        curve[step] = whole[index][step]
        finished = [whole[each] for each, end in done if end == LAST]
        if step == LAST:
            engine.observe(Observation(candidate, curve[step]))
        elif rule(finished, list(prefixes.values()), curve, engine.outlook(candidate.architecture)):
            found = early_stopping.forecast(finished, curve, LAST)
            value, stddev = (curve[step], 0.0) if found is None else (found.mean, found.stddev)
            engine.observe(Observation(candidate, value, stopped=Stop(step, curve[step], stddev, 0.0, BEST)))
        else:
            spent = table.seconds[index][step + every] - table.seconds[index][step]
            heapq.heappush(events, (now + spent, name))
            continue
        done.append((index, step))
        del running[name]
        start(now)
    return judge(table, done, every)


def judge(table: Table, done: Sequence[tuple[int, int]], every: int) -> Outcome:
    finals = table.finals
    ordered = np.sort(finals)[::-1]
    finished = sorted((finals[index] for index, end in done if end == LAST), reverse=True)
    stopped = [finals[index] for index, end in done if end < LAST]
    all_of_them = sorted((finals[index] for index, _ in done), reverse=True)
    return Outcome(
        steps=sum(end for _, end in done) / (LAST * len(done)),
        time=sum(end + EVALUATION * (end // every) for _, end in done) / ((LAST + EVALUATION) * len(done)),
        best=float(ordered[0] - finished[0]),
        top=float(ordered[:BEST].mean() - np.mean(finished[:BEST])),
        winner=max(stopped, default=-np.inf) > finished[0],
        chosen=sum(value >= all_of_them[BEST - 1] for value in stopped),
    )


def report(table: Table, found: Mapping[tuple[int, int, str], Sequence[Outcome]], seeds: int) -> str:
    lines = [
        "# Early stopping, replayed on learning curves",
        "",
        f"{len(table.space)} DRN architectures, {LAST} steps each (`learning_curves.py`); each seed searches "
        f"another three quarters of them, with {WORKERS} workers and `mi+nei`; {seeds} seeds, the same for "
        "every rule. Steps saved: share of the trials' training steps. Time saved: likewise, where an "
        f"evaluation takes as long as {EVALUATION:.0f} steps, beside one evaluation at the end alone. Regret "
        f"of the best network, and of the mean of the {BEST} best, beside the best that could be trained: "
        "median over seeds (mean in brackets), 10⁻³ dB. Lost: stopped trainings that would have been the "
        f"search's best, or among its {BEST} best, over all seeds.",
        "",
    ]
    for trials, every in sorted({key[:2] for key in found}):
        lines += [
            f"## {trials} trials, evaluated every {every} steps",
            "",
            f"| rule | steps saved | time saved | regret of the best | regret of the {BEST} best | "
            f"lost winners | lost of the {BEST} best |",
            "|---|---|---|---|---|---|---|",
        ]
        for (t, e, rule), outcomes in found.items():
            if (t, e) != (trials, every):
                continue
            saved = 1 - np.mean([each.steps for each in outcomes])
            shorter = 1 - np.mean([each.time for each in outcomes])
            best, top = (
                1000 * np.array([getattr(each, name) for each in outcomes]) for name in ("best", "top")
            )
            lines.append(
                f"| {rule} | {saved:.0%} | {shorter:.0%} | {np.median(best):.1f} ({best.mean():.1f}) | "
                f"{np.median(top):.1f} ({top.mean():.1f}) | {sum(each.winner for each in outcomes)} | "
                f"{sum(each.chosen for each in outcomes)} |"
            )
        lines.append("")
    lines.append(f"{processor()}, {versions(['torch', 'numpy', 'scipy'])}, {date.today()}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=12)
    options.add_argument("--trials", type=int, nargs="+", default=[16, 32])
    options.add_argument("--every", type=int, nargs="+", default=[25, 50, 100, 150])
    arguments = options.parse_args()
    torch.set_num_threads(1)
    table = load()
    found: dict[tuple[int, int, str], list[Outcome]] = defaultdict(list)
    for trials in arguments.trials:
        for every in arguments.every:
            for rule in RULES if every == EVERY else FEW_RULES:
                for seed in range(arguments.seeds):
                    found[trials, every, rule].append(
                        search(part(table, seed), RULES[rule], seed, trials, every)
                    )
                print(report(table, {(trials, every, rule): found[trials, every, rule]},
                             arguments.seeds).splitlines()[-3], flush=True)  # fmt: skip
    REPORT.write_text(report(table, found, arguments.seeds))


if __name__ == "__main__":
    main()
