"""Image files: strictly RGB in, of 8 or 16 bits, whole or by rows from the top down.

Nothing is converted unasked: an image that is grey, transparent or indexed is refused, since a training
would learn the conversion along with the camera. Colour profiles are not applied.

libvips decodes rows in a thread of its own, with a pipe between it and the caller, who therefore loops in
the main thread, where Ctrl-C or an exception ends it as any other loop.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray

from gpnas_trainers.images.errors import ImageError
from gpnas_trainers.images.header import (
    MAX_PIXELS,
    Header,
    bmp,
    damaged,
    header_of,
    loaded,
    opened_image,
    reason_of,
)
from gpnas_trainers.images.metadata import Metadata

if TYPE_CHECKING:
    from torch import Tensor

MAX_SIDE = 1_000_000
"""Pixels of a side at most, read or written: what readers of PNG take, and a row's memory allows."""
_TURNS: dict[int, tuple[str, ...]] = {
    1: (),
    2: ("fliphor",),
    3: ("rot180",),
    4: ("flipver",),
    5: ("rot90", "fliphor"),
    6: ("rot90",),
    7: ("rot270", "fliphor"),
    8: ("rot270",),
}
"""What libvips does to an image of each of EXIF's orientations so that it stands upright."""


def read_levels(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, convert: bool = False
) -> NDArray[Any]:  # (H, W, 3)
    """The image as it is stored, upright: uint8 of 8 bits per channel or uint16 of 16.

    Arguments and errors are those of `read_header`; besides, a damaged or truncated file raises `ImageError`.
    """
    path = Path(path)
    with opened_image(path) as file:
        header = header_of(path, file, max_pixels, convert)
        with _decoding(path, header):
            image = _upright(_rgb(_stored(path, header, file), header), header.orientation)
            levels = np.frombuffer(image.write_to_memory(), np.uint8 if header.bits == 8 else np.uint16)
        return levels.reshape(header.height, header.width, 3)


class LargeImage:
    """An RGB file of 8 or 16 bits as a source for `infer.upscale_rows`: upright."""

    def __init__(self, path: Path, header: Header, stream: BinaryIO, converted: str | None = None) -> None:
        self.height, self.width, self.bits = header.height, header.width, header.bits
        self.metadata: Metadata = header.metadata
        self.converted = converted
        """What was done to make it RGB, in words."""
        self._path, self._stream, self._next = path, stream, 0

    def levels(self, start: int, stop: int) -> NDArray[Any]:
        """Rows as they are stored, (stop - start, width, 3), uint8 or uint16; all once, in order."""
        assert start == self._next, (start, self._next)
        self._next = stop
        rows = np.empty((stop - start, self.width, 3), np.uint8 if self.bits == 8 else np.uint16)
        if self._stream.readinto(rows.data.cast("B")) < rows.nbytes:  # type: ignore[attr-defined]
            raise damaged(self._path, "it ends early")
        return rows

    def rows(self, start: int, stop: int) -> Tensor:
        """The same, (3, stop - start, width)."""
        import torch  # two seconds and 200 MiB, which the processes that prepare pairs need not pay

        return torch.from_numpy(self.levels(start, stop)).permute(2, 0, 1)


@contextmanager
def reading(path: str | Path, *, convert: bool = False) -> Iterator[LargeImage]:
    """The image of a file, from which each row can be taken once.

    The file is decoded once before, to its end: damage is found now, and not after hours of passes. An
    image that EXIF turns or mirrors top down is decoded to a temporary file, or where that has less than
    100 MB to memory (libvips' `VIPS_DISC_THRESHOLD`). BMP is read at once, as are, by their nature,
    interlaced PNG, progressive JPEG and WebP.

    Args:
        path: of the file, which may be a link.
        convert: make RGB of grey, palette and CMYK, put transparent pixels on white, and take the first of
            several frames; else such a file is refused.

    Raises:
        ImageError: the file is missing, not an image, truncated, or not RGB of 8 or 16 bits; or it is to
            be held whole, and the memory has no room for it.
    """
    path = Path(path)
    with opened_image(path) as file:
        header = header_of(path, file, MAX_SIDE**2, convert)
        if max(header.height, header.width) > MAX_SIDE:
            raise ImageError(
                f"{path}: an image's sides must be at most {MAX_SIDE} pixels, but got "
                f"{header.width}×{header.height}; cut it into parts"
            )
        if header.whole is not None:
            check_memory(path, header.whole, header.height, header.width, header.bits)
        image, converted = _sound(path, header, file)
        _give_back()
        with _decoded(image) as stream:
            yield LargeImage(path, header, stream, converted)


