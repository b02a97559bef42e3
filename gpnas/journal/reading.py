"""What may be read of a journal, by its driver or by anyone else."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from gpnas.errors import JournalError
from gpnas.journal import examining, files
from gpnas.journal.documents import decode, decode_candidate, decode_observation, read_record
from gpnas.journal.entries import Attempt, Moment
from gpnas.journal.following import Cursor, Entry, end_of, entries_after
from gpnas.journal.header import Header, Session
from gpnas.records import Architecture, Candidate, Observation, Progress, Prospect

R = TypeVar("R")
PROSPECT = "prospect"
"""Name of the result that a search renews with what its surrogate makes of it, and of the events that keep
all of them."""


class Reading:
    """A journal's rows as records; each method sees one moment of them, and takes turns with other threads.

    All raise `JournalError`, in one line, where the file is damaged or cannot be read.
    """

    def __init__(self, run: Path, connection: sqlite3.Connection, note: str | None) -> None:
        """Takes a connection that is open."""
        self.run = run
        """The run folder."""
        self.note = note
        """One line for the user where the file was damaged and its backup served, else None."""
        self._path = run / examining.JOURNAL
        self._connection = connection
        self._guard = threading.RLock()

    @property
    def header(self) -> Header:
        """What the run is, as its newest session has it."""
        with self.reading() as connection:
            sessions = examining.read_sessions(connection)
            return sessions[-1].header if sessions else examining.read_header(connection)

    @property
    def first_header(self) -> Header:
        """What the run was begun as."""
        with self.reading() as connection:
            return examining.read_header(connection)

    def setup(self, form: type[R]) -> R:
        """The header's `setup`, read as a record.

        Args:
            form: a dataclass, checked by the types of its fields.

        Raises:
            JournalError: it is no such record.
        """
        with files.errors(self._path):
            return read_record(form, self.header.setup, "header, `setup`")

    def prospects(self) -> list[Prospect]:
        """What the surrogate made of the search after each observation, in order."""
        told = [each for _, kind, each in self.events() if kind == PROSPECT]
        with files.errors(self._path):
            return [read_record(Prospect, each, PROSPECT) for each in told]

    def said(self, after: int = 0) -> tuple[int, list[tuple[str, dict[str, Any]]]]:
        """What people said of the search, in order: what they want or veto, that it is stopped or goes on.

        Args:
            after: so many rows of events are left out, whatever they tell.

        Returns:
            How many rows of events there are, and the kind and details of those that people said.
        """
        with self.reading() as connection:
            (newest,) = connection.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
            rows = connection.execute(
                "SELECT kind, document, crc32 FROM events WHERE number > ? "
                "AND kind IN ('wanted', 'vetoed', 'stopped', 'gone on') ORDER BY number",
                (after,),
            )
            return int(newest), [(kind, decode(text, crc32, kind)) for kind, text, crc32 in rows]

    def words(self) -> list[tuple[str, Architecture]]:
        """What people want to be trained (`wanted`), or not (`vetoed`), in order; the last word counts."""
        _, said = self.said()
        return [(kind, Architecture.from_json(each)) for kind, each in said if kind in ("wanted", "vetoed")]

    def count(self, table: Literal["candidates", "observations"] = "candidates") -> int:
        """How many candidates, or observations, there are."""
        with self.reading() as connection:
            # rows are only added, so the newest has the number that there are
            return int(connection.execute(f"SELECT coalesce(max(number), 0) FROM {table}").fetchone()[0])

    def candidates(self, after: int = 0) -> list[Candidate]:
        """Every candidate, in the order of proposal, without the first so many."""
        with self.reading() as connection:
            return list(examining.read_candidates(connection, after).values())

    def candidate(self, name: str) -> Candidate:
        """The candidate of a name; a JournalError where there is none."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT document, crc32 FROM candidates WHERE id = ?", (name,)
            ).fetchall()
            if not rows:
                (count,) = connection.execute("SELECT count(*) FROM candidates").fetchone()
                raise JournalError(
                    f"{self.run}: a candidate must be one of the run's {count}, but there is no {name!r:.60}"
                )
            return decode_candidate(name, *rows[0])

    def observation(self, name: str) -> Observation | None:
        """What was observed of a candidate; None while nothing was."""
        candidate = self.candidate(name)
        with self.reading() as connection:
            rows = connection.execute("SELECT document, crc32 FROM observations WHERE candidate = ?", (name,))
            return next((decode_observation(candidate, *row) for row in rows), None)

    def observations(
        self, after: int = 0, candidates: Mapping[str, Candidate] | None = None
    ) -> list[Observation]:
        """Every observation, in the order they were committed, without the first so many.

        Args:
            after: so many are left out.
            candidates: by their names, all that are observed; None reads them.
        """
        with self.reading() as connection:
            if candidates is None:
                candidates = examining.read_candidates(connection)
            return examining.read_observations(connection, candidates, after)

    def moments(self) -> list[Moment]:
        """When each candidate was proposed, in the order of proposal."""
        with self.reading() as connection:
            candidates = examining.read_candidates(connection)
            rows = connection.execute(
                "SELECT id, time, session, "
                "(SELECT count(*) FROM observations WHERE observations.time <= candidates.time) "
                "FROM candidates ORDER BY number"
            ).fetchall()
        moments = []
        for name, proposed, session, committed in rows:
            known = candidates[name].decision.get("observations")
            known = committed if known is None else int(known)
            moments.append(Moment(candidates[name], proposed, session, known))
        return moments

    def pending(self) -> list[Candidate]:
        """The candidates without an observation, in the order of proposal."""
        with self.reading() as connection:
            observed = {name for (name,) in connection.execute("SELECT candidate FROM observations")}
            candidates = examining.read_candidates(connection)
        return [candidate for name, candidate in candidates.items() if name not in observed]

    def attempts(self, candidate: str | None = None) -> list[Attempt]:
        """The attempts at one candidate, or at all, by candidate and number."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT candidate, number, started, ended, outcome FROM attempts "
                "WHERE ? IS NULL OR candidate = ? ORDER BY candidate, number",
                (candidate, candidate),
            )
            return [Attempt(*row) for row in rows]

    def progress(self, candidate: str) -> list[Progress]:
        """What a candidate's attempts reported on their way, by attempt and step."""
        with self.reading() as connection:
            return examining.read_progress(connection, candidate)

    def result(self, key: str) -> dict[str, Any] | None:
        """What `set_result` kept under this name, None where nothing is."""
        with self.reading() as connection:
            rows = connection.execute("SELECT document, crc32 FROM results WHERE key = ?", (key,))
            return next((decode(text, crc32, f"result {key}") for text, crc32 in rows), None)

    def result_session(self, key: str) -> int | None:
        """The number of the session that set a result, None where none did."""
        with self.reading() as connection:
            row = connection.execute("SELECT session FROM results WHERE key = ?", (key,)).fetchone()
            return int(row[0]) if row else None

    def sessions(self) -> dict[int, Session]:
        """Every opening by a driver, by its number, in order."""
        with self.reading() as connection:
            return {session.number: session for session in examining.read_sessions(connection)}

    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Time, kind and details of what is worth knowing later, such as a recovery, in order."""
        with self.reading() as connection:
            rows = connection.execute("SELECT time, kind, document, crc32 FROM events ORDER BY number")
            return [(time, kind, decode(text, crc32, kind)) for time, kind, text, crc32 in rows]

    def after(self, cursor: Cursor, most: int = 1_000) -> list[Entry]:
        """What came after a place, in order, at most so many rows."""
        with self.reading() as connection:
            return entries_after(connection, cursor, most)

    def end(self) -> Cursor:
        """The place after the newest row."""
        with self.reading() as connection:
            return end_of(connection)

    def version(self) -> int:
        """A number that changes whenever another process has written, for who keeps what was read."""
        with self._guard, files.errors(self._path):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def moment(self) -> Iterator[None]:
        """What is read within this context belongs to one moment, though the driver goes on writing."""
        with self.reading():
            yield

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One moment of the journal, or the transaction that is under way."""
        with self._guard, files.errors(self._path):
            if self._connection.in_transaction:
                yield self._connection
                return
            with examining.snapshot(self._connection):
                yield self._connection
