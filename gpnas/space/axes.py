"""Axes and the families that they span."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import SpaceError
from gpnas.records import AxisValue, plain_value

LARGEST = 2**62
"""Places and values of axes are below it."""


@dataclass(frozen=True)
class IntegerAxis:
    """An ordered axis of integers, such as a number of features."""

    name: str
    values: tuple[int, ...]
    """Strictly increasing, at least one."""
    spacing: Literal["linear", "log"] = "linear"
    """How distance along the axis is measured; `log` needs positive values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(map(plain_value, self.values)))
        for value in self.values:
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= LARGEST:
                raise SpaceError(f"axis {self.name}: values must be integers, but got {value!r:.60}")
        if not self.values:
            raise SpaceError(f"axis {self.name}: an axis must have at least one value, but got none")
        for low, high in zip(self.values, self.values[1:], strict=False):
            if low >= high:
                raise SpaceError(f"axis {self.name}: values must increase, but got {low} before {high}")
        if self.spacing not in ("linear", "log"):
            raise SpaceError(f"axis {self.name}: spacing must be linear or log, but got {self.spacing!r}")
        if self.spacing == "log" and self.values[0] < 1:
            raise SpaceError(f"axis {self.name}: log spacing needs positive values, but got {self.values[0]}")


@dataclass(frozen=True)
class CategoricalAxis:
    """An axis without order."""

    name: str
    choices: tuple[AxisValue, ...]
    """Different from each other, at least one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(map(plain_value, self.choices)))
        for choice in self.choices:
            if not isinstance(choice, int | float | str):
                raise SpaceError(
                    f"axis {self.name}: choices must be numbers, names or switches, but got {choice!r:.60}"
                )
        if not self.choices:
            raise SpaceError(f"axis {self.name}: an axis must have at least one choice, but got none")
        if len(set(self.choices)) < len(self.choices):
            raise SpaceError(f"axis {self.name}: choices must differ, but got {list(self.choices)}")

    @property
    def values(self) -> tuple[AxisValue, ...]:
        return self.choices


Axis = IntegerAxis | CategoricalAxis


@dataclass(frozen=True)
class Family:
    """Networks of one kind, told apart by the values of their axes.

    Its architectures have places 0, 1, …: in the order of the axes' values, the last axis fastest.
    """

    name: str
    axes: tuple[Axis, ...]
    listed: NDArray[np.int32] | None = field(default=None, compare=False, repr=False)  # (n, axes)
    """Where not all that the axes span is meant, place on each axis of the n that are, in their order."""

    def __post_init__(self) -> None:
        if not self.axes:
            raise SpaceError(f"family {self.name}: a family must have at least one axis, but got none")
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names):
            raise SpaceError(f"family {self.name}: axes must have different names, but got {names}")
        if self.listed is not None:
            listed, ends = self.listed, [len(axis.values) for axis in self.axes]
            if listed.ndim != 2 or listed.shape[1] != len(ends) or not len(listed):
                raise SpaceError(f"family {self.name}: a list must have a row and a place on each axis")
            if (listed < 0).any() or (listed >= ends).any() or (self._keys[1:] <= self._keys[:-1]).any():
                raise SpaceError(f"family {self.name}: a list must be of places on the axes, in their order")

    @property
    def size(self) -> int:
        """How many architectures it has, limits aside."""
        return len(self.listed) if self.listed is not None else self.spanned

    @property
    def spanned(self) -> int:
        """How many architectures its axes span."""
        return math.prod(len(axis.values) for axis in self.axes)

    def digits(self, places: NDArray[np.int64]) -> NDArray[np.int64]:  # (n,)
        """(n, axes) place on each axis of the architectures at some places."""
        if self.listed is not None:
            return self.listed[places].astype(np.int64)
        found = np.empty((len(places), len(self.axes)), dtype=np.int64)
        for axis in reversed(range(len(self.axes))):
            count = len(self.axes[axis].values)
            found[:, axis] = places % count
            places = places // count
        return found

    def at(self, place: int) -> list[int]:
        """The digits of one place."""
        if self.listed is not None:
            return list(map(int, self.listed[place]))
        digits = []
        for axis in reversed(self.axes):
            place, digit = divmod(place, len(axis.values))
            digits.append(digit)
        return digits[::-1]

    def place(self, digits: Sequence[int]) -> int | None:
        """The place of the architecture with these places on the axes; None where it is not meant."""
        if self.listed is None:
            place = 0
            for axis, digit in zip(self.axes, digits, strict=True):
                place = place * len(axis.values) + digit
            return place
        key = _keys(np.array([digits], dtype=np.int32))
        place = int(np.searchsorted(self._keys, key[0]))
        return place if place < len(self.listed) and self._keys[place] == key[0] else None

    @cached_property
    def _keys(self) -> NDArray[np.bytes_]:
        assert self.listed is not None
        return _keys(self.listed)


def _keys(listed: NDArray[np.int32]) -> NDArray[np.bytes_]:
    """(n,) each row as bytes, which NumPy orders as it orders the rows."""
    wide = np.ascontiguousarray(listed.astype(">i4"))
    return wide.view(f"S{wide.shape[1] * 4}")[:, 0]


@dataclass(frozen=True)
class Column:
    """What a column of the features means to a kernel."""

    name: str
    kind: Literal["ordered", "categorical", "family", "cost", "task"]
    """`ordered` and `cost` columns lie in [0, 1]; the others hold codes 0, 1, … A `task` tells searches
    apart that share a space; it never is a column of the space itself."""
    family: int | None = None
    """Number of the family that the column belongs to; None where it belongs to all."""
