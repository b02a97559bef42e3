"""Answers that are kept with what they answered, so that a request that is sent twice does its work once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from gpnas.errors import JournalError
from gpnas.journal.documents import decode, encode

if TYPE_CHECKING:
    from gpnas.journal.journal import Journal

KEPT = timedelta(days=1)
"""So long an answer is kept."""
SWEPT = 64
"""Answers after which those that are too old are thrown away."""


@dataclass(frozen=True)
class Answer:
    """What a request was answered."""

    request: str
    """Digest of what was asked."""
    status: int
    body: Any
    """Plain JSON."""
    retry: float | None = None
    """Seconds after which it is worth to ask again; None where nothing was said of that."""


class Answers:
    """The answers of a journal, by the keys of their requests."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def find(self, key: str) -> Answer | None:
        """The answer that was kept under a key; None where none was."""
        with self._journal.reading() as connection:
            rows = connection.execute(
                "SELECT document, crc32 FROM answers WHERE key = ?", (_digest(key),)
            ).fetchall()
        if not rows:
            return None
        try:
            return Answer(**decode(rows[0][0], rows[0][1], "an answer"))
        except TypeError as error:
            raise JournalError(f"{self._journal.run}: a kept answer has another form: {error}") from None

    def keep(self, key: str, answer: Answer) -> None:
        """Keeps an answer; to be called within the transaction that does what it answers."""
        text, crc32 = encode(vars(answer))
        now = datetime.now(UTC)
        with self._journal.writing() as connection:
            row = connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?)",
                (_digest(key), now.isoformat(timespec="milliseconds"), text, crc32),
            ).lastrowid
            if row and row % SWEPT == 0:
                oldest = (now - KEPT).isoformat(timespec="milliseconds")
                connection.execute(  # rows come by time, so that none beyond the first to stay is looked at
                    "DELETE FROM answers WHERE rowid < coalesce((SELECT rowid FROM answers WHERE time >= ? "
                    "ORDER BY rowid LIMIT 1), 0)",
                    (oldest,),
                )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
