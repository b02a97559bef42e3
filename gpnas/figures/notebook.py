"""A run in a notebook: its figures, one by one, and its trials as a table."""

from __future__ import annotations

import html
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import DataError, JournalError
from gpnas.records import trials_of

if TYPE_CHECKING:
    from gpnas.figures.catalogue import Seen
    from gpnas.figures.records import Recorded


class Run:
    """A run folder, opened to be looked at; what it shows is as of the moment when it was opened."""

    def __init__(self, run: Path) -> None:
        self.path = run
        """The run folder."""
        from gpnas.figures.reading import read_search

        self.recorded: Recorded = read_search(run)
        """All that its journal tells."""

    @cached_property
    def figures(self) -> Figures:
        """Its figures, as Altair charts."""
        return Figures(self)

    def table(self) -> Any:
        """Every trial, a row each, as a pandas `DataFrame`.

        Raises:
            DataError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise DataError(
                "a table is a pandas DataFrame, but it is not installed here; pip install pandas"
            ) from None
        names = list(dict.fromkeys(name for trial in self.recorded.trials for name in trial.axes))
        costs = list(dict.fromkeys(name for trial in self.recorded.trials for name in trial.costs))
        rows = [
            {
                "id": trial.id,
                "family": trial.family,
                **{name: trial.axes.get(name) for name in names},
                "state": trial.state,
                "value": trial.value,
                "predicted": trial.mean,
                "stddev": trial.stddev,
                **{name: trial.costs.get(name) for name in costs},
                "seconds": trial.seconds,
                "attempts": len(trial.spans),
                "phase": trial.phase,
            }
            for trial in self.recorded.trials
        ]
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        """The run in a few lines."""
        recorded, best = self.recorded, self.recorded.best
        told = [f"<b>{html.escape(recorded.run)}</b>: {recorded.state}, {trials_of(len(recorded.trials))}"]
        if best is not None and best.value is not None:
            told.append(f"best {html.escape(best.label)} ({best.id}): {recorded.objective.shown(best.value)}")
        return "<br>".join(told)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.recorded.state}, {trials_of(len(self.recorded.trials))})"


class Figures:
    """The figures of a run; the surrogate is fitted once, when it is first needed."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @cached_property
    def _seen(self) -> Seen:
        from gpnas.figures.catalogue import see

        return see(self._run.path)

    def all(self) -> dict[str, Any]:
        """Every figure for which the run has numbers, by name, each as charts above each other."""
        import altair as alt

        from gpnas.figures.catalogue import figures

        def above(charts: Any) -> Any:
            return charts[0] if len(charts) == 1 else alt.vconcat(*map(_part, charts))

        return {figure.name: above(figure.views[0].charts) for figure in figures(self._seen)}

    def course(self) -> Any:
        """Value by trial, with the best so far and what was predicted of each."""
        from gpnas.figures import charts

        return charts.course(self._seen.recorded, self._seen.trust.foretold if self._seen.trust else ())

    def costs(self, cost: str = "parameters") -> Any:
        """Value against a cost: `parameters`, `gmacs` or `seconds`."""
        from gpnas.figures import charts

        return charts.costs(self._seen.recorded, cost)

    def curves(self) -> Any:
        """Learning curves, with where trainings were stopped."""
        from gpnas.figures import charts

        return charts.curves(self._seen.recorded)

    def posterior(self, x: str, y: str, *, family: str | None = None, averaged: bool = False) -> Any:
        """Posterior mean and standard deviation over two axes, side by side.

        Args:
            x, y: names of the axes.
            family: of which; the first that has both, by default.
            averaged: over the other axes, instead of holding them at the leader's values.

        Raises:
            ValueError: there is no such axis or family.
            JournalError: there is no surrogate yet.
        """
        import altair as alt

        from gpnas.figures import belief_charts, beliefs

        data = beliefs.posterior_map(self._standing(), family or self._family(x, y), x, y, averaged=averaged)
        mean, stddev = belief_charts.mean_map(data), belief_charts.stddev_map(data)
        return alt.hconcat(_part(mean), _part(stddev)).resolve_scale(color="independent")

    def slice(self, axis: str, *, family: str | None = None) -> Any:
        """The posterior along one axis, the others at the leader's values.

        Raises:
            ValueError: there is no such axis or family.
            JournalError: there is no surrogate yet.
        """
        from gpnas.figures import belief_charts, beliefs

        data = beliefs.slice_along(self._standing(), family or self._family(axis), axis)
        return belief_charts.slice_chart(data)

    def _standing(self) -> Any:
        if self._seen.standing is None:
            why = "; ".join(self._seen.notes) or "no training has succeeded yet"
            raise JournalError(f"{self._run.path}: a surrogate needs observations of a search, but {why}")
        return self._seen.standing

    def _family(self, *axes: str) -> str:
        families = self._seen.recorded.families
        for name, levels in families.items():
            if set(axes) <= {axis.name for axis in levels}:
                return name
        known = sorted({axis.name for levels in families.values() for axis in levels})
        raise ValueError(
            f"an axis must be one of {', '.join(known)}, but got {' and '.join(map(repr, axes))}"
        )


def _part(chart: Any) -> Any:
    """A chart without what only a whole one may have."""
    import altair as alt

    chart = chart.copy(deep=False)
    chart.config = chart.usermeta = alt.Undefined
    return chart


def open_run(run: str | Path) -> Run:
    """A run folder, to be looked at in a notebook, also while its search goes on.

    Args:
        run: its path.

    Raises:
        JournalError: it has no journal that can be read.
    """
    return Run(Path(run))
