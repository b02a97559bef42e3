"""Whether a journal's file is what was written: its tables, their columns, every document in them."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from gpnas.errors import JournalError
from gpnas.files import look_at, opened
from gpnas.journal.documents import (
    APPLICATION,
    TABLES,
    VERSION,
    DamageError,
    declaration,
    decode,
    decode_candidate,
    decode_header,
    decode_lease,
    decode_observation,
    decode_progress,
    decode_result,
    decode_session,
)
from gpnas.journal.header import Header, Session
from gpnas.records import Candidate, Observation, Progress

JOURNAL = "journal.sqlite"
BACKUP = "journal.backup.sqlite"
MOST_BYTES = 2**30
"""Largest file of a journal that is opened."""
BUSY_SECONDS = 20.0
"""So long SQLite waits for another process to let go of the file."""
FILE_VERSIONS = {1, 2}
"""What bytes 18 and 19 of an SQLite file may be (its "Database File Format"): rollback journal, or WAL."""


def _is_time(value: Any) -> bool:
    if not re.fullmatch(r"[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}\.[0-9]{3}\+00:00", str(value)):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_word(value: Any) -> bool:
    return re.fullmatch(r"[a-z][a-z -]{0,39}", str(value)) is not None


COLUMNS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "time": ("a time in ISO 8601, UTC", _is_time),
    "started": ("a time in ISO 8601, UTC", _is_time),
    "ended": ("a time in ISO 8601, UTC, or none", lambda value: value is None or _is_time(value)),
    "outcome": ("a word or none", lambda value: value is None or _is_word(value)),
    "key": ("a word", _is_word),
    "kind": ("a word", _is_word),
    "number": ("at least 1", lambda value: value >= 1),
    "attempt": ("at least 1", lambda value: value >= 1),
    "step": ("at least 0", lambda value: value >= 0),
    "evaluated": ("0 or 1", lambda value: value in (0, 1)),
}
"""Column outside a document to its rule, in words and as a function."""
PLAIN = {
    "sessions": ("number", "time"),
    "candidates": ("time",),
    "attempts": ("number", "started", "ended", "outcome"),
    "progress": ("attempt", "step", "evaluated"),
    "leases": ("attempt",),
    "answers": ("time",),
    "observations": ("time",),
    "results": ("key", "time"),
    "events": ("time", "kind"),
}
"""Table to those of its columns that have a rule of their own."""


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


def check_regular(path: Path) -> None:
    """Refuses a journal's file, or SQLite's log beside it, that is a link, a pipe, a device or too large.

    Raises:
        JournalError: such a file lies there. A missing file is no error.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        each = path.with_name(path.name + suffix)
        with refusing(each):
            look_at(each, most=MOST_BYTES)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns the refusal of a file that is not a regular one into a `JournalError`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise JournalError(
            f"{path}: a file of a run folder is not used where it may be another's: {error}; "
            "remove it, or put back a copy of the file"
        ) from None


def damage_of(path: Path, *, or_unreadable: bool = False, to_write: bool = False) -> str | None:
    """What is wrong with a journal's file, None where nothing is.

    A file that has less in it than its backup is damaged too: its write-ahead log was lost.

    Args:
        path: of the journal or of its backup.
        or_unreadable: report also that this process may not open it.
        to_write: report also what keeps SQLite from writing to it.

    Raises:
        JournalError: an older or a newer gpnas wrote it.
        sqlite3.Error: the file cannot be judged, as when the disk fails.
    """
    # the backup before the journal itself, which only grows: a driver may be at work
    kept = None if path.name == BACKUP else _judge(path.with_name(BACKUP), or_unreadable=True)
    counts = _judge(path, or_unreadable, to_write)
    if isinstance(counts, str):
        return counts
    if isinstance(kept, tuple) and any(more > less for more, less in zip(kept, counts, strict=True)):
        return (
            f"it holds {counts[1]} candidates and {counts[2]} observations, its backup "
            f"{kept[1]} and {kept[2]}"
        )
    return None


def _judge(path: Path, or_unreadable: bool, to_write: bool = False) -> tuple[int, int, int] | str:
    """What `examine` counts, or what is wrong with the file alone; raises as `_damage`."""
    check_regular(path)
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
    if path.name == BACKUP:  # which nobody locks
        with opened(path, most=MOST_BYTES) as file:
            versions = file.read(20)[18:]
        if not set(versions) <= FILE_VERSIONS:
            return f"its file format's versions must be 1 or 2, but are {versions[0]} and {versions[1]}"
    elif to_write and _is_of_another_version(path):
        return "its file format's version is one that SQLite reads but does not write"
    return counts


