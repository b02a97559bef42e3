"""The folder of a training of one's own: in a run's storage where that is a folder, else copied to it.

An object store has no folders to write to. There a training works in a folder of its machine's own; whenever
it says how far it is, the folder is packed into one file (`Snapshots`, in the training's process, so that
nothing is written meanwhile), which its worker puts into the storage as one object, wholly or not at all
(`OwnFolder`). The next attempt, on whichever node, begins with what the newest of them holds.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpnas.files import replacing
from gpnas.run.own_errors import ERRORS_FILE
from gpnas.run.storage import Folder, Storage

if not hasattr(tarfile, "data_filter"):  # Python 3.11.0 to 3.11.3
    from backports import tarfile  # type: ignore[import-untyped, no-redef]

LOG_FILE, OWN_FOLDER, SECONDS_FILE, SNAPSHOT_FILE = "trial.log", "own", "seconds", "own.tar"
PREFIX = "gpnas-own-"
"""A prefix of the names of folders of the machine's own."""
KEEP_SECONDS = 3.0
"""Least time between two copies of a folder."""
KEEP_SHARE = 0.05
"""Largest share of the time that copies, or checkpoints, may take."""


class Pace:
    """Has something that takes a while be done rarely enough.

    Args:
        seconds: least time between two times; it never takes more than `KEEP_SHARE` of the time.
        first: seconds until it may be done for the first time.
    """

    def __init__(self, seconds: float, first: float = 0.0) -> None:
        self._seconds, self._next = seconds, time.monotonic() + first

    @property
    def due(self) -> bool:
        """Whether it may be done again."""
        return time.monotonic() >= self._next

    @contextmanager
    def measured(self) -> Iterator[None]:
        """A context in which it is done."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self._next = end + max(self._seconds, (end - start) / KEEP_SHARE)


class Snapshots:
    """Packs a training's folder into a file beside it, from within the training's process.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._pace = path, Pace(KEEP_SECONDS)
        self._packed: list[tuple[str, int, int, int]] = []

    def take(self, *, last: bool = False) -> None:
        """Packs the folder and the errors that were reported, unless that was done lately or nothing changed.

        Args:
            last: whether it is done whenever that was.
        """
        if not (last or self._pace.due):
            return
        with self._pace.measured():
            try:
                found = _listed(self._path.parent)
                if found != self._packed:
                    pack(self._path.parent, self._path)
                    self._packed = found
            except (OSError, tarfile.TarError) as error:  # the one before it serves
                sys.stderr.write(f"--- the folder's copy is out of date, since {error}\n")


class OwnFolder:
    """Where one attempt at a candidate works: a folder of a storage that is one."""

    path: Path
    """The candidate's folder on this machine: `own`, which the training is handed, the log and the errors."""
    log: str
    """Where a person finds the log."""
    snapshot = ""
    """Path of the file into which the training packs its folder; empty where it need not."""

    def __init__(self, path: Path) -> None:
        self.path, self.log = path, str(path / LOG_FILE)
        (path / OWN_FOLDER).mkdir(parents=True, exist_ok=True)

    def keep(self, seconds: float, *, last: bool = False) -> None:
        """Puts into the storage what is not there yet.

        Args:
            seconds: that all attempts have taken.
            last: whether that is done however lately it was.

        Raises:
            OSError: the storage cannot be written.
        """
        if last:
            with suppress(OSError), replacing(self.path / SECONDS_FILE) as fresh:
                fresh.write_text(f"{seconds:.3f}")

    def close(self) -> None:
        """Leaves nothing on this machine but what belongs to the storage."""


