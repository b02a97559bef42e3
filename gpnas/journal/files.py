"""A journal's files: the lock, opening and checking, the rolling backup, recovery from it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from gpnas import files
from gpnas.errors import JournalError
from gpnas.files import descriptor_of, is_full, nearby, read, replacing
from gpnas.journal.documents import APPLICATION, TABLES, VERSION, DamageError, declaration, encode
from gpnas.journal.examining import (
    BACKUP,
    JOURNAL,
    MOST_BYTES,
    check_regular,
    connect,
    damage_of,
    refusing,
)
from gpnas.journal.header import Header

LOCK = "lock"
OPENING = "opening"
"""File whose lock one of several processes has while it opens a journal that they share."""
BACKING = "backing"
"""File whose lock one of them has while it renews the backup."""

LOCK_SECONDS = 0.5
"""So long a driver waits for the lock: `status` may touch it for an instant."""


def now() -> str:
    """The time as a journal writes it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turns what the disk and SQLite raise into a `JournalError` that says what to do."""
    try:
        yield
    except (DamageError, UnicodeError) as error:
        raise JournalError(_damaged(path, error)) from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _is_full(path.parent)):
            raise JournalError(_full(path)) from error
        if name.startswith("SQLITE_IOERR_SHM"):
            advice = "put the run folder on a local disk"
        elif name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            raise JournalError(_damaged(path, error)) from error
        else:
            advice = "what was committed is safe: mend that and run the same command again"
        raise JournalError(
            f"{path}: the journal must be readable and writable, but {error}; {advice}"
        ) from error
    except OSError as error:
        if is_full(error):
            raise JournalError(_full(path)) from error
        reason = error.strerror or str(error)
        raise JournalError(
            f"{error.filename or path}: the run folder must be readable and writable, but {reason}; "
            "mend that, or choose another with --run"
        ) from error


def _is_full(folder: Path) -> bool:
    """Whether a disk has less room than a commit needs; SQLite does not always tell."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 2**18 or disk.f_favail == 0 < disk.f_files


def _full(path: Path) -> str:
    return (
        f"{path}: the disk must have room for the journal, but it is full; what was committed is safe: "
        "free some space and run the same command again"
    )


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path}: the journal must be as it was written, but the file is damaged: {error}; "
        "start another run with --run, or put back a copy of the file"
    )


def acquire(run: Path, *, shared: bool = False) -> tuple[int, bool]:
    """Takes the run's lock, which the kernel releases when this process ends, however it ends.

    Args:
        run: the run folder.
        shared: whether it is taken together with others who do, which keeps drivers out.

    Returns:
        The descriptor that holds it, for `release`, and whether this process alone has it, for `relax`.

    Raises:
        JournalError: a driver has it; without `shared` also where any other process does.
    """
    descriptor, kind = _locked(run, fcntl.LOCK_EX, *([fcntl.LOCK_SH] if shared else []))
    if not shared:
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: the lock holds without its owner's number too
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor, kind == fcntl.LOCK_EX


def _driven(run: Path, descriptor: int | None = None) -> JournalError:
    holder = b"" if descriptor is None else os.pread(descriptor, 32, 0)
    name = f"process {holder.decode(errors='replace').strip()}" if holder.strip() else "another process"
    return JournalError(
        f"{run}: one driver at a time may work on a run, but {name} holds it; "
        "wait for it, stop it, or choose another folder with --run"
    )


