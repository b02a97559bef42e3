"""Architectures as numbers: their places on axes, and the features that a kernel sees.

Glossary: n architectures, d feature columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gpnas.space.axes import Axis, Column, Family, IntegerAxis

Places = NDArray[np.int64]
Numbers = NDArray[np.float64]

NEUTRAL = 0.5
"""What a column holds for architectures of a family that has no such axis."""


def digits(
    families: Sequence[Family],
    full: Places,  # (n,)
) -> tuple[Places, Places]:
    """Family number (n,) and place on each of the family's axes (n, most axes), -1 beyond them."""
    sizes = np.array([family.size for family in families])
    ends = sizes.cumsum()
    number = np.searchsorted(ends, full, side="right")
    places = np.full((len(full), max(len(family.axes) for family in families)), -1)
    for f, family in enumerate(families):
        rows = number == f
        places[rows, : len(family.axes)] = family.digits(full[rows] - (ends[f] - sizes[f]))
    return number, places


def columns(families: Sequence[Family], costs: Mapping[str, Numbers]) -> tuple[Column, ...]:
    """What each column of `features` means; axes with a single value have none."""
    found = [Column("family", "family")] if len(families) > 1 else []
    for f, family in enumerate(families):
        for axis in family.axes:
            if len(axis.values) > 1:
                owner = f if len(families) > 1 else None
                ordered = isinstance(axis, IntegerAxis)
                found.append(Column(axis.name, "ordered" if ordered else "categorical", owner))
    for name, values in costs.items():
        if float(values.max()) > float(values.min()):
            found.append(Column(name, "cost"))
    return tuple(found)


def features(
    families: Sequence[Family],
    number: Places,  # (n,)
    places: Places,  # (n, most axes)
    costs: Mapping[str, Numbers],  # (n,) each
) -> Numbers:
    """(n, d): ordered axes and log costs scaled to [0, 1], categories as codes."""
    found = [number.astype(np.float64)] if len(families) > 1 else []
    for f, family in enumerate(families):
        rows = number == f
        for place, axis in enumerate(family.axes):
            if len(axis.values) > 1:
                column = np.full(len(number), NEUTRAL)
                column[rows] = _levels(axis)[places[rows, place]]
                found.append(column)
    for values in costs.values():
        log = np.log(values)
        if float(log.max()) > float(log.min()):
            found.append((log - log.min()) / (log.max() - log.min()))
    if not found:
        return np.zeros((len(number), 1))
    return np.stack(found, axis=1)


def _levels(axis: Axis) -> Numbers:
    """(values,) where each value of an axis lies."""
    if not isinstance(axis, IntegerAxis):
        return np.arange(len(axis.values), dtype=np.float64)
    levels = np.array(axis.values, dtype=np.float64)
    if axis.spacing == "log":
        levels = np.log(levels)
    return (levels - levels[0]) / (levels[-1] - levels[0])