@contextmanager
def _decoded(image: Any) -> Iterator[BinaryIO]:
    """The image's levels, row by row."""
    out, into = os.pipe()

    def decode() -> None:
        with suppress(pyvips.Error):  # rows will be missing, which the reader notices, or nobody wants them
            try:
                target = pyvips.Target.new_to_descriptor(into)
            finally:
                os.close(into)  # the target has its own
            image.rawsave_target(target)

    decoder = threading.Thread(target=decode, name="decoder", daemon=True)
    decoder.start()
    try:
        with open(out, "rb") as stream:
            yield stream
    finally:
        decoder.join()


def _sound(path: Path, header: Header, file: BinaryIO) -> tuple[Any, str | None]:
    """The image, upright and to be decoded, after it has been decoded on trial; how it was made RGB."""
    with _decoding(path, header):
        image = _stored(path, header, file)
        converted = header.instead and f"{header.instead}, converted to RGB"
        if converted and image.hasalpha():
            opaque = image[image.bands - 1].min() == 2**header.bits - 1
            converted += "; its alpha is opaque" if opaque else "; transparent pixels are put on white"
        else:
            image.avg()
        if header.format != "BMP" and not _turned(header):  # whose rows are gone by now
            image = _stored(path, header, file)
        return _upright(_rgb(image, header), header.orientation), converted


@contextmanager
def _decoding(path: Path, header: Header) -> Iterator[None]:
    """Damage that libvips finds within the block becomes an `ImageError`."""
    pyvips.vips_lib.vips_error_clear()
    try:
        yield
    except pyvips.Error as error:
        raise damaged(path, reason_of(error)) from None
    # a tile of a TIFF that fails is black, and only noted
    noted = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode(errors="replace")
    if header.format == "TIFF" and noted.strip():
        raise damaged(path, reason_of(pyvips.Error("", noted)))


def _turned(header: Header) -> bool:
    """Whether an image is turned or mirrored so that its rows come in another order."""
    return header.orientation >= 3


def _stored(path: Path, header: Header, file: BinaryIO) -> Any:
    """The image as it is stored."""
    if header.format == "BMP":
        with bmp(path, file) as picture:
            if picture.mode not in ("RGB", "RGBA"):
                picture = picture.convert("RGB")
            return pyvips.Image.new_from_array(np.asarray(picture)).copy(interpretation="srgb")
    return loaded(file, header.format, "random" if _turned(header) else "sequential")


def _rgb(image: Any, header: Header) -> Any:
    """Its three channels, of the header's depth."""
    if header.instead is not None:
        if image.hasalpha():
            image = image.flatten(background=[2**header.bits - 1])
        if image.bands != 3:
            image = image.colourspace("srgb" if header.bits == 8 else "rgb16")
    depth = {"uchar": 8, "ushort": 16}.get(image.format)
    if (image.bands, depth) != (3, header.bits):
        raise pyvips.Error("", "\nits pixels are not what its header says")
    return image


def _upright(image: Any, orientation: int) -> Any:
    for turn in _TURNS[orientation]:
        image = getattr(image, turn)()
    return image


def check_memory(path: Path, kind: str, height: int, width: int, bits: int) -> None:
    """Raises `ImageError` where an image that is held whole does clearly not fit the memory that is free."""
    least, free = height * width * 3 * bits // 8, _free_memory()
    if free is not None and least > free:
        raise ImageError(
            f"{path}: the memory must have room for {width}×{height} pixels, {least >> 20} MiB, since {kind} "
            f"is held whole, but {free >> 20} MiB are free; take a PNG that is not interlaced, or a TIFF"
        )


def _free_memory() -> int | None:
    """Bytes that this process may still take, of the machine and of its control group; None: unknown."""
    free = []
    with suppress(OSError, ValueError, IndexError):
        available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1]
        free.append(1024 * int(available.split()[0]))
    with suppress(OSError, ValueError, IndexError):  # "max" is no limit
        group = Path("/sys/fs/cgroup")
        limit, used = int((group / "memory.max").read_text()), (group / "memory.stat").read_text()
        free.append(limit - int(used.split("anon ")[1].split()[0]))  # cached files make room
    return min(free, default=None)


def _give_back() -> None:
    """What the trial has freed goes back to the system, where malloc can do that: it was its thread's own."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
