"""Pairs by the name of their source: a prepared set, a user's folder, or the shipped photographs."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gpnas_trainers import files
from gpnas_trainers.pairs.camera import Camera
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.folder import prepare_folder
from gpnas_trainers.pairs.manifest import FORMAT, MANIFEST, MOST, read_manifest
from gpnas_trainers.pairs.photographs import prepare_photographs
from gpnas_trainers.pairs.prepared import check_pixels
from gpnas_trainers.pairs.rules import PAPER, Rules


def cache_folder() -> Path:
    """The folder of prepared pairs: `$GPNAS_CACHE`, else `gpnas` in the user's cache folder."""
    chosen = os.environ.get("GPNAS_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "gpnas"


def prepare(
    source: str | Path | None,
    scale: int,
    rules: Rules = PAPER,
    *,
    camera: Camera | None = None,
    workers: int | None = 1,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """A prepared set: itself, or that of a folder of pairs, or of the shipped photographs.

    The latter two are made in the user's cache, with seed 0: a split does not depend on a search's seed,
    so that searches that differ in it can be compared.

    Args:
        source: a prepared set, or a cache that holds one set of this scale; a folder of pairs; or None for
            the photographs.
        scale: HR pixels per LR pixel.
        rules, workers, report, progress: as `prepare_folder`.
        camera: of the photographs.

    Raises:
        PairsError: no set can be made of it, or the prepared one has another scale.
    """
    if source is None:
        return prepare_photographs(cache_folder(), scale, camera=camera, report=report, progress=progress)
    made = _already_prepared(Path(source), scale)
    if made is not None:
        return made
    return prepare_folder(
        source, cache_folder(), scale, rules, workers=workers, report=report, progress=progress
    )


def _already_prepared(source: Path, scale: int) -> Path | None:
    """The set of this scale that a folder is or holds; None where it is or holds no sets."""
    scales: dict[Path, int] = {}
    for path in (source / MANIFEST, *sorted(source.glob(f"*/{MANIFEST}"))):
        # others, too, call a file so
        with suppress(OSError):
            if f'"{FORMAT}"'.encode() in files.read(path, MOST):
                scales[path.parent] = read_manifest(path.parent).scale
    if not scales:
        return None
    fitting = [each for each, of in scales.items() if of == scale]
    if len(fitting) != 1:
        found = ", ".join(f"{each.name} of scale {of}" for each, of in scales.items())
        raise PairsError(
            f"{source}: prepared pairs must be one set of scale {scale}, but got {found}; name one"
        )
    check_pixels(fitting[0], read_manifest(fitting[0]))
    return fitting[0]
