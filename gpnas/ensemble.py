"""A bundle at work: its networks averaged over tiles and transforms.

Section 4.3 of Pan et al. 2020: networks averaged, overlapping tiles blended by distance from the
tile's centre, eight flips and transposes of each tile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpnas.bundle import Bundle
from gpnas.errors import BundleError, DataError
from gpnas.records import Architecture
from gpnas_trainers import build
from gpnas_trainers.infer import upscale
from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import (
    PairsError,
    PairSet,
    bicubic_upscale,
    open_pairs,
    prepare_folder,
    read_rgb,
    write_rgb,
)

LEVELS = (("self_ensemble",), ("tiles", "self_ensemble"))
"""The levels of the ensemble, besides the average of networks, that an evaluation adds in turn."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


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
            network = build(member.architecture.family, bundle.scale, **member.architecture.axes)
            network.load_state_dict(dict(member.state), strict=True)
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                f"{member.architecture}: weights must fit their architecture, but {reason}"
            ) from None
        networks.append(network.to(device, memory_format=torch.channels_last).eval())
    return networks


def default_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def evaluation_pairs(
    bundle: Bundle, source: Path | None, cache: Path, say: Callable[[str], None]
) -> list[PairSet]:
    """The pairs to judge a bundle by: never any that it was trained on.

    Args:
        bundle: tells what it was trained on.
        source: folder of LR/HR pairs. Where it is what the bundle was trained on, its validation
            images serve; else all of it does. None takes the shipped photographs likewise.
        cache: where prepared pairs are kept.
        say: gets a line for each image that is left out.

    Raises:
        DataError: the folder cannot be used.
    """
    raise NotImplementedError


def evaluate(
    bundle: Bundle,
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    tile: int = 120,
    overlap: int = 60,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """The paper's Table 1 for a bundle: every network alone, every pair, all, beside bicubic.

    Args:
        bundle: with its weights.
        pairs: LR (3, h, w) and HR (3, H, W), float in [0, 1].
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
    for index, (lr, hr) in enumerate(pairs):
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
            progress(index + 1, len(pairs))
    rows = tuple(
        Row(
            tuple(members[index] for index in subset),
            (("networks",) if len(subset) > 1 else ()) + level,
            *(float(value) for value in sums[level, subset] / len(pairs)),
        )
        for level in levels
        for subset in subsets
    )
    return Evaluation(len(pairs), (float(bicubic[0]) / len(pairs), float(bicubic[1]) / len(pairs)), rows)


def _average(outputs: Sequence[Tensor], weights: Sequence[float], subset: tuple[int, ...]) -> Tensor:
    total = sum(weights[index] for index in subset)
    return torch.stack([outputs[index] * (weights[index] / total) for index in subset]).sum(0)


def _scores(sr: Tensor, hr: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([psnr(sr, hr), ssim(sr, hr)])
