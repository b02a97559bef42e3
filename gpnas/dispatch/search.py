"""The main job: from a space file and photographs to a portfolio and its bundle.

`run_search` is start and resume at once: what a run folder's journal already holds is not done
again. A run folder holds `journal.sqlite`, `candidates/` where no other storage is given and, at the
end, `bundle/`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ray import tune
from ray.tune.error import TuneError

from gpnas.config import find_space, read_space_file
from gpnas.dispatch.cluster import Cluster, connected, has_died, watched
from gpnas.dispatch.conductor import (
    MAX_RESTARTS,
    Adviser,
    Conductor,
    Deadline,
    Event,
    Forgetting,
    Stopper,
    stop,
)
from gpnas.dispatch.monitoring import monitored
from gpnas.dispatch.preflight import preflight
from gpnas.dispatch.resources import Asked, Lender, check_machine, placed
from gpnas.dispatch.signals import Interrupted, interruptible, signals
from gpnas.dispatch.trial import Trial, trial_config, trial_name
from gpnas.engine import Engine
from gpnas.errors import DataError, SpaceError, TrialError
from gpnas.journal import Journal
from gpnas.records import Candidate
from gpnas.results.delivery import Delivery, deliver
from gpnas.results.recall import engine_for
from gpnas.run.copying import JournalCopy, journal_copied, storage_for
from gpnas.run.cores import one_core
from gpnas.run.layout import attempts
from gpnas.run.pricing import memory_of, priced, recipe_of
from gpnas.run.provenance import machine, versions
from gpnas.run.sharing import fingerprint_of, share
from gpnas.run.storage import Storage, open_storage
from gpnas.run.warm import sources_document
from gpnas.space import SearchSpace
from gpnas_trainers.pairs import Camera, PairsError, PairSet, open_pairs, prepare
from gpnas_trainers.train import Recipe

TUNE = "tune"
"""Folder of Tune's session in a run folder, while it lasts."""
RAY_STARTS = 10
"""So often Ray is started for one command, where it dies."""

A = TypeVar("A", bound=Adviser)


@dataclass(frozen=True)
class Request:
    """What a user asks a search for; None where the space file decides."""

    space: str
    run: Path | None = None
    """Run folder; None is `runs/` and the space file's name."""
    data: Path | None = None
    """Folder of LR/HR pairs; None is the shipped photographs."""
    scale: int | None = None
    trials: int | None = None
    concurrent: int | None = None
    strategy: str | None = None
    cost_aware: bool | None = None
    """Whether gains count per predicted second."""
    portfolio_aware: bool | None = None
    """Whether an architecture is valued by what it would add to the portfolio's average."""
    warm_start: tuple[Path, ...] = ()
    """Run folders of finished searches that this one learns from."""
    seed: int = 0
    address: str | None = None
    """Of a running Ray cluster; None starts Ray on this machine."""
    budget_hours: float | None = None
    early_stopping: bool | None = None
    """Whether trainings that will not matter are ended early."""
    storage: str | None = None
    """Where checkpoints, networks and residuals go: a path, or an address that pyarrow knows; None is
    the run folder, or where an existing run has put them."""
    asked: Asked = field(default_factory=Asked)
    """CPUs and GPUs of each trial."""


