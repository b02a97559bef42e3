"""A search whose trainings are a person's own function, on Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from gpnas.config import SpaceFile
from gpnas.dispatch.own_trial import OwnTrial, OwnTrialTask
from gpnas.dispatch.request import Means, Request
from gpnas.errors import SpaceError
from gpnas.journal import Header, Journal, Search
from gpnas.opening import Wishes, header_of
from gpnas.records import Candidate
from gpnas.run.copying import storage_for
from gpnas.run.layout import candidate_folder
from gpnas.run.networks import check_trainer, gone_on, source_errors
from gpnas.run.setup import OwnSetup
from gpnas.run.shipped import SHIPPED
from gpnas.run.storage import Storage
from gpnas.run.warm import sources_of
from gpnas.space import SearchSpace
from gpnas_trainers.own import Code, read_code


@dataclass(frozen=True)
class OwnWork:
    """What is trained, by which source, and where its files go."""

    run: Path
    """The run folder."""
    code: Code
    """The source that the run began with."""
    storage: Storage
    means: Means
    header: Header = field(repr=False)
    space: SearchSpace = field(repr=False)
    hours: float | None = None
    """Longest time of an attempt."""
    reading: ClassVar[Sequence[Path]] = ()
    """Folders that every node must read; its storage is looked at anyway."""
    trainable: ClassVar[type[OwnTrial]] = OwnTrial
    """What a worker runs."""

    def share(self) -> None:
        """Puts into the storage what nodes may lack: nothing, since the source goes with each task."""

    def memory(self, candidate: Candidate) -> float:
        """Bytes of memory that a candidate's training takes at once: nobody knows."""
        return 0.0

    def task(self, candidate: Candidate) -> OwnTrialTask:
        """What a worker must know to train a candidate."""
        return OwnTrialTask(
            id=candidate.id,
            family=candidate.architecture.family,
            axes=dict(candidate.architecture.axes),
            seed=candidate.seed,
            steps=candidate.fidelity.steps,
            run=self.run.name,
            storage=self.storage.uri,
            folder=candidate_folder(candidate),
            code=dataclasses.asdict(self.code),
            objective=self.header.objective.name,
            hours=self.hours,
            correlations=self.header.portfolio_aware,
        )


def plan_own(path: Path, file: SpaceFile, request: Request, say: Callable[[str], None]) -> OwnWork:
    """Reads and checks what a search by a training of one's own needs.

    Args:
        path, file: the space file, which names a trainer.
        request: what is asked for.
        say: gets lines about the source and the storage.

    Raises:
        SpaceError, JournalError, TrialError: something in it breaks a rule.
    """
    assert file.trainer is not None
    for name in ("data", "scale"):
        if getattr(request, name):
            raise SpaceError(
                f"{path}: `trainer` trains as it likes, so --{name.replace('_', '-')} says nothing; "
                "leave it out"
            )
    with source_errors(f"{path}: `trainer`: "):
        code = read_code(file.trainer, path.parent, "trainer")
    run = (request.run or Path("runs") / path.stem).absolute()
    if Journal.exists(run):
        with Journal.read(run) as journal:
            began = journal.setup(OwnSetup).source if OwnSetup.describes(journal) else None
        code = gone_on(code, began, run, say)
    check_trainer(code)
    storage = storage_for(run, request.storage, say)
    wishes = Wishes(
        request.trials or file.search.trials,
        strategy=request.strategy,
        seed=request.seed,
        early_stopping=request.early_stopping,
    )
    header, space = header_of(path, wishes, code)
    header = dataclasses.replace(
        header,
        concurrent=request.concurrent or file.search.concurrent,
        stop_below=file.search.stop_below,
        storage=None if storage.uri == str(run) else storage.uri,
        search=_searched(path, file, request, run, header),
    )
    return OwnWork(run, code, storage, request.means, header, space, request.trial_hours)


def _searched(path: Path, file: SpaceFile, request: Request, run: Path, header: Header) -> Search:
    """What is searched, with what only a driver's searches have."""
    asked, objective = header.search, header.objective
    assert asked is not None
    cost_aware, portfolio_aware = (
        getattr(file.search if getattr(request, name) is None else request, name)
        for name in ("cost_aware", "portfolio_aware")
    )
    if portfolio_aware and (objective.unit, objective.goal) != ("dB", "maximise"):
        raise SpaceError(
            f"{path}: `portfolio_aware` needs an objective in dB to maximise, -10 log10 of the mean square "
            f"of the errors that trainings report, but the objective is {objective.name}; leave it out: "
            "`gpnas portfolio` chooses by errors all the same"
        )
    if any(str(each) == SHIPPED for each in request.warm_start):
        raise SpaceError(
            f"{path}: --warm-start {SHIPPED} is of trainings that maximise PSNR, but `trainer` is another; "
            "name a run of it"
        )
    sources = sources_of(request.warm_start, run, file.scale, objective)
    return dataclasses.replace(asked, cost_aware=cost_aware, portfolio_aware=portfolio_aware, sources=sources)
