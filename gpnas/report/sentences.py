"""A search in words: where it stands, and what a reader should mind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scipy.special import bdtr, bdtrc

from gpnas.figures.catalogue import Seen
from gpnas.figures.charts import saved_steps
from gpnas.figures.data import Left, Trust, held
from gpnas.figures.records import Recorded, Trial
from gpnas.records import AxisValue, gain_in_words, otherwise
from gpnas.space import IntegerAxis

if TYPE_CHECKING:
    from gpnas.diagnostics import Diagnostics
    from gpnas.learned import Learned

Level = Literal["good", "mind", "open"]
PLAUSIBLE = 0.05
"""Probability below which a count of held intervals is no chance any more, both sides together."""
LEADERS = 3
"""Networks whose differences are compared with the noise."""
STANDS = {
    "running": "the search is under way",
    "finished": "the search is finished",
    "interrupted": "the search was interrupted, and the same command goes on with it",
}


Finding = tuple[Level, str]
"""Level and sentence of a check."""


@dataclass(frozen=True)
class Check:
    """One thing about a search that a reader should know."""

    name: str
    level: Level
    """`good`, `mind` where something should be done, `open` where nothing can be said yet."""
    sentence: str


def summary(seen: Seen) -> list[str]:
    """The search in a few sentences, the most important first."""
    recorded, unit = seen.recorded, seen.recorded.objective
    done = sum(trial.state in ("observed", "stopped", "failed") for trial in recorded.trials)
    granted = recorded.granted or len(recorded.trials)
    others = otherwise(recorded.count("failed"), recorded.count("stopped"))
    sentences = [f"{done} of {granted} trials have ended{others}; {STANDS[recorded.state]}."]
    best = recorded.best
    if best is None:
        sentences.append("No training has succeeded, so there is no best network yet.")
    else:
        sentences.append(
            f"The best network is {best.label} ({best.id}) with {unit.shown(best.value or 0.0)}{_cost(best)}."
        )
    psnr = (recorded.delivery or {}).get("psnr")
    if isinstance(psnr, dict) and isinstance(psnr.get("average"), float):
        sentences.append(_delivered(seen, psnr))
    if seen.left is not None and seen.left.course:
        now = seen.left.course[-1]
        gain, bound = unit.shown(now.regret, more=1), unit.shown(now.bound, more=1)
        told = gain_in_words(gain, bound, now.bound < now.regret)
        sentences.append(f"Training more of this space would gain {told}.")
    hours = sum(trial.seconds for trial in recorded.trials) / 3600
    sentences.append(f"Trainings took {_duration(hours)} in all.")
    return sentences


def checks(seen: Seen) -> Iterator[Check]:
    """What a reader should mind, in the order of a search's questions."""
    recorded, left, learning = seen.recorded, seen.left, seen.learning
    if seen.trust is not None:
        yield Check("Surrogate against ridge regression", *_against_ridge(seen.trust.diagnostics))
        yield Check("Intervals of 90 %", *_intervals(seen.trust))
    else:
        yield Check("Surrogate", "open", "There is no surrogate yet whose predictions could be judged.")
    yield Check("Edge of the space", *_edge(recorded))
    yield Check("Failures", *_failures(recorded))
    if learning is not None:
        yield Check("Noise and seeds", *_noise(recorded, learning))
    yield Check("Early stopping", *_stopping(recorded))
    if left is not None and learning is not None and left.course:
        yield Check("What is left", *_remaining(recorded, left, learning))


def _delivered(seen: Seen, psnr: dict[str, float]) -> str:
    unit = seen.recorded.objective
    members = seen.together.members if seen.together else ()
    bicubic = f"bicubic upsampling has {unit.shown(psnr['bicubic'], more=1)}"
    if len(members) == 1:
        return (
            f"One network is delivered, {members[0]}, since no average was better than it by more than its "
            f"uncertainty; {bicubic}."
        )
    of = f" of {len(members)} networks" if members else ""
    return (
        f"The delivered average{of} reaches {unit.shown(psnr['average'], more=1)}, where the best network "
        f"alone has {unit.shown(psnr['best'], more=1)}; {bicubic}."
    )


def _against_ridge(diagnostics: Diagnostics) -> Finding:
    better, error = diagnostics.advantage, diagnostics.advantage_error
    if better is None or error is None:
        return "open", f"Not known yet: {diagnostics.summary}."
    told = f"{better:+.2f} ± {error:.2f} nats per observation, left out one by one"
    if better > 2 * error:
        return "good", f"The surrogate predicts better than ridge regression ({told})."
    if better > -2 * error:
        return "open", f"The surrogate and ridge regression predict alike, within chance ({told})."
    return "mind", (
        f"Ridge regression predicts better than the surrogate ({told}): trust observed values more than "
        "predicted ones, or grant more trials."
    )