def _locked(run: Path, *kinds: int) -> tuple[int, int]:
    """A descriptor that holds a run's lock, and which of several kinds of it, the first that can be had."""
    with refusing(run / LOCK):
        descriptor = descriptor_of(run / LOCK, os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            for kind in kinds:
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                    return descriptor, kind
            if time.monotonic() > deadline:
                raise _driven(run, descriptor)
            time.sleep(0.02)
    except BaseException:
        os.close(descriptor)
        raise


def relax(run: Path, descriptor: int) -> None:
    """Lets others share a lock that this process alone has."""
    os.ftruncate(descriptor, 0)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # between two locks a driver may come
        raise _driven(run) from None


@contextmanager
def turn(run: Path, name: str) -> Iterator[None]:
    """Does something that one process at a time may do with a run; others wait for their turn.

    Args:
        run: the run folder.
        name: of a file in it, for what is done.
    """
    with ExitStack() as stack:
        with refusing(run / name):
            stack.enter_context(files.turn(run / name))
        yield


def release(descriptor: int) -> None:
    """Gives the lock back. Its file stays: removing it would let two drivers hold two of them."""
    os.close(descriptor)


def held(run: Path) -> bool:
    """Whether some process holds the run's lock; a JournalError where the lock is a link or a pipe."""
    with suppress(OSError), refusing(run / LOCK):
        return files.is_locked(run / LOCK)
    return False


def create(run: Path, header: Header) -> None:
    """Makes an empty journal: written under another name, then renamed, so never half there."""
    with replacing(run / JOURNAL) as fresh, closing(connect(fresh, "mode=rwc")) as connection:
        connection.execute("PRAGMA journal_mode=MEMORY")
        connection.execute("BEGIN")
        for name in TABLES:
            connection.execute(declaration(name))
        connection.execute("INSERT INTO header VALUES (1, ?, ?)", encode(header.to_json()))
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")


def open_to_write(run: Path, *, recover: bool = True) -> tuple[sqlite3.Connection, str | None]:
    """The checked journal of a run whose lock is held; recovered from its backup where it must be.

    Args:
        run: the run folder.
        recover: whether it may be; not while another process has the file open.

    Returns:
        The connection, and one line about a recovery or None.

    Raises:
        DamageError: it cannot be used and there is no backup to recover it from.
        JournalError: an older or a newer gpnas wrote it.
    """
    path, note = run / JOURNAL, None
    damage = damage_of(path, to_write=True)
    if damage is not None:
        backup = run / BACKUP
        if not recover or not backup.exists() or damage_of(backup) is not None:
            raise DamageError(damage)
        aside = _set_aside(run)
        kept = f", the damaged file is kept as {aside}" if aside else ""
        note = f"{JOURNAL} is damaged ({damage}); recovered from {BACKUP}{kept}"
    connection = connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection, note


def open_to_read(run: Path, *, check: bool = True) -> tuple[sqlite3.Connection, str | None]:
    """The checked journal of a run, or its backup where the journal itself cannot be read.

    Args:
        run: the run folder.
        check: whether the journal's content is looked at, or only the kind of its files.

    Returns:
        The connection, and one line about the use of the backup or None.

    Raises:
        DamageError: neither can be used.
        JournalError: there is none, or an older or a newer gpnas wrote it.
    """
    path, backup = run / JOURNAL, run / BACKUP
    if not path.exists() and not backup.exists():
        raise JournalError(
            f"{run}: a run folder must hold {JOURNAL}, but there is none; "
            "name the folder of a search, or start one with `gpnas search`"
            + nearby(run, lambda path: (path / JOURNAL).exists())
        )
    check_regular(path)
    damage = damage_of(path, or_unreadable=True) if check or not path.exists() else None
    if damage is None:
        return connect(path, "mode=ro"), None
    if backup.exists() and damage_of(backup) is None:
        note = f"{JOURNAL} cannot be read ({damage}); what follows is from {BACKUP}"
        return connect(backup, "mode=ro&immutable=1"), note
    raise DamageError(damage)


def back_up(connection: sqlite3.Connection, run: Path) -> None:
    """Replaces the backup by a checked copy of what is committed."""
    with replacing(run / BACKUP) as fresh, closing(connect(fresh, "mode=rwc")) as copy:
        # the copy is synced once, when it is whole, and thrown away where anything fails
        copy.execute("PRAGMA synchronous=OFF")
        copy.execute("PRAGMA journal_mode=OFF")
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamageError(" ".join(str(verdict).split()))


def _set_aside(run: Path) -> str | None:
    """Puts the backup in the journal's place and keeps the damaged files under another name.

    Returns:
        That name, None where there was no file to keep.
    """
    with replacing(run / JOURNAL) as fresh:
        fresh.write_bytes(read(run / BACKUP, MOST_BYTES))
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        aside = None
        (run / f"{JOURNAL}-shm").unlink(missing_ok=True)
        # the log first: beside the recovered file it would be taken for its own
        for suffix in ("-wal", ""):
            damaged = run / f"{JOURNAL}{suffix}"
            if damaged.exists():
                aside = f"journal.damaged-{stamp}.sqlite"
                damaged.rename(run / f"{aside}{suffix}")
    return aside
