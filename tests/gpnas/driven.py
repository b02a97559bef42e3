"""Commands that tests drive: in this process where nobody kills it, else in one of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from gpnas.cli import main
from gpnas.journal import status


def driver(arguments: list[str]) -> subprocess.Popen[str]:
    """A command in a session of its own, by which its processes are told from others'."""
    command = [sys.executable, "-m", "gpnas.cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Waits until something is so, while a process goes on, for five minutes at most."""
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come so far in 5 minutes"
        time.sleep(0.05)


def states(run: Path) -> list[str]:
    """States of the candidates of a run, in their order; none where it is not begun."""
    if not (run / "journal.sqlite").exists():
        return []
    return [row["state"] for row in status(run)["candidates"]]


def ended(arguments: list[str]) -> tuple[int, str, str]:
    """What becomes of a command in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def finished(arguments: list[str]) -> dict[str, Any]:
    """The document of a command that ends well, in this process."""
    code, out, err = ended(arguments)
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    return document
