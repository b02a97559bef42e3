"""A PNG file, written by rows: what its encoder holds is some rows and no more.

Portable Network Graphics (PNG) Specification, third edition, W3C 2025.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_SLAB = 1 << 16
"""Bytes that are filtered at once."""


class PngWriter:
    """An RGB image of 8 or 16 bits per channel in the making."""

    def __init__(
        self,
        stream: BinaryIO,
        height: int,
        width: int,
        bits: int,
        *,
        profile: bytes | None = None,
    ) -> None:
        """Args:
        stream: is written from here to the image's end.
        height, width: in pixels.
        bits: per channel, 8 or 16.
        profile: of the colours (ICC).
        """
        self._stream, self._missing = stream, height
        self._step = 3 * bits // 8  # bytes of a pixel
        self._above = np.zeros((1, self._step * (width + 1)), np.uint8)  # begins with a black pixel
        self._pack = zlib.compressobj()
        stream.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
        if profile is not None:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))

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
