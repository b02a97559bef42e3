"""Trials on Ray, until every candidate of a journal, and each that is suggested, is observed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ray import tune
from ray.tune.error import TuneError

from gpnas.ask_tell import Adviser, AskTell
from gpnas.dispatch.cluster import Cluster, StartError, connected, watched
from gpnas.dispatch.conductor import MAX_RESTARTS, Conductor, Event, Forgetting, Stopper
from gpnas.dispatch.halt import Halt, deadline
from gpnas.dispatch.monitoring import monitored
from gpnas.dispatch.own_work import OwnWork
from gpnas.dispatch.preflight import preflight
from gpnas.dispatch.private_ray import giving_back, has_died, without_environment
from gpnas.dispatch.report import name_of
from gpnas.dispatch.resources import Lender, check_machine, placed
from gpnas.dispatch.shared import is_kept, joined
from gpnas.dispatch.signals import Interrupted, interruptible, signals
from gpnas.dispatch.work import Work
from gpnas.errors import TrialError
from gpnas.journal import Journal
from gpnas.records import Candidate
from gpnas.run.copying import JournalCopy
from gpnas.run.cores import one_core
from gpnas.run.layout import attempts
from gpnas.run.shares import FOLDER, Share

TUNE = "tune"
"""Folder of Tune's session in a run folder, while it lasts."""
RAY_STARTS = 10
"""How often, at most, Ray is started for one command, where it dies."""

A = TypeVar("A", bound=Adviser)


class Listener(Protocol):
    """Someone who watches a search: the terminal, a test."""

    def say(self, line: str) -> None: ...
    def preparing(self, what: str, done: int, total: int) -> None: ...
    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None: ...
    def event(self, event: Event) -> None: ...


def granted(journal: Journal) -> int:
    """The trials of a search, or those of a final training, which stand in its journal from the start."""
    return journal.header.trials if journal.header.search else len(journal.candidates())


def standing(journal: Journal) -> str:
    """Where a search or a final training stands that ends before its last trial or its bundle."""
    observed = len(journal.observations())
    return f"{observed} of {granted(journal)} trials observed in {journal.run}; the same command goes on"


def not_begun() -> str:
    """Where a command stands that has not yet opened its journal."""
    return "no trial was begun, what is prepared is kept; the same command goes on"


@contextmanager
def recorded(work: Work | OwnWork, listener: Listener) -> Iterator[Journal]:
    """The journal of what is trained; an interruption within says where that stands."""
    # what the engine computes must not depend on where: sums in threads differ in their last digits
    with (
        one_core(),
        Journal.create_or_open(work.run, work.header) as journal,
        interruptible(lambda: standing(journal)),
    ):
        if journal.note:
            listener.say(journal.note)
        yield journal


