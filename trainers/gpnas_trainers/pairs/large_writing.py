"""Image files that need not fit the memory, written by rows from the top down.

A PNG is made here. libvips makes the others, in a thread of its own, with a pipe between it and the
caller, who therefore loops in the main thread, where Ctrl-C or an exception ends it as any other loop;
a PNG that is not compressed goes through the pipe.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray
from torch import Tensor

from gpnas_trainers.pairs.images import MAX_PIXELS, SUFFIXES, PairsError, unwritten, write_rgb
from gpnas_trainers.pairs.large_reading import MAX_SIDE, reason
from gpnas_trainers.pairs.png import PngWriter

# what each format can hold: its name, pixels of a side, bits per channel
_FORMATS = {
    ".png": ("PNG", MAX_SIDE, 16),
    ".jpg": ("JPEG", 65_500, 8),
    ".jpeg": ("JPEG", 65_500, 8),
    ".webp": ("WebP", 16_383, 8),
    ".tif": ("TIFF", MAX_SIDE, 16),
    ".tiff": ("TIFF", MAX_SIDE, 16),
    ".bmp": ("BMP", MAX_SIDE, 8),
}
_SLAB = 1 << 16
"""Values that are converted at once."""
_BIG = 0xF000_0000
"""Bytes of pixels from which a TIFF gets 64-bit offsets."""
_POORLY = 20
"""A photograph that is kept without loss takes more than this part of its pixels' bytes."""


def bits_of(path: Path, bits: int) -> int:
    """Bits per channel that a file of this name holds, of so many."""
    return min(bits, _format(path)[2])


def check_target(path: Path, height: int, width: int, bits: int) -> None:
    """Raises `PairsError` where the format that the suffix names, or the disk, cannot hold such an image."""
    name, side, most = _format(path)
    if max(height, width) > side:
        raise PairsError(
            f"{path}: a {name} file's sides must be at most {side} pixels, but got {width}×{height}; "
            + ("write PNG or TIFF instead" if side < MAX_SIDE else "cut the image into parts")
        )
    if name == "BMP" and height * width > MAX_PIXELS:
        raise PairsError(
            f"{path}: a BMP file must have at most {MAX_PIXELS} pixels, but got {width}×{height}; "
            "write PNG or TIFF instead"
        )
    least = height * width * 3 * bits // 8 // _POORLY
    with suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        if most == 16 and least > free:
            raise PairsError(
                f"{path}: the disk must have room for {width}×{height} pixels, some {_POORLY * least >> 20} "
                f"MiB before they are compressed, but {free >> 20} MiB are free; free some space or choose "
                "another folder"
            )


@contextmanager
def writing(
    path: Path, height: int, width: int, bits: int, profile: bytes | None = None
) -> Iterator[Callable[[Tensor], None]]:
    """An image file in the making, in the format that the suffix names; whole or not at all.

    The block is handed a function, which takes the next rows, (3, n, width) of uint8 or uint16. PNG,
    WebP, TIFF and BMP are lossless; JPEG has quality 95 without chroma subsampling. WebP and BMP are
    held in memory until they are written.

    Args:
        path: a folder's file; another of that name is replaced when all rows are there.
        height, width: of the image.
        bits: per channel, 8 or 16, as `bits_of` tells.
        profile: an ICC profile, to be kept in the file; BMP holds none.

    Raises:
        PairsError: `check_target` refuses it, or the file cannot be written (no such folder, disk full).
    """
    check_target(path, height, width, bits)
    if path.suffix.lower() == ".bmp":
        parts: list[NDArray[Any]] = []
        yield lambda rows: parts.extend(part.copy() for part in _slabs(rows))
        write_rgb(path, np.concatenate(parts))
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with _told(path):
        file = temporary.open("x+b")
    try:
        make = _png if path.suffix.lower() == ".png" else _by_libvips
        with make(path, file, height, width, bits, profile) as write:
            yield write
        with _told(path):
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):  # of what could not be written
            file.close()
        temporary.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from None


@contextmanager
def _png(
    path: Path, file: BinaryIO, height: int, width: int, bits: int, profile: bytes | None
) -> Iterator[Callable[[Tensor], None]]:
    with _told(path):
        png = PngWriter(file, height, width, bits, profile=profile)

    def write(rows: Tensor) -> None:
        with _told(path):
            for levels in _slabs(rows):
                png.write(levels)

    yield write
    with _told(path):
        png.close()


@contextmanager
def _by_libvips(
    path: Path, file: BinaryIO, height: int, width: int, bits: int, profile: bytes | None
) -> Iterator[Callable[[Tensor], None]]:
    out, into = os.pipe()
    failed: list[str] = []  # no exception, which would hold what it came through, and so the file open

    def encode() -> None:
        try:
            source = pyvips.Source.new_from_descriptor(out)
            image = pyvips.Image.pngload_source(source, access="sequential", fail_on="error", unlimited=True)
            if profile is not None:
                image = image.copy()
                image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
            _save(image, path.suffix.lower(), pyvips.Target.new_to_descriptor(file.fileno()))
        except Exception as error:
            failed.append(str(error))
        finally:
            while os.read(out, 1 << 16):  # so that the other end never waits
                pass

    def check() -> None:
        if failed:
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                if os.strerror(code) in failed[0]:
                    raise unwritten(path, OSError(code, os.strerror(code)))
            raise unwritten(path, OSError(reason(failed[0])))

    encoder = threading.Thread(target=encode, name="encoder", daemon=True)
    encoder.start()
    try:
        with open(into, "wb") as pipe:
            png = PngWriter(pipe, height, width, bits, compress=False)

            def write(rows: Tensor) -> None:
                for levels in _slabs(rows):
                    check()
                    png.write(levels)

            yield write
            png.close()
    finally:
        encoder.join()
        os.close(out)
    check()


def _save(image: Any, suffix: str, target: Any) -> None:
    match suffix:
        case ".tif" | ".tiff":
            size = image.height * image.width * 3 * (2 if image.format == "ushort" else 1)
            image.tiffsave_target(target, compression="deflate", bigtiff=size > _BIG)
        case ".webp":
            image.webpsave_target(target, lossless=True)
        case _:
            image.jpegsave_target(target, Q=95, subsample_mode="off")


def _slabs(rows: Tensor) -> Iterator[NDArray[Any]]:
    """(n, width, 3), some rows at once."""
    for part in rows.split(max(1, _SLAB // (3 * rows.shape[2])), dim=1):
        yield part.cpu().permute(1, 2, 0).numpy()


def _format(path: Path) -> tuple[str, int, int]:
    if path.suffix.lower() not in _FORMATS:
        raise PairsError(
            f"{path}: an image's name must end in one of {', '.join(SUFFIXES)}, but got {path.suffix!r}"
        )
    return _FORMATS[path.suffix.lower()]
