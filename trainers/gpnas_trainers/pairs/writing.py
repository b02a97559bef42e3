"""How a prepared set comes to be: whole at its place, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers.pairs.images import PairsError
from gpnas_trainers.pairs.prepared import (
    FILES,
    FORMAT,
    MANIFEST,
    VERSION,
    Entry,
    canonical,
    digest,
    read_manifest,
)


class Writer:
    """Appends pairs to the two flat files of a set that is being prepared."""

    def __init__(self, folder: Path) -> None:
        self._files: list[BinaryIO] = [(folder / name).open("xb") for name in FILES]
        self._folder = folder
        self.entries: list[Entry] = []

    def append(self, name: str, lr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> None:
        """Adds lr (3, h, w) and hr (3, scale·h, scale·w)."""
        offsets = [file.tell() for file in self._files]
        for file, pixels in zip(self._files, (lr, hr), strict=True):
            file.write(np.ascontiguousarray(pixels).data)
        shape = (lr.shape[1], lr.shape[2])
        self.entries.append(Entry(name, shape, offsets[0], offsets[1], digest(lr), digest(hr)))

    def close(self) -> None:
        for file in self._files:
            file.close()

    def finish(self, document: dict[str, Any], entries: Sequence[Entry]) -> None:
        """Closes the files durably and writes the manifest."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        self.close()
        document = {
            "format": FORMAT,
            "version": VERSION,
            **document,
            "images": [asdict(entry) for entry in entries],
        }
        with (self._folder / MANIFEST).open("x", encoding="utf-8") as manifest:
            json.dump(document, manifest, indent=1, ensure_ascii=False)
            manifest.flush()
            os.fsync(manifest.fileno())


@contextmanager
def preparing(target: Path) -> Iterator[Writer]:
    """A writer of a set that appears at `target` whole, when the block ends, or not at all.

    Several processes may prepare the same set at once: each writes its own folder, and the first
    rename wins. The block must call `finish`.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.mkdir(parents=True)
        _sweep(target.parent)
        writer = Writer(temporary)
        try:
            yield writer
        finally:
            writer.close()
        _publish(temporary, target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise PairsError(
            f"{target.parent}: the cache of prepared pairs must be writable, but "
            + ("the disk is full; free some space" if full else f"got {error.strerror or error}; check it")
            + " or choose another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def intact(target: Path) -> dict[str, Any] | None:
    """The manifest of the prepared set at `target`; None where there is none or it is damaged."""
    try:
        return read_manifest(target)
    except PairsError:
        return None


def key(document: Any) -> str:
    """16 hexadecimal digits that name a set by what it is made of."""
    return hashlib.sha256(canonical([FORMAT, VERSION, document])).hexdigest()[:16]


def _publish(temporary: Path, target: Path) -> None:
    for _ in range(3):
        try:
            temporary.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return
        if intact(target) is not None:
            return  # another process was faster with the same set
        # A damaged set stands in the way: move it aside before it is removed, so that no process
        # ever finds half of it.
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.damaged")
        target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(errno.EEXIST, f"{target.name} cannot be replaced")


def _sweep(cache: Path) -> None:
    """Removes what killed preparations left behind a day ago or earlier."""
    for left in cache.glob(".*.partial"):
        try:
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def planar(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) to (3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def check_scale(scale: int) -> None:
    if not isinstance(scale, int) or scale < 2:
        raise PairsError(f"a scale must be an integer of at least 2, but got {scale!r}")
