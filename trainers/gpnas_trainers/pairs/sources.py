"""Where pairs come from: a folder of them, or photographs that ordinary packages ship."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from gpnas_trainers.pairs.camera import Camera
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.images import SUFFIXES, read_rgb
from gpnas_trainers.pairs.prepared import Pair, write_pairs

PHOTOGRAPHS = {
    "train": (
        "skimage/data/astronaut.png",  # NASA, public domain
        "skimage/data/coffee.png",  # Rachel Michetti, CC0
        "skimage/data/hubble_deep_field.jpg",  # NASA, public domain
        "skimage/data/rocket.jpg",  # SpaceX, CC0
        "sklearn/datasets/images/flower.jpg",  # dany13, CC-BY 2.0
    ),
    "validation": (
        "skimage/data/chelsea.png",  # Stéfan van der Walt, CC0
        "sklearn/datasets/images/china.jpg",  # rpanushkin, CC-BY 2.0
    ),
}
"""Photographs inside the wheels of scikit-image and scikit-learn, as they are split."""


def prepare_photographs(cache: Path, scale: int, *, camera: Camera | None = None, seed: int = 0) -> Path:
    """Pairs of the shipped photographs, their LR images made by a synthetic camera; made once.

    Split by photograph: china and chelsea validate, no training sees them.

    Args:
        cache: the folder under which prepared sets lie.
        scale: of the pairs.
        camera: that makes the LR images; None is the default one.
        seed: of its kernels and noise.

    Returns:
        The folder of the prepared set, for `open_pairs`.

    Raises:
        PairsError: a photograph is missing, or the set cannot be written.
    """
    camera = camera or Camera()
    provenance = {"source": "photographs", "camera": camera.to_json(), "seed": seed, "scale": scale}
    folder = cache / f"photographs-x{scale}-{_digest(provenance | {'images': PHOTOGRAPHS})}"
    if not (folder / "manifest.json").exists():
        splits = {
            split: _captured(names, camera, scale, np.random.default_rng((seed, number)))
            for number, (split, names) in enumerate(PHOTOGRAPHS.items())
        }
        write_pairs(folder, scale, splits, provenance)  # type: ignore[arg-type]
    return folder


def _captured(
    names: tuple[str, ...], camera: Camera, scale: int, generator: np.random.Generator
) -> Iterator[Pair]:
    for name in names:
        package, rest = name.split("/", 1)
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise PairsError(f"{package}: must be installed, since its photographs are used; or give pairs")
        hr = read_rgb(Path(spec.submodule_search_locations[0]) / rest)
        height, width = (side - side % scale for side in hr.shape[:2])
        hr = hr[:height, :width]
        yield Pair(Path(name).name, camera.capture(hr, scale, generator), hr)


def prepare_folder(
    source: Path,
    cache: Path,
    scale: int,
    *,
    seed: int = 0,
    validation_fraction: float = 0.2,
    minimum_side: int = 48,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Pairs of a folder with HR images in `HR/` and LR images in `LRx{scale}/` or `LR/`; made once.

    An HR and an LR image belong together when their names agree without suffix and without an `x2`
    (or `_x2`, `LR`, …) at the end. Split by image, at random; images with equal HR content count as
    one. What cannot be used is reported, a line each, and left out.

    Args:
        source: the folder.
        cache: the folder under which prepared sets lie.
        scale: of the pairs.
        seed: of the split.
        validation_fraction: share of the images that validate; in (0, 1), at least one image.
        minimum_side: least side of an HR image in pixels, such as that of the patches to come.
        report: gets a line for each image that is left out.

    Returns:
        The folder of the prepared set, for `open_pairs`.

    Raises:
        PairsError: the folder has no such folders, or fewer than two pairs can be used.
    """
    if not 0 < validation_fraction < 1:
        raise PairsError(f"`0 < validation_fraction < 1` must hold, but got {validation_fraction}")
    hr_files, lr_files = _images(source, ("HR",)), _images(source, (f"LRx{scale}", f"LR_x{scale}", "LR"))
    listing = [
        (str(path.relative_to(source)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in (*hr_files.values(), *lr_files.values())
    ]
    provenance = {
        "source": source.name,
        "listing": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
        "scale": scale,
        "seed": seed,
        "validation_fraction": validation_fraction,
        "minimum_side": minimum_side,
    }
    folder = cache / f"{re.sub('[^A-Za-z0-9]+', '-', source.name) or 'pairs'}-x{scale}-{_digest(provenance)}"
    exclusions = folder / "excluded.txt"
    if (folder / "manifest.json").exists():
        for line in exclusions.read_text().splitlines() if exclusions.exists() else ():
            report(line)
        return folder
    lines: list[str] = []

    def exclude(line: str) -> None:
        lines.append(line)
        report(line)

    usable = _usable(hr_files, lr_files, scale, minimum_side, exclude)
    if len(usable) < 2:
        why = lines[-1] if lines else f"{source} holds {len(usable)} pairs"
        raise PairsError(f"{source}: at least 2 usable pairs are needed, but got {len(usable)}; last: {why}")
    order = np.random.default_rng(seed).permutation(len(usable))
    count = max(1, round(validation_fraction * len(usable)))
    validation = {usable[index] for index in order[:count]}
    write_pairs(
        folder,
        scale,
        {
            "train": _read(hr_files, lr_files, [name for name in usable if name not in validation]),
            "validation": _read(hr_files, lr_files, [name for name in usable if name in validation]),
        },
        provenance,
    )
    if lines:
        exclusions.write_text("\n".join(lines) + "\n")
    return folder


def _images(source: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """The images of the first folder that exists among `names`, by what they are called."""
    if not source.is_dir():
        raise PairsError(f"{source}: must be a folder with HR and LR images, but there is none")
    folders = {path.name.lower(): path for path in source.iterdir() if path.is_dir()}
    for name in names:
        folder = folders.get(name.lower())
        if folder is not None:
            found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
            if not found:
                raise PairsError(f"{folder}: must hold images ({', '.join(SUFFIXES)}), but holds none")
            return {_key(path): path for path in found}
    raise PairsError(f"{source}: must hold a folder {' or '.join(names)}, but holds "
                     f"{', '.join(sorted(path.name for path in folders.values())) or 'none'}")  # fmt: skip


def _key(path: Path) -> str:
    """What a pair's two files have in common: `0001` of `0001x2.png`, `cam_1_HR.png`, `cam_1_LR2.png`."""
    return re.sub(r"[-_]?(x[2348]|hr|lr[2348]?)$", "", path.stem, flags=re.IGNORECASE) or path.stem


def _usable(
    hr_files: dict[str, Path],
    lr_files: dict[str, Path],
    scale: int,
    minimum_side: int,
    exclude: Callable[[str], None],
) -> list[str]:
    """Names of the pairs that can be used, after reading each once."""
    usable, seen = [], {}
    for name in sorted(hr_files.keys() | lr_files.keys()):
        if name not in lr_files or name not in hr_files:
            lone = hr_files.get(name) or lr_files[name]
            kind = "LR" if name in hr_files else "HR"
            exclude(f"{lone}: every image must have a partner, but no {kind} image has its name")
            continue
        try:
            hr, lr = read_rgb(hr_files[name]), read_rgb(lr_files[name])
        except PairsError as error:
            exclude(str(error))
            continue
        (height, width), (lr_height, lr_width) = hr.shape[:2], lr.shape[:2]
        if (height, width) != (scale * lr_height, scale * lr_width):
            fits = "" if lr_height == 0 or height % lr_height else f" (a scale of {height // lr_height})"
            exclude(
                f"{hr_files[name]}: HR must be {scale} times LR, but HR is {width}×{height} and "
                f"LR {lr_width}×{lr_height}{fits}"
            )
        elif min(height, width) < minimum_side:
            exclude(
                f"{hr_files[name]}: HR sides must be at least {minimum_side} pixels, but got {width}×{height}"
            )
        else:
            content = hashlib.sha256(hr.tobytes()).hexdigest()
            if content in seen:
                exclude(f"{hr_files[name]}: every HR image must differ, but it equals {seen[content]}")
            else:
                seen[content] = hr_files[name].name
                usable.append(name)
    return usable


def _read(hr_files: dict[str, Path], lr_files: dict[str, Path], names: list[str]) -> Iterator[Pair]:
    for name in names:
        yield Pair(name, read_rgb(lr_files[name]), read_rgb(hr_files[name]))


def _digest(document: object) -> str:
    versions = {"pillow": getattr(Image, "__version__", "")}
    return hashlib.sha256(json.dumps([document, versions], sort_keys=True).encode()).hexdigest()[:12]
