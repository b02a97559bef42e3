"""A bundle in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpnas.bundle.manifest import Manifest
from gpnas.records import Architecture

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)
"""Types of weights, and of what networks count."""


def check_weights(state: Mapping[str, Tensor]) -> None:
    """Raises a `ValueError` that says what is wrong with a network's numbers, as a rule and a value."""
    for key, tensor in state.items():
        if tensor.dtype not in DTYPES:
            kinds = ", ".join(str(each).removeprefix("torch.") for each in DTYPES)
            raise ValueError(f"must be of {kinds}, but `{key}` is {str(tensor.dtype).removeprefix('torch.')}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"must be finite, but `{key}` holds NaN or infinity")


@dataclass(frozen=True, eq=False)
class Member:
    """One trained network of an average."""

    architecture: Architecture
    state: Mapping[str, Tensor]
    """The network's state dictionary; finite values of one of `DTYPES`."""
    weight: float
    """Its share of the average, in [0, 1]; the members' weights sum to 1."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What it reached alone, such as `psnr` in dB and `ssim`."""
    candidate: str | None = None
    """Name of the candidate whose trial trained it."""


@dataclass(frozen=True)
class Picture:
    """What the networks do, seen."""

    png: bytes
    """The file: LR, bicubic, the average, HR, side by side."""
    caption: str
    """What it shows, in a sentence or two."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that has been read and verified to the last byte."""

    manifest: Manifest
    members: tuple[Member, ...]
    picture: Picture | None = None
    licence: str | None = None
    """The text of its licence, where it holds one."""

    @property
    def scale(self) -> int:
        """The super-resolution factor."""
        return self.manifest.scale
