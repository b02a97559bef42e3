"""Helpers at work: processes that think, so that the service itself never has to.

What came of a task is kept for as long as its journal stays as it was, and whoever asks the same meanwhile
waits for the same answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gpnas.errors import GpnasError
from gpnas.service.helper import MOST_BYTES, packed
from gpnas.service.limits import Limits
from gpnas.service.problems import Problem

KEPT = 128
"""Answers that are kept, those asked for last."""


class JobError(GpnasError):
    """A helper says that a task cannot be done, and why."""


class Helper:
    """One process that thinks."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def do(self, task: str, arguments: tuple[Any, ...], seconds: float) -> Any:
        """What comes of a task.

        Raises:
            JobError: it cannot be done.
            Problem: the helper took too long or ended; the next task gets another.
        """
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "gpnas.service.helper"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the service's, which lets its helpers end
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(packed([task, arguments]))
                await process.stdin.drain()
                size = int.from_bytes(await process.stdout.readexactly(8))
                if size > MOST_BYTES:
                    raise ConnectionError
                answer = json.loads(await process.stdout.readexactly(size))
        except TimeoutError:
            await self.end()
            raise Problem(
                503, f"`{task}` must be done within {seconds:g} s, but was not", retry=30.0
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.end()
            raise Problem(
                503, f"the process that did `{task}` ended, as when memory runs out", retry=5.0
            ) from None
        except asyncio.CancelledError:
            await self.end()
            raise
        if "error" in answer:
            raise JobError(answer["error"])
        if "failure" in answer:
            raise Problem(500, f"`{task}` failed: {answer['failure']}")
        return answer["result"]

    async def end(self) -> None:
        """Ends the process; a task that it does is lost."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


class Helpers:
    """Helpers, one for each core, started when they are needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = [Helper() for _ in range(os.cpu_count() or 1)]
        self._slots = asyncio.Semaphore(len(self._free))
        self._all = tuple(self._free)

    async def close(self) -> None:
        """Ends every one."""
        for helper in self._all:
            await helper.end()


@dataclass
class _Answer:
    version: object
    """The version of the journal that it is about."""
    task: asyncio.Task[Any]


class Jobs(Helpers):
    """The helpers that do whatever comes next, and what came of it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._waiting = 0
        self._answers: OrderedDict[tuple[Any, ...], _Answer] = OrderedDict()

    async def answer(self, version: object, task: str, *arguments: Any) -> Any:
        """What comes of a task about a journal, done once while the journal stays as it is.

        Args:
            version: of the journal; compared with `==`.
            task: one of `gpnas.service.tasks`.
            arguments: plain JSON, hashable.

        Raises:
            JobError: it cannot be done.
            Problem: there is too much to do already, or it took too long.
        """
        key = (task, *arguments)
        known = self._answers.get(key)
        failed = (
            known is not None
            and known.task.done()
            and (known.task.cancelled() or known.task.exception() is not None)
        )
        if known is None or failed or known.version != version:
            known = _Answer(version, asyncio.ensure_future(self.do(task, *arguments)))
            known.task.add_done_callback(_retrieved)
            self._answers[key] = known
        self._answers.move_to_end(key)
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        return await asyncio.shield(known.task)  # who asked may go away; others wait for the same

    async def do(self, task: str, *arguments: Any) -> Any:
        """What comes of a task, done anew; errors as of `answer`."""
        if self._waiting >= self._limits.jobs:
            raise Problem(503, f"{self._waiting} fits, figures and reports wait already", retry=10.0)
        self._waiting += 1
        try:
            async with self._slots:
                helper = self._free.pop()
                try:
                    return await helper.do(task, arguments, self._limits.job_seconds)
                finally:
                    self._free.append(helper)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Ends every helper."""
        for answer in self._answers.values():
            answer.task.cancel()
        await super().close()


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Takes note of an error that nobody waits for any longer."""
    if not task.cancelled():
        task.exception()
