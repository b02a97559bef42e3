"""`gpnas data`: what a folder of photographs holds, and the set that is prepared of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gpnas.errors import DataError
from gpnas_trainers.pairs import (
    MINIMUM_NCC,
    Camera,
    Exclusion,
    PairsError,
    cache_folder,
    check_folder,
    open_pairs,
    prepare_folder,
    prepare_synthetic,
    read_manifest,
)

Progress = Callable[[int, int], None]
KEPT_AT = (0.9, 0.95, 0.98, 0.99, 0.995)
"""NCC thresholds for which a check says how many pairs would stay."""


@dataclass(frozen=True)
class Selection:
    """Which pairs of which folder are wanted."""

    folder: Path
    scale: int
    synthetic: bool = False
    """The folder holds HR images alone; the synthetic camera makes LR."""
    ncc: float = MINIMUM_NCC
    max_shift: float | None = None
    """In LR pixels."""
    minimum_side: int = 48
    """In HR pixels."""
    downsample_lr: bool = False
    validation: int | None = None
    """Pairs held for validation, at most half of all; None is a fifth, at most 10, as a search holds."""
    seed: int = 0
    workers: int | None = None
    """Processes; None is as many as there are cores and enough to do."""

    def shared(self) -> dict[str, Any]:
        """What real and synthetic pairs have in common."""
        return {
            "seed": self.seed,
            "max_validation": self.validation or 10,
            "validation_fraction": 0.5 if self.validation else 0.2,
            "minimum_side": self.minimum_side,
            "workers": self.workers,
        }

    def of_pairs(self) -> dict[str, Any]:
        """What real pairs alone have."""
        return {
            "minimum_ncc": self.ncc,
            "maximum_shift": self.max_shift,
            "downsample_lr": self.downsample_lr,
        }


def check(selection: Selection, progress: Progress | None = None) -> dict[str, Any]:
    """What a preparation would keep and leave out, as a document; nothing is written.

    Its `problem` is None where something can be prepared.

    Raises:
        DataError: the folder's layout or scale is wrong.
    """
    try:
        checked = check_folder(
            selection.folder,
            selection.scale,
            synthetic=selection.synthetic,
            progress=progress,
            **selection.shared(),
            **selection.of_pairs(),
        )
    except PairsError as error:
        raise DataError(str(error)) from None
    images: list[dict[str, Any]] = []
    agreements = [float(exclusion.value) for exclusion in checked.excluded if exclusion.rule == "ncc"]
    shifts: list[float] = []
    for each in checked.usable:
        measured = each.measured
        assert measured is not None
        if measured.ncc is not None and measured.shift is not None:
            agreements.append(measured.ncc)
            shifts.append(math.hypot(*measured.shift))
        height, width = measured.lr_shape
        images.append(
            {
                "name": each.name,
                "lr": [width, height],
                "bits": {"lr": measured.lr_bits, "hr": measured.hr_bits},
                "ncc": measured.ncc,
                "shift": measured.shift,
            }
        )
    return {
        "folder": str(selection.folder),
        "scale": selection.scale,
        "pairs": checked.found,
        "usable": len(images),
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
        "images": images,
        "problem": checked.problem,
    }


def prepare(
    selection: Selection,
    cache: Path | None = None,
    *,
    camera: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Prepares a set and describes it, as a document.

    Args:
        selection: what of which folder.
        cache: folder in which the set's own folder is made; None is the user's cache, where a search
            looks first.
        camera: ranges of the synthetic camera, as `Camera` takes them; what is missing keeps its default.
        progress: called with pairs done and all.

    Raises:
        DataError: nothing can be prepared, or the cache is not writable.
    """
    cache = cache or cache_folder()
    try:
        if selection.synthetic:
            folder = prepare_synthetic(
                selection.folder,
                cache,
                selection.scale,
                camera=Camera(**(camera or {})),
                progress=progress,
                **selection.shared(),
            )
        else:
            folder = prepare_folder(
                selection.folder,
                cache,
                selection.scale,
                progress=progress,
                **selection.shared(),
                **selection.of_pairs(),
            )
        manifest = read_manifest(folder)
        sides = {split: open_pairs(folder, split) for split in ("train", "validation")}
    except PairsError as error:
        raise DataError(str(error)) from None
    return {
        "prepared": str(folder),
        "folder": str(selection.folder),
        "scale": selection.scale,
        "split": {split: len(pairs) for split, pairs in sides.items()},
        "fingerprint": {split: pairs.fingerprint for split, pairs in sides.items()},
        "bytes": sum(shard["bytes"] for shard in manifest["shards"]),
        "excluded": _rows([Exclusion(**fields) for fields in manifest["excluded"]]),
        "notes": manifest["notes"],
        "same_photograph": manifest["groups"],
    }


def _rows(excluded: Sequence[Exclusion]) -> list[dict[str, str]]:
    return [{**asdict(exclusion), "line": exclusion.line} for exclusion in excluded]
