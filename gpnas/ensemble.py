"""A bundle at work: its networks averaged over tiles and transforms.

Section 4.3 of Pan et al. 2020: networks averaged, overlapping tiles blended by distance from the
tile's centre, eight flips and transposes of each tile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from gpnas.bundle import Bundle, Graph
from gpnas.errors import BundleError, DataError
from gpnas.networks import check_named
from gpnas.records import Architecture
from gpnas.targets import targets
from gpnas_trainers import build
from gpnas_trainers.cost import stored
from gpnas_trainers.fusion import Fusion, fusion_of
from gpnas_trainers.graphs import OnnxNetwork
from gpnas_trainers.images import ImageError, NotRgb, bits_of, for_format, format_of, reading, writing
from gpnas_trainers.infer import Levels as Levels
from gpnas_trainers.infer import upscale_rows
from gpnas_trainers.infer.levels import shares

Average = Literal["fused", "weights", "plain"]
"""How networks are averaged: with weights for each pixel where the bundle has some, else with its weights;
with its weights; or all equal."""


def loaded(
    architecture: Architecture,
    scale: int,
    state: Mapping[str, torch.Tensor],
    device: str | torch.device = "cpu",
) -> nn.Module:
    """A network with its weights, ready for inference.

    Raises:
        ValueError: the architecture is unknown here, or the weights do not fit it.
    """
    family, axes = architecture.family, architecture.axes
    try:
        if isinstance(state, Graph):
            defaults = {"takes": "0..1", "makes": "0..1", "multiple_of": 1}
            return OnnxNetwork(state.content, *({**defaults, **axes}[name] for name in defaults))
        # before anything is built: a crafted manifest may name sizes that exhaust the memory
        count = sum(tensor.numel() for tensor in state.values())
        if stored(family, scale, **axes) != count:
            raise ValueError(f"it has not the {count} numbers that are given")
        network = build(family, scale, **axes)
        network.load_state_dict(dict(state), strict=True)
    except (TypeError, RuntimeError) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    return network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def load_networks(bundle: Bundle, device: str | torch.device = "cpu") -> list[nn.Module]:
    """The bundle's networks with their weights, ready for inference.

    Args:
        bundle: with its weights; sources that it names have been declared by `gpnas.networks`.
        device: where.

    Raises:
        BundleError: an architecture is unknown here, or the weights do not fit it.
    """
    check_named(bundle)
    networks = []
    for member in bundle.members:
        try:
            networks.append(loaded(member.architecture, bundle.scale, member.state, device))
        except ValueError as error:
            raise BundleError(
                f"{member.architecture}: weights must fit their architecture, but {error}"
            ) from None
    return networks


def weights_of(bundle: Bundle, average: Average, drop_outlier: bool = False) -> list[float]:
    """Shares of the networks in their average.

    Raises:
        DataError: they are too few for an outlier to be dropped.
    """
    count = len(bundle.members)
    weights = [1 / count if average == "plain" else member.weight for member in bundle.members]
    try:
        shares(count, weights, drop_outlier)
    except ValueError as error:
        raise DataError(str(error)) from None
    return weights


def load_fusion(
    bundle: Bundle, average: Average = "fused", device: str | torch.device = "cpu"
) -> Fusion | None:
    """The bundle's weights for each pixel; None where it has none, or the average is another.

    Raises:
        BundleError: they are not those of its networks.
    """
    if bundle.fusion is None or average != "fused":
        return None
    try:
        kept = bundle.fusion
        return fusion_of(kept.kind, kept.state, len(bundle.members), bundle.scale).to(device)
    except ValueError as error:
        raise BundleError(
            f"the bundle's fusion must fit its networks, but {error}; take --average weights"
        ) from None


def default_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Upscaled:
    """What became of an image."""

    source: Path
    target: Path
    """The file that was to be written."""
    error: str | None = None
    """Why it was not, in one line; None where it was."""


def upscale_files(
    bundle: Bundle,
    inputs: Sequence[Path],
    output: Path,
    levels: Levels | None = None,
    *,
    average: Average = "fused",
    convert: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Upscaled]:
    """Super-resolves image files with all levels of the ensemble, by rows, from disk to disk.

    An image of 16 bits per channel gives one of 16 where the format holds them, as PNG and TIFF do. What
    else an image says of itself is kept as far as the format holds it.

    Args:
        bundle: with its weights.
        inputs: images, and folders of images.
        output: a file for a single image, else a folder, which is made; files in it are PNG.
        levels: of the ensemble; None is `Levels()`.
        average: `fused`, with weights for each pixel where the bundle has some and no outlier is dropped;
            `weights`, the bundle's; or `plain`, all equal.
        convert: whether pictures that are not RGB are converted, as `images.reading` says.
        progress: called with the image's name, tiles done and all.
        say: gets a line for each image that cannot be read or written, that is converted, or of which its
            format loses something.

    Returns:
        What became of each image; one that cannot be read or written does not keep the others.

    Raises:
        DataError: no input, an output that is an input, levels that break a rule or that nothing can be
            upscaled with, or a single image that cannot be read or written.
    """
    levels = levels or Levels()
    weights = weights_of(bundle, average, levels.drop_outlier)
    pairs = targets(inputs, output, say)
    networks = load_networks(bundle, default_device())
    fusion = None if levels.drop_outlier else load_fusion(bundle, average, default_device())
    _warn(bundle, levels, say)
    passed = partial(
        upscale_rows, networks, scale=bundle.scale, levels=levels, weights=weights, fusion=fusion
    )
    results: list[Upscaled] = []
    for source, target in pairs:
        watch = None if progress is None else partial(progress, source.name)
        try:
            with reading(source, convert=convert) as image:
                if image.converted is not None:
                    say(f"{source}: {image.converted}")
                bits = bits_of(target, image.bits)
                if bits < image.bits:
                    say(f"{target}: holds {bits} bits per channel; the {image.bits} of {source} are rounded")
                _make_folder(target.parent)
                size = bundle.scale * image.height, bundle.scale * image.width
                kept, lost = for_format(image.metadata, format_of(target), size)
                if lost:
                    say(f"{target}: not kept of {source}: {', '.join(lost)}")
                with writing(target, *size, bits, kept) as write:
                    for _, _, rows in passed([image], bits=bits, progress=watch):
                        write(rows)
                        del rows  # before the next are made
        except ImageError as error:
            helps = isinstance(error, NotRgb) and error.convertible and not convert
            line = f"{error}, or add --convert" if helps else str(error)
            if len(pairs) == 1:
                raise DataError(line) from None
        except (ValueError, torch.OutOfMemoryError) as error:
            # a precision that the device lacks or the networks cannot bear, a tile too large for a GPU
            line = str(error).splitlines()[0]
            if not any(each.error is None for each in results):  # as little for the images that follow
                raise DataError(line) from None
        else:
            results.append(Upscaled(source, target))
            continue
        say(line)
        results.append(Upscaled(source, target, line))
    return results


def _warn(bundle: Bundle, levels: Levels, say: Callable[[str], None]) -> None:
    families = {member.architecture.family for member in bundle.members}
    if levels.precision == "float16" and "rcan" in families:
        say("float16 is known to break RCAN, whose features grow beyond its range; take bfloat16")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the output's folder cannot be made ({error.strerror}); choose another"
        ) from None
