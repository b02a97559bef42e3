"""Image files that need not fit the memory: read and written by rows, from the top down.

libvips decodes and encodes. What is written goes to it through a pipe, as a PNG that is not compressed,
while it encodes in a thread of its own: so the caller's loop stays in the main thread, where an
exception of it or Ctrl-C ends it as any other loop.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnas_trainers.pairs.images import (
    MAX_PIXELS,
    SUFFIXES,
    PairsError,
    read_header,
    read_rgb,
    unwritten,
    write_rgb,
)

MAX_SIDE = 1_000_000
"""Pixels of a side at most, read or written: what readers of PNG take, and a row's memory allows."""

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
_SLAB = 1 << 20
"""Values that are converted at once."""
_BIG = 0xF000_0000
"""Bytes of pixels from which a TIFF gets 64-bit offsets."""
_POORLY = 20
"""A photograph that is kept without loss takes more than this part of its pixels' bytes."""

# nothing is asked for twice, and what is cached would keep its file open
pyvips.cache_set_max(0)


class LargeImage:
    """An RGB file of 8 or 16 bits as a source for `infer.upscale_rows`: upright, in [0, 1]."""

    def __init__(self, path: str | Path) -> None:
        """Decodes the file once, to its end: damage is found now, and not after hours of passes.

        An image that EXIF turns or mirrors top down is decoded to a temporary file, or where that has
        less than 100 MB to memory (libvips' `VIPS_DISC_THRESHOLD`). BMP is read at once, as are, by
        their nature, interlaced PNG, progressive JPEG and WebP.

        Raises:
            PairsError: the file is missing, not an image, truncated, or not RGB of 8 or 16 bits.
        """
        self._path = path = Path(path)
        header = read_header(path, max_pixels=MAX_SIDE**2)
        if max(header.height, header.width) > MAX_SIDE:
            raise PairsError(
                f"{path}: an image's sides must be at most {MAX_SIDE} pixels, but got "
                f"{header.width}×{header.height}; cut it into parts"
            )
        self.height, self.width = header.height, header.width
        self.bits: int = header.bits
        self.profile: bytes | None = header.profile
        if header.format == "BMP":
            self._fetch = _in_memory(read_rgb(path))
            return
        pyvips.vips_lib.vips_error_clear()
        try:
            access = "random" if header.orientation in (3, 4, 5, 6, 7, 8) else "sequential"
            image = _loaded(path, access)
            image.avg()
            image = _upright(image if access == "random" else _loaded(path, access), header.orientation)
        except pyvips.Error as error:
            raise self._damaged(str(error)) from None
        # a tile of a TIFF that fails is black, and only noted
        noted = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode(errors="replace")
        if header.format == "TIFF" and noted.strip():
            raise self._damaged(f"\n{noted}")
        depth = {"uchar": 8, "ushort": 16}.get(image.format)
        if (image.height, image.width, image.bands, depth) != (self.height, self.width, 3, self.bits):
            raise self._damaged("\nits pixels are not what its header tells")
        self._fetch = _by_region(image, np.uint8 if self.bits == 8 else np.uint16)

    def levels(self, start: int, stop: int) -> NDArray[Any]:
        """Rows as they are stored, (stop - start, width, 3), uint8 or uint16."""
        try:
            return self._fetch(start, stop)
        except pyvips.Error as error:
            raise self._damaged(str(error)) from None

    def rows(self, start: int, stop: int) -> Tensor:
        """(3, stop - start, width) in [0, 1]."""
        levels = self.levels(start, stop).transpose(2, 0, 1).astype(np.float32, order="C")
        return torch.from_numpy(levels).div_(2**self.bits - 1)

    def _damaged(self, text: str) -> PairsError:
        return PairsError(
            f"{self._path}: an image must decode in full, but it is damaged or truncated "
            f"({_reason(text)}); copy it again"
        )


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

    The block is handed a function, which takes the next rows, (3, n, width) in [0, 1], and rounds them
    to the nearest level. PNG, WebP, TIFF and BMP are lossless; JPEG has quality 95 without chroma
    subsampling. WebP and BMP are held in memory until they are written.

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
        yield lambda rows: parts.extend(_rounded(rows, bits))
        write_rgb(path, np.concatenate(parts))
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with _told(path):
            file = temporary.open("x+b")
        with file:
            with _encoding(path, file, height, width, bits, profile) as write:
                yield write
            with _told(path):
                os.fsync(file.fileno())
        with _told(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from None


@contextmanager
def _encoding(
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
            raise unwritten(path, OSError(_reason(failed[0])))

    encoder = threading.Thread(target=encode, name="encoder", daemon=True)
    encoder.start()
    try:
        with open(into, "wb") as pipe:
            pack = zlib.compressobj(0)
            pipe.write(b"\x89PNG\r\n\x1a\n")
            pipe.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)))

            def write(rows: Tensor) -> None:
                for levels in _rounded(rows, bits):
                    check()
                    lines = levels.astype(levels.dtype.newbyteorder(">")).reshape(len(levels), -1)
                    lines = np.pad(lines.view(np.uint8), ((0, 0), (1, 0)))  # each begins with its filter
                    pipe.write(_chunk(b"IDAT", pack.compress(lines.tobytes())))

            yield write
            pipe.write(_chunk(b"IDAT", pack.flush()) + _chunk(b"IEND", b""))
    finally:
        encoder.join()
        os.close(out)
    check()


