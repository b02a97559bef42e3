"""All figures of a search, in the order in which a reader needs them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import GpnasError
from gpnas.figures import belief_charts, charts
from gpnas.figures.data import lanes
from gpnas.figures.records import Recorded

if TYPE_CHECKING:
    from gpnas.figures.beliefs import Standing
    from gpnas.figures.data import Left, Together, Trust
    from gpnas.learned import Learned

PAIRS = {1: 5, 2: 4}
"""Families of a space to the axes of each whose pairs are mapped; of more families, three."""
SLICES = 9
"""Axes of a family along which slices are drawn: the most relevant."""
MAPPED = 6
"""Families that are mapped: those that were trained most."""


@dataclass(frozen=True)
class View:
    """One of several ways to see a figure."""

    label: str
    """What tells it from the others; empty of the only one."""
    charts: tuple[Any, ...]
    """Altair charts, to be seen side by side."""


@dataclass(frozen=True)
class Figure:
    """Charts that answer one question."""

    name: str
    """A word that identifies it, such as `course`."""
    heading: str
    """The question, or what is shown."""
    reading: str
    """How to read it, and where its numbers come from."""
    views: tuple[View, ...]


@dataclass(frozen=True)
class Seen:
    """All that is known of a run, from which its figures are drawn."""

    recorded: Recorded
    standing: Standing | None
    """None where there is no surrogate."""
    trust: Trust | None
    learning: Learned | None
    left: Left | None
    """These three are None where there is no surrogate."""
    together: Together | None
    """None where no portfolio was delivered, or errors are gone."""
    notes: tuple[str, ...] = ()
    """Why something is missing."""


def see(run: Path) -> Seen:
    """A run, read and thought through.

    Raises:
        JournalError: the run folder has no journal that can be read.
    """
    from gpnas.figures.reading import read_search

    recorded = read_search(run)
    standing = trust = learning = left = together = None
    notes = list(recorded.notes)
    if recorded.families and recorded.succeeded:
        from gpnas.figures import beliefs

        try:
            standing = beliefs.standing_of(run, recorded)
            learning, left = beliefs.learning(standing), beliefs.left(standing)
            trust = beliefs.trust(standing, learning.noise)
        except GpnasError as error:
            notes.append(f"figures of the surrogate are left out: {error}")
    if recorded.delivery is not None:
        from gpnas.figures.together import together_of

        try:
            together = together_of(run)
        except (GpnasError, KeyError, ValueError) as error:
            notes.append(f"figures of the portfolio are left out: {error}")
    return Seen(recorded, standing, trust, learning, left, together, tuple(notes))


def figures(seen: Seen) -> Iterator[Figure]:
    """Every figure for which there are numbers."""
    recorded = seen.recorded
    yield from _progress(seen)
    if seen.standing is not None:
        yield from _beliefs(seen, seen.standing)
    if seen.trust is not None and (seen.trust.left_out or seen.trust.foretold):
        yield _trusted(seen.trust)
    if any(len(trial.curve) > 1 for trial in recorded.trials):
        yield _one(
            "curves",
            "How did trainings go?",
            "Each line is a training, validated at its steps. A trained network's line ends at its value; a "
            "triangle is where a training was stopped.",
            charts.curves(recorded),
        )
    if recorded.families and recorded.succeeded:
        yield from _coordinates(recorded)
    if seen.together is not None:
        yield _portfolio(seen.together)
    if any(trial.spans for trial in recorded.trials):
        bars = lanes(recorded.trials, _now(recorded))
        yield _one(
            "workers",
            "When were workers busy?",
            "Each bar is an attempt at a trial; rows are as many as ran at once. Gaps are time in which a "
            "worker had nothing to do, or was not there.",
            charts.workers(bars),
        )


def _progress(seen: Seen) -> Iterator[Figure]:
    recorded = seen.recorded
    if recorded.succeeded:
        yield _one(
            "course",
            "How did the search go?",
            "Each point is a trial. The grey bar behind it is where its value was expected, with a "
            "probability of 90 %, before it was trained: mean and standard deviation as the journal notes "
            "them, with today's estimate of the noise. Failed trials stand at the bottom.",
            charts.course(recorded, seen.trust.foretold if seen.trust else ()),
        )
    known = [cost for cost in charts.COSTS if any(charts.cost_of(t, cost) > 0 for t in recorded.finished)]
    if known:
        yield _one(
            "costs",
            "What does quality cost?",
            "Each point is a network that was trained to its last step. Rings on the stepped line have no "
            "cheaper network that is as good.",
            *(charts.costs(recorded, cost) for cost in known),
        )


def _beliefs(seen: Seen, standing: Standing) -> Iterator[Figure]:
    left, learning = seen.left, seen.learning
    assert left is not None
    assert learning is not None
    yield _one(
        "left",
        "What is left to find out?",
        f"The expected regret of stopping is counted from {left.draws} joint draws of the values of the "
        f"{left.weighed} most promising architectures: the best of each draw, less what would be "
        "recommended. Earlier moments are seen with today's hyperparameters.",
        belief_charts.regret(left),
        belief_charts.unknown(left),
    )
    relevant = [column.name for column in learning.columns]
    if learning.columns:
        yield _one(
            "relevance",
            "What does each axis matter?",
            "How much the surrogate lets values vary when one column alone is changed to another "
            "architecture's, as a share. Costs that follow from the axes take their share from them.",
            belief_charts.relevance(learning),
        )
    yield from _over_axes(standing, relevant)
    if any(trial.phase == "mutual information" for trial in standing.recorded.trials):
        yield _one(
            "design",
            "What were the first trials chosen for?",
            "Before anything is known, trials are chosen for the information, in nats, that their outcome is "
            "expected to give of all other architectures.",
            charts.design(standing.recorded),
        )


def _over_axes(standing: Standing, relevant: Sequence[str]) -> Iterator[Figure]:
    """Maps over pairs of axes and slices along each, the most relevant axes first."""
    from gpnas.figures import beliefs

    families = _mapped(standing.recorded)
    most = PAIRS.get(len(families), 3)
    views = tuple(
        View(
            _label(data.family if len(families) > 1 else "", x, y, averaged),
            (belief_charts.mean_map(data), belief_charts.stddev_map(data)),
        )
        for family in families
        for x, y in itertools.combinations(_axes(standing.recorded, family, relevant)[:most], 2)
        for averaged in (False, True)
        for data in (beliefs.posterior_map(standing, family, x, y, averaged=averaged),)
        if len(data.cells) > 1  # of a space that is listed, often one alone has the leader's other axes
    )
    if views:
        yield Figure(
            "posterior",
            "What does the surrogate believe?",
            "Colours are the posterior mean and standard deviation over two axes; the other axes are held "
            "at the leader's values, or averaged over. Grey cells are not in the space. White circles are "
            "trained architectures of the shown slice, diamonds those whose other axes differ.",
            views,
        )
    slices = tuple(
        View(
            family if len(families) > 1 else "",
            tuple(
                belief_charts.slice_chart(data)
                for axis in _axes(standing.recorded, family, relevant)[:SLICES]
                for data in (beliefs.slice_along(standing, family, axis),)
                if len(data.points) > 1
            ),
        )
        for family in families
    )
    if any(view.charts for view in slices):
        yield Figure(
            "slices",
            "What does each axis do?",
            "The line is the posterior mean along one axis, the other axes held at the leader's values; "
            "the band holds one training with a probability of 90 %. Dots are trained architectures on the "
            "line.",
            slices,
        )


def _label(family: str, x: str, y: str, averaged: bool) -> str:
    others = "averaged over other axes" if averaged else "other axes at the leader's"
    return f"{f'{family}: ' if family else ''}{x} × {y}, {others}"


def _trusted(trust: Trust) -> Figure:
    judged = [belief_charts.left_out(trust)] if trust.left_out else []
    judged += [belief_charts.foretold_chart(trust)] if trust.foretold else []
    return _one(
        "trust",
        "How far can predictions be trusted?",
        f"{trust.diagnostics.summary}. Points on the dashed diagonal were predicted exactly. In the "
        "calibration, a line below the diagonal means intervals that are too narrow.",
        *judged,
        belief_charts.calibration(trust),
    )


def _coordinates(recorded: Recorded) -> Iterator[Figure]:
    families = _mapped(recorded)
    views = tuple(
        View(family if len(families) > 1 else "", (charts.coordinates(recorded, family),))
        for family in families
        if len(recorded.families[family]) > 1
    )
    if views:
        yield Figure(
            "coordinates",
            "Which architectures are good?",
            "Each line is a trained architecture: where it crosses an axis is its value there. Bright "
            "lines are the best.",
            views,
        )


def _portfolio(together: Together) -> Figure:
    shares = [belief_charts.weights(together)] if together.members else []
    errors = [belief_charts.correlation(together)] if len(together.names) > 1 else []
    return _one(
        "portfolio",
        "Which networks belong together?",
        "An average is better than its members where their errors differ. The frontier shows averages that "
        "no cheaper one equals, on the validation images that chose them.",
        *shares,
        belief_charts.frontier(together),
        *errors,
    )


def _mapped(recorded: Recorded) -> list[str]:
    """The families that were trained, the most trained first; at most `MAPPED`."""
    counts = {name: sum(t.family == name for t in recorded.succeeded) for name in recorded.families}
    return sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])[:MAPPED]


def _axes(recorded: Recorded, family: str, relevant: Sequence[str]) -> list[str]:
    """The axes of a family with several values, the most relevant first."""
    names = [axis.name for axis in recorded.families[family] if len(axis.values) > 1]
    order = [column.removeprefix(f"{family}.") for column in relevant]
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _one(name: str, heading: str, reading: str, *shown: Any) -> Figure:
    """A figure with a single view."""
    return Figure(name, heading, reading, (View("", shown),))


def _now(recorded: Recorded) -> float:
    """Seconds from the first start to the newest moment that the journal tells of."""
    times = [
        time
        for trial in recorded.trials
        for time in (trial.observed, trial.proposed, *(span.ended for span in trial.spans))
        if time is not None
    ]
    return max(times, default=0.0)
