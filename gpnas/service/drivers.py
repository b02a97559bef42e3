"""How the drivers of managed searches are run: as processes of this machine, or as jobs of a Ray cluster."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from gpnas.files import ray_token_file, read
from gpnas.service.folder import ServiceError
from gpnas.service.problems import Problem

MARK = "GPNAS_SERVICE"
"""Variable that tells a driver that this service started from one that a person did."""
SECONDS = 20.0
"""So long a cluster may take to answer."""
STOP_SECONDS = 600
"""So long Ray waits for a job that it told to end, before it kills it."""
PREFIX = "gpnas"
GOING = ("PENDING", "RUNNING")


class Drivers(Protocol):
    """Whoever runs drivers. Its methods may take seconds."""

    def start(self, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str]) -> None: ...
    def runs(self, name: str) -> bool: ...
    def stop(self, name: str, pid: int) -> bool: ...


class Processes:
    """Drivers that are processes of this machine and outlive the service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
        """Starts a driver.

        Args:
            name: of its search.
            command: its program and arguments.
            log: file to which what it says is added.
            variables: of its environment, besides the service's own.
        """
        with open(log, "ab") as said:
            self._started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, **variables, MARK: str(self._folder)},
                start_new_session=True,  # signals of the service's terminal are not its
            )

    def runs(self, name: str) -> bool:
        """Whether a driver that was started here has not ended; one that has is taken leave of."""
        process = self._started.get(name)
        if process is not None and process.poll() is not None:
            del self._started[name]
            process = None
        return process is not None

    def stop(self, name: str, pid: int) -> bool:
        """Has a driver end in good order; whether it is the service's own."""
        if not is_ours(pid, self._folder):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return True


class RayJobs:
    """Drivers that are jobs of a Ray cluster, whose head sees the folder of the runs under the same path."""

    def __init__(self, folder: Path, address: str) -> None:
        """Takes note of a cluster.

        Args:
            folder: of the runs.
            address: of its dashboard, such as `http://127.0.0.1:8265`.

        Raises:
            ServiceError: it is no such address.
        """
        if not address.startswith(("http://", "https://")):
            raise ServiceError(
                f"--address must be that of a cluster's dashboard, such as http://127.0.0.1:8265, "
                f"but got {address!r:.100}"
            )
        self._folder, self._address = folder, address.rstrip("/")

    def start(self, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
        """Submits a driver; arguments as of `Processes.start`."""
        shell = f"exec {shlex.join([*command, '--address=auto'])} >> {shlex.quote(str(log))} 2>&1"
        named = {**variables, MARK: str(self._folder), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        self._call(
            "POST",
            "/api/jobs/",
            {
                "entrypoint": shell,
                "submission_id": f"{PREFIX}-{name}-{secrets.token_hex(4)}",
                "runtime_env": {"env_vars": named},
                "metadata": {"search": name, "runs": str(self._folder)},
            },
        )

    def runs(self, name: str) -> bool:
        """Whether a job that drives a search has not ended."""
        return bool(self._going(name))

    def stop(self, name: str, pid: int) -> bool:
        """Has a driver end in good order; whether it is the service's own."""
        going = self._going(name)
        for each in going:
            self._call("POST", f"/api/jobs/{each}/stop", {})
        return bool(going)

    def _going(self, name: str) -> list[str]:
        mine = {"search": name, "runs": str(self._folder)}
        return [
            str(each["submission_id"])
            for each in self._call("GET", "/api/jobs/")
            if each.get("metadata") == mine and each.get("status") in GOING
        ]

    def _call(self, method: str, path: str, document: Any = None) -> Any:
        """What the cluster answers; a `Problem` where it does not, or refuses."""
        body = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": f"Bearer {ray_token()}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, body, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no business of a proxy
        try:
            with opener.open(request, timeout=SECONDS) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            told = error.read(2_000).decode(errors="replace").strip().splitlines()
            why = f"{error.code}: {told[-1] if told else error.reason}"
        except (OSError, ValueError) as error:
            why = str(error)
        raise Problem(503, f"the Ray cluster must take jobs, but {why:.300}", retry=10.0)


def ray_token() -> str:
    """The token that Ray asks for, as Ray looks for it; empty where there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = ray_token_file()
    try:
        return read(path, 10_000, follow=True).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def is_ours(pid: int, folder: Path) -> bool:
    """Whether a process was started by a service on this folder, before or after it died."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={folder}".encode() in variables
