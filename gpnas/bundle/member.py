"""A bundle in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpnas.bundle.manifest import Manifest
from gpnas.records import Architecture

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Member:
    """One trained network of an average."""

    architecture: Architecture
    state: Mapping[str, Tensor]
    """The network's state dictionary; `StoredWeights` of a bundle that was read, `Graph` of an ONNX file."""
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
class StoredFusion:
    """Weights of the networks for each pixel, as they are stored."""

    kind: str
    """`table` or `gate`."""
    state: Mapping[str, Tensor]
    """Its state dictionary; of a bundle that was read, `StoredWeights`."""
    gain: float
    """Mean gain in dB over one weight per network, on validation images that it was not fitted to."""
    error: float
    """Standard error of the gain in dB."""
    images: int
    """How many images it was learned on."""


@dataclass(frozen=True)
class Licence:
    """Under which weights may be used."""

    name: str | None = None
    """An SPDX identifier where there is one; None: not stated."""
    text: str | None = None
    """None: that of `name` where it is known, else none."""


@dataclass(frozen=True)
class Description:
    """Where the networks of a bundle come from; mappings are plain JSON values."""

    scale: int
    """The super-resolution factor."""
    recipe: Mapping[str, Any]
    """How they were trained."""
    data: Mapping[str, Any]
    """What they were trained on; at least its `fingerprint`."""
    metrics: Mapping[str, float]
    """PSNR in dB of `bicubic`, of `best` (the best network alone) and of `ensemble`."""
    seed: int
    """The seed of the search."""
    versions: Mapping[str, str]
    """Versions of packages."""
    machine: Mapping[str, Any]
    """What it ran on."""
    networks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`network` and `sha256` of the source of members that are networks of someone's own, by family."""
    journal: Mapping[str, Any] | None = None
    """What the search's journal says of the members; None where there was no search."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that has been read and verified to the last byte."""

    manifest: Manifest
    members: tuple[Member, ...]
    picture: Picture | None = None
    licence: str | None = None
    """The text of its licence, where it holds one."""
    fusion: StoredFusion | None = None
    """Weights for each pixel, where it holds some."""

    @property
    def scale(self) -> int:
        """The super-resolution factor."""
        return self.manifest.scale