class _Copied(OwnFolder):
    """A folder of this machine's, copied to a storage that is none."""

    def __init__(self, storage: Storage, folder: str, attempt: int) -> None:
        self._storage, self._folder, self._attempt = storage, folder, attempt
        self._pace, self._put = Pace(KEEP_SECONDS), 0
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.log = storage.address(f"{folder}/{LOG_FILE}")
        self.snapshot = str(self.path / SNAPSHOT_FILE)
        try:
            self._fetch()
        except BaseException:
            self.close()
            raise

    def _fetch(self) -> None:
        names = self._storage.names(self._folder)
        for name in (LOG_FILE, SECONDS_FILE):
            if f"{self._folder}/{name}" in names:
                self._storage.fetch(f"{self._folder}/{name}", self.path / name)
        path = Path(self.snapshot)
        for attempt in range(self._attempt - 1, 0, -1):
            name = f"{self._folder}/attempt-{attempt}/{SNAPSHOT_FILE}"
            if name not in names:
                continue
            self._storage.fetch(name, path)
            try:
                unpack(path, self.path)
            except (tarfile.TarError, EOFError, ValueError) as error:  # the one before it serves
                shutil.rmtree(self.path / OWN_FOLDER, ignore_errors=True)
                self._note(f"{name} is damaged ({' '.join(str(error).split())})")
                continue
            finally:
                path.unlink()
            self._note(f"the folder is that of {name}")
            break
        (self.path / OWN_FOLDER).mkdir(exist_ok=True)

    def _note(self, line: str) -> None:
        with open(self.path / LOG_FILE, "a") as log:
            print(f"--- {line}", file=log)

    def keep(self, seconds: float, *, last: bool = False) -> None:
        path = Path(self.snapshot)
        newest = path.stat().st_mtime_ns if path.exists() else 0
        if not last and (newest == self._put or not self._pace.due):
            return
        with self._pace.measured():
            self._put_beside(LOG_FILE)  # first, since whoever goes on from a copy reads how it came to be
            if newest != self._put:
                self._storage.put(path, f"{self._folder}/attempt-{self._attempt}/{SNAPSHOT_FILE}")
                self._put = newest
            self._put_beside(ERRORS_FILE)
            self._storage.write(f"{self._folder}/{SECONDS_FILE}", f"{seconds:.3f}".encode())

    def _put_beside(self, name: str) -> None:
        if (self.path / name).exists():
            self._storage.put(self.path / name, f"{self._folder}/{name}")

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def begun(storage: Storage, folder: str, attempt: int) -> OwnFolder:
    """Where an attempt works, with what the attempts before have left.

    Args:
        storage: of the run.
        folder: of the candidate, in the storage.
        attempt: its number, from 1.

    Raises:
        OSError: the storage cannot be read, or this machine's disk not written.
    """
    if isinstance(storage, Folder):
        return OwnFolder(storage.root / folder)
    return _Copied(storage, folder, attempt)


def pack(folder: Path, path: Path) -> None:
    """Packs `own` and the errors in a folder into one file, wholly or not at all.

    Files, folders, and links that lead nowhere else are kept; pipes, sockets and devices are not.

    Raises:
        OSError, tarfile.TarError: a file changes meanwhile, or the disk is full.
    """
    with replacing(path) as fresh, tarfile.open(fresh, "w") as tar:
        for name, *_ in _listed(folder):
            with suppress(FileNotFoundError):  # removed meanwhile
                tar.add(folder / name, name, recursive=False)


def unpack(path: Path, folder: Path) -> None:
    """Takes a packed folder out of its file; nothing is written outside `folder`.

    Raises:
        tarfile.TarError, EOFError: the file is damaged.
    """
    with tarfile.open(path, "r:") as tar:
        tar.extractall(folder, filter="data")


def _listed(folder: Path) -> list[tuple[str, int, int, int]]:
    """What is packed of a folder: names, inodes, sizes, and times of the last change."""
    root = folder / OWN_FOLDER
    paths = [root, folder / ERRORS_FILE]
    for place, folders, files in os.walk(root):
        paths += [Path(place) / each for each in (*folders, *files)]
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(path)
                if os.path.isabs(target) or not path.resolve().is_relative_to(root.resolve()):
                    continue
            elif not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                continue
            name = path.relative_to(folder).as_posix()
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return sorted(found)
