"""`gpnas report`: the page of a run, of several, or of a bundle, written as one file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpnas.bundle import read_bundle
from gpnas.errors import BundleError, JournalError
from gpnas.files import replacing
from gpnas.journal import Journal
from gpnas.report.comparison_page import comparison_page
from gpnas.report.page import Page, Table, render
from gpnas.report.search_page import search_page, with_pictures
from gpnas.run.cores import one_core


@dataclass(frozen=True)
class Request:
    """What a report is asked to show."""

    sources: tuple[Path, ...]
    """Run folders, or one bundle; at least one."""
    output: Path
    data: Path | None = None
    """Folder of the pairs, for pictures; None shows those of shipped photographs alone."""
    evaluation: Path | None = None
    """What `gpnas evaluate --json` printed of the bundle; None takes what is kept beside it."""
    networks: tuple[str, ...] = ()
    """Sources of the bundle's own networks, which are run for pictures."""


def write_report(request: Request) -> dict[str, Any]:
    """Writes a page and says what is on it.

    Returns:
        A JSON document: `report`, the file; `bytes`; `sections`, their names.

    Raises:
        JournalError: a run folder has no journal that can be read.
        BundleError: a bundle is not as it was written.
        DataError: the evaluation or the pairs cannot be used.
        OSError: the file cannot be written.
    """
    with one_core():
        page = page_of(request)
        text = render(page)
    with replacing(request.output) as temporary:
        temporary.write_text(text, "utf-8")
    return {
        "report": str(request.output),
        "bytes": len(text.encode()),
        "sections": [section.name for section in page.sections],
    }


def page_of(request: Request) -> Page:
    """The page of a run, of several, or of a bundle; errors as of `write_report`."""
    source = request.sources[0]
    if len(request.sources) > 1:
        return comparison_page(request.sources)
    if Journal.exists(source):
        return _page_of_run(request, source)
    if (source / "manifest.json").exists() or source.suffix == ".zip":
        from gpnas.report.bundle_page import bundle_page
        from gpnas.report.pictures import pictures_of_bundle

        told: list[str] = []
        pictures, why = pictures_of_bundle(read_bundle(source), request.data, request.networks, told.append)
        table1, why_not = _table1(request, source)
        return _with_lines(bundle_page(source, table1=table1, pictures=pictures), *told, why, why_not)
    raise JournalError(
        f"{source}: a report is of a run folder with a journal, or a bundle, but this is none; check the name"
    )


def _page_of_run(request: Request, run: Path) -> Page:
    from gpnas.figures import beliefs, together  # before there is a second thread that loads as well
    from gpnas.report.pictures import pictures_of_run

    _ = beliefs, together
    with ThreadPoolExecutor(1, "pictures") as pool:  # networks at work leave the interpreter to the figures
        told: list[str] = []
        pictured = pool.submit(pictures_of_run, run, request.data, request.networks, told.append)
        table1, why_not = _table1(request, run / "bundle")
        page = search_page(run, table1=table1)
        pictures, why = pictured.result()
    return _with_lines(with_pictures(page, pictures), *told, why, why_not)


def _table1(request: Request, bundle: Path) -> tuple[Table | None, str]:
    """Table 1 out of the file that is named, else as it is kept beside the bundle; and why not."""
    if request.evaluation is None and not bundle.exists():
        return None, ""
    from gpnas.report.bundle_page import table_beside, table_of  # with the networks' library

    if request.evaluation is not None:
        return table_of(request.evaluation), ""
    try:
        return table_beside(read_bundle(bundle), bundle)
    except BundleError:
        return None, ""  # what is wrong with it is said where its pictures would be


def _with_lines(page: Page, *lines: str) -> Page:
    """A page with further lines in its first section."""
    first, *rest = page.sections
    more = (*first.lines, *filter(None, lines))
    return replace(page, sections=(replace(first, lines=more), *rest))
