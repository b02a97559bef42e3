"""How a prepared set comes to be: whole at its place, or not at all; interrupted work goes on."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers.files import is_full, replacing
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.manifest import (
    ALIGNMENT,
    DTYPES,
    FORMAT,
    MANIFEST,
    VERSION,
    Entry,
    Manifest,
    canonical,
    digest,
    read_manifest,
)
from gpnas_trainers.pairs.prepared import check_pixels

KEPT_DAYS = 7
"""Days for which the work of an interrupted preparation is kept, so that the next call goes on with it."""


class WorkersError(PairsError):
    """A worker process died; what the others have finished is kept."""


class ShardWriter:
    """Appends pairs to one shard, which is known by its place in the manifest's list."""

    def __init__(self, file: BinaryIO, place: int) -> None:
        self._file, self._place = file, place

    def append(
        self,
        name: str,
        lr: NDArray[Any],
        hr: NDArray[Any],
        *,
        ncc: float | None = None,
        shift: tuple[float, float] | None = None,
    ) -> Entry:
        """Adds lr (3, h, w) and hr (3, scale·h, scale·w), each uint8 or uint16."""
        return Entry(
            name=name,
            lr_shape=(lr.shape[1], lr.shape[2]),
            lr_bits=8 * lr.itemsize,
            hr_bits=8 * hr.itemsize,
            shard=self._place,
            lr_offset=self._append(lr),
            hr_offset=self._append(hr),
            lr_sha256=digest(lr),
            hr_sha256=digest(hr),
            ncc=ncc,
            shift=shift,
        )

    def _append(self, pixels: NDArray[Any]) -> int:
        offset = self._file.tell()
        self._file.write(np.ascontiguousarray(pixels, DTYPES[8 * pixels.itemsize]).data)
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        return offset


@contextmanager
def shard_writer(work: Path, place: int) -> Iterator[ShardWriter]:
    """A shard in the making, which appears in the folder whole when the block ends."""
    with replacing(work / shard_name(place)) as temporary, temporary.open("xb") as file:
        yield ShardWriter(file, place)


def shard_name(place: int) -> str:
    return f"pixels-{place:05}.bin"


def write_json(path: Path, document: Any) -> None:
    """Writes a document durably, whole or not at all."""
    with replacing(path) as temporary, temporary.open("x", encoding="utf-8") as file:
        json.dump(document, file, indent=1, ensure_ascii=False)


@contextmanager
def work_folder(target: Path) -> Iterator[Path | None]:
    """The folder in which the set that shall appear at `target` is made; None once it is there.

    It holds what an interrupted preparation has finished. Of several processes that prepare the same set
    the others wait for the first. The block calls `publish` at its end; if it raises `PairsError`, or has
    finished nothing, its work is removed; else it is kept for the next call.
    """
    work = target.with_name(f".{target.name}.partial")
    lock = -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        while usable(target) is None:
            work.mkdir(exist_ok=True)
            lock = os.open(work, os.O_RDONLY)
            _lock(lock, wait=True)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), work.stat()):
                    break
            os.close(lock)  # what was waited for has been published or removed
            lock = -1
        try:
            yield work if lock >= 0 else None
        except WorkersError:
            raise
        except PairsError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        finally:
            with suppress(FileNotFoundError):
                mine = lock >= 0 and os.path.samestat(os.fstat(lock), work.stat())
                if mine and not any(work.glob("*.json")):
                    shutil.rmtree(work, ignore_errors=True)
                elif mine:
                    for half in work.glob(".*"):  # of workers that a signal has ended too
                        half.unlink(missing_ok=True)
    except OSError as error:
        full = is_full(error) or error.errno == errno.EFBIG
        raise PairsError(
            f"{target.parent}: the cache of prepared pairs must be writable, but "
            + ("the disk is full; free some space" if full else f"got {error.strerror or error}; check it")
            + " or choose another folder"
        ) from None
    finally:
        if lock >= 0:
            os.close(lock)


def publish(work: Path, target: Path, document: dict[str, Any], entries: Sequence[Entry]) -> None:
    """Writes the manifest of a set that is finished, and moves the set to its place.

    Args:
        work: its folder, with the shards that the entries name by place.
        target: where it goes; what is there already is damaged, and replaced.
        document: scale, source and the like.
        entries: with their splits.
    """
    shards = [work / shard_name(place) for place in range(1 + max(entry.shard for entry in entries))]
    document = {
        "format": FORMAT,
        "version": VERSION,
        "excluded": [],
        "notes": [],
        "groups": [],
        **document,
        "shards": [{"file": shard.name, "bytes": shard.stat().st_size} for shard in shards],
        "images": [asdict(entry) for entry in entries],
    }
    write_json(work / MANIFEST, document)
    keep = {MANIFEST, *(shard.name for shard in shards)}
    for left in work.iterdir():
        if left.name not in keep:
            left.unlink()
    for _ in range(3):
        try:
            work.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return
        # A damaged set stands in the way: move it aside before it is removed, so that no process
        # ever finds half of it.
        aside = target.with_name(f".{secrets.token_hex(16)}.damaged")
        target.rename(aside)
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink()
    raise OSError(errno.EEXIST, f"{target.name} cannot be replaced")


def usable(target: Path, report: Callable[[str], None] | None = None) -> Manifest | None:
    """The manifest of the prepared set at `target`, all of whose pixels are looked at.

    None where there is none, or where it is damaged, which is reported, since it is to be made anew.
    """
    try:
        manifest = read_manifest(target)
        check_pixels(target, manifest)
    except PairsError as error:
        if report is not None and os.path.lexists(target):
            report(f"{str(error).rpartition(';')[0]}; it is a cache, and made anew")
        return None
    return manifest


def key(document: Any) -> str:
    """16 hexadecimal digits that name a set by what it is made of."""
    return hashlib.sha256(canonical([FORMAT, VERSION, document])).hexdigest()[:16]


def _lock(folder: int, *, wait: bool) -> bool:
    """Takes the lock of an open folder, which ends with the process; False where another has it."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: two preparations at once only waste time
    return True


def _sweep(cache: Path) -> None:
    """Removes what interrupted preparations left behind long ago."""
    for left in (*cache.glob(".*.partial"), *cache.glob(".*.damaged")):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400 * KEPT_DAYS:
                folder = os.open(left, os.O_RDONLY)
                try:
                    if _lock(folder, wait=False):
                        shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(folder)


def planar(image: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) to (3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def check_scale(scale: int) -> None:
    if not isinstance(scale, int) or scale < 2:
        raise PairsError(f"a scale must be an integer of at least 2, but got {scale!r}")
