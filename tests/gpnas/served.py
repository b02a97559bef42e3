"""A service on a folder of runs, called in the process of the test, or in one of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from starlette.testclient import TestClient

from gpnas.client import Client
from gpnas.service.app import application
from gpnas.service.limits import Limits
from gpnas.service.managed import Managing
from gpnas.service.tokens import Role, Tokens


@contextmanager
def served(
    runs: Path, role: Role | None = "own", limits: Limits | None = None, managing: Managing | None = None
) -> Iterator[TestClient]:
    """A client with a token of a role, or without any, of a service on these runs."""
    with Tokens(runs) as tokens:
        headers = {} if role is None else bearer(tokens, role)
        app: Any = application(runs, tokens, limits=limits, managing=managing)
        with TestClient(app, "http://localhost", headers=headers) as client:
            yield client


def bearer(tokens: Tokens, role: Role) -> dict[str, str]:
    """The header of a new token."""
    return {"Authorization": f"Bearer {tokens.make(role)[1]}"}


class Service:
    """A service in a process of its own, at one port."""

    def __init__(self, runs: Path, *options: str) -> None:
        self.runs, self.port, self.options = runs, 0, options
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "gpnas.cli", "serve", "--runs", str(self.runs)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.options], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.process.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", self.process.stderr.readline())
        assert found is not None
        self.port = int(found[1])
        # a service whose lines nobody reads waits once the pipe is full
        self.reader = Thread(target=self.process.stderr.read, daemon=True)
        self.reader.start()

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            assert self.process.stderr is not None
            self.reader.join(30)
            self.process.stderr.close()
            self.process = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.runs / ".service" / "token").read_text()

    def client(self, patience: float = 60.0) -> Client:
        return Client(self.url, self.token, patience=patience)
