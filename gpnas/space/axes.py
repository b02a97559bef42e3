"""Axes and the families that they span."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpnas.errors import SpaceError
from gpnas.records import AxisValue


@dataclass(frozen=True)
class IntegerAxis:
    """An ordered axis of integers, such as a number of features."""

    name: str
    values: tuple[int, ...]
    """Strictly increasing, at least one."""
    spacing: Literal["linear", "log"] = "linear"
    """How distance along the axis is measured; `log` needs positive values."""

    def __post_init__(self) -> None:
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
    """Networks of one kind, told apart by the values of their axes."""

    name: str
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not self.axes:
            raise SpaceError(f"family {self.name}: a family must have at least one axis, but got none")
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names):
            raise SpaceError(f"family {self.name}: axes must have different names, but got {names}")

    @property
    def size(self) -> int:
        """How many architectures the axes span, limits aside."""
        return math.prod(len(axis.values) for axis in self.axes)


@dataclass(frozen=True)
class Column:
    """What a column of the features means to a kernel."""

    name: str
    kind: Literal["ordered", "categorical", "family", "cost", "task"]
    """`ordered` and `cost` columns lie in [0, 1]; the others hold codes 0, 1, … A `task` tells searches
    apart that share a space; it never is a column of the space itself."""
    family: int | None = None
    """Number of the family that the column belongs to; None where it belongs to all."""
