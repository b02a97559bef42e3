"""Ray, started the safe way: loopback, a token, a small object store."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services, utils, worker
from ray.tune.execution import class_cache

from gpnas.dispatch.halt import Halt
from gpnas.errors import TrialError

SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
)
"""Environment variables that Ray Tune would copy into its actors' runtime environment, where the
dashboard shows them to everyone who has the token; each node brings its own."""

OBJECT_STORE_BYTES = 200 * 2**20
"""What trials exchange is a few numbers; Ray would take 30 % of the machine's memory."""

VITAL = ("raylet", "gcs_server")
"""Processes, by Ray's names, without which a driver waits for ever."""
LOOK_SECONDS = 1.0
REACH_SECONDS = 10.0
"""So long the head of a cluster may take to answer."""
END_SECONDS = 25.0
"""So long what waits for a dead Ray may take to end in good order."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up and connected to."""

    dashboard: str | None
    """Address of the dashboard, `http://127.0.0.1:8265`; None where there is none."""
    token: str
    """Where the token is that the dashboard asks for: a file, or `RAY_AUTH_TOKEN`."""
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
def _on_loopback() -> Iterator[None]:
    """Has a Ray that is started meanwhile listen on 127.0.0.1 alone, all of it.

    By itself it turns that address into the machine's own, save where this switch says, as it does on
    Windows and macOS, that no other machine will join.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[name]
        else:
            os.environ[name] = before[1]


class _Apart(services.ConsolePopen):
    """A process of Ray's, in a group of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, process_group=0, **options)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Has a Ray that is started meanwhile leave signals to the driver.

    By itself it ends the driver at SIGTERM, and its processes are in the driver's group, so that a signal
    to all of that, as a shell or `timeout` sends it, would end them before trials could write a checkpoint.
    """
    before = services.ConsolePopen, utils.set_sigterm_handler
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    services.ConsolePopen, utils.set_sigterm_handler = _Apart, lambda handler: None
    try:
        yield
    finally:
        services.ConsolePopen, utils.set_sigterm_handler = before
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # its library in C++ has set some too
                signal.signal(number, handler)


@contextmanager
def _light() -> Iterator[None]:
    """Has a Ray that is started meanwhile not load its dashboard, 18 MiB, to see whether it is installed.

    It is, with gpnas; and it runs in processes of its own.
    """
    before = utils.get_dashboard_dependency_error
    utils.get_dashboard_dependency_error = lambda: None
    try:
        yield
    finally:
        utils.get_dashboard_dependency_error = before


def has_died() -> bool:
    """Whether a vital process of the Ray that was started here has ended by itself."""
    node = worker._global_node
    return node is not None and any(name in VITAL for name, _ in node.dead_processes())


def kill() -> None:
    """Ends all processes of the Ray that was started here, at once."""
    node = worker._global_node
    for _, process in node.live_processes() if node is not None else ():
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def connected(address: str | None, concurrent: int) -> Iterator[Cluster]:
    """A cluster to run trials on; what was started is stopped at the end.

    Args:
        address: of a running cluster; None starts one on this machine.
        concurrent: trials side by side, one CPU each.

    Raises:
        TrialError: Ray cannot be started or reached, or is too small for a single trial.
    """
    # as Ray looks for it: the variable comes first
    token = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(token_file())
    if ray._raylet.get_authentication_mode() != ray._raylet.AuthenticationMode.TOKEN:
        raise TrialError(
            "Ray must ask for a token, but RAY_AUTH_MODE=token came too late; import gpnas.dispatch first"
        )
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        # what goes wrong in a trial is in its observation; Ray's own words fill screens
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        # what it says of its raylet would go to stdout, where a JSON document belongs
        worker.print_to_stdstream = lambda *_, **__: None
    level = logging.getLogger("ray").level
    try:
        if address is None:
            with _on_loopback(), _undisturbed(), _light():
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
            _check_reachable(address)
            with _undisturbed():
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
        if url and not asks_for_token(url):
            raise TrialError(
                f"a cluster must ask for a token, but {url} answers everyone; start every node of it with "
                "RAY_AUTH_MODE=token"
            )
        yield Cluster(url, token, cpus, total.get("GPU", 0.0))
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises an `OSError` where nobody answers; Ray itself would try for minutes, and say little."""
    if "/" in address:  # of a client
        return
    # what Ray makes of it: `auto` is looked for, and a loopback address becomes that of this node
    found = services.canonicalize_bootstrap_address(address)
    if found is None:  # Ray would start one
        return
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise OSError(
            f"{getattr(error, 'strerror', None) or error} ({host}:{port}); name the head's address and port, "
            "as `ray start --head` tells them"
        ) from None


@contextmanager
def watched(halt: Halt, give_up: Callable[[], None]) -> Iterator[None]:
    """Looks after the processes of a Ray that was started here; of another one it knows nothing.

    Ray's own answer to a raylet that died, as when memory ran out, is to wait for another node. Here there
    is an order to end, and if the block does not end, as without a GCS, the process does.

    Args:
        halt: gets the order.
        give_up: called before the process ends.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            if has_died():
                halt.lost = True
                if not ended.wait(END_SECONDS):
                    give_up()
                    kill()
                    os._exit(1)
                return

    thread = threading.Thread(target=watch, name="looks after Ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)
