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

_STRIP = 1 << 18
"""Bytes of pixels that are encoded at once, if eight rows have not more."""
_BLOCK = 8
"""Pixels of a block's side: without subsampling, of an encoder's smallest unit."""
_FRAME, _SCAN = 0xC0, 0xDA
_RESTART, _END = 0xD0, b"\xff\xd9"


class JpegWriter:
    """An RGB image of 8 bits per channel in the making, of quality 95 without chroma subsampling."""

    def __init__(self, stream: BinaryIO, height: int, width: int, *, profile: bytes | None = None) -> None:
        """Args:
        stream: is written from here to the image's end.
        height, width: in pixels, 65,500 at most.
        profile: of the colours (ICC).
        """
        self._stream, self._height, self._profile = stream, height, profile
        self._across = -(-width // _BLOCK)
        # an interval has at most 65,535 blocks
        self._step = _BLOCK * max(1, min(65_535 // self._across, _STRIP // (3 * width * _BLOCK)))
        self._strip = np.empty((self._step, width, 3), np.uint8)
        self._filled = self._strips = self._done = 0

    def write(self, levels: NDArray[Any]) -> None:
        """The next rows, (n, width, 3) of uint8."""
        while len(levels):
            taken = min(len(levels), self._step - self._filled)
            self._strip[self._filled : self._filled + taken] = levels[:taken]
            self._filled, levels = self._filled + taken, levels[taken:]
            if self._filled == self._step:
                self._encode()

    def close(self) -> None:
        """Ends the image, of which all rows must be there."""
        if self._filled:
            self._encode()
        assert self._done == self._height, self._done
        self._stream.write(_END)

    def _encode(self) -> None:
        """Ends a strip."""
        content = io.BytesIO()
        Image.fromarray(self._strip[: self._filled]).save(
            content,
            "JPEG",
            quality=95,
            subsampling=0,
            restart_marker_blocks=self._step // _BLOCK * self._across,
            icc_profile=self._profile if not self._strips else None,
        )
        head, scan = _parts(content.getbuffer(), self._height)
        if self._strips:
            self._stream.write(bytes((0xFF, _RESTART + (self._strips - 1) % 8)))
        else:
            self._stream.write(head)
        self._stream.write(scan)
        self._strips += 1
        self._done, self._filled = self._done + self._filled, 0


def _parts(content: memoryview, height: int) -> tuple[bytes, memoryview]:
    """An image's headers, told another height, and its scan without the end."""
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