class Listener(Protocol):
    """Someone who watches a search: the terminal, a test."""

    def say(self, line: str) -> None: ...
    def preparing(self, done: int, total: int) -> None: ...
    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None: ...
    def event(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Work:
    """A request, made definite: what a search and a final training need alike, checked."""

    run: Path
    scale: int
    recipe: Recipe
    pairs: Path
    fingerprint: str
    """Of the pairs."""
    storage: Storage
    validation_images: int
    concurrent: int
    seed: int
    header: dict[str, Any] = field(repr=False)
    """What the journal records of it."""


@dataclass(frozen=True)
class Plan(Work):
    """The same of a search."""

    space: SearchSpace
    trials: int
    strategy: str
    portfolio: int
    early_stopping: bool


def plan(
    request: Request, say: Callable[[str], None], preparing: Callable[[int, int], None] | None = None
) -> Plan:
    """Reads and checks everything that a request names, and prepares its pairs.

    Args:
        request: what is asked for.
        say: gets lines about it.
        preparing: called with pairs prepared and all, while that goes on.

    Raises:
        SpaceError, DataError, TrialError: something in it breaks a rule.
    """
    request.asked.check(1)
    path = find_space(request.space)
    file = read_space_file(path)
    scale = request.scale or file.scale
    recipe = recipe_of(path, file)
    space = priced(file.search_space(), scale, file.limits.given(), recipe)
    trials = request.trials or file.search.trials
    portfolio = file.search.portfolio
    if trials < 1:
        raise SpaceError(f"`trials >= 1` must hold, but got trials={trials}")
    try:
        camera = Camera(**file.camera.given())
        pairs = prepare(
            request.data,
            scale,
            camera=camera,
            minimum_side=recipe.hr_patch,
            workers=None,
            report=say,
            progress=preparing,
        )
        training, validation = open_pairs(pairs, "train"), open_pairs(pairs, "validation")
    except PairsError as error:
        raise DataError(str(error)) from None
    except ValueError as error:
        raise SpaceError(f"{path}: `camera`: {error}") from None
    check_patch(training, recipe)
    strategy = request.strategy or file.search.strategy
    early = file.search.early_stopping if request.early_stopping is None else request.early_stopping
    run = (request.run or Path("runs") / path.stem).absolute()
    storage = storage_for(run, request.storage, say)
    header = {
        "space": {"fingerprint": space.fingerprint, **space.to_document()},
        "scale": scale,
        "recipe": recipe.to_json(),
        "data": {
            "fingerprint": training.fingerprint,
            "validation": validation.fingerprint,
            "source": request.data.name if request.data else "photographs",
            "camera": None if request.data else dataclasses.asdict(camera),
        },
        "seed": request.seed,
        "strategy": strategy,
        "validation_images": file.search.validation_images,
        "portfolio": portfolio,
        "trials": trials,
        "concurrent": request.concurrent or file.search.concurrent,
        "early_stopping": early,
        "versions": versions(),
        "machine": machine() | request.asked.given(),
    }
    # only where they are asked for, so that journals of before go on
    if request.cost_aware if request.cost_aware is not None else file.search.cost_aware:
        header["cost_aware"] = True
    if request.portfolio_aware if request.portfolio_aware is not None else file.search.portfolio_aware:
        header["portfolio_aware"] = True
    if storage.uri != str(run):
        header["storage"] = storage.uri
    if sources := sources_document(request.warm_start, run):
        header["sources"] = sources
    return Plan(
        run=run,
        space=space,
        scale=scale,
        recipe=recipe,
        pairs=pairs,
        fingerprint=fingerprint_of(training, validation),
        storage=storage,
        validation_images=file.search.validation_images,
        trials=trials,
        concurrent=request.concurrent or file.search.concurrent,
        strategy=strategy,
        portfolio=portfolio,
        early_stopping=early,
        seed=request.seed,
        header=header,
    )


def check_patch(pairs: PairSet, recipe: Recipe) -> None:
    """Raises a `DataError` where a recipe's patches are larger than the images, or miss the scale."""
    smallest = pairs.smallest_side
    if recipe.hr_patch > smallest:
        raise DataError(
            f"training patches must fit into the images, but hr_patch={recipe.hr_patch} and the smallest "
            f"HR side is {smallest} pixels; lower the recipe's `hr_patch`"
        )
    if recipe.hr_patch % pairs.scale:
        raise DataError(
            f"`hr_patch` must be a multiple of the scale, but got hr_patch={recipe.hr_patch} "
            f"and scale={pairs.scale}"
        )


def run_search(request: Request, listener: Listener) -> Delivery:
    """Searches, or goes on with a search, until its trials are observed; then delivers its portfolio.

    Args:
        request: what is asked for.
        listener: told of everything that happens.

    Returns:
        The finished search: ranking, portfolio, bundle.

    Raises:
        SpaceError, DataError, JournalError, BundleError: something given cannot be used.
        Interrupted: a signal or the time budget ended the search before its last trial.
        TrialError: trials cannot run, or none succeeded.
    """
    begun = time.monotonic()
    with interruptible(not_begun):
        work = plan(request, listener.say, listener.preparing)
    # what the engine computes must not depend on where: sums in threads differ in their last digits
    with (
        one_core(),
        Journal.create_or_open(work.run, work.header) as journal,
        interruptible(lambda: standing(journal, work.trials)),
    ):
        if journal.note:
            listener.say(journal.note)

        def adviser() -> Engine:
            engine = engine_for(work.space, work.header)
            engine.replay(journal.candidates(), journal.observations())
            return engine

        with journal_copied(work.run, work.storage, listener.say) as copy:
            if journal.pending() or len(journal.candidates()) < work.trials:
                engine = run_work(
                    work,
                    adviser,
                    journal,
                    listener,
                    trials=work.trials,
                    best=work.portfolio if work.early_stopping else None,
                    correlations=work.header.get("portfolio_aware", False),
                    address=request.address,
                    budget_hours=request.budget_hours,
                    asked=request.asked,
                    copy=copy,
                )
            else:
                engine = adviser()
            validation = open_pairs(work.pairs, "validation").head(work.validation_images)
            delivery = deliver(work.run, journal, engine, validation, work.portfolio, begun)
    listener.say(delivery.diagnostics.warning or delivery.diagnostics.summary)
    return delivery


def not_begun() -> str:
    """Where a command stands that has not yet opened its journal."""
    return "no trial was begun, what is prepared is kept; the same command goes on"


def standing(journal: Journal, trials: int) -> str:
    """Where a search or a final training stands that ends before its last trial or its bundle."""
    observed = len(journal.observations())
    return f"{observed} of {trials} trials observed in {journal.run}; the same command goes on"


def run_work(
    work: Work,
    adviser: Callable[[], A],
    journal: Journal,
    listener: Listener,
    *,
    correlations: bool = False,
    watch: Sequence[str] = (),
    **options: Any,
) -> A:
    """`run_trials` for what is to be trained; `correlations` and `watch` as `trial_config`."""

    def config(candidate: Candidate) -> dict[str, Any]:
        return trial_config(
            candidate,
            run=work.run.name,
            storage=work.storage.uri,
            pairs=work.pairs,
            fingerprint=work.fingerprint,
            scale=work.scale,
            recipe=work.recipe,
            validation_images=work.validation_images,
            correlations=correlations,
            watch=watch,
        )

    return run_trials(
        adviser,
        journal,
        listener,
        concurrent=work.concurrent,
        config=config,
        storage=work.storage,
        pairs=(work.pairs, work.fingerprint),
        memory=lambda candidate: memory_of(candidate.architecture, work.scale, work.recipe),
        **options,
    )


def run_trials(
    adviser: Callable[[], A],
    journal: Journal,
    listener: Listener,
    *,
    trials: int,
    concurrent: int,
    config: Callable[[Candidate], dict[str, Any]],
    best: int | None = None,
    address: str | None = None,
    budget_hours: float | None = None,
    storage: Storage | None = None,
    pairs: tuple[Path, str] | None = None,
    copy: JournalCopy | None = None,
    devices: int = 1,
    asked: Asked | None = None,
    memory: Callable[[Candidate], float] = lambda candidate: 0.0,
) -> A:
    """Trains on Ray until a journal's candidates, and those that are suggested, are observed.

    Args:
        adviser: makes one that knows what the journal holds and says what to train after it.
        journal: open for writing.
        listener: told of everything that happens.
        trials: in all.
        concurrent: trials side by side.
        config: what a worker must know of a candidate.
        best: as `Conductor`.
        address, budget_hours: as `Request`.
        storage: where trials write; None is the run folder.
        pairs: folder and fingerprint of the prepared pairs, which every node must have or fetch.
        copy: of the journal, in a storage elsewhere; nodes find the pairs there.
        devices: that share each training: GPUs where there are any, else CPUs.
        asked: CPUs and GPUs of each trial.
        memory: bytes that a candidate's training takes of a GPU.

    Returns:
        The adviser, which has seen every observation.

    Raises:
        Interrupted: a signal or the time budget came first.
        TrialError: trials cannot run.
    """

    def listen(event: Event) -> None:
        if copy is not None and event.observation is not None:
            copy.touch()
        listener.event(event)

    asked, artefacts = asked or Asked(), storage or open_storage(str(journal.run))
    if address is None:
        check_machine(asked)

    def so_far() -> str:
        return standing(journal, trials)

    def give_up(why: str) -> None:
        listener.say(f"error: {why}: {so_far()}")
        journal.close()
        shutil.rmtree(journal.run / TUNE, ignore_errors=True)

    def session() -> tuple[A, Conductor, bool]:
        """On one Ray; in the end, whether that died."""
        engine = adviser()
        with connected(address, concurrent * devices * (asked.cpus or 1)) as cluster:
            if devices > 1:
                from gpnas.dispatch.together import check_devices  # Ray Train, which few need

                check_devices(devices, cluster)
            if address is not None:
                if pairs is not None and copy is not None:  # other nodes may lack them
                    share(*pairs, artefacts)
                preflight(artefacts, [pairs[0]] if pairs is not None and copy is None else [])
            lender = Lender(asked, cluster, concurrent) if devices == 1 else None
            if lender is not None and lender.side_by_side < concurrent:
                fewer = lender.side_by_side
                listener.say(f"{fewer} trials run side by side, not {concurrent}: there is no room for more")
            conductor = Conductor(
                engine,
                journal,
                trials=trials,
                trial_config=lambda candidate: (
                    config(candidate) | (lender.lend(memory(candidate)) if lender else {})
                ),
                listen=listen,
                best=best,
                begun=lambda candidate: attempts(artefacts, candidate),
            )
            listener.started(journal.run, trials, len(journal.observations()), cluster)
            watching = monitored(journal.run, trials, lambda: conductor.uncertainty)
            with watched(stop.set, partial(give_up, "Ray's processes have died")) as lost, watching:
                try:
                    if not stop.is_set():  # a signal may have come while Ray was starting
                        _fit(conductor, journal.run, concurrent, cluster, devices, lender, artefacts)
                except Exception:
                    if conductor.error is not None or not has_died():
                        raise
                    lost.set()
            conductor.close()
        return engine, conductor, lost.is_set()

    stop.clear()
    with (
        signals(listener.say, partial(give_up, "interrupted")) as received,
        Deadline(budget_hours) as deadline,
    ):
        for _ in range(RAY_STARTS):
            engine, conductor, lost = session()
            if not lost or received or deadline.passed or conductor.abort:
                break
            listener.say(
                "Ray's processes on this machine have died, as when memory runs out; it is started again"
            )
            stop.clear()
        else:
            raise TrialError(
                f"Ray must keep running on this machine, but died {RAY_STARTS} times; look into the system's "
                "log, lower --concurrent, and run the same command again"
            )
    if conductor.abort:
        raise TrialError(conductor.abort)
    if stop.is_set():
        if received:
            raise Interrupted(f"interrupted: {so_far()}", 128 + received[0])
        raise Interrupted(f"the time budget is used up: {so_far()}", 0)
    left = len(journal.pending())
    if left:
        raise TrialError(
            f"every trial must end, but Ray gave up on {left} of them; the same command goes on with them"
        )
    return engine


def _fit(
    conductor: Conductor,
    run: Path,
    concurrent: int,
    cluster: Cluster,
    devices: int,
    lender: Lender | None,
    artefacts: Storage,
) -> None:
    """One session of Tune; its own folder holds nothing that is needed later."""
    session = run / TUNE
    if lender is not None:
        trainable = tune.with_resources(Trial, placed)
        trainable.__qualname__ = Trial.__qualname__  # the dashboard shows it
        room, stopper = lender.side_by_side, Stopper()
    else:
        from gpnas.dispatch.together import Ordering, trial_on

        # its processes have CPUs and GPUs of their own, but Tune refuses a trial that takes nothing
        trainable = tune.with_resources(trial_on(devices, bool(cluster.gpus)), {"cpu": 0, "memory": 2**20})
        room, stopper = int(cluster.gpus or cluster.cpus) // devices, Ordering(artefacts)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=conductor,
            num_samples=-1,
            max_concurrent_trials=min(concurrent, room),
            reuse_actors=devices == 1,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"session-{os.getpid()}",
            storage_path=str(session),
            verbose=0,
            stop=stopper,
            callbacks=[Forgetting()],
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:
        if conductor.error is None:
            last = str(error).strip().splitlines()[-1]
            raise TrialError(f"Ray Tune must run the trials, but {last}; the same command goes on") from error
    finally:
        stopper.close()
        shutil.rmtree(session, ignore_errors=True)
    if conductor.error is not None:
        raise conductor.error


def _trial_name(trial: Any) -> str:
    return trial_name(trial.config)
