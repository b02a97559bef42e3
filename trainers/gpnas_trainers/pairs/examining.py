"""One pair, from its files to its pixels or to the rule that it breaks."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpnas_trainers.images import ImageError, NotRgb, read_header, read_levels
from gpnas_trainers.pairs import checks
from gpnas_trainers.pairs.camera import Camera, capture
from gpnas_trainers.pairs.exclusion import Exclusion, Rule, printable
from gpnas_trainers.pairs.manifest import digest
from gpnas_trainers.pairs.names import PairFiles
from gpnas_trainers.pairs.rules import Rules
from gpnas_trainers.pairs.writing import planar

MAX_TRAINING_PIXELS = 89_478_485
"""Limit on an HR or LR image's pixels: where Pillow begins to suspect a decompression bomb."""
ASKED_BY = "a recipe's hr_patch, or --minimum-side"
"""What sets the least side of a pair."""
Read = TypeVar("Read")


@dataclass(frozen=True)
class Job:
    """What is the same for all pairs of a folder. It travels to worker processes."""

    source: Path
    scale: int
    rules: Rules
    camera: Camera | None = None
    """Makes LR of HR; None where LR images are given."""


@dataclass(frozen=True)
class Measured:
    """What is known of a pair that was read."""

    lr_shape: tuple[int, int]
    lr_bits: int
    """Per channel, as `hr_bits`: 8 or 16."""
    hr_bits: int
    hr_sha256: str
    ncc: float | None = None
    """The pair's `checks.ncc`; like `shift`, None where the synthetic camera made LR."""
    shift: tuple[float, float] | None = None
    thumbnail: str | None = None
    """Base64 of `checks.thumbnail`; None where nothing shows."""


class Excluded(Exception):
    """Ends the examination of a pair."""

    def __init__(self, file: Path, rule: Rule, value: str, why: str) -> None:
        super().__init__(why)
        self.file, self.rule, self.value = file, rule, value

    def exclusion(self, source: Path) -> Exclusion:
        return Exclusion(printable(self.file.relative_to(source)), self.rule, self.value, str(self))


def examine(job: Job, files: PairFiles) -> tuple[NDArray[Any], NDArray[Any], Measured]:
    """LR (3, h, w) and HR (3, scale·h, scale·w) of a pair that keeps all rules, each as deep as its file.

    Raises:
        Excluded: it breaks one.
    """
    scale, rules = job.scale, job.rules
    if files.lr is None:
        hr = planar(_taken(read_levels, files.hr))
        hr = hr[:, : hr.shape[1] // scale * scale, : hr.shape[2] // scale * scale]
        _check_side(files.hr, hr.shape, rules)
        lr = capture(job.camera or Camera(), hr, scale, name=files.name, seed=rules.seed)
        return lr, hr, _measured(lr, hr)
    lr_header, hr_header = _taken(read_header, files.lr), _taken(read_header, files.hr)
    lr_size, hr_size = (lr_header.height, lr_header.width), (hr_header.height, hr_header.width)
    registered = rules.downsample_lr and lr_size == hr_size
    if not registered and not all(0 <= b - scale * a < scale for a, b in zip(lr_size, hr_size, strict=True)):
        value = f"LR {shown(lr_size)} and HR {shown(hr_size)}"
        raise Excluded(files.lr, "size", value, f"HR must be {scale} times as large as LR, but got {value}")
    lr, hr = planar(_taken(read_levels, files.lr)), planar(_taken(read_levels, files.hr))
    if registered:
        lr = _downsampled(lr[:, : lr.shape[1] // scale * scale, : lr.shape[2] // scale * scale], scale)
    hr = hr[:, : scale * lr.shape[1], : scale * lr.shape[2]]
    _check_side(files.hr, hr.shape, rules)
    agreement = checks.ncc(lr, hr, scale)
    if rules.minimum_ncc > 0 and not agreement >= rules.minimum_ncc:
        value = f"{agreement:.4f}"
        why = f"LR and HR must agree to an NCC of {rules.minimum_ncc:g}, but got {value}"
        raise Excluded(files.lr, "ncc", value, why)
    moved = checks.shift(lr, hr, scale)
    if rules.maximum_shift is not None and np.hypot(*moved) > rules.maximum_shift:
        value = f"{moved[0]:+.2f} down and {moved[1]:+.2f} right"
        why = f"LR must lie within {rules.maximum_shift:g} LR pixels of HR, but lies {value}"
        raise Excluded(files.lr, "shift", value, why)
    return lr, hr, _measured(lr, hr, round(agreement, 6), moved)


def shown(size: Sequence[int]) -> str:
    """(height, width) as people write it: width×height."""
    return f"{size[1]}×{size[0]}"


def decoded(thumbnail: str) -> NDArray[np.int8]:
    return np.frombuffer(base64.b64decode(thumbnail), np.int8)


def _measured(
    lr: NDArray[Any], hr: NDArray[Any], ncc: float | None = None, shift: tuple[float, float] | None = None
) -> Measured:
    thumbnail = checks.thumbnail(hr)
    return Measured(
        lr_shape=(lr.shape[1], lr.shape[2]),
        lr_bits=8 * lr.itemsize,
        hr_bits=8 * hr.itemsize,
        hr_sha256=digest(hr),
        ncc=ncc,
        shift=shift,
        thumbnail=None if thumbnail is None else base64.b64encode(thumbnail.tobytes()).decode(),
    )


def _taken(read: Callable[..., Read], path: Path) -> Read:
    """What a reader of `images` makes of a file."""
    try:
        return read(path, max_pixels=MAX_TRAINING_PIXELS)
    except ImageError as error:
        why = printable(str(error).removeprefix(f"{path}: "))
        value = why.partition(", but ")[2].removeprefix("got ").split(";")[0]
        rule: Rule = "rgb" if isinstance(error, NotRgb) else "readable"
        raise Excluded(path, rule, value or why, why) from None


def _check_side(path: Path, shape: tuple[int, ...], rules: Rules) -> None:
    if min(shape[1:]) < rules.minimum_side:
        value = shown(shape[1:])
        why = f"HR sides must have at least {rules.minimum_side} pixels ({ASKED_BY}), but got {value}"
        raise Excluded(path, "small", value, why)


def _downsampled(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """(3, H, W) to (3, H/scale, W/scale) with the antialiased bicubic kernel, rounded to its own levels."""
    size = (image.shape[1] // scale, image.shape[2] // scale)
    small = [checks.shrunk(channel.astype(np.float32), size, Image.Resampling.BICUBIC) for channel in image]
    return np.clip(np.rint(small), 0, np.iinfo(image.dtype).max).astype(image.dtype)
