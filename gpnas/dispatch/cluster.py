"""Ray, started the safe way: loopback, a token, a small object store."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ray

from gpnas.dispatch import private_ray
from gpnas.dispatch.halt import Halt
from gpnas.errors import TrialError
from gpnas.files import ray_token_file

OBJECT_STORE_BYTES = 200 * 2**20
"""Memory for what trials exchange, a few numbers; Ray would take 30 % of the machine's."""

LOOK_SECONDS = 1.0
REACH_SECONDS = 10.0
"""How long the head of a cluster may take to answer."""
END_SECONDS = 25.0
"""How long whoever waits for a dead Ray may take to end in good order."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up and connected to."""

    dashboard: str | None
    """Address of the dashboard, `http://127.0.0.1:8265`; None where there is none."""
    token: str
    """Where the token is that the dashboard asks for: a file, or `RAY_AUTH_TOKEN`."""
    cpus: float
    gpus: float
    address: str = ""
    """Host and port of the cluster; by it other programs on this machine join the cluster."""
    session: Path | None = None
    """Folder of a Ray that was started here; it is removed when that Ray has ended in good order."""
    consulted: list[str] = field(default_factory=list, repr=False)
    """Why the logs in that folder are to be kept."""

    def logs(self, why: str) -> str:
        """Names Ray's logs to a person who is to read them, and keeps them."""
        self.consulted.append(why)
        return f"Ray's logs in {self.session / 'logs'}" if self.session else "Ray's logs"


class StartError(TrialError):
    """A process of Ray has died while Ray was starting on this machine."""


def token_file() -> Path:
    """The file with the token that Ray's services ask for; made if missing, readable by its owner alone.

    Raises:
        TrialError: it can be neither read nor made.
    """
    path = ray_token_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists() or not path.read_text().strip():
            # made here, since Ray would make it readable by everyone
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        # one that an administrator mounted is theirs
        if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise TrialError(
            f"{path}: Ray's token must be a readable and writable file, but {error.strerror}; "
            "name another one in RAY_AUTH_TOKEN_PATH"
        ) from None
    return path


def asks_for_token(url: str) -> bool:
    """Whether a dashboard turns away whoever has no token; where it does not answer, it gives nothing."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a node is no business of a proxy
    try:
        with opener.open(f"{url}/api/v0/nodes?limit=1", timeout=10):
            return False
    except OSError:
        return True


@contextmanager
def connected(address: str | None, concurrent: int, *, on_loopback: bool = False) -> Iterator[Cluster]:
    """A cluster to run trials on; what was started is stopped at the end.

    Args:
        address: of a running cluster; None starts one on this machine.
        concurrent: trials side by side, one CPU each.
        on_loopback: whether a cluster of an address listens on 127.0.0.1 alone, as one that was started here.

    Raises:
        TrialError: Ray cannot be started or reached, or is too small for a single trial.
    """
    # as Ray looks for it: the variable comes first
    token = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(token_file())
    private_ray.keep_secrets()
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        # what goes wrong in a trial is in its observation; Ray's own words fill screens
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        private_ray.be_quiet()
    cluster = None
    with private_ray.environment():
        try:
            cluster = _reached(token, address, concurrent, on_loopback)
            if cluster.cpus < 1:
                raise TrialError(
                    f"a trial needs 1 CPU, but the cluster has {cluster.cpus:g}; add a worker node"
                )
            if cluster.dashboard and not asks_for_token(cluster.dashboard):
                raise TrialError(
                    f"a cluster must ask for a token, but {cluster.dashboard} answers everyone; start every "
                    "node of it with RAY_AUTH_MODE=token"
                )
            yield cluster
        finally:
            died = private_ray.has_died()
            ray.shutdown()
            if cluster is not None and cluster.session is not None and not cluster.consulted and not died:
                private_ray.remove_session(cluster.session)


def _reached(token: str, address: str | None, cpus: int, on_loopback: bool) -> Cluster:
    """A running cluster or, without an address, a Ray on this machine with so many CPUs, on loopback.

    Raises:
        StartError: one of its processes has died while it was started.
        TrialError: it cannot be started or reached.
    """
    own = {
        "num_cpus": cpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
    }
    try:
        with private_ray.starting(on_loopback=address is None or on_loopback):
            if address is not None:
                _check_reachable(address)
            context = ray.init(
                address=address or "local",  # a plain start would follow a stale address file
                log_to_driver=False,
                logging_level=logging.getLogger("ray").level,
                **(own if address is None else {}),
            )
    except Exception as error:  # Ray raises plain ones, too
        if address is not None:
            raise TrialError(f"Ray must be reachable at {address}, but {_reason(error)}") from None
        kind = StartError if isinstance(error, private_ray.StartError) else TrialError
        raise kind(f"Ray must be reachable on this machine, but {_reason(error)}") from None
    total = ray.cluster_resources()
    url = f"http://{context.dashboard_url}" if context.dashboard_url else None
    session = Path(context.address_info["session_dir"]) if address is None else None
    head = ray.get_runtime_context().gcs_address
    return Cluster(url, token, total.get("CPU", 0.0), total.get("GPU", 0.0), head, session)


def _reason(error: Exception) -> str:
    """A line: the first, with the last where that tells the cause, as of a process that did not start."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]} {lines[-1].strip()}" if lines[0].endswith(":") and lines[1:] else lines[0]


def _check_reachable(address: str) -> None:
    """Raises an `OSError` where nobody answers, or in TLS where the driver does not speak it or the other way
    round; Ray itself would try for minutes or without end, and say little."""
    if "/" in address:  # of a client
        return
    found = private_ray.head_of(address)
    if found is None:  # Ray would start one
        return
    host, _, port = found.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS) as connection:
            has_tls = _speaks_tls(connection)
    except (OSError, ValueError) as error:
        raise OSError(
            f"{getattr(error, 'strerror', None) or error} ({host}:{port}); name the head's address and port, "
            "as `ray start --head` tells them"
        ) from None
    if has_tls != (os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")):
        there, here = ("speaks", "not set") if has_tls else ("does not speak", "set")
        raise OSError(
            f"it {there} TLS and RAY_USE_TLS is {here}; set RAY_USE_TLS and the variables of its "
            "certificates as on the cluster's nodes"
        )


def _speaks_tls(connection: socket.socket) -> bool:
    """Whether who answers speaks TLS, though it may ask for a certificate; nothing is trusted for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        # an alert is a word of TLS
        return "ALERT" in (error.reason or "") or "CERTIFICATE" in (error.reason or "")
    except OSError:  # it hung up, or said nothing
        return False


@contextmanager
def watched(
    halt: Halt, give_up: Callable[[], None], has_died: Callable[[], bool] = private_ray.has_died
) -> Iterator[None]:
    """Looks after the processes of a Ray that was started here; of another one it knows nothing.

    Ray's own answer to a raylet that died, as when memory ran out, is to wait for another node. Here there
    is an order to end, and if the block does not end, as without a GCS, the process does.

    Args:
        halt: gets the order.
        give_up: called before the process ends.
        has_died: whether that Ray has.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            if has_died():
                halt.lost = True
                if not ended.wait(END_SECONDS):
                    give_up()
                    private_ray.kill(keep_logs=True)
                    os._exit(1)
                return

    thread = threading.Thread(target=watch, name="looks after Ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)
