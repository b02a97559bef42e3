"""Which pairs a search trains on and is judged by."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpnas.errors import DataError
from gpnas_trainers.pairs import Camera, PairsError, PairSet, open_pairs, prepare_folder, prepare_photographs

SPLIT_SEED = 0
"""The split into training and validation does not depend on a search's seed, so that searches that
differ in it can be compared."""


def cache_folder() -> Path:
    """Where prepared pairs are kept: `$GPNAS_CACHE`, else `gpnas` in the user's cache folder."""
    chosen = os.environ.get("GPNAS_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "gpnas"


def prepare(
    source: Path | None,
    scale: int,
    camera: Mapping[str, Any],
    hr_patch: int,
    say: Callable[[str], None],
) -> Path:
    """The folder of the prepared pairs, which is made once.

    Args:
        source: a folder of paired LR and HR images; None takes the photographs that ship with
            scikit-image and scikit-learn, their LR made by the synthetic camera.
        scale: super-resolution factor.
        camera: settings of the synthetic camera; without effect where `source` is given.
        hr_patch: smaller HR images are left out.
        say: gets a line for each image that is left out.

    Raises:
        DataError: no pairs can be made of it.
    """
    try:
        if source is None:
            return prepare_photographs(cache_folder(), scale, camera=Camera(**camera), seed=SPLIT_SEED)
        return prepare_folder(
            Path(source).absolute(),
            cache_folder(),
            scale,
            seed=SPLIT_SEED,
            minimum_side=hr_patch,
            report=say,
        )
    except PairsError as error:
        raise DataError(str(error)) from None


def opened(folder: Path, split: str) -> PairSet:
    """The prepared pairs of a split; a `DataError` where they are damaged."""
    try:
        return open_pairs(folder, split)
    except PairsError as error:
        raise DataError(str(error)) from None
