"""Ray, started the safe way: loopback, a token, a small object store."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from gpnas.errors import TrialError

OBJECT_STORE_BYTES = 200 * 2**20
"""What trials exchange is a few numbers; Ray would take 30 % of the machine's memory."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up and connected to."""

    dashboard: str | None
    """Address of the dashboard, `http://127.0.0.1:8265`; None where there is none."""
    token_file: Path
    """Where the token lies that the dashboard asks for."""
    cpus: float
    gpus: float


def token_file() -> Path:
    """The file with the token that Ray's services ask for; made if missing, readable by its owner alone.

    Raises:
        TrialError: it can be neither read nor made.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists() or not path.read_text().strip():
            # made here, since Ray would make it readable by everyone
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        path.chmod(0o600)
    except OSError as error:
        raise TrialError(
            f"{path}: Ray's token must be a readable and writable file, but {error.strerror}; "
            "name another one in RAY_AUTH_TOKEN_PATH"
        ) from None
    return path


@contextmanager
def connected(address: str | None, concurrent: int) -> Iterator[Cluster]:
    """A cluster to run trials on; what was started is stopped at the end.

    Args:
        address: of a running cluster; None starts one on this machine.
        concurrent: trials side by side, one CPU each.

    Raises:
        TrialError: Ray cannot be started or reached, or is too small for a single trial.
    """
    token = token_file()
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        # what goes wrong in a trial is in its observation; Ray's own words fill screens
        logging.getLogger("ray").setLevel(logging.CRITICAL)
    level = logging.getLogger("ray").level
    try:
        if address is None:
            context = ray.init(
                # "local", since a plain start would follow a stale address file
                address="local",
                num_cpus=concurrent,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=level,
            )
        else:
            context = ray.init(address=address, log_to_driver=False, logging_level=level)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = "on this machine" if address is None else f"at {address}"
        raise TrialError(f"Ray must be reachable {where}, but {reason}") from None
    try:
        total = ray.cluster_resources()
        cpus = total.get("CPU", 0.0)
        if cpus < 1:
            raise TrialError(f"a trial needs 1 CPU, but the cluster has {cpus:g}; add a worker node")
        url = f"http://{context.dashboard_url}" if context.dashboard_url else None
        yield Cluster(url, token, cpus, total.get("GPU", 0.0))
    finally:
        ray.shutdown()