def _intervals(trust: Trust) -> Finding:
    judged = {"foretold before the training": trust.foretold, "left out one by one": trust.left_out}
    told, levels = [], []
    for way, each in judged.items():
        if each:
            told.append(f"{held(each)} of {len(each)} {way}")
            levels.append(verdict(held(each), len(each), 0.9))
    if not told:
        return "open", "Nothing was observed yet that intervals could be compared with."
    they = f"They hold {', and '.join(told)}"
    if "too few" in levels:
        return "mind", f"{they}: fewer than chance explains, so intervals are too narrow."
    if "too many" in levels:
        return "open", f"{they}: more than chance explains, so intervals are wider than needed."
    return "good", f"{they}, as intervals of 90 % should."


def verdict(held: int, count: int, nominal: float) -> str:
    """Whether a count is what a probability lets one expect: `as expected`, `too few` or `too many`.

    Args:
        held: how many did.
        count: of how many independent ones, at least 1.
        nominal: probability of each.
    """
    if bdtr(held, count, nominal) < PLAUSIBLE / 2:
        return "too few"
    return "too many" if bdtrc(held - 1, count, nominal) < PLAUSIBLE / 2 else "as expected"


def at_edges(recorded: Recorded, trial: Trial) -> list[tuple[str, str, AxisValue]]:
    """The ordered axes of at least three values at whose end an architecture lies: name, end and value."""
    found: list[tuple[str, str, AxisValue]] = []
    for axis in recorded.families.get(trial.family, ()):
        if isinstance(axis, IntegerAxis) and len(axis.values) > 2:
            value = trial.axes.get(axis.name)
            if value == axis.values[0]:
                found.append((axis.name, "lowest", value))
            elif value == axis.values[-1]:
                found.append((axis.name, "highest", value))
    return found


def _edge(recorded: Recorded) -> Finding:
    best = recorded.best
    if best is None or not recorded.families:
        return "open", "Not known yet where in the space the best network lies."
    edges = at_edges(recorded, best)
    if not edges:
        return "good", "The best network lies within the space on every ordered axis."
    told = ", ".join(f"{axis} {value} (the {end})" for axis, end, value in edges)
    return "mind", (
        f"The best network lies at the edge of the space: {told}. Better ones may lie beyond: let the space "
        "grow there, unless a limit of yours ends it."
    )


def _failures(recorded: Recorded) -> Finding:
    failed = [trial for trial in recorded.trials if trial.state == "failed"]
    if not failed:
        return "good", "No training failed."
    reasons = Counter((trial.failure or "no reason was noted").strip() for trial in failed)
    reason, count = reasons.most_common(1)[0]
    share = f"{len(failed)} of {len(recorded.trials)} trainings failed"
    if len(reasons) == 1:
        why = f"all for one reason: {reason}" if len(failed) > 1 else f"since {reason}"
    else:
        why = f"for {len(reasons)} reasons, {count} of them since {reason}"
    return "mind", f"{share}, {why.rstrip('.')}."


def _noise(recorded: Recorded, learning: Learned) -> Finding:
    unit = recorded.objective
    best: dict[str, float] = {}
    for trial in recorded.finished:
        best[trial.label] = max(best.get(trial.label, -math.inf), unit.merit(trial.value or 0.0))
    leaders = sorted(best.values(), reverse=True)[:LEADERS]
    if len(leaders) < 2:
        return "open", "Fewer than two networks were trained to the end, so leaders do not differ."
    gap = leaders[0] - leaders[-1]
    told = (
        f"the best {len(leaders)} differ by {unit.shown(gap, more=1)}, two trainings of one by about "
        f"{unit.shown(learning.apart, more=1)}"
    )
    if learning.apart > gap:
        return "mind", f"Noise hides who leads: {told}. More seeds of the leaders would tell more than luck."
    return "good", f"The leaders differ by more than noise: {told}."


def _stopping(recorded: Recorded) -> Finding:
    stopped = recorded.count("stopped")
    if not stopped:
        return "open", "No training was stopped early."
    saved = saved_steps(recorded)
    whole = (recorded.steps or 0) * sum(t.state in ("observed", "stopped") for t in recorded.trials)
    share = f", {saved / whole:.0%} of all that were granted" if whole else ""
    were = "training was" if stopped == 1 else "trainings were"
    return "good", f"{stopped} {were} stopped early, which saved {saved:,} steps{share}."


def _remaining(recorded: Recorded, left: Left, learning: Learned) -> Finding:
    now = left.course[-1]
    told = f"stopping now is expected to miss {recorded.objective.about(now.regret)}"
    if now.regret < learning.noise:
        return "good", f"Little: {told}, less than the noise of one training."
    return "mind", f"Something: {told}, more than the noise of one training. More trials would pay."


def _cost(trial: Trial) -> str:
    known = {"parameters": "{:,.0f} parameters", "gmacs": "{:.3g} GMACs"}
    parts = [form.format(trial.costs[name]) for name, form in known.items() if name in trial.costs]
    return f" at {' and '.join(parts)}" if parts else ""


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} seconds"
    return f"{hours * 60:.0f} minutes" if hours < 3 else f"{hours:,.1f} hours"
