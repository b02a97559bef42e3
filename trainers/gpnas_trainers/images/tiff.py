"""A TIFF file, written by rows: what its encoder holds is a strip and no more.

TIFF Revision 6.0, Aldus 1992; Adobe Photoshop TIFF Technical Notes, 2002 (deflate); BigTIFF, 2007.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_STRIP = 1 << 18
"""Bytes of pixels that are compressed at once, if a row has not more."""
_LEVEL = 4
"""Of zlib: photographs take 2 to 5 % more than by its default, and a third of the time."""
_SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 3, 4, 5, 7, 16
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _UNDEFINED: "B", _LONG8: "Q"}


class TiffWriter:
    """An RGB image of 8 or 16 bits per channel in the making, compressed without loss."""

    def __init__(
        self,
        stream: BinaryIO,
        height: int,
        width: int,
        bits: int,
        *,
        big: bool = False,
        profile: bytes | None = None,
    ) -> None:
        """Args:
        stream: an empty file, which can be sought in.
        height, width: in pixels.
        bits: per channel, 8 or 16.
        big: offsets have 64 bits; else the file must not reach 4 GiB.
        profile: of the colours (ICC).
        """
        self._stream, self._big, self._profile = stream, big, profile
        self._height, self._width, self._bits = height, width, bits
        self._step = min(height, max(1, _STRIP // (width * 3 * bits // 8)))  # rows of a strip
        self._strip = np.empty((self._step, width, 3), np.uint8 if bits == 8 else np.uint16)
        self._filled = 0
        self._starts, self._sizes = array("Q"), array("Q")
        stream.write(
            struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0)
        )

    def write(self, levels: NDArray[Any]) -> None:
        """The next rows, (n, width, 3) of uint8 or uint16."""
        while len(levels):
            taken = min(len(levels), self._step - self._filled)
            self._strip[self._filled : self._filled + taken] = levels[:taken]
            self._filled, levels = self._filled + taken, levels[taken:]
            if self._filled == self._step:
                self._pack()

    def close(self) -> None:
        """Ends the image, of which all rows must be there."""
        if self._filled:
            self._pack()
        assert len(self._starts) == -(-self._height // self._step), len(self._starts)
        offset, fields = (_LONG8, "Q") if self._big else (_LONG, "I")
        tags: list[tuple[int, int, Any]] = [
            (256, _LONG, [self._width]),
            (257, _LONG, [self._height]),
            (258, _SHORT, [self._bits] * 3),
            (259, _SHORT, [8]),  # deflate
            (262, _SHORT, [2]),  # RGB
            (273, offset, self._starts),
            (277, _SHORT, [3]),
            (278, _LONG, [self._step]),
            (279, offset, self._sizes),
            (282, _RATIONAL, [72, 1]),
            (283, _RATIONAL, [72, 1]),
            (284, _SHORT, [1]),  # by pixel
            (296, _SHORT, [2]),  # inches
            (317, _SHORT, [2]),  # what is packed are differences along x
        ]
        if self._profile is not None:
            tags.append((34675, _UNDEFINED, self._profile))
        room = 8 if self._big else 4
        directory = struct.pack("<Q" if self._big else "<H", len(tags))
        for tag, kind, values in tags:
            count = len(values) // 2 if kind == _RATIONAL else len(values)
            content = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
            if len(content) > room:
                content = struct.pack(f"<{fields}", self._append(content))
            directory += struct.pack(f"<HH{fields}", tag, kind, count) + content.ljust(room, b"\0")
        first = self._append(directory + bytes(room))
        self._stream.seek(8 if self._big else 4)
        self._stream.write(struct.pack(f"<{fields}", first))

    def _pack(self) -> None:
        """Ends a strip: each value less its left neighbour's (TIFF 6.0, Sec. 14), by deflate."""
        strip = self._strip[: self._filled]
        left = strip[:, :-1].copy()
        strip[:, 1:] -= left
        packed = zlib.compress(strip.astype(strip.dtype.newbyteorder("<"), copy=False).tobytes(), _LEVEL)
        self._starts.append(self._append(packed))
        self._sizes.append(len(packed))
        self._filled = 0

    def _append(self, content: bytes) -> int:
        """Where it begins, on a word's boundary as offsets must be."""
        place = self._stream.tell()
        if place % 2:
            self._stream.write(b"\0")
            place += 1
        self._stream.write(content)
        return place
