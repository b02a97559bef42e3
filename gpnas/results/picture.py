"""The picture of a bundle's model card: what its networks do, seen."""

from __future__ import annotations

import io
from collections.abc import Sequence
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
            f"{source or 'the photographs'}: a picture must show an image that validated the search, but "
            "this folder's are others; name the folder that was searched on"
        )
    return pairs


def make_picture(members: Sequence[Member], pairs: PairSet) -> Picture:
    """A part of the first validation image: LR, bicubic, the average of the networks, HR.

    The part is the one with most detail (the largest mean gradient of HR), so that no one chose it by
    what the networks make of it. They see its surroundings too, and all eight flips and transposes.

    Args:
        members: with their weights.
        pairs: that validated them.
    """
    scale = pairs.scale
    lr, hr = pairs.tensors(0)
    side = min(SIDE // scale, *lr.shape[1:])
    y, x = _most_detail(hr, scale, side)
    top, left = max(0, y - MARGIN), max(0, x - MARGIN)
    near = lr[:, top : y + side + MARGIN, left : x + side + MARGIN]
    networks = [loaded(member.architecture, scale, member.state) for member in members]
    sr = upscale(networks, near, scale, Levels(tile=0), weights=[member.weight for member in members])
    inner = [slice(scale * start, scale * (start + side)) for start in (y - top, x - left)]
    bicubic, average = (image[:, inner[0], inner[1]] for image in (bicubic_upscale(near, scale), sr))
    truth = hr[:, scale * y : scale * (y + side), scale * x : scale * (x + side)]
    small = lr[:, y : y + side, x : x + side]
    small = small.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    caption = (
        f"LR, bicubic ({psnr(bicubic, truth):.2f} dB), the average of the networks "
        f"({psnr(average, truth):.2f} dB) and HR: the part with most detail of {pairs.names[0]}, an image "
        "that validated the search."
    )
    return Picture(_png([small, bicubic, average, truth]), caption)


def _most_detail(hr: Tensor, scale: int, side: int) -> tuple[int, int]:
    """Corner in LR pixels of the square of `side` LR pixels in which HR has the largest gradients."""
    grey = hr.mean(dim=0)
    gradient = grey.diff(dim=0).abs()[:, :-1] + grey.diff(dim=1).abs()[:-1]
    step = 4 * scale
    means = avg_pool2d(gradient[None, None], scale * side - 1, stride=step)[0, 0]
    place = int(means.argmax())
    return 4 * (place // means.shape[1]), 4 * (place % means.shape[1])


def _png(views: Sequence[Tensor]) -> bytes:
    """Views (3, H, W) side by side, in a PNG file without any metadata."""
    gap = torch.ones(3, views[0].shape[1], GAP)
    parts = [part for view in views for part in (view, gap)][:-1]
    pixels = (torch.cat(parts, dim=2).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG", optimize=True)
    return file.getvalue()
