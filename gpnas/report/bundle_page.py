"""The page of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpnas.bundle import Bundle, read_bundle
from gpnas.errors import DataError
from gpnas.evaluation.keeping import kept, read_evaluation
from gpnas.report.page import Block, Cell, Page, Picture, Row, Section, Table, columns, listed
from gpnas.report.search_page import pictures_section


def bundle_page(path: Path, *, table1: Table | None = None, pictures: Sequence[Picture] = ()) -> Page:
    """A bundle's card, with its Table 1 and its networks' pictures where they are given.

    Raises:
        BundleError: it is none, or not as it was written.
    """
    bundle = read_bundle(path)
    manifest = bundle.manifest
    metrics = manifest.metrics
    average = "One network" if len(bundle.members) == 1 else f"{len(bundle.members)} networks, averaged"
    sections = [
        Section(
            *("summary", "In short", "In short"),
            lines=(
                f"{average}, for ×{manifest.scale} super-resolution, found by a search with gpnas "
                f"{manifest.gpnas}.",
                f"On the validation images of the search: bicubic {metrics.bicubic:.2f} dB, the best network "
                f"alone {metrics.best:.2f} dB, all {metrics.ensemble:.2f} dB (PSNR, RGB). The networks were "
                "chosen on these images too, so expect a little less on others.",
            ),
            tables=(_members(bundle),),
        )
    ]
    if table1 is not None:
        sections.append(Section("table1", "Table 1", "Table 1", tables=(table1,)))
    if bundle.picture is not None:
        width, height = _png_size(bundle.picture.png)
        shown = Picture(bundle.picture.caption, bundle.picture.caption, bundle.picture.png, width, height)
        sections.append(Section("card", "The picture of its card", "Card", pictures=(shown,)))
    if pictures:
        sections.append(pictures_section(pictures))
    sections.append(_provenance(bundle))
    return Page(kind="A gpnas bundle", title=path.absolute().name, state=str(path), sections=tuple(sections))


def table_of(evaluation: Path) -> Table:
    """The paper's Table 1, out of what `gpnas evaluate --json` printed.

    Raises:
        DataError: the file is none.
    """
    return _table_of(read_evaluation(evaluation), evaluation)


def table_beside(bundle: Bundle, path: Path) -> tuple[Table | None, str]:
    """Table 1 as it is kept beside a bundle since `gpnas evaluate` measured it.

    Returns:
        None where there is none, and why one that is there is not shown.
    """
    try:
        document = kept(bundle, path)
        return (None if document is None else _table_of(document, path)), ""
    except DataError as error:
        return None, f"Table 1 is not shown: {error}."


def _table_of(document: Mapping[str, Any], evaluation: Path) -> Table:
    try:
        return _table1(document)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{evaluation}: must be what `gpnas evaluate BUNDLE --json` prints, but "
            f"{type(error).__name__}: {error}"
        ) from None


def _table1(document: Mapping[str, Any]) -> Table:
    best = {
        name: max(round(row[name], digits) for row in document["rows"])
        for name, digits in (("psnr", 2), ("ssim", 4))
    }
    rows = [_row(document["bicubic"], "bicubic", "", best)]
    for row in document["rows"]:
        networks = " + ".join(str(each) for each in row["networks"])
        rows.append(_row(row, networks, ", ".join(row["levels"]).replace("_", "-"), best))
    named = "; ".join(
        f"{each['network']} {each['architecture']['family']} "
        + ", ".join(f"{name} {value}" for name, value in each["architecture"]["axes"].items())
        for each in document["networks"]
    )
    titles = columns("networks", "levels", numbers=("PSNR, dB", "SSIM", "over the best alone, dB"))
    title = f"Table 1: {document['images']} images, ×{document['scale']}; networks: {named}"
    return Table("table-1", title, titles, tuple(rows), sortable=True)


def _row(row: Mapping[str, Any], networks: str, levels: str, best: Mapping[str, float]) -> Row:
    psnr, ssim, over = float(row["psnr"]), float(row["ssim"]), row.get("over_best")
    gain = None if not over else float(over["psnr"])
    cells = (
        *(Cell(networks), Cell(levels)),
        Cell(f"{psnr:.2f}{_between(row.get('psnr_interval'), 2)}", psnr),
        Cell(f"{ssim:.4f}{_between(row.get('ssim_interval'), 4)}", ssim),
        Cell("" if gain is None else f"{gain:+.3f}", gain),
    )
    return Row(cells, strong=networks != "bicubic" and round(psnr, 2) == best["psnr"])


def _between(interval: Sequence[float] | None, digits: int) -> str:
    return "" if not interval else f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _members(bundle: Bundle) -> Table:
    rows = tuple(
        Row(
            (
                Cell(entry.file),
                Cell(str(member.architecture)),
                Cell(f"{entry.parameters:,}", entry.parameters),
                Cell(f"{member.weight:.3f}", member.weight),
                *(
                    Cell("" if (value := member.metrics.get(name)) is None else f"{value:.{digits}f}", value)
                    for name, digits in (("psnr", 2), ("ssim", 4))
                ),
            )
        )
        for entry, member in zip(bundle.manifest.members, bundle.members, strict=True)
    )
    titles = columns("file", "architecture", numbers=("parameters", "weight", "PSNR, dB", "SSIM"))
    return Table("members", "Its networks, each alone", titles, rows)


def _provenance(bundle: Bundle) -> Section:
    manifest = bundle.manifest
    facts = (
        ("made", manifest.created),
        ("licence of the weights", manifest.licence or "not stated"),
        ("data", listed(manifest.data)),
        ("versions", listed(manifest.versions)),
    )
    blocks = [Block.of("The manifest", manifest.model_dump())]
    if bundle.licence:
        blocks.append(Block("The text of the licence", bundle.licence))
    return Section("provenance", "Where this comes from", "Provenance", facts=facts, blocks=tuple(blocks))


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height that a PNG file states (PNG specification, 11.2.2)."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
