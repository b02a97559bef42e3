"""The searches that are asked and told, opened when someone first does, each thought ahead of."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from gpnas.errors import JournalError
from gpnas.journal import Header, Journal
from gpnas.journal.documents import decode_header, encode
from gpnas.records import Candidate
from gpnas.service.ahead import Ahead, Thinkers
from gpnas.service.external import External
from gpnas.service.folder import Runs
from gpnas.service.jobs import Jobs
from gpnas.service.limits import Limits
from gpnas.service.problems import Problem


class Externals:
    """Every external search of the service; to be made where its event loop runs."""

    def __init__(self, runs: Runs, jobs: Jobs, limits: Limits) -> None:
        self._runs, self._jobs, self._limits = runs, jobs, limits
        self._thinkers = Thinkers(limits)
        self._loop = asyncio.get_running_loop()
        self._guard = threading.Lock()
        self._open: dict[str, External] = {}
        self._ahead: dict[str, Ahead] = {}

    def open(self, name: str) -> External:
        """A search, open for asking and telling; to be called from a thread of its own.

        Raises:
            Problem: there is none, or it is not to be asked and told.
            JournalError: its journal cannot be used.
        """
        with self._guard:
            known = self._open.get(name)
            if known is None:
                known = self._open[name] = _joined(self._runs.path(name))
                # not waited for, since the loop may wait for this very lock
                self._loop.call_soon_threadsafe(self._think, name, known)
            return known

    def opened(self, name: str) -> External | None:
        """A search that is open for asking and telling already."""
        return self._open.get(name)

    def _think(self, name: str, search: External) -> None:
        if self._open.get(name) is search:  # it may be forgotten by now
            self._ahead[name] = Ahead(search, self._thinkers, self._limits)

    def known(self, name: str) -> Candidate | None:
        """What would be trained next of a search that is open; None where that is not worked out."""
        search = self._open.get(name)
        if search is None:
            return None
        with search.moment():
            return search.ahead[0].candidate if search.ahead else None

    def was_asked(self, name: str, count: int) -> None:
        """Takes note of candidates that someone asked for."""
        if name in self._ahead:
            self._ahead[name].demand.note(count)

    async def prepared(self, asked: dict[str, Any]) -> tuple[Header, int]:
        """The header of the search that a body asks for, and how many architectures it has.

        Raises:
            Problem: no such search can be.
        """
        space = asked["space"] if isinstance(asked["space"], str) else encode(asked["space"])[0]
        names = ("trials", "strategy", "seed", "steps", "early_stopping", "objective")
        wishes = {each: asked[each] for each in names if asked[each] is not None}
        told = await self._jobs.do("header", space, wishes, self._limits.architectures)
        return decode_header(*encode(told["header"])), told["architectures"]

    def begin(self, name: str, header: Header, *, again: bool = False) -> None:
        """Begins an external search.

        Args:
            name: its id.
            header: what it is.
            again: whether a service that died since may have begun this very search.

        Raises:
            Problem: there is something of that name.
        """
        path = self._runs.folder / name
        with self._guard:
            taken = path.exists() or path.is_symlink()
            if not taken:
                Journal.share(path, header).close()
        if taken and not (again and self._has(name, header)):
            text = f"a search's id must be new in its folder, but there is something named {name!r} already"
            raise Problem(409, text)
        self.open(name)

    def _has(self, name: str, header: Header) -> bool:
        """Whether there is a search of this name and header, and nobody took part in it yet."""
        try:
            with Journal.read(self._runs.folder / name) as journal:
                return journal.header == header and not journal.candidates()
        except JournalError:
            return False

    async def forget(self, name: str) -> None:
        """Lets go of a search, as before it is moved."""
        ahead = self._ahead.pop(name, None)
        if ahead is not None:
            await ahead.close()
        self._thinkers.forget(name)
        await asyncio.to_thread(self._close, name)

    def _close(self, name: str) -> None:
        with self._guard:
            search = self._open.pop(name, None)
            if search is not None:
                search.close()

    async def close(self) -> None:
        """Lets go of every search."""
        for name in list(self._open):
            await self.forget(name)
        await self._thinkers.close()


def _joined(path: Path) -> External:
    try:
        return External(path)
    except JournalError as error:
        if "holds it" in str(error):
            text = f"{path.name} is driven by another process, so it is only looked at"
            raise Problem(409, text) from None
        raise
