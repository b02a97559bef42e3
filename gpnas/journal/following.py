"""A journal's rows in the order in which they came, from wherever a reader left off."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from gpnas.journal.documents import decode, decode_result

ENDED = "ended"
"""Kind of the events that tell of attempts that ended without an observation."""
FORM = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){5}")


@dataclass(frozen=True)
class Cursor:
    """How far a reader has come: the newest row that it has seen of each table, 0 before the first."""

    sessions: int = 0
    candidates: int = 0
    attempts: int = 0
    progress: int = 0
    observations: int = 0
    events: int = 0

    def __str__(self) -> str:
        return ".".join(str(getattr(self, each.name)) for each in fields(self))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """A cursor as `str` writes it.

        Raises:
            ValueError: it is none.
        """
        if not FORM.fullmatch(text):
            raise ValueError(f"a place in a journal must be six numbers with dots, but got {text!r:.80}")
        return cls(*map(int, text.split(".")))


@dataclass(frozen=True)
class Entry:
    """One row of a journal."""

    cursor: Cursor
    """Where whoever has read this one and those before it goes on."""
    kind: str
    """`session`, `candidate`, `attempt`, `progress`, `observation`, `event`, or `ended` for an attempt that
    brought no observation."""
    document: dict[str, Any]


def entries_after(connection: sqlite3.Connection, cursor: Cursor, most: int) -> list[Entry]:
    """The rows that came after a place, at most so many.

    Of attempts these are their starts, and among the events how those ended that brought no observation; of
    progress the evaluations.

    Rows of one table come in the order they were written, tables in the order of `Cursor`. Rows are only
    added, and evaluations never thinned out, so whoever goes on from the last cursor misses none.

    Raises:
        DamageError: a row is not as it was written.
    """
    entries: list[Entry] = []
    for table, kind, row, document in _rows(connection, cursor, most):
        cursor = replace(cursor, **{table: row})
        entries.append(Entry(cursor, kind, document))
        if len(entries) == most:
            break
    return entries


def end_of(connection: sqlite3.Connection) -> Cursor:
    """The place after the newest row."""

    def newest(table: str) -> int:
        where = "WHERE evaluated" if table == "progress" else ""
        return int(connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table} {where}").fetchone()[0])

    return Cursor(*(newest(each.name) for each in fields(Cursor)))


def _rows(
    connection: sqlite3.Connection, cursor: Cursor, most: int
) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    def select(table: str, columns: str, more: str = "") -> list[tuple[Any, ...]]:
        return connection.execute(
            f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? {more} ORDER BY rowid LIMIT ?",
            (getattr(cursor, table), most),
        ).fetchall()

    for row, time in select("sessions", "time"):
        yield "sessions", "session", row, {"time": time, "number": row}
    for row, time, name, text, crc32 in select("candidates", "time, id, document, crc32"):
        yield "candidates", "candidate", row, {"time": time, **decode(text, crc32, name)}
    for row, name, number, started in select("attempts", "candidate, number, started"):
        yield "attempts", "attempt", row, {"time": started, "candidate": name, "number": number}
    columns = "candidate, attempt, step, document, crc32"
    for row, name, attempt, step, text, crc32 in select("progress", columns, "AND evaluated"):
        told = {
            "candidate": name,
            "attempt": attempt,
            "step": step,
            **decode(text, crc32, f"progress of {name}"),
        }
        yield "progress", "progress", row, told
    for row, time, name, text, crc32 in select("observations", "time, candidate, document, crc32"):
        yield (
            "observations",
            "observation",
            row,
            {"time": time, "candidate": name, **decode(text, crc32, name)},
        )
    for row, time, kind, text, crc32 in select("events", "time, kind, document, crc32"):
        document = decode_result(kind, text, crc32, kind)
        if kind == ENDED:
            yield "events", ENDED, row, {"time": time, **document}
        else:
            yield "events", "event", row, {"time": time, "kind": kind, **document}