def _is_of_another_version(path: Path) -> bool:
    """Whether SQLite refuses to write to a file that may be written; it is asked, since a descriptor of one's
    own would give up the locks of this process' other connections when it is closed."""
    with closing(connect(path, "mode=rw")) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_READONLY" or not os.access(path, os.W_OK):
                raise
            return True
    return False


def examine(connection: sqlite3.Connection, path: Path) -> tuple[int, int, int]:
    """Checks a journal to its last document.

    Returns:
        The numbers of sessions, candidates and observations in it.

    Raises:
        DamageError, sqlite3.DatabaseError: it is not as it was written.
        JournalError: an older or a newer gpnas wrote it.
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
        strange = _strange_table(connection)
        if strange and 1 <= version < VERSION:
            raise JournalError(
                f"{path}: this gpnas reads journals of version {VERSION}, but got version {version}, "
                f"{strange}; an older gpnas wrote it: look at it with that, or search anew in another folder"
            )
        if strange:
            raise DamageError(f"its tables are not a journal's, {strange}")
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
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise DamageError(" ".join(str(verdict).split()))
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        raise DamageError(f"row {row} of {table} must belong to a row of {parent}, but there is none")
    sessions = len(read_sessions(connection))
    for table, columns in PLAIN.items():
        for row, *values in connection.execute(f"SELECT rowid, {', '.join(columns)} FROM {table}"):
            for column, value in zip(columns, values, strict=True):
                rule, holds = COLUMNS[column]
                if not holds(value):
                    raise DamageError(
                        f"row {row} of {table}: `{column}` must be {rule}, but got {value!r:.60}"
                    )
    for table in ("candidates", "attempts", "results", "events"):
        for row, session in connection.execute(f"SELECT rowid, session FROM {table}"):
            if not 1 <= session <= sessions:
                raise DamageError(
                    f"row {row} of {table}: `session` must be one of the {sessions}, but got {session}"
                )
    for table, column in (("results", "key"), ("events", "kind")):
        for key, text, crc32 in connection.execute(f"SELECT {column}, document, crc32 FROM {table}"):
            decode_result(key, text, crc32, f"{key} of {table}")
    candidates = read_candidates(connection)
    for name in candidates:
        read_progress(connection, name)
    for row in connection.execute("SELECT id, document, crc32 FROM leases"):
        decode_lease(*row)
    for row in connection.execute("SELECT document, crc32, 'an answer' FROM answers"):
        decode(*row)
    return sessions, len(candidates), len(read_observations(connection, candidates))


def _strange_table(connection: sqlite3.Connection) -> str:
    """What today's making of a journal did not make, or is missing: tables, columns, triggers, views."""
    wanted = {("table", name): declaration(name) for name in TABLES}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        if sql is None and name.startswith("sqlite_autoindex_"):  # of a table's own UNIQUE or PRIMARY KEY
            continue
        if wanted.pop((kind, name), None) != sql:
            return f"as the {kind} {name!r:.60} shows"
    return "".join(f"since {name} is missing" for _, name in list(wanted)[:1])


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


def read_candidates(connection: sqlite3.Connection, after: int = 0) -> dict[str, Candidate]:
    """Candidates by their names, in the order of proposal, without the first so many; a DamageError where
    one is damaged."""
    rows = connection.execute(
        "SELECT id, document, crc32 FROM candidates WHERE number > ? ORDER BY number", (after,)
    )
    return {name: decode_candidate(name, text, crc32) for name, text, crc32 in rows}


def read_observations(
    connection: sqlite3.Connection, candidates: Mapping[str, Candidate], after: int = 0
) -> list[Observation]:
    """Observations, in the order they came, without the first so many; a DamageError where one is damaged."""
    observations = []
    rows = connection.execute(
        "SELECT candidate, document, crc32 FROM observations WHERE number > ? ORDER BY number", (after,)
    )
    for name, text, crc32 in rows:
        if name not in candidates:
            raise DamageError(f"the observed candidate {name} is missing")
        observations.append(decode_observation(candidates[name], text, crc32))
    return observations


def read_progress(connection: sqlite3.Connection, candidate: str) -> list[Progress]:
    """What a candidate's attempts reported, by attempt and step; a DamageError where a row is damaged."""
    rows = connection.execute(
        "SELECT attempt, step, document, crc32 FROM progress WHERE candidate = ? ORDER BY attempt, step",
        (candidate,),
    )
    return [decode_progress(candidate, *row) for row in rows]
