"""Tables of finished trainings that ship with gpnas."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

from gpnas.errors import SpaceError
from gpnas.records import Architecture, Source

SHIPPED = "shipped"
"""What stands for the tables where a run folder may stand."""
TABLES = {2: ("drn_x2",)}
"""Scale to the names of its tables."""


@dataclass(frozen=True)
class Trained:
    """One training of a table."""

    architecture: Architecture
    steps: int
    psnr: float
    """PSNR in dB, on photographs that packages ship, RGB."""
    seconds: float
    """Seconds of one core of the machine that trained it, validation included."""


def shipped_trainings(scale: int) -> list[Trained]:
    """The trainings of all shipped tables of a scale.

    Raises:
        SpaceError: there is no table of this scale.
    """
    if scale not in TABLES:
        known = ", ".join(f"×{each}" for each in TABLES)
        raise SpaceError(
            f"finished trainings ship for {known}, but the scale is ×{scale}; search without them"
        )
    found = []
    for name in TABLES[scale]:
        text = files("gpnas.run").joinpath("tables", f"{name}.csv").read_text("utf-8")
        for row in csv.DictReader(text.splitlines()):
            family, steps = row.pop("family"), int(row.pop("steps"))
            psnr, seconds = float(row.pop("psnr")), float(row.pop("seconds"))
            axes = {axis: int(value) for axis, value in row.items()}
            found.append(Trained(Architecture(family, axes), steps, psnr, seconds))
    return found


def shipped_source(scale: int) -> Source:
    """The shipped trainings of a scale, as what they tell a search."""
    trainings = shipped_trainings(scale)
    return Source(
        SHIPPED, tuple(each.architecture for each in trainings), tuple(each.psnr for each in trainings)
    )
