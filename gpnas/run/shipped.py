"""The table of finished trainings that ships with gpnas."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from importlib.resources import files

from gpnas.errors import SpaceError
from gpnas.records import Architecture, Source

SHIPPED = "shipped"
"""What stands for the table where a run folder may stand."""
SCALES = (2, 3, 4)
"""Those that the table has."""
SPACE = "families.yaml"
"""The shipped space file whose architectures and recipes the table is of."""


@dataclass(frozen=True)
class Trained:
    """One training of the table."""

    architecture: Architecture
    psnr: float
    """PSNR in dB, on photographs that packages ship, RGB."""
    seconds: float
    """Seconds of one core of the machine that trained it, validation included."""


def shipped_trainings(scale: int) -> list[Trained]:
    """The trainings of the shipped table at a scale.

    Raises:
        SpaceError: it has none.
    """
    if scale not in SCALES:
        known = ", ".join(f"×{each}" for each in SCALES)
        raise SpaceError(
            f"finished trainings ship for {known}, but the scale is ×{scale}; search without them"
        )
    text = files("gpnas.run").joinpath("tables", "families.csv").read_text("utf-8")
    return [
        Trained(Architecture(row["family"], _axes(row["axes"])), float(row["psnr"]), float(row["seconds"]))
        for row in csv.DictReader(text.splitlines())
        if int(row["scale"]) == scale
    ]


def _axes(text: str) -> dict[str, int | float | str]:
    """Axes as the table has them, `features=8 image_skip=true`."""
    pairs = (each.partition("=") for each in text.split())
    return {name: json.loads(value) for name, _, value in pairs}


def shipped_source(scale: int) -> Source:
    """The shipped trainings of a scale, as what they tell a search."""
    trainings = shipped_trainings(scale)
    return Source(
        SHIPPED, tuple(each.architecture for each in trainings), tuple(each.psnr for each in trainings)
    )
