"""`gpnas serve`: the service's process."""

from __future__ import annotations

import ipaddress
import logging
import logging.handlers
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from gpnas.files import SERVICE
from gpnas.service.app import LOOPBACK, application
from gpnas.service.folder import Runs, ServiceError, alone
from gpnas.service.managed import Managing
from gpnas.service.tokens import Tokens
from gpnas.service.wire import Protocol

AUDIT = "audit.jsonl"
AUDIT_BYTES = 2**24
AUDIT_FILES = 4
"""Files of audit lines that are kept besides the one that is written, 16 MiB each."""
GRACE_SECONDS = 5
"""So long requests that are under way may take when the service ends."""
SWITCH_SECONDS = 0.0005
"""So long a thread at work may keep the event loop waiting."""


@dataclass(frozen=True)
class Address:
    """Where the service listens, and by which names it is called."""

    host: str = "127.0.0.1"
    port: int = 8750
    """0 takes any that is free."""
    names: tuple[str, ...] = ()
    """Host names besides `host` and those of this machine itself."""
    certificate: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Raises a `ServiceError` where others could listen to tokens, or a file is missing."""
        if (self.certificate is None) != (self.key is None):
            raise ServiceError(
                "TLS takes both --certificate and --key, but only one is given; give both, or neither"
            )
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise ServiceError(f"{path}: a certificate and its key must be files, but this is none")


def serve(runs: Path, address: Address, say: Callable[[str], None], managing: Managing | None = None) -> None:
    """Serves a folder of runs until a signal ends it.

    Args:
        runs: the folder; made where it is missing.
        address: where to listen.
        say: called with the lines that tell where the service is and who may use it.
        managing: how searches are driven that Ray trains.

    Raises:
        ServiceError: the folder or the address cannot be used, or searches cannot be driven so.
        TokenError: the file of tokens cannot.
    """
    address.check()
    runs, managing = runs.absolute(), managing or Managing()
    managing.of(Runs(runs))  # says what is wrong with it before anything begins
    with alone(runs), Tokens(runs) as tokens:
        token = tokens.own()
        listening = _bound(address)
        port = listening.getsockname()[1]
        hosts = LOOPBACK | {address.host.lower(), *(name.lower() for name in address.names)}
        _log(runs)
        sys.setswitchinterval(SWITCH_SECONDS)
        ending = threading.Event()
        config = uvicorn.Config(
            application(runs, tokens, hosts=frozenset(hosts), ending=ending, managing=managing),
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            limit_concurrency=1_000,
            http=Protocol,
            ws="none",
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
        )
        scheme = "http" if address.certificate is None else "https"
        say(f"runs: {runs}")
        host = f"[{address.host}]" if ":" in address.host else address.host
        say(f"service: {scheme}://{host}:{port}/ (it asks for the token in {token})")
        if scheme == "http" and not _is_loopback(address.host):
            say("tokens travel unencrypted: use --certificate and --key, or a proxy that does TLS before it")
        with listening:
            _Server(config, ending).run([listening])


class _Server(uvicorn.Server):
    """Has event streams end with the first signal, so that nobody waits for them."""

    def __init__(self, config: uvicorn.Config, ending: threading.Event) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._ending.set()
        super().handle_exit(sig, frame)


def _bound(address: Address) -> socket.socket:
    try:
        return socket.create_server(
            (address.host, address.port),
            family=socket.AF_INET6 if ":" in address.host else socket.AF_INET,
            backlog=2_048,
        )
    except (OSError, OverflowError) as error:
        raise ServiceError(
            f"the service must be able to listen at {address.host}:{address.port}, but {error}; "
            "name another --host or --port"
        ) from None


def _log(runs: Path) -> None:
    """Has every write noted in a file beside the runs."""
    audit = logging.getLogger("gpnas.service.audit")
    handler = logging.handlers.RotatingFileHandler(
        runs / SERVICE / AUDIT, maxBytes=AUDIT_BYTES, backupCount=AUDIT_FILES, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    audit.handlers = [handler]
    audit.setLevel(logging.INFO)
    audit.propagate = False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
