"""Pairs of the photographs that ship inside ordinary packages, made by the synthetic camera."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpnas_trainers.images import ImageError, read_levels
from gpnas_trainers.pairs.camera import Camera, capture
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.writing import check_scale, key, planar, publish, shard_writer, usable, work_folder


@dataclass(frozen=True)
class Photograph:
    """A colour photograph inside an installed package."""

    name: str
    package: str
    path: str
    """Within the package's folder."""
    licence: str
    split: str
    """`train` or `validation`: fixed, so that all searches are judged by the same photographs."""


PHOTOGRAPHS = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "public domain (NASA)", "train"),
    Photograph("coffee", "skimage", "data/coffee.png", "CC0 1.0 (Rachel Michetti)", "train"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "CC BY 2.0 (vultilion)", "train"),
    Photograph("hubble", "skimage", "data/hubble_deep_field.jpg", "public domain (NASA)", "train"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "public domain (SpaceX)", "train"),
    Photograph("chelsea", "skimage", "data/chelsea.png", "CC0 1.0 (Stefan van der Walt)", "validation"),
    Photograph("china", "sklearn", "datasets/images/china.jpg", "CC BY 2.0 (danielbuechele)", "validation"),
)
"""What the wheels of scikit-image and scikit-learn hold; nothing is downloaded. The retina is left out:
it has no detail at its pixels' size (bicubic reaches 47 dB), and trainings without it end higher."""


def prepare_photographs(
    cache: str | Path,
    scale: int,
    *,
    camera: Camera | None = None,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Pairs of `PHOTOGRAPHS`, their LR made by the synthetic camera; made once.

    Each HR photograph is cropped (right, bottom) to a multiple of the scale.

    Args:
        cache: folder in which the set's own folder is made.
        scale: HR pixels per LR pixel, at least 2.
        camera: ranges of blur and noise; None is `Camera()`.
        seed: of the camera; the split is fixed.
        report: gets a line where a damaged set is made anew.
        progress: called with photographs done and all.

    Returns:
        The folder, to be given to `open_pairs`.

    Raises:
        PairsError: a photograph is not where its package should have it, or the cache is not writable.
    """
    check_scale(scale)
    camera = camera or Camera()
    paths = [_installed(photograph) for photograph in PHOTOGRAPHS]
    source = {
        "kind": "photographs",
        "scale": scale,
        "seed": seed,
        "camera": {**asdict(camera), "model": "LR = D_s(HR * k) + n (Pan et al. 2020, Eq. 1)"},
        "files": [
            [photograph.name, photograph.split, hashlib.sha256(path.read_bytes()).hexdigest()]
            for photograph, path in zip(PHOTOGRAPHS, paths, strict=True)
        ],
    }
    target = Path(cache) / f"photographs-x{scale}-{key(source)}"
    if usable(target, report) is not None:
        return target
    with work_folder(target) as folder:
        if folder is None:
            return target  # another process made it meanwhile
        entries = []
        with shard_writer(folder, 0) as writer:
            for done, (photograph, path) in enumerate(zip(PHOTOGRAPHS, paths, strict=True), start=1):
                hr = planar(_pixels(path))
                hr = hr[:, : hr.shape[1] // scale * scale, : hr.shape[2] // scale * scale]
                lr = capture(camera, hr, scale, name=photograph.name, seed=seed)
                entries.append(replace(writer.append(photograph.name, lr, hr), split=photograph.split))
                if progress is not None:
                    progress(done, len(PHOTOGRAPHS))
        licences = {photograph.name: photograph.licence for photograph in PHOTOGRAPHS}
        document = {"scale": scale, "seed": seed, "source": source, "licences": licences}
        publish(folder, target, document, entries)
    return target


def _installed(photograph: Photograph) -> Path:
    spec = importlib.util.find_spec(photograph.package)
    if spec is None or spec.origin is None:
        raise PairsError(
            f"{photograph.name}: the package {photograph.package} must be installed, but is not; "
            "install scikit-image and scikit-learn, or bring a folder of pairs"
        )
    path = Path(spec.origin).parent / photograph.path
    if not path.is_file():
        raise PairsError(
            f"{path}: {photograph.package} must hold this photograph, but does not; "
            "install another version of it, or bring a folder of pairs"
        )
    return path


def _pixels(path: Path) -> NDArray[Any]:
    try:
        return read_levels(path)
    except ImageError as error:
        raise PairsError(str(error)) from None
