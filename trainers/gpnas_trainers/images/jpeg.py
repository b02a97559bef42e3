"""A JPEG file, written by rows: what its encoder holds is a strip and no more.

A decoder begins anew at a restart marker, so what lies between two of them can be encoded by itself: the
image is put together of strips that Pillow encodes, each as one restart interval.

ITU-T T.81, Annex B.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpnas_trainers.images.metadata import Metadata
from gpnas_trainers.images.strips import STRIP_BYTES, Strips

_BLOCK = 8
"""Pixels of a block's side: without subsampling, of an encoder's smallest unit."""
_FRAME, _SCAN = 0xC0, 0xDA
_RESTART, _END = 0xD0, b"\xff\xd9"


class JpegWriter:
    """An RGB image of 8 bits per channel in the making, of quality 95 without chroma subsampling.

    A stream is written from where it is to the image's end; a side has 65,500 pixels at most.
    """

    def __init__(self, stream: BinaryIO, height: int, width: int, metadata: Metadata) -> None:
        self._stream, self._height, self._metadata = stream, height, metadata
        self._across = -(-width // _BLOCK)
        # an interval has at most 65,535 blocks
        self._step = _BLOCK * max(1, min(65_535 // self._across, STRIP_BYTES // (3 * width * _BLOCK)))
        self._count = self._done = 0
        self._strips = Strips(self._step, width, np.uint8, self._encode)
        self.write = self._strips.write

    def close(self) -> None:
        """Ends the image, of which all rows must be there."""
        self._strips.flush()
        assert self._done == self._height, self._done
        self._stream.write(_END)

    def _encode(self, strip: NDArray[Any]) -> None:
        content = io.BytesIO()
        Image.fromarray(strip).save(
            content,
            "JPEG",
            quality=95,
            subsampling=0,
            restart_marker_blocks=self._step // _BLOCK * self._across,
            **({} if self._count else said(self._metadata)),
        )
        head, scan = _parts(content.getbuffer(), self._height)
        if self._count:
            self._stream.write(bytes((0xFF, _RESTART + (self._count - 1) % 8)))
        else:
            self._stream.write(head)
        self._stream.write(scan)
        self._count += 1
        self._done += len(strip)


def said(metadata: Metadata) -> dict[str, Any]:
    """Metadata as arguments of Pillow's `save`."""
    options = {
        "icc_profile": metadata.profile,
        "exif": metadata.exif,
        "xmp": metadata.xmp,
        "dpi": metadata.density,
    }
    return {name: value for name, value in options.items() if value is not None}


def _parts(content: memoryview, height: int) -> tuple[bytes, memoryview]:
    """An image's headers, changed to another height, and its scan without the end marker."""
    head, place = bytearray(content[:2]), 2
    while True:
        marker, size = struct.unpack_from(">xBH", content, place)
        segment = bytearray(content[place : place + 2 + size])
        if marker == _FRAME:
            struct.pack_into(">H", segment, 5, height)
        head += segment
        place += 2 + size
        if marker == _SCAN:
            return bytes(head), content[place : -len(_END)]
