"""A prepared set: one folder with a manifest and two flat files of pixels, and how it is read.

`lr.u8` and `hr.u8` hold the images one after another, each (3, height, width) of uint8. They are
memory-mapped, so that all trials of a machine share one copy and opening costs nothing.
`manifest.json` says where each image lies, which split it belongs to, and what the set was made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnas_trainers.pairs.images import PairsError

FORMAT = "gpnas-pairs"
VERSION = 1
MANIFEST = "manifest.json"
FILES = ("lr.u8", "hr.u8")

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class Entry:
    """One pair of a prepared set."""

    name: str
    """Unique within the set."""
    lr_shape: tuple[int, int]
    """Height and width; HR's are `scale` times as large."""
    lr_offset: int
    """First byte in `lr.u8`."""
    hr_offset: int
    """First byte in `hr.u8`."""
    lr_sha256: str
    """Of the LR pixels."""
    hr_sha256: str
    """Of the HR pixels."""
    split: str = ""
    """`train` or `validation`."""


class PairSet:
    """The pairs of one split; opened lazily, cheap to construct and to pickle.

    Attributes:
        scale: HR pixels per LR pixel.
        names: of the pairs, unique.
        shapes: (h, w) of each LR image.
        smallest_side: the smallest height or width of an HR image, in pixels; 0 of an empty set.
        hr_sha256: SHA-256 of each HR image's pixels, which tells the same photograph in another set.
        fingerprint: SHA-256 of scale, split, names and pixels: two sets that agree in it are equal.
    """

    def __init__(self, folder: Path, scale: int, split: str, entries: Sequence[Entry]) -> None:
        self._folder, self._split = Path(folder), split
        self._entries = tuple(entries)
        self._maps: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self.scale = scale
        self.names = tuple(entry.name for entry in entries)
        self.shapes = tuple(entry.lr_shape for entry in entries)
        self.smallest_side = scale * min((min(shape) for shape in self.shapes), default=0)
        self.hr_sha256 = tuple(entry.hr_sha256 for entry in entries)
        contents = [[entry.name, entry.lr_shape, entry.lr_sha256, entry.hr_sha256] for entry in entries]
        self.fingerprint = hashlib.sha256(canonical([FORMAT, scale, split, contents])).hexdigest()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"PairSet({len(self)} pairs, scale={self.scale}, folder={str(self._folder)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": None}  # a map must not travel by value

    def head(self, count: int | None) -> PairSet:
        """The first `count` pairs; all of them where there are fewer, or where it is None."""
        return PairSet(self._folder, self.scale, self._split, self._entries[:count])

    def image(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pair `index` as lr (3, h, w) and hr (3, scale·h, scale·w), uint8: views of the mapped files.

        What is written to a view stays in this process and never reaches the files.
        """
        lr, hr = self._mapped()
        entry = self._entries[index]
        height, width = entry.lr_shape
        size = 3 * height * width
        tall, wide = self.scale * height, self.scale * width
        return (
            lr[entry.lr_offset : entry.lr_offset + size].reshape(3, height, width),
            hr[entry.hr_offset : entry.hr_offset + self.scale**2 * size].reshape(3, tall, wide),
        )

    def patches(
        self, batch_size: int, hr_patch: int, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Random crops, each turned and mirrored at random (eight ways): a batch for training.

        Every pair is equally likely whatever its size, as in the paper's epochs (Sec. 4.1), and so is
        every position. Pairs smaller than the patch are never drawn.

        Args:
            batch_size: B, at least 1.
            hr_patch: p, side of the HR crop in HR pixels; a multiple of the scale.
            generator: the only source of randomness.

        Returns:
            lr (B, 3, p/scale, p/scale) and hr (B, 3, p, p), float32 in [0, 1].

        Raises:
            ValueError: `hr_patch` is not a positive multiple of the scale.
            PairsError: no pair is as large as the patch.
        """
        if hr_patch < 1 or hr_patch % self.scale:
            raise ValueError(
                f"`hr_patch` must be a positive multiple of the scale {self.scale}, but got {hr_patch}"
            )
        side = hr_patch // self.scale
        large: Sequence[int] = range(len(self))
        if self.smallest_side < hr_patch:
            large = [index for index in large if min(self.shapes[index]) >= side]
        if not large:
            raise PairsError(
                f"a patch of {hr_patch} HR pixels must fit into some pair, but the {len(self)} pairs are "
                "smaller; use a smaller patch"
            )
        chosen = generator.integers(len(large), size=batch_size)
        where = generator.random((batch_size, 2))
        transforms = generator.integers(8, size=batch_size)
        lr_batch = np.empty((batch_size, 3, side, side), np.uint8)
        hr_batch = np.empty((batch_size, 3, hr_patch, hr_patch), np.uint8)
        for row in range(batch_size):
            index = large[chosen[row]]
            lr, hr = self.image(index)
            height, width = self.shapes[index]
            y = int(where[row, 0] * (height - side + 1))
            x = int(where[row, 1] * (width - side + 1))
            lr_batch[row] = dihedral(lr[:, y : y + side, x : x + side], int(transforms[row]))
            y, x = self.scale * y, self.scale * x
            hr_batch[row] = dihedral(hr[:, y : y + hr_patch, x : x + hr_patch], int(transforms[row]))
        return (
            torch.from_numpy(lr_batch).to(torch.float32).div_(255),
            torch.from_numpy(hr_batch).to(torch.float32).div_(255),
        )

    def _mapped(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if self._maps is None:
            try:
                # Copy-on-write: pages stay shared, and PyTorch does not warn of read-only memory.
                lr, hr = (np.asarray(np.memmap(self._folder / name, np.uint8, mode="c")) for name in FILES)
            except (OSError, ValueError) as error:
                raise PairsError(f"{self._folder}: prepared pairs cannot be opened ({error})") from None
            self._maps = (lr, hr)
        return self._maps


def dihedral(image: NDArray[np.uint8], transform: int) -> NDArray[np.uint8]:
    """A view of (C, H, W): bit 0 of `transform` flips rows, bit 1 columns, bit 2 then transposes."""
    if transform & 1:
        image = image[:, ::-1]
    if transform & 2:
        image = image[:, :, ::-1]
    return image.swapaxes(1, 2) if transform & 4 else image


def open_pairs(folder: str | Path, split: Split, *, verify: bool = False) -> PairSet:
    """The pairs of one split of a prepared set.

    Args:
        folder: what `prepare_photographs` or `prepare_folder` returned.
        split: `train` or `validation`.
        verify: read all pixels and compare their SHA-256; else only the files' sizes are compared.

    Raises:
        PairsError: the folder is missing, damaged, or of another version.
        ValueError: an unknown split.
    """
    if split not in ("train", "validation"):
        raise ValueError(f"a split must be train or validation, but got {split!r}")
    folder = Path(folder)
    manifest = read_manifest(folder)
    entries = manifest["images"]
    if verify:
        for entry, lr, hr in _contents(folder, manifest["scale"], entries):
            if (digest(lr), digest(hr)) != (entry.lr_sha256, entry.hr_sha256):
                raise PairsError(
                    f"{folder}: the pixels of {entry.name} must have the manifest's SHA-256, but do not; "
                    "delete the folder so that it is prepared again"
                )
    return PairSet(folder, manifest["scale"], split, [entry for entry in entries if entry.split == split])


def _contents(
    folder: Path, scale: int, entries: Sequence[Entry]
) -> Iterator[tuple[Entry, NDArray[np.uint8], NDArray[np.uint8]]]:
    every = PairSet(folder, scale, "", entries)
    for index, entry in enumerate(entries):
        yield entry, *every.image(index)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked manifest of a prepared set, its `images` as `Entry` records; raises `PairsError`."""
    path = folder / MANIFEST
    again = "delete the folder so that it is prepared again"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        if document["version"] != VERSION:
            raise PairsError(
                f"{folder}: prepared pairs must be of version {VERSION}, but got {document['version']}; "
                f"{again}"
            )
        images: list[Entry] = []
        pixels, area = 0, int(document["scale"]) ** 2
        for fields in document["images"]:
            entry = Entry(**{**fields, "lr_shape": tuple(fields["lr_shape"])})
            height, width = entry.lr_shape
            if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
                raise ValueError(f"shape {entry.lr_shape} of {entry.name}")
            if (entry.lr_offset, entry.hr_offset) != (pixels, area * pixels):
                raise ValueError(f"offsets {entry.lr_offset}, {entry.hr_offset} of {entry.name}")
            pixels += 3 * height * width
            images.append(entry)
        document["images"] = images
        for name, size in zip(FILES, (pixels, area * pixels), strict=True):
            found = (folder / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} of {found} bytes where {size} are due")
    except PairsError:
        raise
    except FileNotFoundError as error:
        raise PairsError(
            f"{folder}: prepared pairs must hold {MANIFEST}, {FILES[0]} and {FILES[1]}, but "
            f"{Path(str(error.filename)).name} is missing; prepare them first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PairsError(f"{folder}: prepared pairs must be whole, but got {error}; {again}") from None
    return dict(document)


def digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of the pixels, in C order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def canonical(document: Any) -> bytes:
    """One spelling of a JSON document, to be hashed."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
