"""What the service reads before a request is looked at, byte by byte, and the shorter way to its answers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpnas.service import direct, wire
from gpnas.service.tokens import Role
from tests.gpnas.served import Service, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = Service(tmp_path_factory.mktemp("runs"))
    found.start()
    yield found
    found.end()


def _answered(service: Service, *parts: bytes) -> bytes:
    """All that comes back until the service closes the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as link:
        came = b""
        try:
            for part in parts:
                link.sendall(part)
            while more := link.recv(2**16):
                came += more
        except (BrokenPipeError, ConnectionResetError):  # closed before all was sent
            pass
    return came


def _is_up(service: Service) -> bool:
    closing = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return _answered(service, closing).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + 200 * b"\x7f",  # TLS where none is spoken
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHo st: localhost\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/searches HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /healthz HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_garbage_is_answered_with_a_clients_error_or_closed(service: Service, text: bytes) -> None:
    came = _answered(service, text)
    assert not came or came.split()[1].startswith(b"4"), came[:200]
    assert _is_up(service)


def test_a_head_has_bounds(service: Service) -> None:
    first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    most = b"X-A: " + (wire.HEAD_BYTES - 100) * b"a" + b"\r\n"
    assert _answered(service, first, most, b"\r\n").startswith(b"HTTP/1.1 200 ")
    assert _answered(service, first, most, most, b"\r\n").startswith(b"HTTP/1.1 400 ")
    assert _answered(service, first, *(1_000 * (b"X-A: 1\r\n",)), *(2_000 * (b"X-A: 12\r\n",)))[:13] in (
        b"HTTP/1.1 400 ",
        b"",  # reset, since more was on its way
    )
    # nor does it end for want of an end
    assert _answered(service, b"GET /", *(200 * (2**10 * b"a",)))[:13] in (b"HTTP/1.1 400 ", b"")
    assert _is_up(service)


def test_a_body_that_goes_on_for_ever_is_cut_off(service: Service) -> None:
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b"10000\r\n" + 2**16 * b"a" + b"\r\n"
    came = _answered(service, head, *(300 * (part,)))
    assert came[:13] in (b"HTTP/1.1 413 ", b"")
    assert _is_up(service)


def test_a_head_that_does_not_come_is_not_waited_for(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=2 * wire.HEAD_SECONDS) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        assert link.recv(100).startswith(b"HTTP/1.1 400 ")
        while link.recv(100):
            pass
    with socket.create_connection(("127.0.0.1", service.port), timeout=2 * wire.HEAD_SECONDS) as link:
        assert link.recv(100) == b""  # one that asked for nothing is closed without a word


def test_requests_that_come_together_are_answered_in_order(service: Service) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    came = _answered(service, 20 * one + last)
    assert came.count(b"HTTP/1.1 200 ") == 20
    assert came.count(b"HTTP/1.1 401 ") == 1


def test_the_shorter_way_answers_as_the_longer_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        ("/v1/searches/none/ask", {"worker": "w"}),
        ("/v1/searches/none/ask", {"worker": 1}),
        ("/v1/searches/none/ask", {"worker": "w", "other": 1}),
        ("/v1/searches/none/ask", None),
        ("/v1/leases/none:1/tell", {"value": 1.0}),
        ("/v1/leases/none:1/tell", {"value": "1"}),
        ("/v1/leases/none:1/tell", {}),
        ("/v1/leases/none/tell", {"value": 1.0}),
        ("/v1/leases/none:1/heartbeat", {"points": [{"step": -1}]}),
        ("/v1/leases/a%2Fb:1/heartbeat", {"points": []}),
        ("/v1/leases/none:1/give-back", {}),
        ("/v1/leases/none:1/ask", {"worker": "w"}),
    ]
    keys = [{}, {"Idempotency-Key": "a"}, {"Idempotency-Key": 201 * "a"}]

    def answers(role: Role) -> list[tuple[int, str]]:
        with served(tmp_path, role) as client:
            return [
                (came.status_code, json.dumps(came.json()))
                for path, body in asked
                for key in keys
                for came in [client.post(path, json=body, headers=key)]
            ]

    roles: tuple[Role, ...] = ("work", "read")
    short = [answers(role) for role in roles]
    monkeypatch.setattr(direct, "ROUTES", {})
    assert short == [answers(role) for role in roles]
    assert {status for one in short for status, _ in one} == {403, 404, 422}
