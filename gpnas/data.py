"""Pairs for gpnas: what a folder of photographs holds, and the set that is prepared of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gpnas.errors import DataError
from gpnas_trainers import pairs
from gpnas_trainers.pairs import (
    PAPER,
    SPLITS,
    Camera,
    Exclusion,
    Measured,
    PairsError,
    PairSet,
    Rules,
    cache_folder,
    check_folder,
    open_pairs,
    prepare_folder,
    read_manifest,
)

__all__ = ["Camera", "Prepared", "Rules", "Selection", "check", "data_errors", "prepare", "prepared_pairs"]

Progress = Callable[[int, int], None]
KEPT_AT = (0.9, 0.95, 0.98, 0.99, 0.995)
"""NCC thresholds for which a check says how many pairs would stay."""


@dataclass(frozen=True)
class Selection:
    """Which pairs of which folder are wanted."""

    folder: Path
    scale: int
    rules: Rules = PAPER
    camera: Camera | None = None
    """Makes LR, where the folder holds HR images alone; None: it holds pairs."""
    workers: int | None = None
    """Processes; None is as many as there are cores and enough to do."""


@dataclass(frozen=True)
class Prepared:
    """The two sides of a prepared set, and where it lies."""

    folder: Path
    training: PairSet
    validation: PairSet


def prepared_pairs(
    source: Path | None,
    scale: int,
    rules: Rules,
    *,
    camera: Camera | None = None,
    report: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """The pairs of a command, prepared where they are not yet; arguments as those of `pairs.prepare`.

    Raises:
        DataError: no set can be made of the source, or the prepared one has another scale.
    """
    with data_errors():
        folder = pairs.prepare(
            source, scale, rules, camera=camera, workers=None, report=report, progress=progress
        )
        return Prepared(folder, open_pairs(folder, "train"), open_pairs(folder, "validation"))


@contextmanager
def data_errors() -> Iterator[None]:
    """What the trainers raise of pairs becomes a `DataError`."""
    try:
        yield
    except PairsError as error:
        raise DataError(str(error)) from None


def check(selection: Selection, progress: Progress | None = None) -> dict[str, Any]:
    """What a preparation would keep and leave out, as a document; nothing is written.

    Its `problem` is None where something can be prepared.

    Raises:
        DataError: the folder's layout or scale is wrong.
    """
    with data_errors():
        checked = check_folder(
            selection.folder,
            selection.scale,
            selection.rules,
            camera=selection.camera,
            workers=selection.workers,
            progress=progress,
        )
    agreements = [float(exclusion.value) for exclusion in checked.excluded if exclusion.rule == "ncc"]
    agreements += [each.ncc for each in checked.measured if each.ncc is not None]
    shifts = [math.hypot(*each.shift) for each in checked.measured if each.shift is not None]
    return {
        "folder": str(selection.folder),
        "scale": selection.scale,
        "pairs": checked.found,
        "usable": len(checked.usable),
        "split": None
        if checked.split is None
        else {"train": len(checked.split.train), "validation": len(checked.split.validation)},
        "excluded": _rows(checked.excluded),
        "notes": list(checked.notes),
        "same_photograph": [] if checked.split is None else [list(group) for group in checked.split.groups],
        "ncc": None
        if not agreements
        else {
            "lowest": round(min(agreements), 4),
            "median": round(median(agreements), 4),
            "highest": round(max(agreements), 4),
            "kept_at": {f"{limit:g}": sum(each >= limit for each in agreements) for limit in KEPT_AT},
        },
        "shift": None
        if not shifts
        else {"unit": "LR pixels", "median": round(median(shifts), 2), "largest": round(max(shifts), 2)},
        "images": [
            _image(each.name, measured)
            for each, measured in zip(checked.usable, checked.measured, strict=True)
        ],
        "problem": checked.problem,
    }


def _image(name: str, measured: Measured) -> dict[str, Any]:
    height, width = measured.lr_shape
    return {
        "name": name,
        "lr": [width, height],
        "bits": {"lr": measured.lr_bits, "hr": measured.hr_bits},
        "ncc": measured.ncc,
        "shift": measured.shift,
    }


def prepare(
    selection: Selection, cache: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Prepares a set and describes it, as a document.

    Args:
        selection: what of which folder.
        cache: folder in which the set's own folder is made; None is the user's cache, where a search
            looks first.
        progress: called with pairs done and all.

    Raises:
        DataError: nothing can be prepared, or the cache is not writable.
    """
    with data_errors():
        folder = prepare_folder(
            selection.folder,
            cache or cache_folder(),
            selection.scale,
            selection.rules,
            camera=selection.camera,
            workers=selection.workers,
            progress=progress,
        )
        manifest = read_manifest(folder)
        sides = {split: open_pairs(folder, split) for split in SPLITS}
    return {
        "prepared": str(folder),
        "folder": str(selection.folder),
        "scale": selection.scale,
        "split": {split: len(side) for split, side in sides.items()},
        "fingerprint": {split: side.fingerprint for split, side in sides.items()},
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "excluded": _rows(manifest.excluded),
        "notes": list(manifest.notes),
        "same_photograph": [list(group) for group in manifest.groups],
    }


def _rows(excluded: Sequence[Exclusion]) -> list[dict[str, str]]:
    return [{**asdict(exclusion), "line": exclusion.line} for exclusion in excluded]
