"""A prepared set: one folder with a manifest and shards of pixels, and how it is read.

A shard holds pairs one after another, LR before HR, each image as (3, height, width) of uint8 or, where
its file has 16 bits, of uint16 in little-endian order. Shards are memory-mapped, so that all trials of a
machine share one copy and opening costs nothing. `manifest.json` says where each image lies, which split
it belongs to, and what the set was made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers import files
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.manifest import (
    DTYPES,
    FORMAT,
    SPLITS,
    Entry,
    Manifest,
    Split,
    canonical,
    digest,
    read_manifest,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DIGITS = 16
"""How many hexadecimal digits of its checksum a picture is known by."""
OPEN_SHARDS = 256
"""The largest number of shards that a set holds open, since each takes a file descriptor."""


@dataclass(frozen=True)
class Draw:
    """Patches of a batch, by where they are read."""

    index: NDArray[np.int64]  # (B,)
    """The places of the pairs in their set."""
    corner: NDArray[np.int64]  # (B, 2)
    """Row and column of the first LR pixel."""
    transform: NDArray[np.int64]  # (B,)
    """0 … 7, as `dihedral` takes it."""


class PairSet:
    """The pairs of one split; opened lazily, cheap to construct and to pickle.

    Attributes:
        scale: HR pixels per LR pixel.
        names: of the pairs, unique.
        shapes: (h, w) of each LR image.
        smallest_side: the smallest height or width of an HR image, in pixels; 0 of an empty set.
        bytes: of the pixels.
        hr_sha256: SHA-256 of each HR image's pixels, by which the same photograph is known in another set.
        pictures: the first digits of these, sorted, by which a bundle tells what it was trained on.
        fingerprint: SHA-256 of scale, split, names and pixels: two sets that agree in it are equal.
    """

    def __init__(
        self, folder: Path, scale: int, split: str, entries: Sequence[Entry], shards: Sequence[str]
    ) -> None:
        self._folder, self._split = Path(folder), split
        self._entries, self._shards = tuple(entries), tuple(shards)
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._deep = any(16 in (entry.lr_bits, entry.hr_bits) for entry in entries)
        self.scale = scale
        self.names = tuple(entry.name for entry in entries)
        self.shapes = tuple(entry.lr_shape for entry in entries)
        self.smallest_side = scale * min((min(shape) for shape in self.shapes), default=0)
        self.bytes = sum(sum(entry.extents(scale)) for entry in entries)
        self.hr_sha256 = tuple(entry.hr_sha256 for entry in entries)
        self.pictures = tuple(sorted({each[:DIGITS] for each in self.hr_sha256}))
        contents = [[entry.name, entry.lr_shape, entry.lr_sha256, entry.hr_sha256] for entry in entries]
        self.fingerprint = hashlib.sha256(canonical([FORMAT, scale, split, contents])).hexdigest()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"PairSet({len(self)} pairs, scale={self.scale}, folder={str(self._folder)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a map must not travel by value

    def head(self, count: int | None) -> PairSet:
        """The first `count` pairs; all of them where there are fewer, or where it is None."""
        return PairSet(self._folder, self.scale, self._split, self._entries[:count], self._shards)

    def without(self, pictures: Collection[str]) -> PairSet:
        """The pairs whose HR image is none of these, each given as in another set's `pictures`."""
        entries = [each for each in self._entries if each.hr_sha256[:DIGITS] not in pictures]
        return PairSet(self._folder, self.scale, self._split, entries, self._shards)

    def resampled(self, generator: np.random.Generator) -> PairSet:
        """A bootstrap sample: as many pairs, drawn with replacement, which lack about a third of them.

        B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993, section 6.2.
        """
        places = sorted(generator.integers(len(self), size=len(self)).tolist())
        entries = [self._entries[place] for place in places]
        return PairSet(self._folder, self.scale, self._split, entries, self._shards)

    def image(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pair `index` as lr (3, h, w) and hr (3, scale·h, scale·w), copies, in 8-bit levels 0 … 255.

        An image of 8 bits is uint8; one of 16 is float32, with its 65,536 levels between the 256.
        """
        lr, hr = (
            pixels.copy() if pixels.dtype == np.uint8 else pixels.astype(np.float32) / np.float32(257)
            for pixels in self.stored(index)
        )
        return lr, hr

    def tensors(self, index: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Pair `index` as lr (3, h, w) and hr (3, scale·h, scale·w): float32 in [0, 1], on the device."""
        import torch  # two seconds and 200 MiB, which the processes that prepare pairs need not pay

        lr, hr = (torch.from_numpy(pixels).to(device).float() / 255 for pixels in self.image(index))
        return lr, hr

    def stored(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pair `index` as it is stored: read-only views of the mapped file, uint8 or uint16."""
        entry = self._entries[index]
        height, width = entry.lr_shape
        shard = self._shard(entry.shard)
        lr_bytes, hr_bytes = entry.extents(self.scale)
        lr = shard[entry.lr_offset : entry.lr_offset + lr_bytes].view(DTYPES[entry.lr_bits])
        hr = shard[entry.hr_offset : entry.hr_offset + hr_bytes].view(DTYPES[entry.hr_bits])
        return lr.reshape(3, height, width), hr.reshape(3, self.scale * height, self.scale * width)

    def patches(
        self, batch_size: int, hr_patch: int, generator: np.random.Generator, *, rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Random crops, each turned and mirrored at random (eight ways): a batch for training.

        Every pair is equally likely whatever its size, as in the paper's epochs (Sec. 4.1), and so is
        every position. Pairs smaller than the patch are never drawn.

        Args:
            batch_size: B, at least 1.
            hr_patch: p, side of the HR crop in HR pixels; a multiple of the scale.
            generator: the only source of randomness.
            rows: of the batch, which of its patches to return; B is then their number.

        Returns:
            lr (B, 3, p/scale, p/scale) and hr (B, 3, p, p), float32 in [0, 1].

        Raises:
            ValueError: `hr_patch` is not a positive multiple of the scale.
            PairsError: no pair is as large as the patch.
        """
        import torch  # see `tensors`

        draw = self.draw(batch_size, hr_patch, generator, rows=rows)
        side = hr_patch // self.scale
        levels = np.uint16 if self._deep else np.uint8
        lr_batch = np.empty((len(draw.index), 3, side, side), levels)
        hr_batch = np.empty((len(draw.index), 3, hr_patch, hr_patch), levels)
        for row, (index, (y, x), transform) in enumerate(
            zip(draw.index.tolist(), draw.corner.tolist(), draw.transform.tolist(), strict=True)
        ):
            lr, hr = self.stored(index)
            _put(lr_batch[row], dihedral(lr[:, y : y + side, x : x + side], transform))
            y, x = self.scale * y, self.scale * x
            _put(hr_batch[row], dihedral(hr[:, y : y + hr_patch, x : x + hr_patch], transform))
        top = np.iinfo(levels).max
        lr_patches, hr_patches = (torch.from_numpy(batch).to(torch.float32) for batch in (lr_batch, hr_batch))
        return lr_patches.div_(top), hr_patches.div_(top)

    def draw(
        self, batch_size: int, hr_patch: int, generator: np.random.Generator, *, rows: slice = slice(None)
    ) -> Draw:
        """Which patches `patches` gives; arguments and errors are its own."""
        if hr_patch < 1 or hr_patch % self.scale:
            raise ValueError(
                f"`hr_patch` must be a positive multiple of the scale {self.scale}, but got {hr_patch}"
            )
        side = hr_patch // self.scale
        large: NDArray[np.int64] = np.arange(len(self))
        if self.smallest_side < hr_patch:
            large = large[np.array([min(shape) >= side for shape in self.shapes], bool)]
        if not len(large):
            raise PairsError(
                f"a patch of {hr_patch} HR pixels must fit into some pair, but the {len(self)} pairs are "
                "smaller; use a smaller patch"
            )
        chosen = large[generator.integers(len(large), size=batch_size)[rows]]
        where = generator.random((batch_size, 2))[rows]
        transforms = generator.integers(8, size=batch_size)[rows]
        room = np.array([self.shapes[index] for index in chosen.tolist()]) - side + 1
        return Draw(chosen, (where * room).astype(np.int64), transforms)

    def _shard(self, place: int) -> NDArray[np.uint8]:
        found = self._maps.pop(place, None)
        if found is None:
            path = self._folder / self._shards[place]
            try:
                files.check(path)
                found = np.asarray(np.memmap(path, np.uint8, mode="r"))
            except (OSError, ValueError) as error:
                raise PairsError(f"{path}: prepared pairs cannot be opened ({error})") from None
            if len(self._maps) >= OPEN_SHARDS:
                del self._maps[next(iter(self._maps))]  # the one that was used longest ago
        self._maps[place] = found
        return found


def _put(patch: NDArray[Any], pixels: NDArray[Any]) -> None:
    """Writes pixels into a patch of equal or greater depth; 257 of 16-bit levels are one of 8."""
    if patch.dtype == pixels.dtype:
        patch[...] = pixels
    else:
        np.multiply(pixels, 257, out=patch, dtype=np.uint16)


def dihedral(image: NDArray[Any], transform: int) -> NDArray[Any]:
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
    if split not in SPLITS:
        raise ValueError(f"a split must be train or validation, but got {split!r}")
    folder = Path(folder)
    manifest = read_manifest(folder)
    if verify:
        check_pixels(folder, manifest)
    entries = [entry for entry in manifest.images if entry.split == split]
    return PairSet(folder, manifest.scale, split, entries, [shard.file for shard in manifest.shards])


def check_pixels(folder: Path, manifest: Manifest) -> None:
    """Raises a `PairsError` where pixels are not those that the manifest's SHA-256 stand for."""
    shards = [shard.file for shard in manifest.shards]
    every = PairSet(folder, manifest.scale, "", manifest.images, shards)
    due = [each for entry in manifest.images for each in (entry.lr_sha256, entry.hr_sha256)]
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(every), OPEN_SHARDS):
            batch = range(start, min(start + OPEN_SHARDS, len(every)))
            pixels = [image for index in batch for image in every.stored(index)]
            for place, found in enumerate(pool.map(digest, pixels), start=2 * start):
                if found != due[place]:
                    raise PairsError(
                        f"{folder}: the pixels of {every.names[place // 2]} must have the manifest's "
                        "SHA-256, but do not; delete the folder so that it is prepared again"
                    )
