"""Image files that need not fit the memory, read by rows from the top down.

libvips decodes in a thread of its own, with a pipe between it and the caller, who therefore loops in the
main thread, where Ctrl-C or an exception ends it as any other loop.
"""

from __future__ import annotations

import ctypes
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnas_trainers.images.reading import Header, ImageError, read_header, read_rgb

MAX_SIDE = 1_000_000
"""Pixels of a side at most, read or written: what readers of PNG take, and a row's memory allows."""

# nothing is asked for twice, and what is cached would keep its file open
pyvips.cache_set_max(0)
# each thread of its own holds rows; compression, which takes longest, is done by one whatever this says
pyvips.concurrency_set(1)


class LargeImage:
    """An RGB file of 8 or 16 bits as a source for `infer.upscale_rows`: upright."""

    def __init__(self, path: Path, header: Header, stream: BinaryIO) -> None:
        """Args:
        path: for messages.
        header: of the file.
        stream: its levels, row by row.
        """
        self.height, self.width = header.height, header.width
        self.bits, self.profile = header.bits, header.profile
        self._path, self._stream, self._next = path, stream, 0

    def levels(self, start: int, stop: int) -> NDArray[Any]:
        """Rows as they are stored, (stop - start, width, 3), uint8 or uint16; all once, in order."""
        assert start == self._next, (start, self._next)
        self._next = stop
        rows = np.empty((stop - start, self.width, 3), np.uint8 if self.bits == 8 else np.uint16)
        if self._stream.readinto(rows.data.cast("B")) < rows.nbytes:  # type: ignore[attr-defined]
            raise _damaged(self._path, "it ends early")
        return rows

    def rows(self, start: int, stop: int) -> Tensor:
        """The same, (3, stop - start, width)."""
        return torch.from_numpy(self.levels(start, stop)).permute(2, 0, 1)


@contextmanager
def reading(path: str | Path) -> Iterator[LargeImage]:
    """The image of a file, from which each row can be taken once.

    The file is decoded once before, to its end: damage is found now, and not after hours of passes. An
    image that EXIF turns or mirrors top down is decoded to a temporary file, or where that has less than
    100 MB to memory (libvips' `VIPS_DISC_THRESHOLD`). BMP is read at once, as are, by their nature,
    interlaced PNG, progressive JPEG and WebP.

    Raises:
        ImageError: the file is missing, not an image, truncated, or not RGB of 8 or 16 bits; or it is to
            be held whole, and the memory has no room for it.
    """
    path = Path(path)
    header = read_header(path, max_pixels=MAX_SIDE**2)
    if max(header.height, header.width) > MAX_SIDE:
        raise ImageError(
            f"{path}: an image's sides must be at most {MAX_SIDE} pixels, but got "
            f"{header.width}×{header.height}; cut it into parts"
        )
    if header.whole is not None:
        check_memory(path, header.whole, header.height, header.width, header.bits)
    if header.format == "BMP":
        yield LargeImage(path, header, io.BytesIO(read_rgb(path).data))
        return
    with path.open("rb", buffering=0) as file:
        image = _sound(path, header, file)
        _give_back()
        with _decoded(image) as stream:
            yield LargeImage(path, header, stream)


@contextmanager
def _decoded(image: Any) -> Iterator[BinaryIO]:
    """The image's levels, row by row."""
    out, into = os.pipe()

    def decode() -> None:
        with suppress(pyvips.Error):  # rows will be missing, which is told then, or nobody wants them
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


def _sound(path: Path, header: Header, file: BinaryIO) -> Any:
    """The image, upright and to be decoded, after it has been decoded on trial."""
    access = "random" if header.orientation in (3, 4, 5, 6, 7, 8) else "sequential"
    pyvips.vips_lib.vips_error_clear()
    try:
        image = _loaded(path, header, file, access)
        image.avg()
        image = _upright(
            image if access == "random" else _loaded(path, header, file, access), header.orientation
        )
    except pyvips.Error as error:
        raise _damaged(path, reason(str(error))) from None
    # a tile of a TIFF that fails is black, and only noted
    noted = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode(errors="replace")
    if header.format == "TIFF" and noted.strip():
        raise _damaged(path, reason(f"\n{noted}"))
    depth = {"uchar": 8, "ushort": 16}.get(image.format)
    if (image.height, image.width, image.bands, depth) != (header.height, header.width, 3, header.bits):
        raise _damaged(path, "its pixels are not what its header tells")
    return image


def _damaged(path: Path, reason: str) -> ImageError:
    return ImageError(
        f"{path}: an image must decode in full, but it is damaged or truncated ({reason}); copy it again"
    )


def check_memory(path: Path, kind: str, height: int, width: int, bits: int) -> None:
    """Raises `ImageError` where an image that is held whole does clearly not fit the memory that is free."""
    least, free = height * width * 3 * bits // 8, _free_memory()
    if free is not None and least > free:
        raise ImageError(
            f"{path}: the memory must have room for {width}×{height} pixels, {least >> 20} MiB, since {kind} "
            f"is held whole, but {free >> 20} MiB are free; take a PNG that is not interlaced, or a TIFF"
        )


def _free_memory() -> int | None:
    """Bytes that this process may still take, of the machine and of its control group; None: nobody tells."""
    free = []
    with suppress(OSError, ValueError, IndexError):
        told = Path("/proc/meminfo").read_text().split("MemAvailable:")[1]
        free.append(1024 * int(told.split()[0]))
    with suppress(OSError, ValueError, IndexError):  # "max" is no limit
        group = Path("/sys/fs/cgroup")
        limit, told = int((group / "memory.max").read_text()), (group / "memory.stat").read_text()
        free.append(limit - int(told.split("anon ")[1].split()[0]))  # cached files make room
    return min(free, default=None)


def _loaded(path: Path, header: Header, file: BinaryIO, access: str) -> Any:
    if header.format != "JPEG":
        return pyvips.Image.new_from_file(str(path), access=access, fail_on="error")
    # which libvips maps to memory as a whole where it can
    file.seek(0)
    source = pyvips.SourceCustom()
    source.on_read(file.read)
    source.on_seek(file.seek)
    return pyvips.Image.new_from_source(source, "", access=access, fail_on="error")


def _give_back() -> None:
    """What the trial has freed goes back to the system, where malloc can do that: it was its thread's own."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


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


def reason(text: str) -> str:
    """What libvips says after its first line, which names the operation."""
    lines = [" ".join(line.split()) for line in text.splitlines()[1:]]
    return next((line for line in lines if line), "the decoder gave up")
