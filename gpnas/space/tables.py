"""Explicit lists of configurations: the axes that they span, and which points of those they are."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import SpaceError
from gpnas.records import AxisValue, plain_value
from gpnas.space.axes import Axis, CategoricalAxis, Family, IntegerAxis
from gpnas.space.encoding import Numbers, Places
from gpnas.space.merging import Representatives, merged

Row = Mapping[str, AxisValue]


class Columns:
    """A table, column by column: the values that occur, and for each row which of them; 4 bytes a cell."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._numbers: list[dict[tuple[type, AxisValue], int]] = [{} for _ in names]
        self._rows = [array("i") for _ in names]

    def add(self, row: Sequence[AxisValue]) -> None:
        """Adds a row of plain values, in the order of the names."""
        for numbers, rows, value in zip(self._numbers, self._rows, row, strict=True):
            # by type too, since Python takes True, 1 and 1.0 for the same
            rows.append(numbers.setdefault((type(value), value), len(numbers)))

    def __len__(self) -> int:
        return len(self._rows[0]) if self._rows else 0

    def values(self, name: str) -> list[AxisValue]:
        """The values of a column, each once, in the order in which they came."""
        return [value for _, value in self._numbers[self.names.index(name)]]

    def numbers(self, name: str) -> NDArray[np.int32]:
        """(n,) for each row the place of its value in `values`."""
        return np.frombuffer(self._rows[self.names.index(name)], dtype=np.int32)

    def count(self, place: int) -> int:
        """How many different values the column at a place has."""
        return len(self._numbers[place])


@dataclass(frozen=True)
class Table:
    """A list of configurations, without repetitions."""

    family: Family
    """The values that occur, axis by axis; where these span more than the table has, its rows are listed."""
    kept: Places | None  # (n,)
    """Places in the family of the configurations that stand for themselves; None: all of them."""
    representatives: Representatives | None  # (m,), (m,)
    """Places of those that are left out since an equivalent one comes first, and its places."""
    costs: dict[str, Numbers]  # (n,) each


def columns_of(rows: Iterable[Any]) -> Columns:
    """A table of mappings, of NumPy's or pandas' values too.

    Raises:
        SpaceError: there are no rows, they have different names, or a value is no plain one.
    """
    columns: Columns | None = None
    for number, row in enumerate(rows):
        try:
            cells = {str(name): plain_value(value) for name, value in dict(row).items()}
        except (TypeError, ValueError):
            raise SpaceError(
                f"a row must map names to values, but row {number} is of {type(row).__name__}; "
                "of a pandas table give `table.to_dict('records')`"
            ) from None
        if columns is None:
            columns = Columns(list(cells))
        if cells.keys() != set(columns.names):
            raise SpaceError(
                f"rows must have the names {list(columns.names)}, but row {number} has {list(cells)}"
            )
        for name, value in cells.items():
            if not isinstance(value, int | float | str) or (
                isinstance(value, float) and not math.isfinite(value)
            ):
                raise SpaceError(
                    f"row {number}: `{name}` must be a finite number, a name or a switch, "
                    f"but got {value!r:.60}"
                )
        columns.add([cells[name] for name in columns.names])
    if columns is None:
        raise SpaceError("a table must have at least one row, but got none")
    return columns


def read_table(columns: Columns, family: str, costs: Sequence[str], canonical: str | None) -> Table:
    """What `SearchSpace.from_table` takes, checked.

    Raises:
        SpaceError: as `SearchSpace.from_table`.
    """
    known = [*costs, *([canonical] if canonical is not None else [])]
    for name in known:
        if name not in columns.names:
            raise SpaceError(f"rows must have the names {known} besides axes, but {name!r} is missing")
    axes, places = [], []
    for name in (name for name in columns.names if name not in known):
        values = columns.values(name)
        axes.append(_axis(name, values))
        rank = {(type(value), value): place for place, value in enumerate(axes[-1].values)}
        ranks = np.array([rank[type(value), value] for value in values], dtype=np.int32)
        places.append(ranks[columns.numbers(name)])
    if not axes:
        raise SpaceError(f"family {family}: a family must have at least one axis, but got none")
    grid = np.stack(places, axis=1)
    order = np.lexsort(grid.T[::-1])
    grid = grid[order]
    fresh = np.concatenate([[True], (grid[1:] != grid[:-1]).any(axis=1)])
    for name in known:
        numbers = columns.numbers(name)[order]
        differ = ~fresh[1:] & (numbers[1:] != numbers[:-1])
        if differ.any():
            row = dict(zip((axis.name for axis in axes), grid[1:][differ][0].tolist(), strict=True))
            shown = {axis.name: axis.values[row[axis.name]] for axis in axes}
            raise SpaceError(f"equal configurations must have equal costs, but {name} of {shown} differs")
    grid, order = np.ascontiguousarray(grid[fresh]), order[fresh]
    whole = len(grid) == math.prod(len(axis.values) for axis in axes)
    listed = Family(family, tuple(axes), None if whole else grid)
    kept, representatives = _equivalent(columns, canonical, order)
    left = order if kept is None else order[kept]
    return Table(listed, kept, representatives, {name: _costs(columns, name, left) for name in costs})


def _equivalent(
    columns: Columns, canonical: str | None, order: NDArray[np.int64]
) -> tuple[Places | None, Representatives | None]:
    """The first configurations of their key, and of the others who stands for them."""
    if canonical is None:
        return None, None
    keys = columns.numbers(canonical)[order].astype(np.int64)
    kept, representatives = merged(keys, np.arange(len(order)), None)
    return None if representatives is None else np.flatnonzero(kept), representatives


def _costs(columns: Columns, name: str, rows: NDArray[np.int64]) -> Numbers:
    values = columns.values(name)
    for value in values:
        if isinstance(value, str) or not 0 < value < math.inf:
            raise SpaceError(f"cost {name}: must be a positive number, but got {value!r:.60}")
    return np.array([float(value) for value in values])[columns.numbers(name)[rows]]


def _axis(name: str, values: Sequence[AxisValue]) -> Axis:
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return IntegerAxis(name, tuple(sorted(int(value) for value in values)))
    return CategoricalAxis(name, tuple(sorted(values, key=str)))
