"""Requests that begin a search or are about its driver, done once for each key: what they do lies outside any
journal's transaction.

A request is entered before anything is done and its answer after. Where the service dies in between, the same
request is told that it may have been done, and finds out by looking.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpnas.files import SERVICE
from gpnas.journal import Answer
from gpnas.journal.answers import Ages, digest
from gpnas.journal.files import now
from gpnas.service.problems import Problem, another_request
from gpnas.service.tokens import FILE


class Requests:
    """The requests of a service, in its own file. Its methods may be called from several threads."""

    def __init__(self, runs: Path) -> None:
        """Opens the file of a service's folder, whose tokens are open.

        Raises:
            Problem: the file cannot be used.
        """
        self._path = runs / SERVICE / FILE
        self._guard = threading.Lock()
        self._doing: dict[str, threading.Lock] = {}
        with self._errors():
            self._connection = sqlite3.connect(
                self._path, timeout=20.0, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, request TEXT NOT NULL, "
                "time TEXT NOT NULL, answer TEXT) STRICT"
            )
            (newest,) = self._connection.execute("SELECT coalesce(max(rowid), 0) FROM requests").fetchone()
        self._ages = Ages(newest)

    def close(self) -> None:
        """Lets go of the file."""
        with self._guard:
            self._connection.close()

    def once(self, key: str | None, request: Any, do: Callable[[bool], Answer]) -> Answer:
        """Does something once for each key.

        Args:
            key: of the request; None does it anyway.
            request: what is asked, plain JSON.
            do: does it; called with whether it may have been done before, by a service that died meanwhile.

        Raises:
            Problem: another request came with the key before. What `do` raises is not kept.
        """
        if key is None:
            return do(False)
        asked, name = digest(json.dumps(request, sort_keys=True)), digest(key)
        with self._guard:
            turn = self._doing.setdefault(name, threading.Lock())
        try:
            with turn:
                kept, again = self._entered(name, asked)
                return kept or self._done(name, asked, do, again)
        finally:
            with self._guard:
                self._doing.pop(name, None)

    def _done(self, name: str, asked: str, do: Callable[[bool], Answer], again: bool) -> Answer:
        """Does what is asked, and keeps the answer."""
        try:
            answer = replace(do(again), request=asked)
        except BaseException:
            self._write("DELETE FROM requests WHERE key = ?", name)
            raise
        text = json.dumps({"status": answer.status, "body": answer.body})
        self._write("UPDATE requests SET answer = ? WHERE key = ?", text, name)
        return answer

    def _entered(self, name: str, asked: str) -> tuple[Answer | None, bool]:
        """The answer that is kept, or None; and whether the request was entered before."""
        with self._guard, self._errors():
            row = self._connection.execute(
                "SELECT request, answer FROM requests WHERE key = ?", (name,)
            ).fetchone()
            if row is None:
                entered = self._connection.execute(
                    "INSERT INTO requests VALUES (?, ?, ?, NULL)", (name, asked, now())
                ).lastrowid
                past = self._ages.past(entered or 0)
                self._connection.execute("DELETE FROM requests WHERE rowid <= ?", (past,))
                return None, False
        if row[0] != asked:
            raise another_request()
        return (None, True) if row[1] is None else (Answer(asked, **json.loads(row[1])), True)

    def _write(self, statement: str, *values: str) -> None:
        with self._guard, self._errors():
            self._connection.execute(statement, values)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
            if full:
                text = f"the disk must have room for {FILE}, but it is full; free some space, and ask again"
                raise Problem(507, text) from None
            raise Problem(500, f"{FILE} of the service must be readable and writable, but {error}") from None
