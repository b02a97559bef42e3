"""A journal's files: the lock, opening and checking, the rolling backup, recovery from it."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from gpnas.errors import JournalError
from gpnas.journal.documents import (
    APPLICATION,
    TABLES,
    VERSION,
    DamageError,
    decode,
    decode_candidate,
    decode_header,
    decode_observation,
    decode_session,
    encode,
)
from gpnas.journal.header import Header, Session
from gpnas.records import Candidate, Observation

JOURNAL = "journal.sqlite"
BACKUP = "journal.backup.sqlite"
LOCK = "lock"

BUSY_SECONDS = 20.0
"""So long SQLite waits for another process to let go of the file."""
LOCK_SECONDS = 0.5
"""So long a driver waits for the lock: `status` may touch it for an instant."""

FILE_VERSIONS = {1, 2}
"""What bytes 18 and 19 of an SQLite file may be (its "Database File Format"): rollback journal, or WAL."""


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
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
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


def acquire(run: Path) -> int:
    """Takes the run's lock, which the kernel releases when this process ends, however it ends.

    Returns:
        The descriptor that holds it, for `release`.

    Raises:
        JournalError: another process holds it.
    """
    descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise JournalError(
                f"{run}: one driver at a time may work on a run, but process {holder or 'unknown'} holds it; "
                "wait for it, stop it, or choose another folder with --run"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
    os.ftruncate(descriptor, 0)
    with suppress(OSError):  # a full disk: the lock holds without its owner's number too
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def release(descriptor: int) -> None:
    """Gives the lock back. Its file stays: removing it would let two drivers hold two of them."""
    os.close(descriptor)


def held(run: Path) -> bool:
    """Whether some process holds the run's lock."""
    try:
        descriptor = os.open(run / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection in autocommit mode, which threads may share under a lock of their own."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    # undecodable bytes become a wrong checksum instead of an error in mid-query
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def create(run: Path, header: Header) -> None:
    """Makes an empty journal: written under another name, then renamed, so never half there."""
    fresh = run / f"{JOURNAL}.new"
    fresh.unlink(missing_ok=True)
    try:
        with closing(connect(fresh, "mode=rwc")) as connection:
            connection.execute("BEGIN")
            for name, columns in TABLES.items():
                connection.execute(f"CREATE TABLE {name} ({columns})")
            connection.execute("INSERT INTO header VALUES (1, ?, ?)", encode(header.to_json()))
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("COMMIT")
        _publish(fresh, run / JOURNAL)
    finally:
        _remove(fresh)


def open_to_write(run: Path) -> tuple[sqlite3.Connection, str | None]:
    """The checked journal of a run whose lock is held; recovered from its backup where it must be.

    Returns:
        The connection, and one line about a recovery or None.

    Raises:
        DamageError: it cannot be used and there is no backup to recover it from.
        JournalError: a newer gpnas wrote it.
    """
    path, note = run / JOURNAL, None
    damage = _damage(path)
    if damage is not None:
        backup = run / BACKUP
        if not backup.exists() or _damage(backup) is not None:
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


def open_to_read(run: Path) -> tuple[sqlite3.Connection, str | None]:
    """The checked journal of a run, or its backup where the journal itself cannot be read.

    Returns:
        The connection, and one line about the use of the backup or None.

    Raises:
        DamageError: neither can be used.
        JournalError: there is none, or a newer gpnas wrote it.
    """
    path, backup = run / JOURNAL, run / BACKUP
    if not path.exists() and not backup.exists():
        raise JournalError(
            f"{run}: a run folder must hold {JOURNAL}, but there is none; "
            "name the folder of a search, or start one with `gpnas search`"
        )
    damage = _damage(path, or_unreadable=True)
    if damage is None:
        return connect(path, "mode=ro"), None
    if backup.exists() and _damage(backup) is None:
        note = f"{JOURNAL} cannot be read ({damage}); what follows is from {BACKUP}"
        return connect(backup, "mode=ro&immutable=1"), note
    raise DamageError(damage)


def _damage(path: Path, *, or_unreadable: bool = False) -> str | None:
    """What is wrong with a journal's file, None where nothing is.

    A file that has less in it than its backup is damaged too: its write-ahead log was lost.

    Args:
        path: of the journal or of its backup.
        or_unreadable: report also that this process may not open it.

    Raises:
        JournalError: a newer gpnas wrote it.
        sqlite3.Error: the file cannot be judged, as when the disk fails.
    """
    # the backup before the journal itself, which only grows: a driver may be at work
    kept = None if path.name == BACKUP else _judge(path.with_name(BACKUP), or_unreadable=True)
    counts = _judge(path, or_unreadable)
    if isinstance(counts, str):
        return counts
    if isinstance(kept, tuple) and any(more > less for more, less in zip(kept, counts, strict=True)):
        return (
            f"it holds {counts[1]} candidates and {counts[2]} observations, its backup "
            f"{kept[1]} and {kept[2]}"
        )
    return None


def _judge(path: Path, or_unreadable: bool) -> tuple[int, int, int] | str:
    """What `examine` counts, or what is wrong with the file alone; raises as `_damage`."""
    if not path.exists():
        return "it is missing"
    # a backup is replaced and never changed, so it needs no lock and no log beside it
    options = "mode=ro&immutable=1" if path.name == BACKUP else "mode=ro"
    try:
        with closing(connect(path, options)) as connection:
            counts = examine(connection, path)
    except (DamageError, UnicodeError) as error:
        return " ".join(str(error).split())
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")) and not or_unreadable:
            raise
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_NOMEM", "SQLITE_IOERR")):
            raise
        return str(error)
    # SQLite opens a file of another write version, but refuses to write to it
    with open(path, "rb") as file:
        versions = file.read(20)[18:]
    if not set(versions) <= FILE_VERSIONS:
        return f"its file format's versions must be 1 or 2, but are {versions[0]} and {versions[1]}"
    return counts


def examine(connection: sqlite3.Connection, path: Path) -> tuple[int, int, int]:
    """Checks a journal to its last document.

    Returns:
        The numbers of sessions, candidates and observations in it.

    Raises:
        DamageError, sqlite3.DatabaseError: it is not as it was written.
        JournalError: a newer gpnas wrote it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION:
        raise DamageError("it is not a gpnas journal")
    if version > VERSION:
        raise JournalError(
            f"{path}: this gpnas reads journals up to version {VERSION}, but got version {version}; "
            "a newer gpnas wrote it, so install that"
        )
    with snapshot(connection):
        return _examine_content(connection)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One moment of a file that may be growing: what is read within belongs together."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # SQLite has ended it by itself where the disk failed
            connection.execute("ROLLBACK")


def _examine_content(connection: sqlite3.Connection) -> tuple[int, int, int]:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamageError(" ".join(str(verdict).split()))
    found = set(connection.execute("SELECT name, type FROM sqlite_master WHERE type != 'index'"))
    if found != {(name, "table") for name in TABLES}:
        raise DamageError("its tables are not a journal's")
    for table in ("results", "events"):
        for row, text, crc32 in connection.execute(f"SELECT rowid, document, crc32 FROM {table}"):
            decode(text, crc32, f"row {row} of {table}")
    sessions, candidates = read_sessions(connection), read_candidates(connection)
    return len(sessions), len(candidates), len(read_observations(connection, candidates))


def read_header(connection: sqlite3.Connection) -> Header:
    """The header as the run was begun; a DamageError where it is damaged."""
    rows = connection.execute("SELECT document, crc32 FROM header").fetchall()
    if len(rows) != 1:
        raise DamageError(f"it must have one header, but has {len(rows)}")
    return decode_header(*rows[0])


def read_sessions(connection: sqlite3.Connection) -> list[Session]:
    """Every session, in order; a DamageError where one is damaged."""
    header = read_header(connection)
    rows = connection.execute("SELECT number, time, document, crc32 FROM sessions ORDER BY number")
    return [decode_session(header, *row) for row in rows]


def read_candidates(connection: sqlite3.Connection) -> dict[str, Candidate]:
    """Every candidate by its name, in the order of proposal; a DamageError where one is damaged."""
    rows = connection.execute("SELECT id, document, crc32 FROM candidates ORDER BY number")
    return {name: decode_candidate(name, text, crc32) for name, text, crc32 in rows}


def read_observations(
    connection: sqlite3.Connection, candidates: Mapping[str, Candidate]
) -> list[Observation]:
    """Every observation, in the order they came; a DamageError where one is damaged."""
    observations = []
    rows = connection.execute("SELECT candidate, document, crc32 FROM observations ORDER BY number")
    for name, text, crc32 in rows:
        if name not in candidates:
            raise DamageError(f"the observed candidate {name} is missing")
        observations.append(decode_observation(candidates[name], text, crc32))
    return observations


def back_up(connection: sqlite3.Connection, run: Path) -> None:
    """Replaces the backup by a checked copy of what is committed."""
    fresh = run / f"{BACKUP}.new"
    fresh.unlink(missing_ok=True)
    try:
        with closing(connect(fresh, "mode=rwc")) as copy:
            # the copy is synced once, below, and thrown away where anything fails
            copy.execute("PRAGMA synchronous=OFF")
            copy.execute("PRAGMA journal_mode=OFF")
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamageError(" ".join(str(verdict).split()))
        _publish(fresh, run / BACKUP)
    finally:
        _remove(fresh)


def _set_aside(run: Path) -> str | None:
    """Puts the backup in the journal's place and keeps the damaged files under another name.

    Returns:
        That name, None where there was no file to keep.
    """
    fresh = run / f"{JOURNAL}.new"
    try:
        fresh.write_bytes((run / BACKUP).read_bytes())
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        aside = None
        (run / f"{JOURNAL}-shm").unlink(missing_ok=True)
        # the log first: beside the recovered file it would be taken for its own
        for suffix in ("-wal", ""):
            damaged = run / f"{JOURNAL}{suffix}"
            if damaged.exists():
                aside = f"journal.damaged-{stamp}.sqlite"
                damaged.rename(run / f"{aside}{suffix}")
        _publish(fresh, run / JOURNAL)
    finally:
        _remove(fresh)
    return aside


def _publish(fresh: Path, path: Path) -> None:
    """Gives a finished file its name, so that it is there wholly or not at all, power cuts included."""
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove(fresh: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            fresh.with_name(fresh.name + suffix).unlink()
