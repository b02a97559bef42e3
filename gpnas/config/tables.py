"""Tables of configurations beside a space file: CSV with a line of names, then a line for each."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from gpnas.errors import SpaceError
from gpnas.files import opened
from gpnas.records import AxisValue

ROWS = 1_000_000
"""Most rows of a table."""
MOST_BYTES = 2**30
"""Largest file of a table."""
KNOWN = 100_000
"""So many cells' values are kept, since few differ."""


def table_path(space_file: Path, name: str) -> Path:
    """The path of a table.

    Args:
        space_file: that names the table.
        name: of the table, relative to the folder of the space file and within it.

    Raises:
        ValueError: the name leads out of the folder, or to nothing.
    """
    path = space_file.parent / name
    folder = space_file.parent.resolve()
    try:
        within = not Path(name).is_absolute() and path.resolve().is_relative_to(folder)
        exists = path.is_file()
    except (OSError, ValueError) as error:  # such as a name that is too long, or holds a NUL
        raise ValueError(f"a table must be named as files are, but {error}") from None
    if not within:
        raise ValueError(f"a table must lie in the folder of the space file or below, but got {name!r}")
    if not exists:
        raise ValueError(f"a table must be a file beside the space file, but there is no {name!r}")
    return path


def read_rows(path: Path) -> Iterator[tuple[int, int, dict[str, AxisValue]]]:
    """The rows of a table, each with the line that names the columns and its own.

    Raises:
        SpaceError: the table cannot be read, or breaks a rule; one line with file, line, rule, value.
    """
    count = header = line = 0
    names: list[str] = []
    values: dict[str, AxisValue] = {}
    try:
        with io.TextIOWrapper(opened(path, most=MOST_BYTES, follow=True), "utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                line, before = reader.line_num, line
                if not "".join(cells).strip():
                    continue
                cells = [cell.strip() for cell in cells]
                if not names:
                    names, header = _names(path, line, cells), line
                    continue
                if len(cells) != len(names):
                    raise SpaceError(
                        f"{path}:{before + 1}: a row must have {len(names)} cells, but has {len(cells)}"
                    )
                if count == ROWS:
                    raise SpaceError(f"{path}:{line}: a table must have at most {ROWS} rows, but has more")
                for column, cell in zip(names, cells, strict=True):
                    if not cell:
                        raise SpaceError(f"{path}:{before + 1}: `{column}` must be given, but is empty")
                count += 1
                if len(values) > KNOWN:
                    values.clear()
                for cell in cells:
                    if cell not in values:
                        values[cell] = _value(cell)
                yield header, before + 1, dict(zip(names, map(values.__getitem__, cells), strict=True))
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: a table must be readable UTF-8 text, but {error}") from None
    except csv.Error as error:
        raise SpaceError(f"{path}:{line + 1}: a table must be valid CSV, but {error}") from None
    if not count:
        raise SpaceError(f"{path}: a table must have a line of names and at least one row, but has none")


def _names(path: Path, line: int, cells: list[str]) -> list[str]:
    for place, name in enumerate(cells):
        if not name:
            raise SpaceError(f"{path}:{line}: a column must have a name, but column {place + 1} has none")
        if name in cells[:place]:
            raise SpaceError(f"{path}:{line}: columns must have different names, but `{name}` comes twice")
    return cells


def _value(cell: str) -> AxisValue:
    """A cell as YAML would read it: a switch, an integer, a real or a name."""
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    if re.fullmatch(r"[+-]?[0-9]{1,18}", cell):
        return int(cell)
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?", cell):
        return float(cell)
    return cell
