"""Answers that are kept with what they answered, so that a request that is sent twice does its work once."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpnas.errors import JournalError
from gpnas.journal.documents import decode, encode
from gpnas.journal.files import now

if TYPE_CHECKING:
    from gpnas.journal.journal import Journal

KEPT_SECONDS = 86_400.0
"""So long an answer is kept, as the clock counts that nobody sets."""
KEPT = 100_000
"""Answers that are kept, at most."""
SWEPT = 64
"""Answers after which those that are too old are thrown away."""


class Ages:
    """How long rows have been there, by a clock that is never set.

    What was there before counts from the beginning: the clock of former times is not known, and the wall's
    may have jumped.
    """

    def __init__(self, newest: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins.

        Args:
            newest: number of the newest row that is there.
            clock: seconds that never go back.
        """
        self._clock = clock
        self._marks = deque([(clock(), newest)])

    def past(self, newest: int) -> int:
        """The number of the newest row that need not be kept any longer, now that another came."""
        now, past = self._clock(), newest - KEPT
        self._marks.append((now, newest))
        while now - self._marks[0][0] > KEPT_SECONDS or self._marks[0][1] < past:
            past = max(past, self._marks.popleft()[1])
        return min(past, newest - 1)


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
        with journal.reading() as connection:
            (newest,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM answers").fetchone()
        self._ages = Ages(newest)

    def find(self, key: str) -> Answer | None:
        """The answer that was kept under a key; None where none was."""
        with self._journal.reading() as connection:
            rows = connection.execute(
                "SELECT document, crc32 FROM answers WHERE key = ?", (digest(key),)
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
        with self._journal.writing() as connection:
            row = connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?)", (digest(key), now(), text, crc32)
            ).lastrowid
            if row and row % SWEPT == 0:
                connection.execute("DELETE FROM answers WHERE rowid <= ?", (self._ages.past(row),))


def digest(text: str) -> str:
    """What stands for a request, or for its key, where it need not be known itself."""
    return hashlib.sha256(text.encode()).hexdigest()
