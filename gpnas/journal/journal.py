"""The journal of one search: what was proposed, attempted, observed and delivered."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from gpnas.errors import JournalError
from gpnas.journal import examining, files
from gpnas.journal.documents import (
    decode_header,
    encode,
    encode_candidate,
    encode_observation,
    encode_progress,
    explain,
    plain,
)
from gpnas.journal.following import ENDED
from gpnas.journal.header import Header
from gpnas.journal.identity import check_same
from gpnas.journal.leases import Leases
from gpnas.journal.reading import PROSPECT, Reading
from gpnas.records import Candidate, Observation, Progress, Prospect

log = logging.getLogger(__name__)
BACKUP_SHARE = 0.1
"""Largest share of the time that the backup of a journal may take that several processes write."""


class Journal(Reading, AbstractContextManager["Journal"]):
    """One search's journal, open for its one driver or for a reader; a context manager.

    What a method has committed survives the death of the process and of the machine: each commit is
    synced to the disk before the method returns. Its methods may be called from several threads.
    All raise `JournalError`, in one line, where the disk is full or fails.
    """

    def __init__(
        self,
        run: Path,
        connection: sqlite3.Connection,
        lock: int | None,
        note: str | None,
        *,
        shared: bool = False,
    ) -> None:
        """Use `create_or_open`, `share` or `read`."""
        super().__init__(run, connection, note)
        self._lock = lock
        self._session = 0
        self._shared = shared
        self._in_writing = False
        self._stale = False
        self._next_backup = 0.0
        self._backing: threading.Thread | None = None
        self.undone = 0
        """How often something that was written here was undone, for who keeps what was read."""

    @classmethod
    def create_or_open(cls, run: Path, header: Header) -> Journal:
        """The journal of a run folder, made where there is none yet, for the one driver of the run.

        Args:
            run: the run folder; made where it is missing.
            header: what the run is. Going on with one needs an equal header, except for the fields in
                `SESSION`. Of a part that has a `fingerprint`, the fingerprint decides.

        Raises:
            JournalError: the run belongs to another search (the line names what differs), another
                process holds it, or its file is damaged beyond its backup.
        """
        return cls._open(Path(run), header)

    @classmethod
    def share(cls, run: Path, header: Header | None = None) -> Journal:
        """The journal of a run folder, for one of several processes of this machine that write it in turns.

        Each transaction is one process's alone. While any of them has it open, no driver gets it; while a
        driver has it, none of them does. A backup may miss what was committed in the last moments.

        Args:
            run: the run folder; made where it is missing and there is a header.
            header: what the run is, as `create_or_open` takes it; None takes the run as it is.

        Raises:
            JournalError: as `create_or_open`; and where the file is damaged while another process uses it.
        """
        run = Path(run)
        if header is None and not cls.exists(run):
            files.open_to_read(run)  # says what is missing
        return cls._open(run, header, shared=True)

    @classmethod
    def _open(cls, run: Path, header: Header | None, *, shared: bool = False) -> Journal:
        """The journal, open to write, by the run's one driver or, where it is shared, by several in turns."""
        with ExitStack() as undone, files.errors(run / examining.JOURNAL):
            run.mkdir(parents=True, exist_ok=True)
            with files.turn(run, files.OPENING) if shared else nullcontext():
                lock, alone = files.acquire(run, shared=shared)
                undone.callback(files.release, lock)
                if header is not None and not cls.exists(run):
                    files.create(run, _writable(header))
                connection, note = files.open_to_write(run, recover=alone)
                undone.callback(connection.close)
                if shared and alone:
                    files.relax(run, lock)
            journal = cls(run, connection, lock, note, shared=shared)
            if shared or header is None:
                journal._join(header)
            else:
                journal._begin_session(header)
            undone.pop_all()
        return journal

    @staticmethod
    def exists(run: Path) -> bool:
        """Whether a folder is a run folder with a journal, damaged or not."""
        return (run / examining.JOURNAL).exists() or (run / examining.BACKUP).exists()

    @classmethod
    def read(cls, run: Path, *, check: bool = True) -> Journal:
        """The journal of a run folder, for reading, also while its driver writes.

        Args:
            run: the run folder.
            check: whether all of it is looked at first; not needed where this process did so before.

        Raises:
            JournalError: there is none, or it is damaged beyond its backup.
        """
        run = Path(run)
        with files.errors(run / examining.JOURNAL):
            connection, note = files.open_to_read(run, check=check)
        return cls(run, connection, None, note)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file and of the lock."""
        if self._backing is not None:
            self._backing.join()
        with self._guard:
            if self._stale and self._lock is not None:
                with suppress(JournalError, sqlite3.Error, OSError), files.errors(self._path):
                    self._renew_backup(self._connection)
            self._connection.close()
            if self._lock is not None:
                files.release(self._lock)
                self._lock = None

    def begin_session(self, header: Header) -> None:
        """Goes on under another header, such as one that grants more trials.

        Raises:
            JournalError: the header is another search's.
        """
        written = _writable(header)
        self._check_identity(written)
        with self.writing() as connection:
            self._enter_session(connection, written)

    def commit_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Enters candidates, all or none; to be called before any is trained.

        Raises:
            JournalError: one has the name of an earlier one, or cannot be written as JSON.
        """
        rows = [(candidate.id, *_encoded(encode_candidate, candidate)) for candidate in candidates]
        with self.writing(keep=True) as connection:
            for name, text, crc32 in rows:
                if connection.execute("SELECT 1 FROM candidates WHERE id = ?", (name,)).fetchone():
                    raise JournalError(
                        f"{self._path}: a candidate is entered once, but {name} is there already"
                    )
                connection.execute(
                    "INSERT INTO candidates (time, session, id, document, crc32) VALUES (?, ?, ?, ?, ?)",
                    (files.now(), self._session, name, text, crc32),
                )

    def start_attempt(self, candidate: str, number: int | None = None) -> int:
        """Enters the start of an attempt and returns its number.

        Args:
            candidate: name of a committed candidate.
            number: of the attempt where the caller counts, else one more than the last.
        """
        with self.writing() as connection:
            self._require(connection, candidate)
            if number is None:
                (last,) = connection.execute(
                    "SELECT max(number) FROM attempts WHERE candidate = ?", (candidate,)
                ).fetchone()
                number = (last or 0) + 1
            connection.execute(
                "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, NULL, NULL)",
                (candidate, number, self._session, files.now()),
            )
        return number

    def end_attempt(self, candidate: str, number: int, outcome: str) -> None:
        """Enters how an attempt ended without an observation, in a word such as `lost`; also as an event."""
        with self.writing() as connection:
            found = connection.execute(
                "UPDATE attempts SET ended = ?, outcome = ? WHERE candidate = ? AND number = ?",
                (files.now(), plain(outcome), candidate, number),
            )
            if found.rowcount != 1:
                raise JournalError(
                    f"{self._path}: an attempt must start before it ends, but attempt {number} of "
                    f"{candidate} has not"
                )
            self._enter_ends([(candidate, number, outcome)])

    def end_open_attempts(self, outcome: str, candidate: str | None = None, but: int = 0) -> None:
        """Ends every attempt that is under way without an observation.

        Args:
            outcome: a word, such as `interrupted`.
            candidate: whose attempts; None is everyone's.
            but: number of an attempt that goes on.
        """
        with self.writing() as connection:
            ended = connection.execute(
                "UPDATE attempts SET ended = ?1, outcome = ?2 "
                "WHERE ended IS NULL AND (?3 IS NULL OR candidate = ?3) AND number != ?4 "
                "RETURNING candidate, number",
                (files.now(), outcome, candidate, but),
            ).fetchall()
            self._enter_ends((name, number, outcome) for name, number in ended)

    def _enter_ends(self, ends: Iterable[tuple[str, int, str]]) -> None:
        """Enters attempts' ends as events, since rows of attempts change and events are only added."""
        for candidate, number, outcome in ends:
            document = {"candidate": candidate, "number": number, "outcome": plain(outcome)}
            self.enter_event(ENDED, document)

    def record_progress(self, candidate: str, progress: Progress) -> None:
        """Enters what an attempt at a candidate reported on its way.

        Evaluations are kept; of what comes between two of them, only the last. It is not synced by
        itself, since a training can tell it again; the next commit of another kind syncs it.
        """
        text, crc32 = _encoded(encode_progress, progress)
        with self.writing(durable=False) as connection:
            self._require(connection, candidate)
            connection.execute(
                "DELETE FROM progress WHERE candidate = ? AND attempt = ? AND NOT evaluated AND step = "
                "(SELECT max(step) FROM progress WHERE candidate = ? AND attempt = ?)",
                2 * (candidate, progress.attempt),
            )
            connection.execute(
                "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?)",
                (candidate, progress.attempt, progress.step, progress.value is not None, text, crc32),
            )

    def commit_observation(self, observation: Observation) -> bool:
        """Enters what a candidate's trial told, and with it, in one transaction, that its attempt ended.

        Returns:
            False where the candidate has been observed before: the first observation stays.

        Raises:
            JournalError: the candidate was never committed.
        """
        text, crc32 = _encoded(encode_observation, observation)
        name = observation.candidate.id
        with self.writing(keep=True) as connection:
            self._require(connection, name)
            found = connection.execute(
                "INSERT OR IGNORE INTO observations (time, candidate, document, crc32) VALUES (?, ?, ?, ?)",
                (files.now(), name, text, crc32),
            )
            connection.execute(
                "UPDATE attempts SET ended = ?, outcome = ? WHERE candidate = ? AND ended IS NULL",
                (files.now(), outcome_of(observation), name),
            )
            return found.rowcount == 1

    def set_result(self, key: str, document: Mapping[str, Any], *, durable: bool = True) -> None:
        """Keeps a result of the search under a name; an earlier one of that name is replaced.

        Args:
            key: its name.
            document: plain JSON values.
            durable: what can be computed again need not be; the next commit of another kind syncs it.
        """
        text, crc32 = _encoded(encode, document)
        with self.writing(durable=durable, keep=durable) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)",
                (key, files.now(), self._session, text, crc32),
            )

    @cached_property
    def leases(self) -> Leases:
        """Who may train which candidate, and until when."""
        return Leases(self)

    def keep_prospect(self, prospect: Prospect) -> None:
        """Enters what the surrogate makes of the search, once for each number of observations.

        It is not synced by itself, since it can be computed again; the next commit of another kind syncs it.
        """
        document = asdict(prospect)
        with self.writing(durable=False) as connection:
            self.set_result(PROSPECT, document, durable=False)
            known = connection.execute(
                "SELECT 1 FROM events WHERE kind = ? AND json_extract(document, '$.observations') = ?",
                (PROSPECT, prospect.observations),
            ).fetchone()
            if known is None:
                self.enter_event(PROSPECT, document)

    def enter_event(self, kind: str, document: Mapping[str, Any]) -> None:
        """Enters what is worth knowing later, under a word such as `late`."""
        text, crc32 = _encoded(encode, document)
        with self.writing() as connection:
            connection.execute(
                "INSERT INTO events (time, session, kind, document, crc32) VALUES (?, ?, ?, ?, ?)",
                (files.now(), self._session, kind, text, crc32),
            )

    def _begin_session(self, header: Header) -> None:
        with self.writing(keep=True):
            self.begin_session(header)
            self._enter_recovery()
            # the lock is ours, so whoever began these is gone
            self.end_open_attempts("interrupted")

    def _join(self, header: Header | None) -> None:
        """Takes part in the newest session, or begins one where it has another header."""
        if header is not None:
            header = _writable(header)
            self._check_identity(header)
        with self.writing() as connection:
            sessions = examining.read_sessions(connection)
            wanted = header or (sessions[-1].header if sessions else examining.read_header(connection))
            if sessions and wanted.session() == sessions[-1].header.session() and not self.note:
                self._session = sessions[-1].number
            else:
                self._enter_session(connection, wanted)
                self._enter_recovery()

    def _check_identity(self, header: Header) -> None:
        with self.reading() as connection:
            check_same(self.run, examining.read_header(connection), header)

    def _enter_session(self, connection: sqlite3.Connection, header: Header) -> None:
        entered = connection.execute(
            "INSERT INTO sessions (time, document, crc32) VALUES (?, ?, ?)",
            (files.now(), *encode({"pid": os.getpid(), "header": header.session()})),
        )
        self._session = int(entered.lastrowid or 0)

    def _enter_recovery(self) -> None:
        if self.note:
            self.enter_event("recovered", {"note": self.note})

    def _require(self, connection: sqlite3.Connection, candidate: str) -> None:
        if not connection.execute("SELECT 1 FROM candidates WHERE id = ?", (candidate,)).fetchone():
            raise JournalError(
                f"{self._path}: a candidate must be committed before its trial, but {candidate} is not there"
            )

    @contextmanager
    def writing(self, *, durable: bool = True, keep: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is committed, or nothing. One within another is a part of that.

        Args:
            durable: wait until it is on the disk.
            keep: renew the backup.
        """
        with self._guard, files.errors(self._path):
            if self._lock is None:
                raise JournalError(
                    f"{self._path}: only a run's driver may write, but this journal is not its"
                )
            connection = self._connection
            if self._in_writing:  # this thread's own, since it has the guard
                self._stale |= keep
                yield connection
                return
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            self._in_writing, before = True, (connection.total_changes, self._session)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._undo(*before)
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._in_writing = False
            self._stale |= keep
            if self._stale:
                self._back_up()

    def _undo(self, changes: int, session: int) -> None:
        """Takes note that what was written since is undone."""
        self.undone += self._connection.total_changes != changes
        self._session = session

    @property
    def is_writing(self) -> bool:
        """Whether a transaction is under way that can still be committed."""
        return self._in_writing and self._connection.in_transaction

    @contextmanager
    def apart(self) -> Iterator[None]:
        """A part of the transaction under way that is undone alone where it fails, so that several who write
        may share a commit."""
        connection, before = self._connection, (self._connection.total_changes, self._session)
        assert self._in_writing, "a part belongs to a transaction"
        with files.errors(self._path):
            connection.execute("SAVEPOINT apart")
            try:
                yield
            except BaseException:
                self._undo(*before)
                if connection.in_transaction:  # SQLite has ended it by itself where the disk failed
                    connection.execute("ROLLBACK TO apart")
                    connection.execute("RELEASE apart")
                raise
            connection.execute("RELEASE apart")

    def _back_up(self) -> None:
        """Renews the backup; where several write, in a thread and not oftener than it pays."""
        if not self._shared:
            files.back_up(self._connection, self.run)
            self._stale = False
        elif time.monotonic() >= self._next_backup and not (self._backing and self._backing.is_alive()):
            self._stale = False
            self._backing = threading.Thread(target=self._back_up_meanwhile, name="backup", daemon=True)
            self._backing.start()

    def _back_up_meanwhile(self) -> None:
        """Renews the backup through a connection of its own, so that nobody who writes waits for it."""
        begun = time.monotonic()
        try:
            with files.errors(self._path), closing(examining.connect(self._path, "mode=ro")) as connection:
                self._renew_backup(connection)
        except JournalError as error:
            self._stale = True  # the next commit tries again
            log.warning("%s", error)
        ended = time.monotonic()
        self._next_backup = ended + (ended - begun) / BACKUP_SHARE

    def _renew_backup(self, connection: sqlite3.Connection) -> None:
        # in turns, so that what came later is not replaced by what came before
        with files.turn(self.run, files.BACKING):
            files.back_up(connection, self.run)


def outcome_of(observation: Observation) -> str:
    """How the trial of an observation ended, in a word."""
    if observation.failed:
        return "failed"
    return "observed" if observation.finished else "stopped"


def _encoded(encoder: Any, value: Any) -> tuple[str, int]:
    try:
        text, crc32 = encoder(value)
    except (TypeError, ValueError) as error:
        raise JournalError(f"a journal holds checked JSON documents, but {explain(error)}") from None
    return text, crc32


def _writable(header: Header) -> Header:
    """A header as it will be read."""
    text, crc32 = _encoded(encode, header.to_json())
    return decode_header(text, crc32)
