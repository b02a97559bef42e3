"""Where pairs come from, by one name: a user's folder, or else the shipped photographs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gpnas_trainers.pairs.camera import Camera
from gpnas_trainers.pairs.folder import prepare_folder
from gpnas_trainers.pairs.photographs import prepare_photographs


def cache_folder() -> Path:
    """Where prepared pairs are kept: `$GPNAS_CACHE`, else `gpnas` in the user's cache folder."""
    chosen = os.environ.get("GPNAS_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "gpnas"


def prepare(
    source: str | Path | None,
    scale: int,
    *,
    camera: Camera | None = None,
    minimum_side: int = 48,
    report: Callable[[str], None] | None = None,
) -> Path:
    """The prepared set of a folder of pairs, or, where `source` is None, of the shipped photographs.

    In the user's cache, with seed 0: a split does not depend on a search's seed, so that searches
    that differ in it can be compared. The arguments are those of `prepare_folder` and
    `prepare_photographs`.

    Raises:
        PairsError: no set can be made of it.
    """
    if source is None:
        return prepare_photographs(cache_folder(), scale, camera=camera)
    return prepare_folder(source, cache_folder(), scale, minimum_side=minimum_side, report=report)
