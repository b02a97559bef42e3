"""A TIFF file, written by rows: what its encoder holds is a strip and no more.

TIFF Revision 6.0, Aldus 1992; Adobe Photoshop TIFF Technical Notes, 2002 (deflate); BigTIFF, 2007.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from gpnas_trainers.files import is_full
from gpnas_trainers.images.metadata import Metadata, directories_of, texts_of
from gpnas_trainers.images.strips import STRIP_BYTES, Strips

_LEVEL = 4
"""The compression level of zlib: photographs take 2 to 5 % more bytes than at its default, and a third of
the time."""
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 1, 2, 3, 4, 5, 7, 16
_CODES = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _UNDEFINED: "B", _LONG8: "Q"}


class TiffWriter:
    """An RGB image of 8 or 16 bits per channel in the making, compressed without loss.

    It is written to an empty file, which can be sought in. With `big` offsets have 64 bits; else the file
    must not reach 4 GiB.
    """

    def __init__(
        self, stream: BinaryIO, height: int, width: int, bits: int, metadata: Metadata, *, big: bool
    ) -> None:
        self._stream, self._big, self._metadata = stream, big, metadata
        self._height, self._width, self._bits = height, width, bits
        self._step = min(height, max(1, STRIP_BYTES // (width * 3 * bits // 8)))  # rows of a strip
        self._strips = Strips(self._step, width, np.uint8 if bits == 8 else np.uint16, self._pack)
        self.write = self._strips.write
        self._starts, self._sizes = array("Q"), array("Q")
        stream.write(self._head())

    def close(self) -> None:
        """Ends the image, of which all rows must be there."""
        self._strips.flush()
        assert len(self._starts) == -(-self._height // self._step), len(self._starts)
        density = self._metadata.density or (72, 72)
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
            *((282 + axis, _RATIONAL, [round(1000 * inch), 1000]) for axis, inch in enumerate(density)),
            (284, _SHORT, [1]),  # by pixel
            (296, _SHORT, [2]),  # inches
            (317, _SHORT, [2]),  # what is packed are differences along x
            *self._said(),
        ]
        room = 8 if self._big else 4
        directory = struct.pack("<Q" if self._big else "<H", len(tags))
        for tag, kind, values in sorted(tags, key=lambda tag: tag[0]):
            count = len(values) // 2 if kind == _RATIONAL else len(values)
            content = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
            if len(content) > room:
                content = struct.pack(f"<{fields}", self._append(content))
            directory += struct.pack(f"<HH{fields}", tag, kind, count) + content.ljust(room, b"\0")
        first = self._append(directory + bytes(room))
        self._stream.seek(8 if self._big else 4)
        self._stream.write(struct.pack(f"<{fields}", first))

    def _said(self) -> Iterator[tuple[int, int, Any]]:
        """The tags of the metadata, whose directories are written."""
        said = self._metadata
        for tag, text in texts_of(said.exif).items():
            yield tag, _ASCII, text.encode() + b"\0"
        if said.xmp is not None:
            yield 700, _BYTE, said.xmp
        if said.profile is not None:
            yield 34675, _UNDEFINED, said.profile
        for tag, fields in directories_of(said.exif).items():
            try:
                directory = ImageFileDirectory_v2(self._head())
                for name, value in fields.items():
                    directory[name] = value
                yield tag, _LONG8 if self._big else _LONG, [self._append(directory.tobytes)]
            except Exception as error:  # Pillow raises a dozen kinds on odd values
                if is_full(error):
                    raise

    def _head(self) -> bytes:
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self._big else struct.pack("<2sHI", b"II", 42, 0)

    def _pack(self, strip: NDArray[Any]) -> None:
        """Writes a strip: each value less its left neighbour's (TIFF 6.0, Sec. 14), by deflate."""
        left = strip[:, :-1].copy()
        strip[:, 1:] -= left
        packed = zlib.compress(strip.astype(strip.dtype.newbyteorder("<"), copy=False).tobytes(), _LEVEL)
        self._starts.append(self._append(packed))
        self._sizes.append(len(packed))

    def _append(self, content: bytes | Callable[[int], bytes]) -> int:
        """Writes content on a word's boundary, as offsets demand, and returns its offset.

        A function as content is called with that offset.
        """
        place = self._stream.tell()
        if place % 2:
            self._stream.write(b"\0")
            place += 1
        self._stream.write(content if isinstance(content, bytes) else content(place))
        return place