def _save(image: Any, suffix: str, target: Any) -> None:
    match suffix:
        case ".png":
            image.pngsave_target(target, filter="all")
        case ".tif" | ".tiff":
            size = image.height * image.width * 3 * (2 if image.format == "ushort" else 1)
            image.tiffsave_target(target, compression="deflate", bigtiff=size > _BIG)
        case ".webp":
            image.webpsave_target(target, lossless=True)
        case _:
            image.jpegsave_target(target, Q=95, subsample_mode="off")


def _rounded(rows: Tensor, bits: int) -> Iterator[NDArray[Any]]:
    """(n, width, 3) of uint8 or uint16, some rows at once."""
    for part in rows.split(max(1, _SLAB // (3 * rows.shape[2])), dim=1):
        levels = (part * (2**bits - 1)).round().to("cpu", torch.int32).permute(1, 2, 0)
        yield levels.numpy().astype(np.uint8 if bits == 8 else np.uint16)


def _loaded(path: Path, access: str) -> Any:
    return pyvips.Image.new_from_file(str(path), access=access, fail_on="error")


def _upright(image: Any, orientation: int) -> Any:
    match orientation:
        case 2:
            return image.fliphor()
        case 3:
            return image.rot180()
        case 4:
            return image.flipver()
        case 5:
            return image.rot90().fliphor()
        case 6:
            return image.rot90()
        case 7:
            return image.rot270().fliphor()
        case 8:
            return image.rot270()
        case _:
            return image


def _by_region(image: Any, dtype: Any) -> Callable[[int, int], NDArray[Any]]:
    region = pyvips.Region.new(image)

    def fetch(start: int, stop: int) -> NDArray[Any]:
        band = region.fetch(0, start, image.width, stop - start)
        return np.frombuffer(band, dtype).reshape(stop - start, image.width, 3)

    return fetch


def _in_memory(pixels: NDArray[Any]) -> Callable[[int, int], NDArray[Any]]:
    return lambda start, stop: pixels[start:stop]


def _format(path: Path) -> tuple[str, int, int]:
    if path.suffix.lower() not in _FORMATS:
        raise PairsError(
            f"{path}: an image's name must end in one of {', '.join(SUFFIXES)}, but got {path.suffix!r}"
        )
    return _FORMATS[path.suffix.lower()]


def _reason(text: str) -> str:
    """What libvips says after its first line, which names the operation."""
    lines = [" ".join(line.split()) for line in text.splitlines()[1:]]
    return next((line for line in lines if line), "the decoder gave up")


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
