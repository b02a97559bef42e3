"""Which axes the names in an expression mean, family by family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpnas.errors import SpaceError
from gpnas.space.axes import Axis, Family
from gpnas.space.expressions import Expression, Values


def families_of(names: Sequence[str], families: Sequence[Family]) -> list[int]:
    """Numbers of the families that have every axis named; to the others an expression says nothing.

    Args:
        names: `features` for that axis of any family, `drn.features` for that of one.
        families: of the space.

    Raises:
        SpaceError: a name is no axis of any family, or no family has them all.
    """
    for name in names:
        if not any(_axis(name, family) for family in families):
            known = "; ".join(
                f"{family.name}: {', '.join(axis.name for axis in family.axes)}" for family in families
            )
            raise SpaceError(f"an expression must name axes of the space ({known}), but got `{name}`")
    found = [number for number, family in enumerate(families) if all(_axis(each, family) for each in names)]
    if not found:
        listed = " and ".join(f"`{name}`" for name in names)
        raise SpaceError(f"an expression must name axes of one family, but none has {listed}")
    return found


def levels(expression: Expression, family: Family) -> dict[str, tuple[int, Values]]:
    """Names in an expression, each with the place of its axis in the family, and the axis' values.

    Raises:
        SpaceError: an axis is compared with a name that is not among its choices.
    """
    found = {}
    for name in expression.names:
        axis = _axis(name, family)
        assert axis is not None
        found[name] = (family.axes.index(axis), _values(axis))
    for name, text in expression.equalities:
        values = found[name][1]
        if values.dtype == object and text not in values.tolist():
            choices = ", ".join(map(str, values))
            raise SpaceError(f"`{name}` must be compared with one of {choices}, but got {text!r}")
    return found


def _axis(name: str, family: Family) -> Axis | None:
    prefix, _, last = name.rpartition(".")
    if prefix not in ("", family.name):
        return None
    return next((axis for axis in family.axes if axis.name == last), None)


def _values(axis: Axis) -> Values:
    """bool for switches, float64 for numbers, else object."""
    if all(isinstance(value, bool) for value in axis.values):
        return np.array(axis.values, dtype=bool)
    if all(isinstance(value, int | float) for value in axis.values):
        return np.array(axis.values, dtype=np.float64)
    return np.array(axis.values, dtype=object)
