"""What a helper does for the service; each takes and gives plain JSON. PyTorch is loaded by the first."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gpnas.errors import GpnasError, JournalError, SpaceError

if TYPE_CHECKING:
    from gpnas.own_search import OwnSearch
    from gpnas.records import Candidate

CHEAP = ("course", "curves", "costs", "workers", "coordinates")
"""Figures that need no surrogate."""
FILES = {"table", "network", "trainer"}
"""Keys of a space file behind which another file, or code, is named."""
TOP = 200
"""Architectures of which a posterior is told where nobody names any."""


def explained(run: str, name: str) -> dict[str, Any]:
    """Why a candidate was chosen, or `best`, or of an empty name all in short."""
    from gpnas.results.recall import explain_candidate, explain_search

    path = Path(run)
    told = explain_candidate(path, name) if name else explain_search(path, lambda done, total: None)
    return {**told, "run": path.name}  # where the runs lie is nobody's business


def figure(run: str, name: str) -> dict[str, Any] | None:
    """A figure as Vega-Lite; None where the run has no such figure (yet)."""
    from gpnas.figures.catalogue import Seen, figures, see
    from gpnas.figures.reading import read_search
    from gpnas.figures.style import DARK, LIGHT, config, unchecked
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
                return {
                    "name": name,
                    "heading": each.heading,
                    "reading": each.reading,
                    "views": views,
                    "schemes": {"light": config(LIGHT), "dark": config(DARK)},
                }
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


def header(text: str, wishes: dict[str, Any], most: int) -> dict[str, Any]:
    """What a search is that someone asks for: its header, and how many architectures its space has.

    Args:
        text: of a space file, which may name no other file and no code.
        wishes: `trials`, `strategy`, `seed`, `steps`, `early_stopping`, `objective`, where they are given.
        most: architectures that the space may have.
    """
    from gpnas.journal.documents import encode
    from gpnas.opening import Wishes, header_of
    from gpnas.records import Objective

    check_alone(text)
    objective = wishes.pop("objective", None)
    asked = Wishes(**wishes, objective=None if objective is None else Objective(**objective))
    with _written(text) as path:
        made, space = header_of(path, asked)
    _check_size(len(space), most)
    text, _ = encode(made.to_json())
    return {"header": json.loads(text), "architectures": len(space)}


def managed(text: str, most: int) -> dict[str, Any]:
    """How many architectures a space has that Ray is to search, and the `trainer` that it names.

    Only the service knows which trainers may be named; a module of a package is none.
    """
    from gpnas.config import read_space_file

    trainer = check_alone(text, trainer=True)
    with _written(text) as path:
        size = len(read_space_file(path).search_space())
    _check_size(size, most)
    return {"architectures": size, "trainer": trainer}


@contextmanager
def _written(text: str) -> Iterator[Path]:
    """A space that was sent, as a file, by whose path no error names it."""
    with TemporaryDirectory(prefix="gpnas-space-") as folder:
        path = Path(folder) / "space"
        path.write_text(text, "utf-8")
        try:
            yield path
        except GpnasError as error:
            raise SpaceError(str(error).replace(str(path), "space")) from None


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise SpaceError(f"a space may have {most:,} architectures, but this one has {size:,}")


def check_alone(text: str, *, trainer: bool = False) -> str | None:
    """Raises a `SpaceError` where a space file names another file, or code.

    From outside, neither may be named: whoever may begin a search may not read or run what lies here.

    Args:
        text: of the space file.
        trainer: whether it may name the file of a training, which the service looks for where it allows.

    Returns:
        That file's name, None where none is named.
    """
    from gpnas.config.yaml12 import YamlError, parse

    try:
        document, _ = parse(text)
    except YamlError:
        return None  # told with its line by whoever reads it next
    place = None
    if trainer and isinstance(document, dict) and isinstance(document.get("trainer"), str):
        place = document.pop("trainer").rpartition(":")[0]
    waiting: list[Any] = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if wrong := FILES & set(each):
                raise SpaceError(
                    f"space: a space that is sent may name no file and no code, but has `{wrong.pop()}`"
                )
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return place


def contains(run: str, architecture: dict[str, Any]) -> bool:
    """Raises a `SpaceError` where an architecture is not of a run's space."""
    from gpnas.records import Architecture

    _mind(run).search.space.index(Architecture.from_json(architecture))
    return True


