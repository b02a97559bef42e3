"""The client for ordinary programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import httpx

from gpnas.client import calls
from gpnas.client.calls import Call, Lent, Point, Told, Verdict
from gpnas.client.travelling import PATIENCE, Tries, document, options, request, settled
from gpnas.records import Architecture

T = TypeVar("T")


class Client(AbstractContextManager["Client"]):
    """A service, as a program sees it; a context manager.

    What any method raises: `RefusedError` where the service says no or is not reached within the patience,
    `LeaseLostError` where a lease is another's by now, `FinishedError` where a search has nothing left.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience: float = PATIENCE,
        certificates: str | bool = True,
        say: Callable[[str], None] = lambda _: None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connects when it is first needed.

        Args:
            url: of the service, such as `http://127.0.0.1:8750`.
            token: as `gpnas token make` printed it.
            patience: seconds for which a request is tried again where the service is not there.
            certificates: file of the authorities to trust; True is the system's.
            say: called with a line where the service is not there and a request is to be tried again.
            transport: how requests travel; None is HTTP.

        Raises:
            RefusedError: the URL is none.
        """
        self._patience, self._say = patience, say
        self._http = httpx.Client(transport=transport, **options(url, token, certificates))

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def searches(self) -> list[dict[str, Any]]:
        """Every search in short."""
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = self._send(calls.look("/v1/searches", after=after, limit="1000"))
            found, after = found + page["searches"], page["next"]
        return found

    def look(self, search: str, what: str = "") -> dict[str, Any]:
        """A search in short, or what of it can be looked at, such as `status` or `explain/c0007`."""
        return self._send(calls.look(calls.path_of(search, what)))

    def begin(self, search: str, space: str | Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Begins a search.

        Args:
            search: its name.
            space: a space file, as text or as the same in JSON.
            more: `trials`, `strategy`, `seed`, `steps`, `early_stopping`, `objective`.
        """
        return self._send(calls.begin({"id": search, "space": space, **more}))

    def ask(
        self,
        search: str,
        worker: str,
        *,
        count: int = 1,
        lease_seconds: float = 300.0,
        capacity: Mapping[str, float] | None = None,
    ) -> tuple[list[Lent], float]:
        """Candidates to train.

        Args:
            search: its name.
            worker: a name for people.
            count: the most that are wanted.
            lease_seconds: so long a lease lasts without a heartbeat.
            capacity: the most that the worker can train: `parameters`, `gmacs` at 120×120 LR pixels, `memory`
                in bytes of a training step, expected `seconds` of a training.

        Returns:
            The candidates, and where there are none yet the seconds after which it is worth to ask again.
        """
        return self._send(calls.ask(search, worker, count, lease_seconds, capacity))

    def heartbeat(
        self, lease: str, points: Sequence[Point] = (), *, checkpoint: str | None = None
    ) -> Verdict:
        """Renews a lease with how far its training has come; says whether it goes on."""
        return self._send(calls.heartbeat(lease, points, checkpoint))

    def tell(self, lease: str, told: Told) -> bool:
        """What a training came to; whether it counts."""
        return self._send(calls.tell(lease, told))

    def give_back(self, lease: str, *, checkpoint: str | None = None) -> None:
        """Ends a lease before its time, so that another goes on from the checkpoint."""
        self._send(calls.give_back(lease, checkpoint))

    def observe(self, search: str, architecture: Architecture, value: float) -> str:
        """Enters a training that was made elsewhere; the name that its candidate got."""
        entered = self._send(calls.wish(search, "observations", architecture, value=value))
        return str(entered["candidate"])

    def want(self, search: str, architecture: Architecture) -> str:
        """Has an architecture trained before all others; the name that its candidate got."""
        return str((self._send(calls.wish(search, "wanted", architecture)))["candidate"])

    def veto(self, search: str, architecture: Architecture) -> None:
        """Has an architecture not be trained."""
        self._send(calls.wish(search, "vetoed", architecture))

    def journal(self, search: str, after: str = "") -> Iterator[dict[str, Any]]:
        """The rows of a journal, each with `id`, `kind` and `document`, after the one of this `id`."""
        path = calls.path_of(search, "journal")
        with self._http.stream("GET", path, params={"after": after}) as response:
            if response.status_code >= 400:
                response.read()
                raise calls.refusal(response.status_code, document(response))
            for line in response.iter_lines():
                yield json.loads(line)

    def _send(self, call: Call[T]) -> T:
        """Sends a request, again and again where that is worth it, and reads its answer."""
        tries = Tries(self._patience, self._http.base_url, self._say)
        while True:
            try:
                came: httpx.Response | httpx.TransportError = self._http.request(**request(call))
            except httpx.TransportError as error:
                came = error
            found, pause = settled(call, came, tries)
            if pause is None:
                return cast(T, found)
            time.sleep(pause)
