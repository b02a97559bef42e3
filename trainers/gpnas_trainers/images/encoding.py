"""Image files, written by rows from the top down, so that they need not fit the memory.

Each format that can be made so has its writer, which holds some rows and no more.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpnas_trainers.files import is_full, replacing
from gpnas_trainers.images.decoding import MAX_SIDE, check_memory
from gpnas_trainers.images.errors import ImageError
from gpnas_trainers.images.header import MAX_PIXELS, reason_of
from gpnas_trainers.images.jpeg import JpegWriter, said
from gpnas_trainers.images.metadata import NOTHING, Metadata
from gpnas_trainers.images.png import PngWriter
from gpnas_trainers.images.tiff import TiffWriter

if TYPE_CHECKING:
    from torch import Tensor

# what each format can hold: its name, pixels of a side, bits per channel
_FORMATS = {
    ".png": ("PNG", MAX_SIDE, 16),
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), ("JPEG", 65_500, 8)),
    ".webp": ("WebP", 16_383, 8),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF", MAX_SIDE, 16)),
    ".bmp": ("BMP", MAX_SIDE, 8),
}
SUFFIXES = tuple(_FORMATS)
"""How names of image files end, in lower case."""
_SLAB = 1 << 16
"""Values that are converted at once."""
_HELD = ("WebP", "BMP")
"""Formats that are encoded at once."""
_WAITING = 1 << 22
"""Bytes of pixels that may wait to be encoded."""
_BIG = 0xF000_0000
"""Bytes of pixels from which a TIFF gets 64-bit offsets."""
_POORLY = 20
"""A photograph that is kept without loss takes more than this part of its pixels' bytes."""


def bits_of(path: Path, bits: int) -> int:
    """Bits per channel that a file of this name holds, of so many."""
    return min(bits, _format(path)[2])


def format_of(path: Path) -> str:
    """The name of the format that a file's suffix stands for: PNG, JPEG, WebP, TIFF or BMP."""
    return _format(path)[0]


def check_target(path: Path, height: int, width: int, bits: int) -> None:
    """Raises `ImageError` where the suffix's format, the disk or the memory cannot hold such an image."""
    name, side, most = _format(path)
    if max(height, width) > side:
        raise ImageError(
            f"{path}: a {name} file's sides must be at most {side} pixels, but got {width}×{height}; "
            + ("write PNG or TIFF instead" if side < MAX_SIDE else "cut the image into parts")
        )
    if name == "BMP" and height * width > MAX_PIXELS:
        raise ImageError(
            f"{path}: a BMP file must have at most {MAX_PIXELS} pixels, but got {width}×{height}; "
            "write PNG or TIFF instead"
        )
    if name in _HELD:
        check_memory(path, name, height, width, bits)
    least = height * width * 3 * bits // 8 // _POORLY
    with suppress(OSError):
        usage = shutil.disk_usage(path.parent)
        free = usage.free
        if most == 16 and usage.total and least > free:  # what is no disk has no room at all
            raise ImageError(
                f"{path}: the disk must have room for {width}×{height} pixels, some {_POORLY * least >> 20} "
                f"MiB before they are compressed, but {free >> 20} MiB are free; free some space or choose "
                "another folder"
            )


@contextmanager
def writing(
    path: Path, height: int, width: int, bits: int, metadata: Metadata = NOTHING
) -> Iterator[Callable[[Tensor], None]]:
    """An image file in the making, in the format that the suffix names; whole or not at all.

    The block is handed a function, which takes the next rows, (3, n, width) of uint8 or uint16. PNG,
    WebP, TIFF and BMP are lossless; JPEG has quality 95 without chroma subsampling. WebP and BMP are
    held in memory until they are written.

    Args:
        path: a folder's file; another of that name is replaced when all rows are there.
        height, width: of the image.
        bits: per channel, 8 or 16, as `bits_of` says.
        metadata: to be kept in the file, as `metadata.for_format` leaves it.

    Raises:
        ImageError: `check_target` refuses it, or the file cannot be written (no such folder, disk full).
    """
    check_target(path, height, width, bits)
    ended = False
    try:
        with replacing(path) as temporary:
            with _told(path):
                file = temporary.open("x+b")
            try:
                with _told(path):
                    writer = _writer(path, file, height, width, bits, metadata)
                with _behind(path, writer) as write:
                    yield write
                with _told(path):
                    writer.close()
                    file.close()
            finally:
                with suppress(OSError):  # of what could not be written
                    file.close()
            ended = True
    except OSError as error:  # of the caller's block, unless that had ended
        if not ended:
            raise
        raise _unwritten(path, error) from None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise _unwritten(path, error) from None


@contextmanager
def _behind(path: Path, writer: _Writer) -> Iterator[Callable[[Tensor], None]]:
    """Encodes rows in a thread of its own, while the caller makes the next."""
    waiting = deque[tuple[int, Future[None]]]()

    def encode(rows: Tensor) -> None:
        for part in rows.split(max(1, _SLAB // (3 * rows.shape[2])), dim=1):
            writer.write(part.cpu().permute(1, 2, 0).numpy())

    def end(limit: int) -> None:
        with _told(path):
            while sum(size for size, _ in waiting) > limit:
                waiting.popleft()[1].result()

    def write(rows: Tensor) -> None:
        waiting.append((rows.nbytes, pool.submit(encode, rows)))
        end(_WAITING)

    pool = ThreadPoolExecutor(1, "encoder")
    try:
        yield write
        end(0)
    finally:
        pool.shutdown(cancel_futures=True)


class _Writer(Protocol):
    """An image in the making."""

    def write(self, levels: NDArray[Any], /) -> None:
        """The next rows, (n, width, 3)."""

    def close(self) -> None:
        """Ends the image, of which all rows must be there."""


class _Held:
    """An image in the making of a format that is encoded at once: WebP or BMP."""

    def __init__(self, file: BinaryIO, format: str, shape: tuple[int, int], metadata: Metadata) -> None:
        self._file, self._format, self._options = file, format, said(metadata)
        self._levels, self._filled = np.empty((*shape, 3), np.uint8), 0

    def write(self, levels: NDArray[np.uint8], /) -> None:
        self._levels[self._filled : self._filled + len(levels)] = levels
        self._filled += len(levels)

    def close(self) -> None:
        assert self._filled == len(self._levels), self._filled
        Image.fromarray(self._levels).save(self._file, self._format, lossless=True, **self._options)


def _writer(path: Path, file: BinaryIO, height: int, width: int, bits: int, metadata: Metadata) -> _Writer:
    match format_of(path):
        case "PNG":
            return PngWriter(file, height, width, bits, metadata)
        case "TIFF":
            big = height * width * 3 * bits // 8 > _BIG
            return TiffWriter(file, height, width, bits, metadata, big=big)
        case "JPEG":
            return JpegWriter(file, height, width, metadata)
        case other:
            return _Held(file, other, (height, width), metadata)


def _unwritten(path: Path, error: Exception) -> ImageError:
    """The error of an image that could not be written."""
    if is_full(error):
        return ImageError(
            f"{path}: the image could not be written, since the disk is full; free some space or choose "
            "another folder"
        )
    return ImageError(f"{path}: the image could not be written ({reason_of(error)})")


def _format(path: Path) -> tuple[str, int, int]:
    if path.suffix.lower() not in _FORMATS:
        raise ImageError(
            f"{path}: an image's name must end in one of {', '.join(SUFFIXES)}, but got {path.suffix!r}"
        )
    return _FORMATS[path.suffix.lower()]
