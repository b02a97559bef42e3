"""Pairs of a user's folders of LR and HR images: matched, checked, split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers.pairs.camera import downsample
from gpnas_trainers.pairs.images import SUFFIXES, PairsError, read_rgb, read_size
from gpnas_trainers.pairs.prepared import Entry, digest
from gpnas_trainers.pairs.writing import check_scale, intact, key, planar, preparing

MAX_TRAINING_PIXELS = 89_478_485
"""Limit on an HR or LR image's pixels: where Pillow begins to suspect a decompression bomb."""


def prepare_folder(
    source: str | Path,
    cache: str | Path,
    scale: int,
    *,
    seed: int = 0,
    validation_fraction: float = 0.2,
    max_validation: int | None = 10,
    minimum_side: int = 48,
    minimum_ncc: float = 0.0,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Pairs of a user's folder, checked, split and written once.

    The folder holds `HR/` beside `LRx{scale}/` or `LR/` (lower case will do). An LR image belongs to
    the HR image of the same stem, endings such as `x2`, `_LR2` and `_HR` set aside. Unusable pairs
    are left out, each with one line; the rest goes on. HR may exceed scale times LR by less than the
    scale (right, bottom) and is then cropped.

    The split is by image, a function of the seed and of HR pixels alone. Of images with equal HR
    pixels only the first is kept, so that none is on both sides.

    Args:
        source: the folder.
        cache: folder in which the set's own folder is made.
        scale: HR pixels per LR pixel, at least 2.
        seed: of the split.
        validation_fraction: share of the images held for validation, rounded, but at least one image;
            0 … 1. With 1 all are, and nothing is left to train on.
        max_validation: at most so many images are held; None sets no limit.
        minimum_side: pairs with a smaller HR side, in pixels, are excluded; at least that of the
            patches to be drawn.
        minimum_ncc: pairs whose `ncc` is below are excluded, as misaligned; the paper demands 0.99;
            0 excludes none.
        report: gets one line per exclusion, also when the set was made before.
        progress: called with images done and all.

    Returns:
        The folder, to be given to `open_pairs`. If names, sizes and times of the files are those of
        an earlier call, that call's folder, at once.

    Raises:
        PairsError: the folder's layout or scale is wrong, nothing usable is left or too little to
            split, or the cache is not writable.
    """
    check_scale(scale)
    if not 0 < validation_fraction <= 1:
        raise PairsError(f"`0 < validation_fraction <= 1` must hold, but got {validation_fraction}")
    source = Path(source).absolute()
    try:
        lr_folder, hr_folder = _layout(source, scale)
        lr_files, hr_files = _images(lr_folder), _images(hr_folder)
        stamps = [_stamp(file) for file in (*lr_files, *hr_files)]
    except OSError as error:
        raise PairsError(f"{source}: a folder of pairs must be readable, but got {error}") from None
    description = {
        "kind": "folder",
        "scale": scale,
        "seed": seed,
        "split": [validation_fraction, max_validation],
        "minimum": [minimum_side, minimum_ncc],
        "path": str(source),
        "files": stamps,
    }
    target = Path(cache) / f"{_slug(source.name)}-x{scale}-{key(description)}"
    excluded: list[str] = []

    def exclude(path: Path, why: str) -> None:
        excluded.append(f"{path.relative_to(source)}: excluded, {why}")
        if report is not None:
            report(excluded[-1])

    manifest = intact(target)
    if manifest is not None:
        if report is not None:
            for line in manifest["excluded"]:
                report(line)
        return target

    pairs = _matched(lr_files, hr_files, scale, exclude)
    misfits: list[tuple[str, tuple[int, int], tuple[int, int]]] = []
    seen: dict[str, str] = {}
    with preparing(target) as writer:
        for done, (name, lr_path, hr_path) in enumerate(pairs, start=1):
            try:
                lr_size = read_size(lr_path, max_pixels=MAX_TRAINING_PIXELS)
                hr_size = read_size(hr_path, max_pixels=MAX_TRAINING_PIXELS)
                why = _misfit(lr_size, hr_size, scale)
                if why is not None:
                    misfits.append((name, lr_size, hr_size))
                    exclude(lr_path, why)
                    continue
                lr = planar(read_rgb(lr_path, max_pixels=MAX_TRAINING_PIXELS))
                hr = planar(read_rgb(hr_path, max_pixels=MAX_TRAINING_PIXELS))
            except PairsError as error:
                exclude(lr_path if str(error).startswith(f"{lr_path}:") else hr_path, _after_path(error))
                continue
            finally:
                if progress is not None:
                    progress(done, len(pairs))
            hr = hr[:, : scale * lr.shape[1], : scale * lr.shape[2]]
            if min(hr.shape[1:]) < minimum_side:
                exclude(
                    hr_path,
                    f"HR sides must have at least {minimum_side} pixels, but got {_size(hr.shape[1:])}",
                )
                continue
            if minimum_ncc > 0:
                found = ncc(lr, hr, scale)
                if not found >= minimum_ncc:
                    exclude(
                        lr_path, f"LR and HR must agree to an NCC of {minimum_ncc:g}, but got {found:.4f}"
                    )
                    continue
            content = digest(hr)
            if content in seen:
                exclude(hr_path, f"HR pixels must be in one pair only, but equal those of {seen[content]}")
                continue
            seen[content] = name
            writer.append(name, lr, hr)
        if not writer.entries:
            raise PairsError(_nothing_left(source, scale, misfits, excluded))
        entries = _split(writer.entries, seed, validation_fraction, max_validation, source)
        writer.finish({"scale": scale, "seed": seed, "source": description, "excluded": excluded}, entries)
    return target


def ncc(lr: NDArray[np.uint8], hr: NDArray[np.uint8], scale: int) -> float:
    """Normalised cross-correlation of LR with the downsampled HR, -1 … 1, all channels together.

    Measured at LR size: at HR size a sharp pair fails for LR's blur, not for its misalignment.
    0 where either image is of one colour.
    """
    a = lr.astype(np.float64)
    b = downsample(hr.astype(np.float64), scale)
    a -= a.mean(axis=(1, 2), keepdims=True)
    b -= b.mean(axis=(1, 2), keepdims=True)
    energy = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / energy if energy > 0 else 0.0


def _layout(source: Path, scale: int) -> tuple[Path, Path]:
    """The LR and HR folders in a user's folder."""
    if not source.is_dir():
        raise PairsError(f"{source}: a folder of pairs must exist, but there is none; check the path")
    folders = {path.name.lower(): path for path in sorted(source.iterdir()) if path.is_dir()}
    hr = folders.get("hr")
    lr = folders.get(f"lrx{scale}") or folders.get("lr")
    if hr is None or lr is None:
        found = ", ".join(path.name for path in folders.values()) or "no folders"
        raise PairsError(
            f"{source}: a folder of pairs must hold HR and LRx{scale} (or LR), but got {found}; "
            "rename them, or choose another scale"
        )
    return lr, hr


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return (f"{path.parent.name}/{path.name}", status.st_size, status.st_mtime_ns)


def _matched(
    lr_files: Iterable[Path], hr_files: Iterable[Path], scale: int, exclude: Callable[[Path, str], None]
) -> list[tuple[str, Path, Path]]:
    """(name, LR, HR) of the files that belong together; the others are excluded."""
    lr_by_stem = _by_stem(lr_files, rf"[_-]?(lr|lr[_-]?x?{scale}|x{scale})", exclude)
    hr_by_stem = _by_stem(hr_files, r"[_-]?(hr|gt|x1)", exclude)
    for stem, path in lr_by_stem.items():
        if stem not in hr_by_stem:
            exclude(path, f"an LR image must have an HR image of its name, but HR has no {stem}")
    for stem, path in hr_by_stem.items():
        if stem not in lr_by_stem:
            exclude(path, f"an HR image must have an LR image of its name, but LR has no {stem}")
    return [(stem, lr_by_stem[stem], path) for stem, path in hr_by_stem.items() if stem in lr_by_stem]


def _by_stem(files: Iterable[Path], ending: str, exclude: Callable[[Path, str], None]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        stem = re.sub(rf"(?<=.){ending}$", "", path.stem, flags=re.IGNORECASE)
        if stem in found:
            exclude(
                path, f"an image's name must differ from the others', but it is that of {found[stem].name}"
            )
        else:
            found[stem] = path
    return found


def _misfit(lr: tuple[int, int], hr: tuple[int, int], scale: int) -> str | None:
    """Why LR and HR of these sizes (height, width) are no pair at this scale; None when they are."""
    if all(0 <= large - scale * small < scale for small, large in zip(lr, hr, strict=True)):
        return None
    return f"HR must be {scale} times as large as LR, but got LR {_size(lr)} and HR {_size(hr)}"


def _nothing_left(
    source: Path,
    scale: int,
    misfits: Sequence[tuple[str, tuple[int, int], tuple[int, int]]],
    excluded: Sequence[str],
) -> str:
    if not misfits or len(misfits) < len(excluded) / 2:
        why = f"{len(excluded)} files were excluded, the first: {excluded[0]}" if excluded else "got none"
        return f"{source}: at least one usable pair must be there, but {why}"
    name, lr, hr = misfits[0]
    ratios = {Fraction(large, small) for _, a, b in misfits for small, large in zip(a, b, strict=True)}
    match sorted(ratios):
        case [one] if one == 1:
            advice = "LR is as large as HR, as registered captures are; downsample LR by the scale first"
        case [one] if one.denominator == 1:
            advice = f"they fit scale {one}: choose that, or bring the LR images of scale {scale}"
        case _:
            advice = "they fit no one scale: bring the LR images of this one"
    return (
        f"{source}: HR must be {scale} times as large as LR, but in none of {len(misfits)} pairs it is "
        f"({name}: LR {_size(lr)}, HR {_size(hr)}); {advice}"
    )


def _split(
    entries: Sequence[Entry], seed: int, fraction: float, limit: int | None, source: Path
) -> list[Entry]:
    """The entries with their splits: the images whose seeded hashes are lowest are held for validation."""
    held = max(1, round(fraction * len(entries)))
    held = held if limit is None else min(held, limit)
    if fraction < 1 and held >= len(entries):
        raise PairsError(
            f"{source}: training and validation need at least one pair each, but got {len(entries)} "
            "usable pairs in all; bring more"
        )
    order = sorted(entries, key=lambda entry: hashlib.sha256(f"{seed}:{entry.hr_sha256}".encode()).digest())
    validation = {entry.name for entry in order[:held]}
    return [replace(entry, split="validation" if entry.name in validation else "train") for entry in entries]


def _after_path(error: PairsError) -> str:
    return str(error).split(": ", 1)[1]


def _size(shape: Sequence[int]) -> str:
    """As people write sizes: width×height."""
    return f"{shape[1]}×{shape[0]}"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "folder"
