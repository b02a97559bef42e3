"""A service on a folder of runs, called in the process of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from gpnas.service.app import application
from gpnas.service.limits import Limits
from gpnas.service.tokens import Role, Tokens


@contextmanager
def served(runs: Path, role: Role | None = "own", limits: Limits | None = None) -> Iterator[TestClient]:
    """A client with a token of a role, or without any, of a service on these runs."""
    with Tokens(runs) as tokens:
        headers = {} if role is None else bearer(tokens, role)
        app: Any = application(runs, tokens, limits=limits)
        with TestClient(app, "http://localhost", headers=headers) as client:
            yield client


def bearer(tokens: Tokens, role: Role) -> dict[str, str]:
    """The header of a new token."""
    return {"Authorization": f"Bearer {tokens.make(role)[1]}"}
