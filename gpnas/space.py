"""Search spaces: families of networks with axes, enumerated without listing them as objects.

Glossary: n architectures, d feature columns. An architecture's index is its place in the
enumeration: families in order, each a product of its axes in C order (the last axis runs fastest),
without what the limits exclude.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from gpnas.errors import SpaceError
from gpnas.records import Architecture, AxisValue


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
    kind: Literal["ordered", "categorical", "family", "cost"]
    """`ordered` and `cost` columns lie in [0, 1]; the others hold codes 0, 1, …"""
    family: int | None = None
    """Number of the family that the column belongs to; None where it belongs to all."""


class SearchSpace:
    """All architectures that a search may choose from.

    Args:
        families: at least one, differently named.
        costs: what is known of each architecture before training, by name, one number per
            architecture in the order of enumeration; given by `with_costs`.
        kept: which of the enumerated architectures are feasible; None keeps all.

    Raises:
        SpaceError: a rule is broken.
    """

    def __init__(
        self,
        families: Sequence[Family],
        *,
        costs: Mapping[str, Tensor] | None = None,
        kept: Tensor | None = None,
    ) -> None:
        if not families:
            raise SpaceError("a space must have at least one family, but got none")
        names = [family.name for family in families]
        if len(set(names)) < len(names):
            raise SpaceError(f"families must have different names, but got {names}")
        self.families = tuple(families)
        self._starts = [0]
        for family in self.families:
            self._starts.append(self._starts[-1] + family.size)
        self._kept = kept  # (n,) indices into the full enumeration
        self.costs: dict[str, Tensor] = dict(costs or {})
        if len(self) == 0:
            raise SpaceError("a space must have at least one architecture, but its limits exclude all")
        for name, values in self.costs.items():
            if values.shape != (len(self),) or not bool((values > 0).all()):
                raise SpaceError(
                    f"cost {name}: must be a positive number for each of {len(self)} architectures"
                )

    @property
    def size(self) -> int:
        """How many architectures the axes span, limits aside."""
        return self._starts[-1]

    def __len__(self) -> int:
        return self.size if self._kept is None else len(self._kept)

    def __getitem__(self, index: int) -> Architecture:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`0 <= index < {len(self)}` must hold, but got {index}")
        index %= len(self)
        full = index if self._kept is None else int(self._kept[index])
        number = next(i for i in range(len(self.families)) if full < self._starts[i + 1])
        family, rest = self.families[number], full - self._starts[number]
        values = []
        for axis in reversed(family.axes):
            rest, digit = divmod(rest, len(axis.values))
            values.append((axis.name, axis.values[digit]))
        return Architecture(family.name, dict(reversed(values)))

    def __iter__(self) -> Iterator[Architecture]:
        return (self[index] for index in range(len(self)))

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        try:
            self.index(architecture)
        except SpaceError:
            return False
        return True

    def index(self, architecture: Architecture) -> int:
        """The place of an architecture in the enumeration.

        Raises:
            SpaceError: the space does not contain it.
        """
        for family, start in zip(self.families, self._starts, strict=False):
            if family.name != architecture.family or len(family.axes) != len(architecture.axes):
                continue
            full = 0
            for axis in family.axes:
                value = architecture.axes.get(axis.name)
                if value not in axis.values:
                    break
                full = full * len(axis.values) + axis.values.index(value)
            else:
                full += start
                if self._kept is None:
                    return full
                place = int(torch.searchsorted(self._kept, full))
                if place < len(self._kept) and int(self._kept[place]) == full:
                    return place
        raise SpaceError(f"{architecture}: must be an architecture of the space, but is not")

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Values per axis where the space is one whole product grid, else None."""
        if self._kept is not None or len(self.families) > 1:
            return None
        return tuple(len(axis.values) for axis in self.families[0].axes)

    @cached_property
    def digits(self) -> tuple[Tensor, Tensor]:
        """Family number (n,) and place on each of the family's axes (n, most axes), -1 beyond them."""
        full = torch.arange(self.size) if self._kept is None else self._kept
        starts = torch.tensor(self._starts)
        number = torch.searchsorted(starts, full, right=True) - 1
        width = max(len(family.axes) for family in self.families)
        digits = torch.full((len(self), width), -1)
        for f, family in enumerate(self.families):
            rows = number == f
            rest = full[rows] - self._starts[f]
            for place in reversed(range(len(family.axes))):
                count = len(family.axes[place].values)
                digits[rows, place] = rest % count
                rest = rest // count
        return number, digits

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What each column of `features` means; axes with a single value have none."""
        columns = [Column("family", "family")] if len(self.families) > 1 else []
        for f, family in enumerate(self.families):
            for axis in family.axes:
                if len(axis.values) > 1:
                    kind: Literal["ordered", "categorical"] = (
                        "ordered" if isinstance(axis, IntegerAxis) else "categorical"
                    )
                    columns.append(Column(axis.name, kind, f if len(self.families) > 1 else None))
        for name, values in self.costs.items():
            if float(values.max()) > float(values.min()):
                columns.append(Column(name, "cost"))
        return tuple(columns)

    @cached_property
    def features(self) -> Tensor:
        """(n, d) float64: ordered axes and log costs scaled to [0, 1], categories as codes.

        A column of another family's axis holds .5, so that it adds no distance within a family.
        """
        number, digits = self.digits
        columns = []
        if len(self.families) > 1:
            columns.append(number.double())
        for f, family in enumerate(self.families):
            rows = number == f
            for place, axis in enumerate(family.axes):
                if len(axis.values) == 1:
                    continue
                column = torch.full((len(self),), 0.5, dtype=torch.float64)
                if isinstance(axis, IntegerAxis):
                    levels = torch.tensor(axis.values, dtype=torch.float64)
                    if axis.spacing == "log":
                        levels = levels.log()
                    levels = (levels - levels[0]) / (levels[-1] - levels[0])
                else:
                    levels = torch.arange(len(axis.values), dtype=torch.float64)
                column[rows] = levels[digits[rows, place]]
                columns.append(column)
        for values in self.costs.values():
            log = values.double().log()
            if float(log.max()) > float(log.min()):
                columns.append((log - log.min()) / (log.max() - log.min()))
        if not columns:
            return torch.zeros(len(self), 1, dtype=torch.float64)
        return torch.stack(columns, dim=1)

    def with_costs(
        self,
        cost: Callable[[Architecture], Mapping[str, float]],
        limits: Mapping[str, float] | None = None,
    ) -> SearchSpace:
        """The space with what is known of each architecture before training, and within limits.

        Args:
            cost: the costs of an architecture, by name; positive.
            limits: the largest cost allowed, by name.

        Raises:
            SpaceError: a limit names no cost, or the limits leave nothing.
        """
        rows = [cost(architecture) for architecture in self]
        costs = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
        kept = torch.ones(len(self), dtype=torch.bool)
        for name, limit in (limits or {}).items():
            if name not in costs:
                raise SpaceError(f"a limit must name a cost ({', '.join(costs)}), but got {name!r}")
            kept &= costs[name] <= limit
            if not bool(kept.any()):
                raise SpaceError(
                    f"at least one architecture must be within the limits, but {name} is at least "
                    f"{float(costs[name].min()):g} and the limit {limit:g}"
                )
        full = torch.arange(self.size) if self._kept is None else self._kept
        whole = bool(kept.all()) and self._kept is None
        return SearchSpace(
            self.families,
            costs=self.costs | {name: values[kept] for name, values in costs.items()},
            kept=None if whole else full[kept],
        )

    @classmethod
    def from_table(
        cls, rows: Iterable[Mapping[str, AxisValue]], *, family: str = "table", costs: Sequence[str] = ()
    ) -> SearchSpace:
        """An explicit list of configurations.

        Args:
            rows: axis name to value, the same names in each; equal rows collapse. An axis of integers
                is ordered, any other categorical.
            family: its name.
            costs: names in the rows that are not axes but known costs, positive numbers.

        Raises:
            SpaceError: no rows, different names, or one configuration with two costs.
        """
        listed = [dict(row) for row in rows]
        if not listed:
            raise SpaceError("a table must have at least one row, but got none")
        names = [name for name in listed[0] if name not in costs]
        for number, row in enumerate(listed):
            if set(row) != {*names, *costs}:
                raise SpaceError(
                    f"rows must have the names {[*names, *costs]}, but row {number} has {list(row)}"
                )
        axes: list[Axis] = []
        for name in names:
            values = {row[name] for row in listed}
            if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
                axes.append(IntegerAxis(name, tuple(sorted(int(value) for value in values))))
            else:
                axes.append(CategoricalAxis(name, tuple(sorted(values, key=str))))
        whole = cls([Family(family, tuple(axes))])
        found: dict[int, dict[str, AxisValue]] = {}
        for row in listed:
            full = whole.index(Architecture(family, {name: row[name] for name in names}))
            if found.setdefault(full, row) != row:
                raise SpaceError(f"equal configurations must have equal costs, but {row} differs")
        kept = torch.tensor(sorted(found))
        return cls(
            whole.families,
            costs={
                name: torch.tensor([float(found[int(i)][name]) for i in kept], dtype=torch.float64)
                for name in costs
            },
            kept=None if len(kept) == whole.size else kept,
        )

    def to_json(self) -> dict[str, Any]:
        """The space as plain JSON; what the limits excluded is in the fingerprint alone."""
        return {
            "families": {
                family.name: {
                    axis.name: {"values": list(axis.values)}
                    | ({"spacing": axis.spacing} if isinstance(axis, IntegerAxis) else {})
                    for axis in family.axes
                }
                for family in self.families
            },
            "architectures": len(self),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the space is: axes, feasible architectures, costs."""
        digest = hashlib.sha256(json.dumps(self.to_json()).encode())
        if self._kept is not None:
            digest.update(self._kept.numpy().tobytes())
        for name, values in self.costs.items():
            digest.update(name.encode() + values.numpy().tobytes())
        return digest.hexdigest()
