"""Explicit lists of configurations: the axes that they span, and which points of those they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpnas.errors import SpaceError
from gpnas.records import AxisValue
from gpnas.space.axes import Axis, CategoricalAxis, Family, IntegerAxis

Row = Mapping[str, AxisValue]


@dataclass(frozen=True)
class Table:
    """A list of configurations, without repetitions."""

    family: Family
    """The values that occur, axis by axis."""
    rows: dict[int, Row]
    """Place in the family's enumeration to configuration, in increasing order."""
    representatives: dict[int, int]
    """Places of configurations that are left out since an equivalent one comes first, to its place."""


def read_table(rows: Iterable[Row], family: str, costs: Sequence[str], canonical: str | None) -> Table:
    """What `SearchSpace.from_table` takes, checked.

    Raises:
        SpaceError: as `SearchSpace.from_table`.
    """
    listed = [dict(row) for row in rows]
    if not listed:
        raise SpaceError("a table must have at least one row, but got none")
    known = {*costs, *([canonical] if canonical is not None else [])}
    names = [name for name in listed[0] if name not in known]
    for number, row in enumerate(listed):
        if set(row) != {*names, *known}:
            raise SpaceError(
                f"rows must have the names {[*names, *sorted(known)]}, but row {number} has {list(row)}"
            )
    axes = tuple(_axis(name, {row[name] for row in listed}) for name in names)
    levels = [{value: place for place, value in enumerate(axis.values)} for axis in axes]
    found: dict[int, Row] = {}
    for row in listed:
        full = 0
        for name, level in zip(names, levels, strict=True):
            full = full * len(level) + level[row[name]]
        if found.setdefault(full, row) != row:
            raise SpaceError(f"equal configurations must have equal costs, but {row} differs")
    first: dict[AxisValue, int] = {}
    representatives: dict[int, int] = {}
    for full in sorted(found):
        stands = full if canonical is None else first.setdefault(found[full][canonical], full)
        if stands != full:
            representatives[full] = stands
    kept = {full: found[full] for full in sorted(found) if full not in representatives}
    for name in costs:
        for each in kept.values():
            value = each[name]
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise SpaceError(f"cost {name}: must be a positive number, but got {value!r}")
    return Table(Family(family, axes), kept, representatives)


def _axis(name: str, values: set[AxisValue]) -> Axis:
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return IntegerAxis(name, tuple(sorted(int(value) for value in values)))
    return CategoricalAxis(name, tuple(sorted(values, key=str)))
