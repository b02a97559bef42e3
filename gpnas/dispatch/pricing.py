"""What an architecture costs, known before it is trained."""

from __future__ import annotations

from gpnas.errors import SpaceError
from gpnas.records import Architecture
from gpnas.space import SearchSpace
from gpnas_trainers import cost

TILE = 120
"""LR pixels: the paper's tile, at which GMACs are counted."""


def priced(space: SearchSpace, scale: int, limits: dict[str, float] | None = None) -> SearchSpace:
    """The space with what is known before training: parameters, and GMACs at 120×120 LR pixels.

    Raises:
        SpaceError: an architecture cannot be built, or the limits leave none.
    """

    def cost_of(architecture: Architecture) -> dict[str, float]:
        family, axes = architecture.family, architecture.axes
        return {
            "parameters": float(cost.parameters(family, scale, **axes)),
            "gmacs": cost.gmacs(family, scale, TILE, TILE, **axes),
        }

    try:
        return space.with_costs(cost_of, limits or {})
    except ValueError as error:
        raise SpaceError(str(error)) from None
