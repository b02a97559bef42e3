"""Searches that Ray trains, by the very driver of `gpnas search`, a process that outlives the service."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpnas.errors import SpaceError
from gpnas.files import SERVICE, replacing
from gpnas.journal import Journal
from gpnas.journal.files import held
from gpnas.run.networks import texts_of
from gpnas.run.shares import FOLDER as SHARED
from gpnas.service.drivers import Drivers, Processes, RayJobs
from gpnas.service.folder import Runs, ServiceError
from gpnas.service.problems import Problem
from gpnas.service.reading import kind_of

SPACE, LOG = "space.yaml", "driver.log"
"""Files of a run folder: the space that was sent, and what the driver says."""
RAY = "ray"
"""Folder of the Ray that drivers share, in the service's own."""
SOURCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\.py")
"""Names of files with trainings."""


@dataclass(frozen=True)
class Managing:
    """How searches are driven that Ray trains."""

    address: str | None = None
    """The dashboard of a cluster whose jobs the drivers are; None has processes here share a Ray."""
    trainers: Path | None = None
    """Folder whose files spaces may name as trainings; None allows none."""

    def of(self, runs: Runs) -> Managed:
        """The drivers of a folder of runs.

        Raises:
            ServiceError: the address is none, or there is no such folder.
        """
        if self.trainers is not None and not self.trainers.is_dir():
            raise ServiceError(f"{self.trainers}: --trainers must name a folder, but this is none")
        drivers = Processes(runs.folder) if self.address is None else RayJobs(runs.folder, self.address)
        return Managed(runs, drivers, self.trainers)


