"""Several searches beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from gpnas.figures.charts import time_unit
from gpnas.figures.records import Recorded, improvements
from gpnas.figures.style import categories, finished, rows


def names_of(runs: Sequence[Recorded]) -> list[str]:
    """A short name for each run: its folder's, with a number where several have the same."""
    last = [run.run.rstrip("/").rpartition("/")[2] or run.run for run in runs]
    return [
        name if last.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(last, start=1)
    ]


def differences(runs: Sequence[Recorded]) -> list[tuple[str, list[str]]]:
    """What the runs' headers do not say alike: the path of each entry, and what each run says."""
    flat = [dict(_entries({**run.header, **run.search})) for run in runs]
    keys = dict.fromkeys(key for each in flat for key in each)
    told = [(key, [each.get(key, "–") for each in flat]) for key in keys]
    return [(key, values) for key, values in told if len(set(values)) > 1]


def _entries(document: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        name = f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping):
            yield from _entries(value, name)
        else:
            yield name, str(value)


def overlap(a: Recorded, b: Recorded) -> tuple[int, int, int]:
    """How many architectures both runs proposed, and how many each did."""
    own, other = ({trial.label for trial in run.trials} for run in (a, b))
    return len(own & other), len(own), len(other)


def best_courses(runs: Sequence[Recorded], against: str) -> alt.LayerChart:
    """The best value so far of each run.

    Args:
        runs: with an objective in one unit.
        against: `observations` or `hours`.
    """
    unit, names = runs[0].objective, names_of(runs)
    courses = {name: list(course_of(run, against)) for name, run in zip(names, runs, strict=True)}
    title_of_x, factor = "trials that have ended", 1.0
    if against == "hours":
        longest = max((x for course in courses.values() for x, _ in course), default=0.0)
        unit_of_time, factor = time_unit(longest)
        title_of_x = f"{unit_of_time} since the first start"
    table = [
        {"group": name, "x": x * factor, "value": value}
        for name, course in courses.items()
        for x, value in course
    ]
    chart = alt.Chart(rows(table)).mark_line(interpolate="step-after", strokeWidth=2)
    chart = chart.encode(
        x=alt.X("x:Q", title=title_of_x),
        y=alt.Y("value:Q", title=f"best {unit.label} so far", scale=alt.Scale(zero=False)),
        color=categories(names, "run"),
        strokeDash=alt.StrokeDash("group:N", title="run", scale=alt.Scale(domain=names)),
    )
    values = {name: course[-1][1] for name, course in courses.items() if course}
    title = "No run has a trained network yet"
    if values:
        first = max(values, key=lambda name: unit.merit(values[name]))
        title = f"{first} found the best network so far, {unit.shown(values[first])}"
    told = f"Best {unit.label} so far against {title_of_x}, a line per run: " + "; ".join(
        f"{name} {unit.shown(value)}" for name, value in values.items()
    )
    return finished(alt.layer(chart), title, told, table, width=420)


def course_of(run: Recorded, against: str) -> Iterator[tuple[float, float]]:
    """Where the best measured value of a run became better, and where the run stands now."""
    ended = sorted(
        (trial for trial in run.trials if trial.place is not None), key=lambda trial: trial.place or 0
    )
    better = improvements(ended, run.objective)
    if better:
        better.append((ended[-1], better[-1][1]))
    for trial, best in better:
        yield float(trial.place or 0) if against == "observations" else (trial.observed or 0.0) / 3600, best
