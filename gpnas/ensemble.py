"""A bundle at work: its networks averaged over tiles and transforms.

Section 4.3 of Pan et al. 2020: networks averaged, overlapping tiles blended by distance from the
tile's centre, eight flips and transposes of each tile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpnas.bundle import Bundle
from gpnas.errors import BundleError, DataError
from gpnas.records import Architecture
from gpnas_trainers import build
from gpnas_trainers.cost import parameters
from gpnas_trainers.infer import upscale
from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import (
    SUFFIXES,
    Camera,
    PairsError,
    PairSet,
    bicubic_upscale,
    open_pairs,
    prepare,
    read_rgb,
    write_rgb,
)

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


def load_networks(bundle: Bundle, device: str | torch.device = "cpu") -> list[nn.Module]:
    """The bundle's networks with their weights, ready for inference.

    Raises:
        BundleError: an architecture is unknown here, or the weights do not fit it.
    """
    networks = []
    for member in bundle.members:
        try:
            # before anything is built: a crafted manifest may name sizes that exhaust the memory
            due = parameters(member.architecture.family, bundle.scale, **member.architecture.axes)
            given = sum(tensor.numel() for tensor in member.state.values())
            if due != given:
                raise ValueError(f"{due} numbers are due and {given} given")
            network = build(member.architecture.family, bundle.scale, **member.architecture.axes)
            network.load_state_dict(dict(member.state), strict=True)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                f"{member.architecture}: weights must fit their architecture, but {reason}"
            ) from None
        networks.append(network.to(device).to(memory_format=torch.channels_last).eval())  # type: ignore[call-overload]
    return networks


def default_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


def upscale_files(
    bundle: Bundle,
    inputs: Sequence[Path],
    output: Path,
    *,
    tile: int = 120,
    overlap: int = 60,
    self_ensemble: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[tuple[Path, Path]]:
    """Super-resolves image files with all levels of the ensemble.

    Args:
        bundle: with its weights.
        inputs: images, and folders of images.
        output: a file for a single image, else a folder, which is made; files in it are PNG.
        tile, overlap, self_ensemble: as `gpnas_trainers.infer.upscale`.
        progress: called with the image's name, tiles done and all.
        say: gets a line for each image that cannot be read.

    Returns:
        Each input file with what was written for it.

    Raises:
        DataError: no input, two inputs with one output, or an image that cannot be read or written;
            the other images are written all the same.
    """
    pairs = _targets(inputs, output)
    networks = load_networks(bundle, default_device())
    weights = [member.weight for member in bundle.members]
    written = []
    for source, target in pairs:
        try:
            lr = torch.from_numpy(read_rgb(source)).permute(2, 0, 1).float() / 255
            sr = upscale(
                networks,
                lr,
                bundle.scale,
                tile=tile,
                overlap=overlap,
                self_ensemble=self_ensemble,
                weights=weights,
                progress=None if progress is None else partial(progress, source.name),
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            write_rgb(target, (sr * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
        except PairsError as error:
            if len(pairs) == 1:
                raise DataError(str(error)) from None
            say(str(error))
            continue
        written.append((source, target))
    if len(written) < len(pairs):
        raise DataError(
            f"every image must be readable, but {len(pairs) - len(written)} of {len(pairs)} were not"
        )
    return written


def _targets(inputs: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    files = []
    for path in inputs:
        if path.is_dir():
            files += sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
        else:
            files.append(path)
    if not files:
        raise DataError(f"{inputs[0]}: must hold images ({', '.join(SUFFIXES)}), but holds none")
    if len(files) == 1 and not inputs[0].is_dir() and output.suffix and not output.is_dir():
        return [(files[0], output)]
    if output.suffix.lower() in SUFFIXES:
        raise DataError(f"{output}: must be a folder, since there are {len(files)} images")
    taken: dict[Path, Path] = {}
    for path in files:
        target = output / f"{path.stem}.png"
        if target in taken:
            raise DataError(
                f"{target}: every image must have its own name, but {taken[target]} and {path} share it"
            )
        taken[target] = path
    return [(path, target) for target, path in taken.items()]


def _average(outputs: Sequence[Tensor], weights: Sequence[float], subset: tuple[int, ...]) -> Tensor:
    """Weighed as in the bundle; members without weight among themselves count equally."""
    given = torch.tensor([weights[index] for index in subset])
    shares = given / given.sum() if given.sum() > 0 else torch.full_like(given, 1 / len(subset))
    return torch.einsum("n,nchw->chw", shares, torch.stack([outputs[index] for index in subset]))


def _scores(sr: Tensor, hr: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([psnr(sr, hr), ssim(sr, hr)])
