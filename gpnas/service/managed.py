"""Searches that Ray trains, by the very driver of `gpnas search`, a process that outlives the service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpnas.files import replacing
from gpnas.journal import Header, Journal
from gpnas.journal.files import held
from gpnas.service.folder import Runs
from gpnas.service.problems import Problem
from gpnas.service.reading import kind_of

SPACE, LOG = "space.yaml", "driver.log"
"""Files of a run folder: the space that was sent, and what the driver says."""
MARK = "GPNAS_SERVICE"
"""Variable that tells a driver that this service started from one that a person did."""


class Managed:
    """The drivers of a folder of runs. Its methods may be called from several threads."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._guard = threading.Lock()
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def is_managed(self, name: str) -> bool:
        """Whether Ray trains a search.

        Raises:
            Problem: there is no such search.
            JournalError: its journal cannot be read.
        """
        return kind_of(self._runs.journal(name).header) == "managed"

    def begin(self, name: str, space: str, wishes: dict[str, Any], *, again: bool = False) -> dict[str, Any]:
        """Starts a search whose space was found to be fine; a folder without a journal is taken up.

        Args:
            name: of the search.
            space: its file's text.
            wishes: what else is asked of it.
            again: whether the same request may have been done before; then what it began is no obstacle.

        Raises:
            Problem: there is such a search already, or such a file.
        """
        path = self._runs.folder / name
        with self._guard:
            if again and not path.is_symlink() and (Journal.exists(path) or self._runs_on(name)):
                return {"id": name, "kind": "managed"}
            if (
                path.is_symlink()
                or Journal.exists(path)
                or (path.exists() and not path.is_dir())
                or self._runs_on(name)
            ):
                raise Problem(409, f"a search's id must be new in its folder, but there is {name!r} already")
            path.mkdir(exist_ok=True)
            with replacing(path / SPACE) as fresh:
                fresh.write_text(space, "utf-8")
            options = [f"--{key}={wishes[key]}" for key in ("trials", "strategy", "seed") if key in wishes]
            if "early_stopping" in wishes:
                options.append("--early-stopping" if wishes["early_stopping"] else "--no-early-stopping")
            self._start(name, options)
        return {"id": name, "kind": "managed"}

    def go_on(self, name: str, trials: int | None = None, *, again: bool = False) -> dict[str, Any]:
        """Starts the driver of a search again, where none drives it; with more trials it is extended.

        Args:
            name: of the search.
            trials: in all; None as many as before.
            again: whether the same request may have been done before; then a driver that runs is no obstacle.
        """
        header = self._runs.journal(name).header
        path = self._runs.path(name)
        with self._guard:
            if held(path) or self._runs_on(name):
                if again:
                    return {"id": name, "trials": trials or header.trials}
                raise Problem(409, f"{name} is driven already; stop it first")
            if not (path / SPACE).is_file():
                raise Problem(
                    409, f"{name} was not begun here, so only the command that began it goes on with it"
                )
            if trials is not None and trials < header.trials:
                raise Problem(422, f"`trials` must be at least {header.trials}, but got {trials}")
            self._start(name, _options(header, trials))
        return {"id": name, "trials": trials or header.trials}

    def stop(self, name: str) -> dict[str, Any]:
        """Has the driver of a search end in good order: trainings keep their checkpoints.

        Raises:
            Problem: a process of someone else's drives it.
        """
        path = self._runs.path(name)
        if not held(path):
            return {"stopped": True}
        sessions = self._runs.journal(name).sessions()
        pid = sessions[max(sessions)].pid if sessions else 0
        if not _is_ours(pid, self._runs.folder):
            raise Problem(409, f"{name} is driven by another process ({pid}), which only its owner ends")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return {"stopped": True}

    def _start(self, name: str, options: list[str]) -> None:
        path = self._runs.folder / name
        command = [
            sys.executable,
            "-P",
            "-m",
            "gpnas.cli",
            "search",
            f"--space={path / SPACE}",
            f"--run={path}",
        ]
        with open(path / LOG, "ab") as log:
            self._started[name] = subprocess.Popen(
                [*command, *options, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, MARK: str(self._runs.folder)},
                start_new_session=True,  # signals of the service's terminal are not its
            )

    def _runs_on(self, name: str) -> bool:
        """Whether a driver that was started here has not ended; one that has is taken leave of."""
        process = self._started.get(name)
        if process is not None and process.poll() is not None:
            del self._started[name]
            process = None
        return process is not None


def wishes_of(asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The space of a request as text, and what else it wishes of a managed search.

    Raises:
        Problem: it wishes what only an external search can have.
    """
    if asked["objective"] is not None or asked["steps"] is not None:
        raise Problem(
            422, "a managed search has PSNR as its objective, and its steps in the space's `recipe`"
        )
    space = asked["space"] if isinstance(asked["space"], str) else json.dumps(asked["space"])
    names = ("trials", "strategy", "seed", "early_stopping")
    return space, {each: asked[each] for each in names if asked[each] is not None}


def _options(header: Header, trials: int | None) -> list[str]:
    assert header.search is not None
    return [
        f"--trials={trials or header.trials}",
        f"--strategy={header.search.strategy}",
        f"--seed={header.seed}",
        "--early-stopping" if header.early_stopping else "--no-early-stopping",
    ]


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether a process was started by a service on this folder, before or after it died."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={folder}".encode() in variables
