"""`gpnas report`: the page of a run, of several, or of a bundle, written as one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpnas.errors import JournalError
from gpnas.files import replacing
from gpnas.journal import Journal
from gpnas.report.page import Page, render
from gpnas.report.search_page import search_page


@dataclass(frozen=True)
class Request:
    """What a report is asked to show."""

    sources: tuple[Path, ...]
    """Run folders, or one bundle; at least one."""
    output: Path


def write_report(request: Request) -> dict[str, Any]:
    """Writes a page and says what is on it.

    Returns:
        A JSON document: `report`, the file; `bytes`; `sections`, their names.

    Raises:
        JournalError: a run folder has no journal that can be read.
        OSError: the file cannot be written.
    """
    page = page_of(request.sources)
    text = render(page)
    with replacing(request.output) as temporary:
        temporary.write_text(text, "utf-8")
    return {
        "report": str(request.output),
        "bytes": len(text.encode()),
        "sections": [section.name for section in page.sections],
    }


def page_of(sources: Sequence[Path]) -> Page:
    """The page of a run."""
    source = sources[0]
    if not Journal.exists(source):
        raise JournalError(
            f"{source}: a report is of a run folder with a journal, or of a bundle, but this is neither"
        )
    return search_page(source)
