"""A search or a final training while it runs, as the terminal of who started it shows it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from gpnas.cli.live import Screen, ended_line
from gpnas.cli.terminal import bar, log, say
from gpnas.cli.text import legend
from gpnas.run.setup import PSNR

if TYPE_CHECKING:
    from gpnas.dispatch.cluster import Cluster
    from gpnas.dispatch.conductor import Event
    from gpnas.dispatch.request import Means
    from gpnas.records import Candidate, Objective, Observation


class Watcher:
    """Trials that run: a line for each that ends, above a live view that begins with the first trial.

    A context that ends them.

    Args:
        unit: what is counted, such as `trials observed`.
        objective: in which values are told.
    """

    def __init__(self, unit: str, objective: Objective = PSNR) -> None:
        self._unit, self._objective = unit, objective
        self._open = ExitStack()
        self._bar: Callable[..., None] | None = None
        self._explained: set[str] = set()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def say(self, line: str) -> None:
        say(line)

    def preparing(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._open.enter_context(bar(what))
        self._bar(done, total, what)

    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None:
        self._open.close()  # also the view of a Ray that has died
        say(f"run: {run}")
        if cluster.dashboard:
            say(f"dashboard: {cluster.dashboard} (it asks for the token in {cluster.token})")
        if cluster.address:
            say(f"Ray: {cluster.address}")
        if observed:
            say(f"going on: {observed} of {trials} {self._unit}")
        self._open.enter_context(Screen().following(run))

    def event(self, event: Event) -> None:
        if event.note:
            say(f"{event.candidate.id}  {event.note}")
        if event.observation is not None:
            self._ended(event.candidate, event.observation)

    def _ended(self, candidate: Candidate, observation: Observation) -> None:
        """Shows what became of a trial."""
        architecture = candidate.architecture
        if architecture.family not in self._explained:
            self._explained.add(architecture.family)
            say(f"candidate  {legend([architecture])}")
        log.print(ended_line(observation, self._objective))


def means_of(options: argparse.Namespace, devices: int = 1) -> Means:
    """What trials may use, as the command line says."""
    from gpnas.dispatch.request import Means
    from gpnas.dispatch.resources import Asked  # which loads Ray

    asked = Asked(options.cpus_per_trial, options.gpus_per_trial)
    return Means(asked, devices, options.address, options.budget_hours)
