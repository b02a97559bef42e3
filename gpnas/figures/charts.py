"""Charts of how a search went: values, costs, learning curves, workers, axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from gpnas.figures.data import Bar, Predicted, pareto
from gpnas.figures.records import Measure, Recorded, Trial, improvements, spread, thinned
from gpnas.figures.style import (
    PALETTE,
    SEQUENTIAL,
    STATES,
    categories,
    counted,
    domain,
    finished,
    priced,
    rows,
)
from gpnas.records import trials_of
from gpnas.space import Axis

CURVES = 300
"""Learning curves that are drawn: of more, the best and an even part of the rest."""
LINES = 200
"""Lines of parallel coordinates, likewise."""
TICKS = 6
"""Values of an axis of theirs that are written beside it, at most."""
COSTS = {
    "parameters": ("parameters", "with fewer parameters"),
    "gmacs": ("GMACs at 120×120 LR pixels", "with fewer GMACs"),
    "seconds": ("training seconds", "after a shorter training"),
}
"""Name of a cost to its title, and to what a cheaper rival would be."""


def course(recorded: Recorded, foretold: Sequence[Predicted] = ()) -> alt.LayerChart:
    """Value by trial, with the best so far and what had been predicted of each.

    Args:
        recorded: a search with at least one trial.
        foretold: the predictions made before each observation, where known.
    """
    unit = recorded.objective
    shown = [trial for trial in recorded.trials if trial.state in ("observed", "stopped", "failed")]
    values = [trial.value for trial in shown if trial.value is not None]
    limits = domain(values, 0.25) if values else [0.0, 1.0]
    before = {each.trial: each for each in foretold}
    phases = list(dict.fromkeys(trial.phase for trial in shown))
    table = []
    for number, trial in enumerate(recorded.trials):
        if trial not in shown:
            continue
        expected = before.get(trial.id)
        table.append(
            {
                "number": number,
                "id": trial.id,
                "architecture": trial.label,
                "group": trial.phase,
                "state": trial.shown_state,
                "value": limits[0] if trial.value is None else trial.value,
                "told": trial.failure or unit.shown(trial.value or 0.0),
                "low": None if expected is None else max(limits[0], min(limits[1], expected.low)),
                "high": None if expected is None else min(limits[1], max(limits[0], expected.high)),
            }
        )
    order = "trial, in the order of proposal"
    y = alt.Y("value:Q", title=unit.label, scale=alt.Scale(domain=limits, nice=False, zero=False))
    base = alt.Chart(rows(table)).encode(x=counted("number", order))
    intervals = base.mark_rule(style="interval", strokeWidth=5, strokeCap="round", clip=True).encode(
        y=alt.Y("low:Q", scale=alt.Scale(domain=limits), title=unit.label), y2="high:Q"
    )
    seen = {state: shape for state, shape in STATES.items() if any(row["state"] == state for row in table)}
    states = alt.Scale(domain=list(seen), range=list(seen.values()))
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        y=y,
        color=categories(phases, "chosen by"),
        shape=alt.Shape("state:N", title="training", scale=states),
        tooltip=tooltips("id", "architecture", "state", "told", group="chosen by"),
    )
    best = alt.Chart(rows(best_so_far(recorded))).encode(x=alt.X("number:Q", title=order), y=y)
    best = best.mark_line(style="ink-line", interpolate="step-after", strokeWidth=1.5)
    title = _progress_so_far(recorded)
    told = (
        f"{unit.name} of {trials_of(len(shown))} by proposal: {recorded.count('observed')} observed, "
        f"{recorded.count('stopped')} stopped early, {recorded.count('failed')} failed. The line is the best "
        "measured value so far; grey bars are the 90 % intervals predicted before each training."
    )
    return finished(alt.layer(intervals, best, points), title, told, table)


def _progress_so_far(recorded: Recorded) -> str:
    """The best trial and how many came after it, in a sentence."""
    top = recorded.best
    if top is None:
        return "No training has succeeded yet"
    after = len(recorded.trials) - 1 - recorded.trials.index(top)
    return f"The best so far is {recorded.objective.shown(top.value or 0.0)}, from {top.id}; " + (
        "which is the newest" if after == 0 else f"{trials_of(after).replace(' ', ' later ')} did not beat it"
    )


def best_so_far(recorded: Recorded) -> list[dict[str, float]]:
    """Number of each trial from which on a better value was known, and that value; the last trial too."""
    better = improvements(recorded.trials, recorded.objective)
    if better:
        better.append((recorded.trials[-1], better[-1][1]))
    return [{"number": recorded.trials.index(trial), "value": value} for trial, value in better]


def costs(recorded: Recorded, cost: str) -> alt.LayerChart:
    """Value against what an architecture costs, with those that nothing beats at their cost.

    Args:
        recorded: a search.
        cost: name of a cost known before training, or `seconds`.
    """
    unit = recorded.objective
    trials = [trial for trial in recorded.finished if cost_of(trial, cost) > 0]
    table = [
        {
            "id": trial.id,
            "architecture": trial.label,
            "cost": cost_of(trial, cost),
            "value": trial.value,
            "group": trial.family,
        }
        for trial in trials
    ]
    front = pareto([(cost_of(trial, cost), unit.merit(trial.value or 0.0)) for trial in trials])
    name, less = COSTS.get(cost, (cost, f"at less {cost}"))
    axis = alt.Axis(format="~s" if cost == "parameters" else "~g", tickCount=6)
    base = alt.Chart(rows(table)).encode(
        x=priced("cost", name, axis=axis),
        y=alt.Y("value:Q", title=unit.label, scale=alt.Scale(zero=False)),
    )
    points = base.mark_point(filled=True, size=60, opacity=0.9).encode(
        color=categories(list(dict.fromkeys(trial.family for trial in trials)), "family"),
        tooltip=tooltips("id", "architecture", cost=name, value=unit.label),
    )
    ring = {"style": "ink", "filled": False, "size": 130}
    line = alt.Chart(rows([table[place] for place in front]))
    line = line.mark_line(style="ink-line", interpolate="step-after", point=ring)
    line = line.encode(x=priced("cost", name), y=alt.Y("value:Q", title=unit.label))
    title = f"{len(front)} of {len(table)} networks have no rival that is as good {less}"
    told = (
        f"{unit.name} against {name} on a logarithmic axis for {len(table)} networks trained to the end; the "
        "stepped line joins those that are best at their cost."
    )
    return finished(alt.layer(line, points), title, told, table)


def cost_of(trial: Trial, cost: str) -> float:
    """What a trial costs, 0 where that is not known."""
    return trial.seconds if cost == "seconds" else trial.costs.get(cost, 0.0)


def curves(recorded: Recorded) -> alt.LayerChart:
    """Value by step of each training, with where some were stopped."""
    unit = recorded.objective
    drawn = spread_out([trial for trial in recorded.trials if trial.curve], CURVES, unit)
    table, ends = [], []
    for trial in drawn:
        newest = {row.step: row.value for row in trial.curve}
        for step, value in sorted(newest.items()):
            row = {"id": trial.id, "architecture": trial.label, "step": step, "value": value}
            table.append(row | {"group": trial.shown_state})
        if trial.stop is not None:
            stop = {"id": trial.id, "step": trial.stop.step, "value": trial.stop.value}
            ends.append(stop | {"told": str(trial.stop), "group": trial.shown_state})
    states = ("observed", "stopped early", "running", "failed", "pending")
    seen = [state for state in states if any(row["group"] == state for row in table)]
    shared = {
        "x": counted("step", "optimiser step"),
        "y": alt.Y("value:Q", title=unit.label, scale=alt.Scale(zero=False)),
        "color": categories(seen, "training"),
    }
    lines = alt.Chart(rows(table)).mark_line(point={"size": 24}, strokeWidth=1.5, opacity=0.75)
    lines = lines.encode(
        **shared, detail="id:N", tooltip=tooltips("id", "architecture", "step", value=unit.label)
    )
    stops = alt.Chart(rows(ends)).mark_point(shape="triangle-down", filled=True, size=110, opacity=1)
    stops = stops.encode(**shared, tooltip=tooltips("id", told="verdict"))
    count, saved = recorded.count("stopped"), saved_steps(recorded)
    title = (
        f"{count} of {len(recorded.trials)} trainings stopped early, which saved {saved:,} steps"
        if count
        else "No training was stopped early"
    )
    part = "" if len(drawn) == len(recorded.trials) else f" {len(drawn)} of {len(recorded.trials)} are drawn."
    told = (
        f"Validated {unit.name} by optimiser step, a line per training; triangles mark trainings that were "
        f"stopped since their curve said that they would hardly matter.{part}"
    )
    return finished(alt.layer(lines, stops) if ends else alt.layer(lines), title, told, table)


def saved_steps(recorded: Recorded) -> int:
    """Steps that stopped trainings were granted but did not take."""
    if recorded.steps is None:
        return 0
    return sum(recorded.steps - trial.stop.step for trial in recorded.trials if trial.stop is not None)


def _along(axis: Axis, place: int) -> float:
    """Where a value of an axis is drawn, in [0, 1]: in the middle where it is the only one."""
    return 0.5 if len(axis.values) == 1 else place / (len(axis.values) - 1)


def coordinates(recorded: Recorded, family: str) -> alt.LayerChart:
    """Each architecture as a line over the axes of its family, coloured by its value."""
    unit, axes = recorded.objective, recorded.families[family]
    trials = [trial for trial in recorded.succeeded if trial.family == family]
    drawn = sorted(spread_out(trials, LINES, unit), key=lambda trial: unit.merit(trial.value or 0.0))
    table = []
    for order, trial in enumerate(drawn):
        for axis in axes:
            place = axis.values.index(trial.axes[axis.name])
            table.append(
                {
                    "id": trial.id,
                    "order": order,
                    "architecture": trial.label,
                    "axis": axis.name,
                    "place": _along(axis, place),
                    "value": trial.value,
                }
            )
    ticks = [
        {"axis": axis.name, "place": _along(axis, place), "text": str(axis.values[place])}
        for axis in axes
        for place in spread(len(axis.values), TICKS)
    ]
    x = alt.X("axis:N", sort=[axis.name for axis in axes], title=None, axis=alt.Axis(labelAngle=0))
    y = alt.Y("place:Q", title=None, axis=None, scale=alt.Scale(domain=[-0.05, 1.05], nice=False))
    colours = alt.Scale(scheme=SEQUENTIAL, reverse=unit.lower)
    lines = alt.Chart(rows(table)).mark_line(strokeWidth=2, opacity=0.8)
    lines = lines.encode(
        x=x,
        y=y,
        detail="order:O",
        color=alt.Color("value:Q", title=unit.label, scale=colours),
        tooltip=tooltips("id", "architecture", value=unit.label),
    )
    rules = alt.Chart(rows([{"axis": axis.name} for axis in axes])).mark_rule(style="muted-line").encode(x=x)
    texts = alt.Chart(rows(ticks)).mark_text(style="label", align="left", dx=6, fontSize=11)
    texts = texts.encode(x=x, y=y, text="text:N")
    best = drawn[-1] if drawn else None
    title = "No training of this family succeeded"
    if best is not None:
        named = ", ".join(f"{axis.name} {best.axes[axis.name]}" for axis in axes[:6])
        title = f"The best of {family} has {named}{' …' if len(axes) > 6 else ''}"
    part = "" if len(drawn) == len(trials) else f" {len(drawn)} of {len(trials)} are drawn."
    told = (
        f"Parallel coordinates: a line per trained {family}, over its axes, coloured by {unit.label}.{part}"
    )
    return finished(alt.layer(rules, lines, texts), title, told, table)


def workers(bars: Sequence[Bar]) -> alt.LayerChart:
    """When trials ran side by side, with attempts that were cut off."""
    outcomes = list(dict.fromkeys(bar.outcome for bar in bars))
    longest = max((bar.ended for bar in bars), default=0.0)
    unit, factor = time_unit(longest)
    table = [
        {
            "id": bar.trial,
            "attempt": bar.attempt,
            "lane": bar.lane,
            "started": bar.started * factor,
            "ended": bar.ended * factor,
            "group": bar.outcome,
        }
        for bar in bars
    ]
    lanes = max((bar.lane for bar in bars), default=1)
    chart = alt.Chart(rows(table)).mark_bar(style="ring", height={"band": 0.8}, strokeWidth=1)
    chart = chart.encode(
        x=alt.X("started:Q", title=f"{unit} since the first start"),
        x2="ended:Q",
        y=alt.Y("lane:O", title="trials side by side", axis=alt.Axis(labelOverlap=True)),
        color=categories(outcomes, "ended as"),
        tooltip=tooltips("id", "attempt", started=unit, group="ended as"),
    )
    busy = math.fsum(bar.ended - bar.started for bar in bars)
    again = sum(bar.attempt > 1 for bar in bars)
    share = busy / (lanes * longest) if longest else 0.0
    restarts = (
        f"{again} attempt{'s were' if again != 1 else ' was'} a restart" if again else "none was restarted"
    )
    ran = f"Up to {lanes} trials ran side by side" if lanes > 1 else "One trial ran at a time"
    title = f"{ran}, busy {share:.0%} of the time; {restarts}"
    told = (
        f"A bar per attempt from its start to its end, on {lanes} rows of attempts that do not overlap, over "
        f"{longest * factor:.3g} {unit}."
    )
    return finished(alt.layer(chart), title, told, table, height=max(80, min(600, 34 * lanes)))


def design(recorded: Recorded) -> alt.LayerChart:
    """What each trial of the mutual-information design was chosen for."""
    chosen = [t for t in recorded.trials if t.phase == "mutual information" and t.score is not None]
    table = [
        {"id": trial.id, "architecture": trial.label, "number": number, "gain": trial.score}
        for number, trial in enumerate(chosen, start=1)
    ]
    bars = alt.Chart(rows(table)).mark_bar(color=PALETTE[0])
    bars = bars.encode(
        x=alt.X("number:O", title="in the order of choice", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("gain:Q", title="expected information, nats"),
        tooltip=tooltips("id", "architecture", gain="nats"),
    )
    total = math.fsum(trial.score or 0.0 for trial in chosen)
    how = "was chosen for what it tells" if len(chosen) == 1 else "were chosen for what they tell"
    title = f"{trials_of(len(chosen))} {how} of all the others: {total:.1f} nats in all"
    told = "A bar per trial of the mutual-information design: nats that it was expected to tell of the rest."
    return finished(alt.layer(bars), title, told, table, height=200)


def spread_out(trials: Sequence[Trial], most: int, unit: Measure) -> list[Trial]:
    """A part of the trials in their order: half of it the best, the others spread evenly."""

    def order(trial: Trial) -> float:
        return math.inf if trial.value is None else -unit.merit(trial.value)

    kept = {trial.id for trial in thinned(trials, most, order)}
    return [trial for trial in trials if trial.id in kept]


def tooltips(*fields: str, **titled: str) -> list[alt.Tooltip]:
    plain = [alt.Tooltip(field, type="nominal", title=field) for field in fields]
    return plain + [alt.Tooltip(field, type="nominal", title=title) for field, title in titled.items()]


def time_unit(hours: float) -> tuple[str, float]:
    """The unit that suits a duration, and how many of it an hour has."""
    if hours < 0.1:
        return "seconds", 3600.0
    return ("minutes", 60.0) if hours < 3 else ("hours", 1.0)
