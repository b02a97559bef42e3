"""Requests that take turns: one thread does those that wait, several together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gpnas.service.problems import Problem

T = TypeVar("T")
TOGETHER = 32
"""Requests that are done together, at most, so that the first of them does not wait for long."""


@dataclass(frozen=True)
class _Turn(Generic[T]):
    work: Callable[[], T]
    done: Future[T] = field(default_factory=Future)


class Turns(Generic[T]):
    """A thread that does works in the order in which they came."""

    def __init__(
        self, name: str, together: Callable[[Sequence[Callable[[], T]]], list[T | Exception]]
    ) -> None:
        """Begins.

        Args:
            name: of what is worked on, for people.
            together: does several works and returns what each came to, or raises where all failed.
        """
        self._name, self._together = name, together
        self._waiting: queue.SimpleQueue[_Turn[T] | None] = queue.SimpleQueue()
        self._guard, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name=f"turns of {name}", daemon=True)
        self._thread.start()

    def take(self, work: Callable[[], T]) -> Future[T]:
        """What a work will have come to.

        Raises:
            Problem: nothing is done any more.
        """
        turn = _Turn(work)
        with self._guard:
            if self._closed:
                raise Problem(503, f"{self._name} is being closed; ask again", retry=1.0)
            self._waiting.put(turn)
        return turn.done

    def close(self) -> None:
        """Does what waits, and ends."""
        with self._guard:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            turns, each = [], self._waiting.get()
            while each is not None:
                if each.done.set_running_or_notify_cancel():  # whoever asked may be gone
                    turns.append(each)
                if len(turns) == TOGETHER or self._waiting.empty():
                    break
                each = self._waiting.get()
            ended = each is None
            try:
                outcomes = self._together([each.work for each in turns]) if turns else []
            except Exception as error:
                outcomes = [error] * len(turns)
            for turn, outcome in zip(turns, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    turn.done.set_exception(outcome)
                else:
                    turn.done.set_result(outcome)