class Session(Generic[A]):
    """The trials of one command, on one Ray or, where that dies, on several in turn."""

    def __init__(
        self,
        work: Work | OwnWork,
        adviser: Callable[[], A],
        journal: Journal,
        listener: Listener,
        copy: JournalCopy | None = None,
    ) -> None:
        """Prepares the trials of what is to be trained.

        Args:
            work: what and how.
            adviser: makes one that knows what the journal holds and says what to train after it.
            journal: open for writing.
            listener: called with everything that happens.
            copy: of the journal, in a storage elsewhere; nodes find the pairs there.
        """
        self._work, self._adviser, self._journal = work, adviser, journal
        self._listener, self._copy = listener, copy
        self._trials = granted(journal)
        self._halt = Halt()
        self._unwatched: Callable[[], None] = lambda: None

    def run(self) -> A:
        """Trains until all is observed.

        Returns:
            The adviser, which has seen every observation.

        Raises:
            Interrupted: a signal or the time budget came first.
            TrialError: trials cannot run.
            JournalError: the journal cannot be written.
        """
        halt, means = self._halt, self._work.means
        if means.address is None:
            check_machine(means.asked)
        give_up = partial(self._give_up, "interrupted")
        with signals(halt, self._listener.say, give_up), deadline(halt, means.budget_hours):
            for _ in range(RAY_STARTS):
                halt.lost = False
                adviser = self._on_one_ray()
                if halt.final or not halt.lost:
                    break
                self._listener.say(
                    "Ray's processes on this machine have died, as when memory runs out; it is started again"
                )
            else:
                raise TrialError(
                    f"Ray must keep running on this machine, but died {RAY_STARTS} times; look into the "
                    "system's log, lower --concurrent, and run the same command again"
                )
        self._check_finished()
        return adviser

    def _on_one_ray(self) -> A:
        """Trains until all is observed, there is an order to end, or Ray has died."""
        means, adviser = self._work.means, self._adviser()
        cpus = self._work.header.concurrent * means.devices * (means.asked.cpus or 1)
        shared = os.environ.get(FOLDER) if means.devices == 1 else None
        try:
            with ExitStack() as stack:
                address, share, died = means.address, None, has_died
                if shared is not None:
                    folder, wants = Path(shared), self._work.header.concurrent
                    if address is None:
                        address, share = stack.enter_context(joined(folder, wants))
                        died = lambda: not is_kept(folder)  # noqa: E731 - a name of its own would say less
                    else:
                        share = stack.enter_context(closing(Share(folder, wants)))
                own = shared is not None and means.address is None
                cluster = stack.enter_context(connected(address, cpus, on_loopback=own))
                self._train(adviser, cluster, share, died)
        except StartError:
            self._halt.lost = True
        return adviser

    def _train(self, adviser: A, cluster: Cluster, share: Share | None, has_died: Callable[[], bool]) -> None:
        journal, trials = self._journal, self._trials
        lender = self._looked_over(cluster)
        give_up = partial(self._give_up, "error: Ray's processes have died")
        with self._conducted(adviser, cluster, lender, share) as (conductor, search):
            begun = len(journal.candidates())  # which are finished whatever is granted
            self._listener.started(journal.run, max(trials, begun), len(journal.observations()), cluster)
            with (
                watched(self._halt, give_up, has_died),
                giving_back(lambda: conductor.is_full) if share is not None else nullcontext(),
                monitored(journal.run, trials, lambda: search.uncertainty) as self._unwatched,
            ):
                try:
                    if not self._halt.ordered:  # a signal may have come while Ray was starting
                        self._fit(conductor, cluster, lender)
                except Exception:
                    if self._halt.error is None and not has_died():
                        raise
                    self._halt.lost = self._halt.lost or has_died()
                finally:
                    if share is not None:  # Ray takes its time to let go
                        share.close()

    def _looked_over(self, cluster: Cluster) -> Lender | None:
        """Raises a `TrialError` where the cluster cannot run the trials; else says what each is lent."""
        work, means = self._work, self._work.means
        if means.devices > 1:
            from gpnas.dispatch.together import check_devices  # Ray Train, which few need

            check_devices(means.devices, cluster)
        if means.address is not None:
            if self._copy is not None:  # other nodes may lack the pairs
                work.share()
            preflight(work.storage, work.reading if self._copy is None else [])
        if means.devices > 1:
            return None
        lender = Lender(means.asked, cluster, work.header.concurrent)
        if lender.side_by_side < work.header.concurrent:
            self._listener.say(
                f"{lender.side_by_side} trials run side by side, not {work.header.concurrent}: "
                "there is no room for more"
            )
        return lender

    @contextmanager
    def _conducted(
        self, adviser: A, cluster: Cluster, lender: Lender | None, share: Share | None
    ) -> Iterator[tuple[Conductor, AskTell]]:
        work = self._work

        def config(candidate: Candidate) -> dict[str, Any]:
            task = asdict(work.task(candidate))
            if lender is None:
                return task
            return task | lender.lend(partial(work.memory, candidate))

        def listen(event: Event) -> None:
            if self._copy is not None and event.observation is not None:
                self._copy.touch()
            self._listener.event(event)

        search = AskTell(
            adviser,
            self._journal,
            trials=self._trials,
            best=work.header.best,
            stop_below=work.header.stop_below,
        )
        conductor = Conductor(
            search,
            self._halt,
            trial_config=config,
            listen=listen,
            begun=lambda candidate: attempts(work.storage, candidate),
            logs=cluster.logs,
            allowed=(lambda: sys.maxsize)
            if share is None or lender is None
            else partial(share.allowed, lender.room),
        )
        yield conductor, search
        if self._halt.error is None:
            conductor.close()
        search.close()

    def _fit(self, conductor: Conductor, cluster: Cluster, lender: Lender | None) -> None:
        """One session of Tune; its own folder holds nothing that is needed later."""
        work, devices = self._work, self._work.means.devices
        if lender is not None:
            trainable = tune.with_resources(work.trainable, placed)
            trainable.__qualname__ = work.trainable.__qualname__  # the dashboard shows it
            room, stopper = lender.side_by_side, Stopper(self._halt, conductor)
        else:
            from gpnas.dispatch.together import Ordering, trial_on

            # its processes have CPUs and GPUs of their own, but Tune refuses a trial that takes nothing
            trainable = tune.with_resources(
                trial_on(devices, bool(cluster.gpus)), {"cpu": 0, "memory": 2**20}
            )
            room = int(cluster.gpus or cluster.cpus) // devices
            stopper = Ordering(self._halt, work.storage)
        session = self._journal.run / TUNE
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=conductor,
                num_samples=-1,
                max_concurrent_trials=min(work.header.concurrent, room),
                reuse_actors=devices == 1,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
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
            with without_environment() if lender is not None else nullcontext():
                tuner.fit()
        except TuneError as error:
            if self._halt.error is None:
                last = str(error).strip().splitlines()[-1]
                message = f"Ray Tune must run the trials, but {last}; the same command goes on"
                raise TrialError(message) from error
        finally:
            stopper.close()
            shutil.rmtree(session, ignore_errors=True)

    def _check_finished(self) -> None:
        halt = self._halt
        if halt.error is not None:
            raise halt.error
        so_far = standing(self._journal)
        if halt.signal is not None:
            raise Interrupted(f"interrupted: {so_far}", 128 + halt.signal)
        if halt.out_of_time:
            raise Interrupted(f"the time budget is used up: {so_far}", 0)
        left = len(self._journal.pending())
        if left:
            raise TrialError(
                f"every trial must end, but Ray gave up on {left} of them; the same command goes on with them"
            )

    def _give_up(self, why: str) -> None:
        """The last words of a process that ends although Ray does not."""
        self._listener.say(f"{why}: {standing(self._journal)}")
        self._unwatched()
        self._journal.close()
        shutil.rmtree(self._journal.run / TUNE, ignore_errors=True)


def _name(trial: Any) -> str:
    """A trial's name in Tune, and of its folder there."""
    return re.sub(r"[^\w.-]", "_", name_of(trial.config), flags=re.ASCII)[:120]