class Managed:
    """The drivers of a folder of runs. Its methods may be called from several threads."""

    def __init__(self, runs: Runs, drivers: Drivers, trainers: Path | None = None) -> None:
        """Takes charge of a folder of runs.

        Args:
            runs: the folder.
            drivers: runs them.
            trainers: folder whose files spaces may name as trainings; None allows none.
        """
        self._runs, self._drivers, self._trainers = runs, drivers, trainers
        self._guard = threading.Lock()

    def is_managed(self, name: str) -> bool:
        """Whether Ray trains a search.

        Raises:
            Problem: there is no such search.
            JournalError: its journal cannot be read.
        """
        return kind_of(self._runs.journal(name).header) == "managed"

    def begin(
        self,
        name: str,
        space: str,
        wishes: dict[str, Any],
        *,
        trainer: str | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        """Starts a search whose space was found to be fine; a folder without a journal is taken up.

        Args:
            name: of the search.
            space: its file's text.
            wishes: what else is asked of it.
            trainer: the file with its training, as the space names it; None is gpnas's own.
            again: whether the same request may have been done before; then what it began is no obstacle.

        Raises:
            Problem: there is such a search already, or such a file.
        """
        path = self._runs.folder / name
        texts = {} if trainer is None else self._texts(trainer)
        with self._guard:
            foreign = path.is_symlink() or (path.exists() and not path.is_dir())
            begun = not foreign and (Journal.exists(path) or self._drivers.runs(name))
            if begun and again:
                return {"id": name, "kind": "managed"}
            if foreign or begun:
                raise Problem(409, f"a search's id must be new in its folder, but there is {name!r} already")
            for place, text in {SPACE: space, **texts}.items():
                (path / place).parent.mkdir(parents=True, exist_ok=True)
                with replacing(path / place) as fresh:
                    fresh.write_text(text, "utf-8")
            self._start(name, wishes)
        return {"id": name, "kind": "managed"}

    def go_on(self, name: str, trials: int | None = None, *, again: bool = False) -> dict[str, Any]:
        """Starts the driver of a search again, where none drives it; with more trials it is extended.

        Args:
            name: of the search.
            trials: in all; None as many as before.
            again: whether the same request may have been done before; then a driver that runs is no obstacle.
        """
        header = self._runs.journal(name).header
        path = self._runs.path(name)
        with self._guard:
            if held(path) or self._drivers.runs(name):
                if again:
                    return {"id": name, "trials": trials or header.trials}
                raise Problem(409, f"{name} is driven already; stop it first")
            if not (path / SPACE).is_file():
                raise Problem(
                    409, f"{name} was not begun here, so only the command that began it goes on with it"
                )
            if trials is not None and trials < header.trials:
                raise Problem(422, f"`trials` must be at least {header.trials}, but got {trials}")
            assert header.search is not None
            wishes = {"trials": trials or header.trials, "strategy": header.search.strategy}
            self._start(name, {**wishes, "seed": header.seed, "early_stopping": header.early_stopping})
        return {"id": name, "trials": trials or header.trials}

    def stop(self, name: str) -> dict[str, Any]:
        """Has the driver of a search end in good order: trainings keep their checkpoints.

        Raises:
            Problem: a process of someone else's drives it.
        """
        path = self._runs.path(name)
        if not held(path) and not self._drivers.runs(name):
            return {"stopped": True}
        sessions = self._runs.journal(name).sessions()
        pid = sessions[max(sessions)].pid if sessions else 0
        if not self._drivers.stop(name, pid):
            raise Problem(409, f"{name} is driven by another process ({pid}), which only its owner ends")
        return {"stopped": True}

    def check_idle(self, name: str) -> None:
        """Raises a `Problem` while a driver of a search has not ended, also before it has its journal."""
        if self._drivers.runs(name):
            raise Problem(409, f"{name} must be stopped before it is deleted, but its driver runs")

    def _start(self, name: str, wishes: Mapping[str, Any]) -> None:
        path = self._runs.folder / name
        options = [f"--{key}={wishes[key]}" for key in ("trials", "strategy", "seed") if key in wishes]
        if "early_stopping" in wishes:
            options.append("--early-stopping" if wishes["early_stopping"] else "--no-early-stopping")
        command = [sys.executable, "-P", "-m", "gpnas.cli", "search"]
        arguments = [f"--space={path / SPACE}", f"--run={path}", *options, "--json"]
        shared = {SHARED: str(self._runs.folder / SERVICE / RAY)}
        self._drivers.start(name, [*command, *arguments], path / LOG, shared)

    def _texts(self, place: str) -> dict[str, str]:
        """The texts of a training, of a file that the folder of trainers itself lists, and no other, and of
        those that it imports from beside it; by their paths.

        Raises:
            Problem: there is no such file, or what it imports cannot be sent.
        """
        if self._trainers is None:
            raise Problem(
                422,
                "a space that is sent may name no code, but has `trainer`; whoever starts the service may "
                "allow the files of a folder by --trainers",
            )
        try:
            with os.scandir(self._trainers) as entries:
                listed = [each.name for each in entries if each.is_file(follow_symlinks=False)]
            names = sorted(filter(SOURCE.fullmatch, listed))
            if place in names:
                return texts_of(place, self._trainers)
        except SpaceError as error:
            raise Problem(422, f"`trainer`: {error}") from None
        except OSError as error:
            raise Problem(500, f"the folder of trainers must be readable, but {error.strerror}") from None
        raise Problem(
            422,
            f"`trainer` must be a file that the service allows, {', '.join(names)[:200]}, "
            f"but got {place!r:.80}",
        )


def wishes_of(asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The space of a request as text, and what else it wishes of a managed search.

    Raises:
        Problem: it wishes what only an external search can have.
    """
    if asked["objective"] is not None or asked["steps"] is not None:
        raise Problem(
            422,
            "a managed search has PSNR as its objective, or with a `trainer` what its space's `objective` "
            "says, and its steps in the space's `recipe`",
        )
    space = asked["space"] if isinstance(asked["space"], str) else json.dumps(asked["space"])
    names = ("trials", "strategy", "seed", "early_stopping")
    return space, {each: asked[each] for each in names if asked[each] is not None}
