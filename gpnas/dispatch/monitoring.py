"""A search in Ray's dashboard: its metrics, and an actor that knows where it stands.

Both say what the journal says: a thread reads it, now and then, as `gpnas status` does. What goes wrong
here is logged and ends nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gpnas.dispatch.metrics import Gauges
from gpnas.journal import Journal, status
from gpnas.run.setup import PSNR

logger = logging.getLogger(__name__)

SECONDS = 2.0
"""Least time between two looks at the journal."""
LAST_LOOK_SECONDS = 2.0
"""How long a look may take that has begun when the process ends; then it waits for Ray, and reads no more."""
SHARE = 0.05
"""Largest share of the time that looking may take."""
ACTOR = "gpnas-status"
"""Name of the actor that holds what `gpnas status --json` prints; `namespace` is its namespace."""
STATES = ("pending", "running", "observed", "failed", "stopped")


def namespace(run: Path) -> str:
    """Ray's namespace of a search, so that several on one cluster do not meet."""
    return f"gpnas{run.absolute()}"


def status_actor(run: Path, document: dict[str, Any]) -> Any:
    """Starts the actor that holds the newest status of a search, `document` at first; it lives as long as the
    search.

    Raises:
        ValueError: there is one; that of a killed search may live a moment longer.
    """

    class Status:  # in a function, since Ray then copies it, and its process need not import torch
        def __init__(self, run: str, document: dict[str, Any]) -> None:
            self._run, self._document = run, document

        def __repr__(self) -> str:  # the dashboard shows it
            return f"status of {self._run}"

        def update(self, document: dict[str, Any]) -> None:
            self._document = document

        def document(self) -> dict[str, Any]:
            return self._document

    Status.__qualname__ = "Status"
    # beside the driver, since a search ends with its driver's node anyway
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {
        "name": ACTOR,
        "namespace": namespace(run),
        "num_cpus": 0,
        "max_restarts": -1,
        "enable_task_events": False,  # the list of tasks is the trials'
        "scheduling_strategy": here,
    }
    return ray.remote(Status).options(**options).remote(run.name, document)


class Monitor:
    """Tells the dashboard and Prometheus where a search stands; each `look` does so once.

    Args:
        run: folder of the search.
        trials: the whole allowance.
        uncertainty: what the surrogate has left, in dB; None while that is not known.
    """

    def __init__(self, run: Path, trials: int, uncertainty: Callable[[], float | None]) -> None:
        self._run, self._trials, self._uncertainty = run, trials, uncertainty
        self._gauges = Gauges(run.name)
        self._actor: Any = None
        self._told: dict[str, Any] = {}

    def look(self) -> None:
        """Reads the journal once, sets the metrics and tells the actor what is new."""
        document = status(self._run)
        rows = document["candidates"]
        states = Counter(row["state"] for row in rows)
        for state in STATES:
            self._gauges.set("gpnas_trials", states[state], state)
        self._gauges.set("gpnas_trials_left", max(0, self._trials - len(rows)))
        observed = [row["value"] for row in rows if row["state"] == "observed"]
        if document["objective"]["name"] == PSNR.name:
            self._gauges.set("gpnas_best_psnr", max(observed, default=None))
        self._gauges.set("gpnas_uncertainty_left", self._uncertainty())
        running = [row["id"] for row in rows if row["state"] == "running"]
        self._gauges.set("gpnas_seconds_per_step", _seconds_per_step(self._run, running))
        if document != self._told:
            if self._actor is None:
                self._actor = status_actor(self._run, document)
            else:
                self._actor.update.remote(document)
            self._told = document


@contextmanager
def monitored(
    run: Path, trials: int, uncertainty: Callable[[], float | None]
) -> Iterator[Callable[[], None]]:
    """Keeps the dashboard and Prometheus informed of a search, from a thread of its own.

    The block gets a function that ends it earlier: nobody reads the journal any more, so that it is one file
    once it is closed.
    """
    monitor = Monitor(run, trials, uncertainty)
    ended = threading.Event()

    def watch() -> None:
        pause = 0.0
        while not ended.wait(pause):
            begun = time.monotonic()
            try:
                monitor.look()
            except Exception:  # a search does not end because nobody can watch it
                logger.warning("the dashboard could not be told of the search", exc_info=True)
            pause = max(SECONDS, (time.monotonic() - begun) / SHARE)

    thread = threading.Thread(target=watch, name="monitoring", daemon=True)
    thread.start()

    def end(seconds: float = LAST_LOOK_SECONDS) -> None:
        ended.set()
        thread.join(timeout=seconds)

    try:
        yield end
    finally:
        end(10.0)


def _seconds_per_step(run: Path, running: list[str]) -> float | None:
    """Seconds per step, on average over candidates that have trained; None where none has."""
    with Journal.read(run) as journal:
        newest = [rows[-1] for rows in map(journal.progress, running) if rows]
    each = [row.seconds / row.step for row in newest if row.step]
    return sum(each) / len(each) if each else None