def foreseen(run: str, kept: list[list[Any]], number: int, timed: bool) -> dict[str, Any]:
    """What would be suggested next.

    Args:
        run: path of the run folder.
        kept: names of candidates that are suggested before, as this function returned them, each with its
            answer's number.
        number: how many more.
        timed: whether costs have the `seconds` that a training is expected to take, once one told its own.

    Returns:
        `candidates`, each with its `costs`; `answer`, this answer's number; `kept`, after how many of those
        that are kept they come, since this process may not know what a former one said; `count` and
        `observed`, how many candidates and observations the journal had; `costs` of those that are pending,
        by name; `architectures`, the size of the space.
    """
    from gpnas.run.cores import one_core

    with one_core():
        mind = _mind(run)
        engine, memory = mind.search.engine, mind.search.memory
        names = [(name, answer) for name, answer in kept]
        known = [*takewhile(mind.said.__contains__, names)]
        after = {each: mind.said[each] for each in known if not engine.knows(mind.said[each])}
        found = engine.foresee(number, [*after.values()])
        mind.answers += 1
        mind.said = after | {(each.id, mind.answers): each for each in found}
        pending = [*memory.pending.values()]
        costs = _costs(mind, [*found, *pending], timed)
        return {
            "candidates": [{"candidate": document_of(each), "costs": costs[each.id]} for each in found],
            "answer": mind.answers,
            "kept": len(known),
            "count": len(memory.candidates),
            "observed": len(memory.observations),
            "costs": {each.id: costs[each.id] for each in pending},
            "architectures": len(engine.space),
        }


def what_if(run: str, told: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """What would be suggested if more were told; nothing is written.

    Args:
        run: path of the run folder.
        told: values of candidates that are pending, each with its `candidate` and `value`.
        number: how many suggestions.
    """
    from gpnas.engine import engine_for
    from gpnas.records import Observation
    from gpnas.run.cores import one_core

    with one_core():
        search = _mind(run).search
        engine, memory = engine_for(search.space, search.journal.header), search.memory
        engine.replay([*memory.candidates.values()], memory.observations)
        for each in told:
            if each["candidate"] not in memory.pending:
                raise JournalError(f"a candidate must be pending, but got {each['candidate']!r:.60}")
            engine.observe(Observation(memory.pending[each["candidate"]], float(each["value"])))
        return {
            "observations": len(memory.observations) + len(told),
            "candidates": [document_of(each) for each in engine.foresee(number)],
        }


@dataclass
class _Mind:
    """A search whose engine knows a run's journal, and goes on learning it."""

    search: OwnSearch
    said: dict[tuple[str, int], Candidate] = field(default_factory=dict)
    """What the last answer foresaw, and what was to come before, by name and answer's number."""
    answers: int = field(default_factory=lambda: secrets.randbits(40))
    """The last answer's number; another process begins elsewhere."""
    step_bytes: tuple[float, ...] = ()
    """What a training step of each architecture holds, in bytes; empty where that is not known."""


MINDS: dict[str, tuple[tuple[int, int], _Mind]] = {}
"""What this process knows of runs, by their paths and the identity of their journals' files."""


def _mind(run: str) -> _Mind:
    from gpnas.journal import Journal
    from gpnas.own_search import OwnSearch
    from gpnas.run.pricing import searched_space
    from gpnas.run.setup import OwnSetup

    status = os.stat(Path(run) / "journal.sqlite", follow_symlinks=False)
    identity = status.st_dev, status.st_ino
    known = MINDS.get(run)
    if known is None or known[0] != identity:
        MINDS.clear()
        journal = Journal.read(Path(run))
        setup = journal.setup(OwnSetup) if OwnSetup.describes(journal) else None
        search = OwnSearch(journal, lambda: searched_space(journal), bound=False)
        known = identity, _Mind(search, step_bytes=setup.memory if setup else ())
        MINDS[run] = known
    known[1].search.catch_up()
    return known[1]


def candidate_of(document: Mapping[str, Any]) -> Candidate:
    """A candidate from its JSON document."""
    from gpnas.records import Architecture, Candidate, Fidelity

    return Candidate(
        document["id"],
        Architecture.from_json(document["architecture"]),
        Fidelity(document["steps"]),
        document["seed"],
        document["decision"],
    )


def document_of(candidate: Candidate) -> dict[str, Any]:
    """A candidate as a JSON document."""
    return {
        "id": candidate.id,
        "architecture": candidate.architecture.to_json(),
        "steps": candidate.fidelity.steps,
        "seed": candidate.seed,
        "decision": dict(candidate.decision),
    }


def _costs(mind: _Mind, candidates: Sequence[Candidate], timed: bool) -> dict[str, dict[str, float]]:
    """What is known of candidates before they are trained, by their names."""
    import torch

    space = mind.search.space
    known: dict[str, Any] = dict(space.costs)
    if mind.step_bytes:
        known["memory"] = mind.step_bytes
    if not (known or timed) or not candidates:
        return {each.id: {} for each in candidates}
    places = torch.tensor([space.index(each.architecture) for each in candidates])
    columns = {name: [float(values[place]) for place in places] for name, values in known.items()}
    expected = mind.search.engine.expected_seconds(places) if timed else None
    if expected is not None:
        columns["seconds"] = expected.tolist()
    return {
        each.id: {name: values[row] for name, values in columns.items()}
        for row, each in enumerate(candidates)
    }


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
    each.__name__: each
    for each in (
        *(explained, figure, figure_names, report, portfolio, posterior, bundle),
        *(header, managed, contains, foreseen, what_if),
    )
}
"""Everything that a helper may be asked, by name."""
