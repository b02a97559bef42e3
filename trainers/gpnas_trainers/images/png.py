"""A PNG file, written by rows: what its encoder holds is some rows and no more.

Portable Network Graphics (PNG) Specification, third edition, W3C 2025.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers.images.metadata import XMP_KEYWORD, Metadata

_SLAB = 1 << 16
"""Bytes that are filtered at once."""
_MOST = 1 << 26
"""Bytes of a chunk that is read; larger ones are passed over."""
_METRE = 0.0254
"""Metres of an inch."""


class PngWriter:
    """An RGB image of 8 or 16 bits per channel in the making, from a stream's place to the image's end."""

    def __init__(self, stream: BinaryIO, height: int, width: int, bits: int, metadata: Metadata) -> None:
        self._stream, self._missing = stream, height
        self._step = 3 * bits // 8  # bytes of a pixel
        self._above = np.zeros((1, self._step * (width + 1)), np.uint8)  # begins with a black pixel
        self._pack = zlib.compressobj()
        stream.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
        for kind, content in _chunks_of(metadata):
            self._chunk(kind, content)

    def write(self, levels: NDArray[Any]) -> None:
        """The next rows, (n, width, 3) of uint8 or uint16."""
        self._missing -= len(levels)
        count = max(1, _SLAB // self._above.shape[1])
        for first in range(0, len(levels), count):
            part = levels[first : first + count]
            lines = part.astype(part.dtype.newbyteorder(">"), order="C").view(np.uint8).reshape(len(part), -1)
            packed = self._pack.compress(self._filtered(lines).tobytes())
            if packed:
                self._chunk(b"IDAT", packed)

    def close(self) -> None:
        """Ends the image, of which all rows must be there."""
        assert self._missing == 0, self._missing
        self._chunk(b"IDAT", self._pack.flush())
        self._chunk(b"IEND", b"")

    def _filtered(self, lines: NDArray[np.uint8]) -> NDArray[np.uint8]:  # (n, bytes) -> (n, 1 + bytes)
        """Each row by the filter whose bytes, as signed numbers, have the least sum (Sec. 12.7)."""
        padded = np.pad(lines, ((0, 0), (self._step, 0)))
        rows = np.concatenate((self._above, padded))
        self._above = padded[-1:]
        above, left, corner = rows[:-1, self._step :], padded[:, : -self._step], rows[:-1, : -self._step]
        best = np.pad(lines, ((0, 0), (1, 0)))
        least = _sums(lines)
        for kind in (1, 2, 3, 4):
            found = lines - _predicted(kind, left, above, corner)
            sums = _sums(found)
            better = sums < least
            best[better, 0], best[better, 1:] = kind, found[better]
            least = np.minimum(sums, least)
        return best

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._stream.write(struct.pack(">I", len(content)) + kind)
        self._stream.write(content)
        self._stream.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))


def read_chunks(file: BinaryIO, kinds: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The sound chunks of these kinds, wherever they stand: kind and content.

    libvips passes over what PNG alone says of colours, over EXIF behind the pixels and over animation.
    """
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind not in kinds or size > _MOST:
            file.seek(size + 4, os.SEEK_CUR)
            continue
        content, check = file.read(size), file.read(4)
        if int.from_bytes(check, "big") == zlib.crc32(content, zlib.crc32(kind)):
            yield kind, content


def _chunks_of(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """What stands before the pixels."""
    yield from metadata.chunks
    if metadata.profile is not None:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.profile)
    if metadata.density is not None:
        yield b"pHYs", struct.pack(">IIB", *(round(inch / _METRE) for inch in metadata.density), 1)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")
    if metadata.xmp is not None and not any(c.startswith(XMP_KEYWORD) for _, c in metadata.chunks):
        yield b"iTXt", XMP_KEYWORD + bytes(5) + metadata.xmp


def _predicted(
    kind: int, left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """What a filter takes off (Sec. 9.2): the left byte, the one above, their mean, or Paeth's choice."""
    match kind:
        case 1:
            return left
        case 2:
            return above
        case 3:
            return (left & above) + ((left ^ above) >> 1)
    a, b, c = (each.astype(np.int16) for each in (left, above, corner))
    to_left, to_above, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)


def _sums(lines: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.minimum(lines, -lines).sum(axis=1, dtype=np.int64)
