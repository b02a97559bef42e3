"""The picture of a bundle's model card: what its networks do, seen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gpnas.bundle import Member, Picture
from gpnas.data import data_errors, prepared_pairs
from gpnas.ensemble import loaded
from gpnas.errors import DataError
from gpnas.run.setup import Setup
from gpnas_trainers.infer import Levels, upscale
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import MINIMUM_NCC, Camera, PairSet, Rules, bicubic_upscale

SIDE = 192
"""HR pixels of a view, at most."""
MARGIN = 32
"""LR pixels around a view that the networks see besides."""
GAP = 4
"""White pixels between views."""


def validation_pairs(setup: Setup, source: Path | None) -> PairSet:
    """The pairs that validated a search, opened anew.

    Args:
        setup: of its trainings.
        source: folder of the pairs; None for the shipped photographs.

    Raises:
        DataError: the folder cannot be used, or its validation images are others.
    """
    with data_errors():
        camera = Camera(**(setup.data.camera or {})) if source is None else None
    rules = Rules(minimum_side=setup.recipe.get("hr_patch", 48), minimum_ncc=MINIMUM_NCC)
    pairs = prepared_pairs(source, setup.scale, rules, camera=camera).validation
    if pairs.fingerprint != setup.data.validation:
        raise DataError(
            f"{source or 'the photographs'}: the images must be those that validated the search, but these "
            "are others; name the folder that was searched on"
        )
    return pairs


@dataclass(frozen=True, eq=False)
class Views:
    """One part of a validation image, as everything makes it; (3, H, W) in [0, 1]."""

    image: str
    """Name of the image."""
    lr: Tensor
    """Enlarged by repetition, as large as the others."""
    bicubic: Tensor
    alone: tuple[Tensor, ...]
    """Outputs of each network; empty where they were not asked for."""
    average: Tensor
    hr: Tensor

    def psnr(self, image: Tensor) -> float:
        """PSNR in dB of one of them beside HR."""
        return psnr(image, self.hr)


def views_of(members: Sequence[Member], pairs: PairSet, *, alone: bool = False) -> Views:
    """A part of the first validation image: the one with most detail.

    That is the one with the largest mean gradient of HR, so that no one chose it by what the networks make of
    it. They see its surroundings too, and all eight flips and transposes.

    Args:
        members: with their weights.
        pairs: that validated them.
        alone: whether each network is shown alone, too.
    """
    scale = pairs.scale
    lr, hr = pairs.tensors(0)
    side = min(SIDE // scale, *lr.shape[1:])
    y, x = _most_detail(hr, scale, side)
    top, left = max(0, y - MARGIN), max(0, x - MARGIN)
    near = lr[:, top : y + side + MARGIN, left : x + side + MARGIN]
    networks = [loaded(member.architecture, scale, member.state) for member in members]
    inner = [slice(scale * start, scale * (start + side)) for start in (y - top, x - left)]

    def seen(image: Tensor) -> Tensor:
        return image[:, inner[0], inner[1]]

    weights = [member.weight for member in members]
    small = lr[:, y : y + side, x : x + side]
    return Views(
        image=pairs.names[0],
        lr=small.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2),
        bicubic=seen(bicubic_upscale(near, scale)),
        alone=tuple(seen(upscale([each], near, scale, Levels(tile=0))) for each in networks if alone),
        average=seen(upscale(networks, near, scale, Levels(tile=0), weights=weights)),
        hr=hr[:, scale * y : scale * (y + side), scale * x : scale * (x + side)],
    )


def make_picture(members: Sequence[Member], pairs: PairSet) -> Picture:
    """A part of the first validation image: LR, bicubic, the average of the networks, HR.

    Args:
        members: with their weights.
        pairs: that validated them.
    """
    views = views_of(members, pairs)
    caption = (
        f"LR, bicubic ({psnr(views.bicubic, views.hr):.2f} dB), the average of the networks "
        f"({psnr(views.average, views.hr):.2f} dB) and HR: the part with most detail of {views.image}, an "
        "image that validated the search."
    )
    return Picture(png_of([views.lr, views.bicubic, views.average, views.hr]), caption)


def _most_detail(hr: Tensor, scale: int, side: int) -> tuple[int, int]:
    """Corner in LR pixels of the square of `side` LR pixels in which HR has the largest gradients."""
    grey = hr.mean(dim=0)
    gradient = grey.diff(dim=0).abs()[:, :-1] + grey.diff(dim=1).abs()[:-1]
    step = 4 * scale
    means = avg_pool2d(gradient[None, None], scale * side - 1, stride=step)[0, 0]
    place = int(means.argmax())
    return 4 * (place // means.shape[1]), 4 * (place % means.shape[1])


def png_of(views: Sequence[Tensor]) -> bytes:
    """Views (3, H, W) side by side, in a PNG file without any metadata."""
    gap = torch.ones(3, views[0].shape[1], GAP)
    parts = [part for view in views for part in (view, gap)][:-1]
    pixels = (torch.cat(parts, dim=2).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG", optimize=True)
    return file.getvalue()
