"""The folder of runs: which searches there are, each read from its journal, by one service at a time."""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from gpnas.errors import GpnasError, JournalError
from gpnas.files import SERVICE, descriptor_of
from gpnas.journal import Journal
from gpnas.journal.examining import BACKUP, JOURNAL
from gpnas.journal.files import held
from gpnas.service.problems import Problem

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LOCK = "lock"
TRASH = "trash"
"""Folder of searches that were deleted, in the service's own."""
OPEN = 64
"""Journals that are kept open at once, those used last."""


class ServiceError(GpnasError):
    """The service cannot begin."""


@contextmanager
def alone(runs: Path) -> Iterator[None]:
    """The right to serve a folder, which the kernel takes back when this process ends, however it ends.

    Raises:
        ServiceError: another service has it, or the folder cannot be used.
    """
    path = runs / SERVICE / LOCK
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = descriptor_of(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise ServiceError(f"{path}: the folder of the runs must be writable, but {error}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        with suppress(OSError):
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        raise ServiceError(
            f"{runs}: one service at a time may serve a folder, but process {holder or 'unknown'} does; "
            "stop it, or name another folder with --runs"
        ) from None
    finally:
        os.close(descriptor)


class Runs:
    """Every search in a folder. Its methods may be called from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._guard = threading.Lock()
        self._open: dict[str, tuple[tuple[int, int], Journal]] = {}

    def names(self) -> list[str]:
        """The names of all searches, damaged ones among them, in order.

        Raises:
            ServiceError: the folder cannot be read.
        """
        try:
            with os.scandir(self.folder) as entries:
                folders = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise ServiceError(
                f"{self.folder}: the folder of the runs must be readable, but {error}"
            ) from None
        return sorted(name for name in folders if NAME.fullmatch(name) and Journal.exists(self.folder / name))

    def path(self, name: str) -> Path:
        """The run folder of a search. Only a name that the folder itself lists becomes a path.

        Raises:
            Problem: there is no such search.
        """
        for known in self.names():
            if known == name:
                return self.folder / known
        raise Problem(
            404,
            f"a search must be one of this service, but got {name!r:.80}; its page and GET /v1/searches list "
            "them",
        )

    def journal(self, name: str) -> Journal:
        """The journal of a search, open for reading, also while its driver writes; not to be closed.

        Raises:
            Problem: there is no such search.
            JournalError: it is damaged beyond its backup, or another gpnas wrote it.
        """
        path = self.path(name)
        with self._guard:
            file = _identity(path)
            kept = self._open.pop(name, None)
            if kept is not None and kept[0] != file:  # recovered, or another run by now
                kept[1].close()
                kept = None
            if kept is None:
                kept = (file, Journal.read(path))
            self._open[name] = kept
            while len(self._open) > OPEN:
                oldest = next(iter(self._open))
                self._open.pop(oldest)[1].close()
            return kept[1]

    def written(self, name: str) -> tuple[tuple[int, int], ...]:
        """What changes whenever the files of a search's journal do, without opening any."""
        files = []
        for suffix in ("", "-wal"):
            with suppress(OSError):
                status = os.stat(self.folder / name / f"{JOURNAL}{suffix}", follow_symlinks=False)
                files.append((status.st_mtime_ns, status.st_size))
        return tuple(files)

    def throw_away(self, name: str) -> None:
        """Moves the folder of a search that nobody drives to the trash folder.

        Raises:
            Problem: there is no such search, or a process drives it.
        """
        path = self.path(name)
        if held(path):
            raise Problem(409, f"{name} must be stopped before it is deleted, but a process drives it")
        with self._guard:
            kept = self._open.pop(name, None)
            if kept is not None:
                kept[1].close()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        target = self.folder / SERVICE / TRASH / f"{name}-{stamp}"
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.rename(target)

    def close(self) -> None:
        """Closes every journal."""
        with self._guard:
            for _, journal in self._open.values():
                journal.close()
            self._open.clear()


def _identity(run: Path) -> tuple[int, int]:
    """What tells a journal's file from another of its name, without opening it."""
    for name in (JOURNAL, BACKUP):
        with suppress(OSError):
            status = os.stat(run / name, follow_symlinks=False)
            return status.st_dev, status.st_ino
    raise JournalError(f"{run}: a run folder must hold {JOURNAL}, but it is gone")
