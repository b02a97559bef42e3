"""What a helper does for the service; each takes and gives plain JSON. PyTorch is loaded by the first."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHEAP = ("course", "curves", "costs", "workers", "coordinates")
"""Figures that need no surrogate."""
TOP = 200
"""Architectures of which a posterior is told where nobody names any."""


def explained(run: str, name: str) -> dict[str, Any]:
    """Why a candidate was chosen, or `best`, or of an empty name all in short."""
    from gpnas.results.recall import explain_candidate, explain_search

    if name:
        return explain_candidate(Path(run), name)
    return explain_search(Path(run), lambda done, total: None)


def figure(run: str, name: str) -> dict[str, Any] | None:
    """A figure as Vega-Lite; None where the run has no such figure (yet)."""
    from gpnas.figures.catalogue import Seen, figures, see
    from gpnas.figures.reading import read_search
    from gpnas.figures.style import unchecked
    from gpnas.run.cores import one_core

    with one_core(), unchecked():
        alone = name in CHEAP
        seen = Seen(read_search(Path(run)), None, None, None, None, None) if alone else see(Path(run))
        for each in figures(seen):
            if each.name == name:
                views = [
                    {"label": view.label, "charts": [chart.to_dict(validate=False) for chart in view.charts]}
                    for view in each.views
                ]
                return {"name": name, "heading": each.heading, "reading": each.reading, "views": views}
    return None


def figure_names(run: str) -> list[dict[str, str]]:
    """Every figure for which the run has numbers."""
    from gpnas.figures.catalogue import figures, see
    from gpnas.figures.style import unchecked
    from gpnas.run.cores import one_core

    with one_core(), unchecked():
        return [
            {"name": each.name, "heading": each.heading, "reading": each.reading}
            for each in figures(see(Path(run)))
        ]


def report(run: str) -> str:
    """The page of a search."""
    from gpnas.report.page import render
    from gpnas.report.writing import Request, page_of
    from gpnas.run.cores import one_core

    with one_core():
        return render(page_of(Request((Path(run),), Path("unused"))))


def portfolio(run: str) -> dict[str, Any]:
    """Which networks of a run belong together."""
    from gpnas.results.portfolio_report import portfolio_document

    return {**portfolio_document(Path(run)), "run": Path(run).name}


def posterior(run: str) -> dict[str, Any]:
    """What is believed of the architectures with the best predictions."""
    from gpnas.engine import engine_for
    from gpnas.figures.reading import space_of
    from gpnas.journal import Journal
    from gpnas.run.cores import one_core

    with one_core(), Journal.read(Path(run)) as journal, journal.moment():
        engine = engine_for(space_of(journal), journal.header)
        observations = journal.observations()
        engine.replay(journal.candidates(), observations)
        unit = journal.header.objective.unit
        rows: list[dict[str, Any]] = []
        if any(not each.failed for each in observations):
            belief = engine.belief()
            best = belief.mean.argsort(descending=True, stable=True)[:TOP].tolist()
            rows = [
                {
                    "architecture": engine.space[index].to_json(),
                    "mean": float(belief.mean[index]),
                    "stddev": float(belief.stddev[index]),
                    "low": float(belief.low[index]),
                    "high": float(belief.high[index]),
                }
                for index in best
            ]
    return {"observations": len(observations), "unit": unit, "coverage": 0.9, "architectures": rows}


def bundle(run: str, target: str) -> int:
    """Writes a run's bundle, once it is checked, as one file, and says how large that is."""
    from gpnas.bundle import read_bundle
    from gpnas.files import look_at, opened

    folder = Path(run) / "bundle"
    read_bundle(folder)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            look_at(path)
            with opened(path) as source, archive.open(path.relative_to(folder).as_posix(), "w") as entry:
                while part := source.read(2**20):
                    entry.write(part)
    return Path(target).stat().st_size


TASKS: Mapping[str, Callable[..., Any]] = {
    each.__name__: each for each in (explained, figure, figure_names, report, portfolio, posterior, bundle)
}
"""Everything that a helper may be asked, by name."""
