"""A bundle measured: the paper's Table 1 for its networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpnas.bundle import Bundle
from gpnas.ensemble import default_device, load_networks
from gpnas.errors import DataError
from gpnas.records import Architecture
from gpnas_trainers.infer import upscale
from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import Camera, PairsError, PairSet, bicubic_upscale, open_pairs, prepare

LEVELS = (("self_ensemble",), ("tiles", "self_ensemble"))
"""The levels of the ensemble, besides the average of networks, that an evaluation adds in turn."""


@dataclass(frozen=True)
class Row:
    """One row of the paper's Table 1: the average of some networks, with some ensemble levels."""

    members: tuple[Architecture, ...]
    levels: tuple[str, ...]
    """Of `networks` (an average of several), `tiles`, `self_ensemble`."""
    psnr: float
    """Mean over images in dB, RGB, without border."""
    ssim: float
    """Mean over images, RGB, gaussian 11×11 valid window."""


@dataclass(frozen=True)
class Evaluation:
    """A bundle measured on LR/HR pairs."""

    images: int
    bicubic: tuple[float, float]
    """PSNR in dB and SSIM of bicubic upsampling."""
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "bicubic": {"psnr": self.bicubic[0], "ssim": self.bicubic[1]},
            "rows": [
                {
                    "members": [member.to_json() for member in row.members],
                    "levels": list(row.levels),
                    "psnr": row.psnr,
                    "ssim": row.ssim,
                }
                for row in self.rows
            ],
        }


def evaluation_pairs(bundle: Bundle, source: Path | None, say: Callable[[str], None]) -> list[PairSet]:
    """The pairs to judge a bundle by: never any that it was trained on.

    Args:
        bundle: tells what it was trained on.
        source: folder of LR/HR pairs. Where it is what the bundle was trained on, its validation
            images serve, else all of it, whatever its pairs' alignment. None takes the validation
            photographs.
        say: gets a line for each image that is left out.

    Raises:
        DataError: the folder cannot be used.
    """
    data: dict[str, Any] = bundle.manifest.data
    recipe: dict[str, Any] = bundle.manifest.recipe
    settings = {name: tuple(value) for name, value in (data.get("camera") or {}).items()}
    try:
        camera, side = Camera(**settings), recipe.get("hr_patch", 48)
        with suppress(PairsError):  # too few may be left when prepared as for a search
            lines: list[str] = []
            folder = prepare(
                source, bundle.scale, camera=camera, minimum_side=side, workers=None, report=lines.append
            )
            validation = open_pairs(folder, "validation")
            if source is None or validation.fingerprint == data.get("validation"):
                for line in lines:
                    say(line)
                return [validation]
        folder = prepare(
            source,
            bundle.scale,
            camera=camera,
            minimum_side=side,
            minimum_ncc=0.0,
            workers=None,
            report=say,
        )
        return [open_pairs(folder, "train"), open_pairs(folder, "validation")]
    except PairsError as error:
        raise DataError(str(error)) from None


def evaluate(
    bundle: Bundle,
    pairs: Sequence[PairSet],
    *,
    tile: int = 120,
    overlap: int = 60,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """The paper's Table 1 for a bundle: every network alone, every pair, all, beside bicubic.

    Args:
        bundle: with its weights.
        pairs: of the bundle's scale.
        tile: LR pixels of a tile's side.
        overlap: LR pixels that neighbouring tiles share.
        progress: called with images done and all.
    """
    networks = load_networks(bundle, default_device())
    members = [member.architecture for member in bundle.members]
    weights = [member.weight for member in bundle.members]
    subsets = [
        subset
        for size in sorted({1, 2, len(members)})
        for subset in itertools.combinations(range(len(members)), size)
    ]
    levels: tuple[tuple[str, ...], ...] = ((), *LEVELS)
    sums = {(level, subset): np.zeros(2) for level in levels for subset in subsets}
    bicubic = np.zeros(2)
    count = sum(len(each) for each in pairs)
    images = (each.image(index) for each in pairs for index in range(len(each)))
    for done, image in enumerate(images, start=1):
        lr, hr = (torch.from_numpy(pixels).float() / 255 for pixels in image)
        bicubic += _scores(bicubic_upscale(lr, bundle.scale), hr)
        for level in levels:
            outputs = [
                upscale(
                    [network],
                    lr,
                    bundle.scale,
                    tile=tile if "tiles" in level else 0,
                    overlap=overlap,
                    self_ensemble="self_ensemble" in level,
                ).cpu()
                for network in networks
            ]
            for subset in subsets:
                sums[level, subset] += _scores(_average(outputs, weights, subset), hr)
        if progress is not None:
            progress(done, count)
    rows = tuple(
        Row(
            tuple(members[index] for index in subset),
            (("networks",) if len(subset) > 1 else ()) + level,
            *(float(value) for value in sums[level, subset] / count),
        )
        for level in levels
        for subset in subsets
    )
    return Evaluation(count, (float(bicubic[0]) / count, float(bicubic[1]) / count), rows)


def _average(outputs: Sequence[Tensor], weights: Sequence[float], subset: tuple[int, ...]) -> Tensor:
    """Weighed as in the bundle; members without weight among themselves count equally."""
    given = torch.tensor([weights[index] for index in subset])
    shares = given / given.sum() if given.sum() > 0 else torch.full_like(given, 1 / len(subset))
    return torch.einsum("n,nchw->chw", shares, torch.stack([outputs[index] for index in subset]))


def _scores(sr: Tensor, hr: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([psnr(sr, hr), ssim(sr, hr)])
