"""The first trial of each family: its published network, scaled to the space."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gpnas.errors import SpaceError
from gpnas.files import did_you_mean
from gpnas.records import Architecture, AxisValue
from gpnas.space import SearchSpace
from gpnas_trainers import FAMILIES


def defaults_of(
    space: SearchSpace, named: Mapping[str, Mapping[str, AxisValue]], *, published: bool
) -> tuple[Architecture, ...]:
    """The default of each family that has one, in the order of families.

    It is the feasible architecture nearest to the published one: the sum over axes of squared differences
    of logarithms is least, so that limits shrink all axes by like factors. Where an axis has names or
    switches, another value counts as a factor of e. Of equally near ones the first counts.

    Args:
        space: within its limits.
        named: what stands in place of a family's published values, by family and axis.
        published: whether families that are not named have their published network as default.

    Raises:
        SpaceError: an axis is named that its family has not.
    """
    number, digits = space.places
    found = []
    for place, family in enumerate(space.families):
        wanted = dict(_published(family.name)) if published or family.name in named else {}
        wanted |= named.get(family.name, {})
        axes = {axis.name: axis for axis in family.axes}
        for name in named.get(family.name, {}):
            if name not in axes:
                raise SpaceError(
                    f"`families.{family.name}.default` must name axes of the family ({', '.join(axes)}), but "
                    f"got {name!r}{did_you_mean(name, axes)}"
                )
        rows = (number == place).nonzero()[0]
        if not len(rows) or not wanted.keys() & axes.keys():
            continue
        apart = np.zeros(len(rows))
        for column, axis in enumerate(family.axes):
            if axis.name in wanted:
                away = np.array([_apart(value, wanted[axis.name]) for value in axis.values])
                apart += away[digits[rows, column]]
        nearest = (apart <= apart.min() + 1e-12).nonzero()[0]
        found.append(space[int(rows[nearest[0]])])
    return tuple(found)


def _published(family: str) -> Mapping[str, AxisValue]:
    """What the standard network of a family's authors has, as far as it is declared."""
    axes = FAMILIES[family].axes if family in FAMILIES else ()
    return {axis.name: axis.published for axis in axes if axis.published is not None}


def _apart(value: AxisValue, wanted: AxisValue) -> float:
    """The squared logarithm of the factor between two values."""
    if value == wanted:
        return 0.0
    counts = all(
        isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in (value, wanted)
    )
    return math.log(float(value) / float(wanted)) ** 2 if counts else 1.0
