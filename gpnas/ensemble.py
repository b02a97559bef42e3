"""A bundle at work: its networks averaged over tiles and transforms.

Section 4.3 of Pan et al. 2020: networks averaged, overlapping tiles blended by distance from the
tile's centre, eight flips and transposes of each tile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from gpnas.bundle import Bundle
from gpnas.errors import BundleError, DataError
from gpnas_trainers import build
from gpnas_trainers.cost import parameters
from gpnas_trainers.images import SUFFIXES, ImageError, bits_of, for_format, format_of, reading, writing
from gpnas_trainers.infer import Blend, Levels, Precision, upscale_rows
from gpnas_trainers.infer.levels import shares

Average = Literal["weights", "plain"]


def load_networks(bundle: Bundle, device: str | torch.device = "cpu") -> list[nn.Module]:
    """The bundle's networks with their weights, ready for inference.

    Raises:
        BundleError: an architecture is unknown here, or the weights do not fit it.
    """
    networks = []
    for member in bundle.members:
        try:
            # before anything is built: a crafted manifest may name sizes that exhaust the memory
            family, axes = member.architecture.family, member.architecture.axes
            given = sum(tensor.numel() for tensor in member.state.values())
            if parameters(family, bundle.scale, **axes) != given:
                raise ValueError(f"it has not the {given} numbers that are given")
            network = build(family, bundle.scale, **axes)
            network.load_state_dict(dict(member.state), strict=True)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                f"{member.architecture}: weights must fit their architecture, but {reason}"
            ) from None
        networks.append(network.to(device).to(memory_format=torch.channels_last).eval())  # type: ignore[call-overload]
    return networks


def weights_of(bundle: Bundle, average: Average) -> list[float]:
    """Of the networks in their average."""
    return [member.weight if average == "weights" else 1 / len(bundle.members) for member in bundle.members]


def default_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def upscale_files(
    bundle: Bundle,
    inputs: Sequence[Path],
    output: Path,
    *,
    average: Average = "weights",
    tile: int | tuple[int, ...] = 120,
    overlap: int | None = None,
    blend: Blend = "distance",
    self_ensemble: bool = True,
    drop_outlier: bool = False,
    precision: Precision = "float32",
    progress: Callable[[str, int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[tuple[Path, Path]]:
    """Super-resolves image files with all levels of the ensemble, by rows, from disk to disk.

    An image of 16 bits per channel gives one of 16 where the format holds them, as PNG and TIFF do. A
    colour profile is kept.

    Args:
        bundle: with its weights.
        inputs: images, and folders of images.
        output: a file for a single image, else a folder, which is made; files in it are PNG.
        average: `weights`, the bundle's, or `plain`, all equal.
        tile, overlap, blend, self_ensemble, drop_outlier, precision: as the fields of
            `gpnas_trainers.infer.Levels`.
        progress: called with the image's name, tiles done and all.
        say: gets a line for each image that cannot be read or written, or loses bits in its format.

    Returns:
        Each input file with what was written for it.

    Raises:
        DataError: no input, two inputs with one output, an output that is an input, levels that break a
            rule, or an image that cannot be read or written; the other images are written all the same.
    """
    weights = weights_of(bundle, average)
    try:
        levels = Levels(tile, overlap, blend, self_ensemble, drop_outlier, precision)
        shares(len(weights), weights, drop_outlier)
    except ValueError as error:
        raise DataError(str(error)) from None
    pairs = _targets(inputs, output)
    networks = load_networks(bundle, default_device())
    written = []
    for source, target in pairs:
        watch = None if progress is None else partial(progress, source.name)
        try:
            with reading(source) as image:
                bits = bits_of(target, image.bits)
                if bits < image.bits:
                    say(f"{target}: holds {bits} bits per channel; the {image.bits} of {source} are rounded")
                target.parent.mkdir(parents=True, exist_ok=True)
                size = bundle.scale * image.height, bundle.scale * image.width
                kept, lost = for_format(image.metadata, format_of(target), size)
                if lost:
                    say(f"{target}: {format_of(target)} holds no {', '.join(lost)}, as {source} has")
                with writing(target, *size, bits, kept) as write:
                    for _, _, rows in upscale_rows(
                        networks,
                        [image],
                        bundle.scale,
                        levels,
                        weights=weights,
                        bits=bits,
                        progress=watch,
                    ):
                        write(rows)
                        del rows  # before the next are made
        except ImageError as error:
            if len(pairs) == 1:
                raise DataError(str(error)) from None
            say(str(error))
            continue
        except (ValueError, torch.OutOfMemoryError) as error:
            # a precision that the device lacks or the networks cannot bear, a tile too large for a GPU
            raise DataError(str(error).splitlines()[0]) from None
        written.append((source, target))
    if len(written) < len(pairs):
        raise DataError(
            "every image must be read and its result written, but "
            f"{len(pairs) - len(written)} of {len(pairs)} were not"
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
        return _apart([(files[0], output)])
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
    return _apart([(path, target) for target, path in taken.items()])


def _apart(pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """The pairs, unless a target is one of the images, by whatever name."""
    images = {(found.st_dev, found.st_ino): path for path, _ in pairs for found in _found(path)}
    for _, target in pairs:
        for found in _found(target):
            if (found.st_dev, found.st_ino) in images:
                source = images[found.st_dev, found.st_ino]
                raise DataError(
                    f"{target}: a result must not replace an image, but this is {source}; "
                    "choose another output"
                )
    return pairs


def _found(path: Path) -> list[os.stat_result]:
    try:
        return [path.stat()]
    except OSError:  # told when it is opened
        return []
