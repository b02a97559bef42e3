"""A page: sections of sentences, figures, tables and pictures, in one file that asks no network for "
"anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distribution
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from gpnas import __version__
from gpnas.figures.catalogue import Figure
from gpnas.figures.style import DARK, LIGHT, config, unchecked, wrapped
from gpnas.files import packaged
from gpnas.report.sentences import Check

BADGES = {"good": "fine", "mind": "mind this", "open": "to know"}
"""Level of a check to the word beside it, so that colour alone tells nothing."""
NOTICES = "licenses/gpnas/report/assets/vega.LICENSE.txt"
"""The licences of what draws figures, in the metadata of the installed package."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    number: bool = False
    """Whether it is set to the right."""


def columns(*words: str, numbers: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns of words, and right of them columns of numbers."""
    return (*map(Column, words), *(Column(title, number=True) for title in numbers))


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    sort: float | None = None
    """What it is sorted by; None takes its text."""
    summary: str = ""
    """What unfolds `more`."""
    more: tuple[str, ...] = ()
    """Lines that are folded away."""


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    cells: tuple[Cell, ...]
    state: str = ""
    """What the table can be filtered by."""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a section."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = False

    @property
    def states(self) -> list[str]:
        """The states of its rows."""
        return list(dict.fromkeys(row.state for row in self.rows if row.state))


@dataclass(frozen=True)
class Picture:
    """One of several pictures that are looked at together."""

    caption: str
    alt: str
    data: bytes
    """A PNG file."""
    width: int
    height: int

    @property
    def png(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.data).decode()


@dataclass(frozen=True)
class Block:
    """Text that is folded away, such as a document."""

    title: str
    text: str

    @classmethod
    def of(cls, title: str, document: Any) -> Block:
        """A JSON document, folded away."""
        return cls(title, json.dumps(document, indent=2, ensure_ascii=False, default=str))


def listed(entries: Mapping[str, Any]) -> str:
    """The entries that are known, in one line; of a list, how many it has."""
    shown = {name: len(entry) if isinstance(entry, list) else entry for name, entry in entries.items()}
    return ", ".join(f"{name} {entry}" for name, entry in shown.items() if entry is not None)


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    name: str
    heading: str
    short: str
    """Its heading in the navigation."""
    lines: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page."""

    kind: str
    """What it is, above its title."""
    title: str
    state: str
    sections: tuple[Section, ...]


def render(page: Page) -> str:
    """A page as HTML: every text in it is escaped, and nothing in it can run but what is hashed here."""
    specs: dict[str, list[dict[str, Any]]] = {}
    datasets: dict[str, str] = {}
    shown = []
    with unchecked():  # tests check; here it would take half of the time
        for section in page.sections:
            drawn = []
            for figure in section.figures:
                views = [[_spec(chart, datasets) for chart in view.charts] for view in figure.views]
                specs[figure.name] = [{"specs": view} for view in views]
                drawn.append(_figure(figure, views[0]))
            shown.append({**vars(section), "figures": drawn})
    vega = _asset("vega.js") if specs else ""
    vega = f"(()=>{{{vega}}})();" if vega else ""
    script = _asset("page.js")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    schemes = {"light": config(LIGHT), "dark": config(DARK)}
    return environment.from_string(_asset("page.html")).render(
        page={**vars(page), "sections": shown},
        badges=BADGES,
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        policy=_policy([script, vega] if vega else [script]),
        style=Markup(_asset("page.css")),
        specs=Markup(_embedded(specs)),
        datasets=Markup(
            _safe(f"{{{','.join(f'{json.dumps(name)}:{text}' for name, text in datasets.items())}}}")
        ),
        schemes=Markup(_embedded(schemes)),
        vega=Markup(vega),
        licences=distribution("gpnas").read_text(NOTICES) if vega else "",
        script=Markup(script),
    )


def _figure(figure: Figure, first: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A figure for the template; first: the specifications of its first view's charts."""
    drawn = [
        {
            "title": spec["usermeta"]["title"],
            "alt": spec["usermeta"]["alt"],
            "height": int(spec["height"]) + 60,
        }
        for spec in first
    ]
    labels = [view.label for view in figure.views]
    rest = [{"label": label, "charts": []} for label in labels[1:]]
    return {**vars(figure), "views": [{"label": labels[0], "charts": drawn}, *rest]}


def _spec(chart: Any, datasets: dict[str, str]) -> dict[str, Any]:
    """A chart as the page's script draws it: without what all charts share; its data join the others'."""
    document: dict[str, Any] = chart.to_dict(validate=False)
    own = document.pop("datasets", {})
    datasets |= own
    document["datasets"] = list(own)
    for key in ("$schema", "config", "title"):
        document.pop(key, None)
    document["usermeta"]["lines"] = wrapped(document["usermeta"]["title"])
    return document


def _embedded(document: Any) -> str:
    """JSON that ends no script: what markup begins with is written as an escape."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return _safe(text)


def _safe(text: str) -> str:
    """JSON in which nothing looks like markup."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    """What the page may do: run these scripts, show pictures that it holds; no request."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return packaged("report", name).decode()
