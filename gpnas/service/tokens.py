"""Who may do what: tokens with roles, hashed at rest, in one SQLite file beside the runs.

A token reads `gpnas_ID_SECRET`. The file holds of it the ID and the SHA-256 of the secret, which has 256
random bits, so that no slow hash is needed; a thief of the file learns no token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from gpnas.errors import GpnasError
from gpnas.files import SERVICE, look_at, read

Role = Literal["read", "work", "own"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may what those before it may: look; ask, tell and wish; begin, end and delete."""
FILE = "service.sqlite"
TOKEN = "token"
"""File with the token of whoever started the service, readable by its owner alone."""
FORM = re.compile(r"gpnas_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
MOST_BYTES = 2**30
NOBODY = hashlib.sha256(b"nobody").hexdigest()


class TokenError(GpnasError):
    """A token cannot be made, found or kept."""


@dataclass(frozen=True)
class Token:
    """What is known of a token, without its secret."""

    id: str
    role: Role
    name: str
    """What it is for, in its maker's words."""
    made: str
    """ISO 8601, UTC."""
    revoked: str | None
    """When it ceased to be valid; None while it is."""

    def may(self, role: Role) -> bool:
        """Whether it may do what needs a role."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Tokens(AbstractContextManager["Tokens"]):
    """The tokens of a folder of runs; a context manager. Threads and processes may share the file."""

    def __init__(self, runs: Path) -> None:
        """Opens the file, which is made where it is missing.

        Raises:
            TokenError: the file cannot be used.
        """
        self.folder = runs / SERVICE
        self._path = self.folder / FILE
        self._guard = threading.Lock()
        self._version: tuple[int, int] | None = None
        self._rows: dict[str, tuple[Any, ...]] = {}
        with self._errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for suffix in ("", "-wal", "-shm"):
                look_at(self._path.with_name(FILE + suffix), most=MOST_BYTES)
            with suppress(FileExistsError):  # only a new one, which no connection of this process has open
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.chmod(self._path, 0o600)
            self._connection = sqlite3.connect(
                self._path, timeout=20.0, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA trusted_schema=OFF")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS tokens (id TEXT PRIMARY KEY, role TEXT NOT NULL, "
                "name TEXT NOT NULL, hash TEXT NOT NULL, made TEXT NOT NULL, revoked TEXT) STRICT"
            )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        with self._guard:
            self._connection.close()

    def make(self, role: Role, name: str = "") -> tuple[Token, str]:
        """A new token.

        Returns:
            What is known of it, and the token itself, which nothing can tell again.

        Raises:
            TokenError: the name is no single line of at most 80 characters.
        """
        if len(name) > 80 or not name.isprintable():
            raise TokenError(
                f"a token's name must be one line of at most 80 characters, but got {name!r:.100}"
            )
        token = Token(secrets.token_hex(6), role, name, _now(), None)
        secret = secrets.token_urlsafe(32)
        with self._guard, self._errors():
            self._connection.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, NULL)",
                (token.id, role, name, _hash(secret), token.made),
            )
        return token, f"gpnas_{token.id}_{secret}"

    def all(self) -> list[Token]:
        """Every token, in the order they were made."""
        with self._guard, self._errors():
            rows = self._connection.execute(
                "SELECT id, role, name, made, revoked FROM tokens ORDER BY made, id"
            )
            return [Token(*row) for row in rows]

    def revoke(self, name: str) -> Token:
        """Ends the validity of a token, at once and for ever.

        Args:
            name: its ID.

        Raises:
            TokenError: there is none of this ID.
        """
        with self._guard, self._errors():
            self._connection.execute(
                "UPDATE tokens SET revoked = ? WHERE id = ? AND revoked IS NULL", (_now(), name)
            )
        for token in self.all():
            if token.id == name:
                return token
        raise TokenError(f"a token's ID must be one that `gpnas token list` shows, but got {name!r:.40}")

    def whose(self, text: str) -> Token | None:
        """What is known of a valid token; None of any other text.

        Takes the same time whatever the secret, so that its time tells nothing.
        """
        form = FORM.fullmatch(text)
        name, secret = form.groups() if form else ("", "")
        expected, *rest = self._row(name) or (NOBODY, "", "read", "", "", _now())
        same = hmac.compare_digest(_hash(secret), expected)
        token = Token(*rest)
        return token if same and token.revoked is None else None

    def _row(self, name: str) -> tuple[Any, ...] | None:
        """What the file holds of a token, read once while nobody writes to it."""
        with self._guard, self._errors():
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            version = version, self._connection.total_changes
            if version != self._version:
                self._version, self._rows = version, {}
            row: tuple[Any, ...] | None = self._rows.get(name)
            if row is None:
                row = self._connection.execute(
                    "SELECT hash, id, role, name, made, revoked FROM tokens WHERE id = ?", (name,)
                ).fetchone()
                if row is not None:
                    self._rows[name] = row
        return row

    def own(self) -> Path:
        """The file with the token of whoever runs the service, made anew where it is not valid any longer.

        Raises:
            TokenError: the file cannot be read or written.
        """
        path = self.folder / TOKEN
        with self._errors():
            if path.exists():
                os.chmod(path, 0o600)
                if self.whose(read(path, 200).decode(errors="replace").strip()) is not None:
                    return path
                path.unlink()
            _, text = self.make("own", "whoever started the service")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
        return path

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise TokenError(
                f"{self._path}: the service's file must be readable and writable, but {error}"
            ) from None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
