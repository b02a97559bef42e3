"""The manifest of a prepared set: where each image lies in its shards, and what the set was made of.

A set may come from anywhere, so that everything in its manifest is checked where it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers import files
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.exclusion import Exclusion

FORMAT = "gpnas-pairs"
VERSION = 2
MANIFEST = "manifest.json"
ALIGNMENT = 64
"""Bytes: every image begins at a multiple of it."""
MOST = 1 << 30
"""Bytes of a manifest, at most: some hundred thousand pairs take 100 MB."""

DTYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype("<u2")}
"""The type of stored pixels, by bits per channel."""

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class Entry:
    """One pair of a prepared set."""

    name: str
    """Unique within the set."""
    lr_shape: tuple[int, int]
    """Height and width; HR's are `scale` times as large."""
    lr_bits: int
    """Per channel: 8 or 16."""
    hr_bits: int
    shard: int
    """Place of its shard in the manifest's list."""
    lr_offset: int
    """First byte in the shard."""
    hr_offset: int
    lr_sha256: str
    """The SHA-256 of the LR pixels."""
    hr_sha256: str
    """The SHA-256 of the HR pixels."""
    ncc: float | None = None
    """Agreement of LR with HR, as `checks.ncc` measures it; None where the synthetic camera made LR."""
    shift: tuple[float, float] | None = None
    """(down, right) of LR in LR pixels, as `checks.shift` measures it."""
    split: str = ""
    """`train` or `validation`."""

    def extents(self, scale: int) -> tuple[int, int]:
        """Bytes of the LR and of the HR image."""
        area = 3 * self.lr_shape[0] * self.lr_shape[1]
        return area * self.lr_bits // 8, scale**2 * area * self.hr_bits // 8


@dataclass(frozen=True)
class Shard:
    """A file of pixels."""

    file: str
    """Its name, in the set's folder."""
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What is known of a prepared set."""

    scale: int
    source: Mapping[str, Any]
    """What the set was made of and by which rules, as a document."""
    shards: tuple[Shard, ...]
    images: tuple[Entry, ...]
    excluded: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    """What was passed over, one line each."""
    groups: tuple[tuple[str, ...], ...]
    """Names of pairs that show one photograph."""


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of a prepared set, after a comparison of its shards' sizes.

    Raises:
        PairsError: the folder is missing, damaged, or of another version.
    """
    again = "delete the folder so that it is prepared again"
    try:
        document = json.loads(files.read(folder / MANIFEST, MOST))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        if document["version"] != VERSION:
            raise PairsError(
                f"{folder}: prepared pairs must be of version {VERSION}, but got {document['version']}; "
                f"{again}"
            )
        return _manifest(folder, document)
    except PairsError:
        raise
    except FileNotFoundError as error:
        raise PairsError(
            f"{folder}: prepared pairs must hold {MANIFEST} and all shards, but "
            f"{Path(str(error.filename)).name} is missing; prepare them first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PairsError(f"{folder}: prepared pairs must be whole, but got {error}; {again}") from None


def _manifest(folder: Path, document: Mapping[str, Any]) -> Manifest:
    scale = document["scale"]
    if not isinstance(scale, int) or scale < 2:
        raise ValueError(f"scale {scale!r}")
    shards = tuple(Shard(**fields) for fields in document["shards"])
    for shard in shards:
        if Path(shard.file).name != shard.file:
            raise ValueError(f"shard {shard.file!r}, which is not in the folder")
        files.check(folder / shard.file)
        found = (folder / shard.file).stat().st_size
        if found != shard.bytes:
            raise ValueError(f"{shard.file} of {found} bytes where {shard.bytes} are due")
    sizes = [shard.bytes for shard in shards]
    images = tuple(checked_entry(fields, scale, sizes) for fields in document["images"])
    for entry in images:
        if entry.split not in SPLITS:
            raise ValueError(f"split {entry.split!r} of {entry.name}")
    if not isinstance(document["source"], dict):
        raise ValueError("a source that is no object")
    return Manifest(
        scale,
        document["source"],
        shards,
        images,
        tuple(Exclusion(**fields) for fields in document["excluded"]),
        tuple(map(str, document["notes"])),
        tuple(tuple(map(str, group)) for group in document["groups"]),
    )


def checked_entry(fields: Mapping[str, Any], scale: int, sizes: Sequence[int]) -> Entry:
    """The entry that fields describe, whose images lie in shards of these sizes, in bytes.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    shift = fields["shift"]
    entry = Entry(
        **{**fields, "lr_shape": tuple(fields["lr_shape"]), "shift": None if shift is None else tuple(shift)}
    )
    texts = (entry.name, entry.lr_sha256, entry.hr_sha256, entry.split)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"texts {texts}")
    height, width = entry.lr_shape
    numbers = (height, width, entry.shard, entry.lr_offset, entry.hr_offset)
    if not (all(isinstance(number, int) for number in numbers) and height > 0 and width > 0):
        raise ValueError(f"shape {entry.lr_shape} of {entry.name}")
    if not {entry.lr_bits, entry.hr_bits} <= set(DTYPES):
        raise ValueError(f"{entry.lr_bits} and {entry.hr_bits} bits of {entry.name}")
    if not 0 <= entry.shard < len(sizes):
        raise ValueError(f"shard {entry.shard} of {entry.name}")
    lr_bytes, hr_bytes = entry.extents(scale)
    ends = [0, entry.lr_offset, entry.lr_offset + lr_bytes, entry.hr_offset, entry.hr_offset + hr_bytes]
    if ends != sorted(ends) or ends[-1] > sizes[entry.shard] or (ends[1] | ends[3]) % ALIGNMENT:
        raise ValueError(f"offsets {entry.lr_offset}, {entry.hr_offset} of {entry.name}")
    return entry


def digest(pixels: NDArray[Any]) -> str:
    """SHA-256 of the pixels, in C order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def canonical(document: Any) -> bytes:
    """One spelling of a JSON document, to be hashed."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
