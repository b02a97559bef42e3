"""The main job: from a space file and photographs to a portfolio and its bundle.

`run_search` is start and resume at once: what a run folder's journal already holds is not done
again. A run folder holds `journal.sqlite`, `candidates/` where no other storage is given and, at the
end, `bundle/`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gpnas.config import SpaceFile, find_space, read_space_file
from gpnas.data import Prepared, prepared_pairs
from gpnas.dispatch.own_work import OwnWork, plan_own
from gpnas.dispatch.request import Request
from gpnas.dispatch.session import Listener, Session, not_begun, recorded
from gpnas.dispatch.signals import interruptible
from gpnas.dispatch.work import Work, check_patch, header_of
from gpnas.engine import Engine, engine_for
from gpnas.errors import SpaceError
from gpnas.explanation import taught
from gpnas.journal import Header, Journal, Search
from gpnas.records import gain_in_words
from gpnas.results.delivery import Delivery, deliver
from gpnas.results.own_delivery import OwnDelivery, deliver_own
from gpnas.run.copying import journal_copied, storage_for
from gpnas.run.defaults import defaults_of
from gpnas.run.networks import check_networks, own_networks, taken_up
from gpnas.run.pricing import check_candidates, priced
from gpnas.run.setup import PSNR, Data, Setup
from gpnas.run.warm import sources_of
from gpnas.space import SearchSpace
from gpnas_trainers.pairs import MINIMUM_NCC, Camera, PairsError, Rules


@dataclass(frozen=True)
class Plan(Work):
    """The work of a search."""

    space: SearchSpace = field(kw_only=True)


def plan(
    request: Request, say: Callable[[str], None], preparing: Callable[[str, int, int], None] | None = None
) -> Plan:
    """Reads and checks everything that a request names, and prepares its pairs.

    Args:
        request: what is asked for.
        say: called with lines about the pairs and the storage.
        preparing: called with what is prepared, how many of it are, and of how many: architectures whose
            costs are counted, pairs.

    Raises:
        SpaceError, DataError, TrialError: something in it breaks a rule.
    """
    request.means.asked.check(1)
    path = find_space(request.space)
    file = read_space_file(path)
    _check_objective(path, request, file)
    scale = request.scale or file.scale
    recipe = file.common_recipe
    run = (request.run or Path("runs") / path.stem).absolute()
    codes = taken_up(file.families.codes, run, say)
    counting = preparing and partial(preparing, "architectures")
    patch = recipe.hr_patch if "memory" in file.limits.given() else None
    check_networks(file.search_space(), scale, codes, hr_patch=patch, progress=counting)
    space = priced(file.search_space(), scale, file.limits.given(), recipe, progress=counting)
    trials = request.trials or file.search.trials
    if trials < 1:
        raise SpaceError(f"`trials >= 1` must hold, but got trials={trials}")
    try:
        camera = Camera(**file.camera.given())
    except PairsError as error:
        raise SpaceError(f"{path}: `camera`: {error}") from None
    rules = Rules(minimum_side=recipe.hr_patch, minimum_ncc=MINIMUM_NCC)
    progress = preparing and partial(preparing, "pairs")
    pairs = prepared_pairs(request.data, scale, rules, camera=camera, report=say, progress=progress)
    check_patch(pairs.training, recipe)
    storage = storage_for(run, request.storage, say)
    sources = sources_of(request.warm_start, run, scale, PSNR)
    published = file.search.defaults_first and not sources
    search = Search(
        space={"fingerprint": space.fingerprint, **space.to_document()},
        strategy=request.strategy or file.search.strategy,
        steps=recipe.steps,
        portfolio=file.search.portfolio,
        cost_aware=_either(request.cost_aware, file.search.cost_aware),
        portfolio_aware=_either(request.portfolio_aware, file.search.portfolio_aware),
        common_seeds=file.search.common_seeds,
        sources=sources,
        defaults=defaults_of(space, file.families.defaults, published=published),
    )
    setup = Setup(
        *(scale, recipe.to_json(), _data(pairs, request, camera), file.search.validation_images),
        family_recipes=file.families.recipes,
        networks=own_networks(space, scale, codes),
    )
    header = header_of(
        run,
        setup,
        storage,
        request.means,
        trials=trials,
        search=search,
        seed=request.seed,
        concurrent=request.concurrent or file.search.concurrent,
        early_stopping=_either(request.early_stopping, file.search.early_stopping),
        stop_below=file.search.stop_below,
    )
    return Plan(run, setup, pairs, storage, request.means, header, space=space)


def _data(pairs: Prepared, request: Request, camera: Camera) -> Data:
    return Data(
        fingerprint=pairs.training.fingerprint,
        validation=pairs.validation.fingerprint,
        source=request.data.name if request.data else "photographs",
        camera=None if request.data else dataclasses.asdict(camera),
        pictures=pairs.training.pictures,
    )


def _check_objective(path: Path, request: Request, file: SpaceFile) -> None:
    if request.trial_hours is not None:
        raise SpaceError(
            f"{path}: --trial-hours is for a `trainer` of your own, but the file names none; leave it out"
        )
    if file.objective is not None:
        raise SpaceError(
            f"{path}: `objective` is for trainings of your own, but gpnas trains these and maximises PSNR; "
            "leave it out, or ask and tell (`gpnas.open_search`)"
        )


def _either(asked: bool | None, filed: bool) -> bool:
    """A switch as the command line has it, else as the space file does."""
    return filed if asked is None else asked


def run_own(request: Request, listener: Listener) -> OwnDelivery:
    """The main job, like `run_search`, where the space file names a trainer of one's own."""
    begun = time.monotonic()
    with interruptible(not_begun):
        request.means.asked.check(1)
        path = find_space(request.space)
        work = plan_own(path, read_space_file(path), request, listener.say)
    with _searched(work, listener) as (journal, engine):
        return deliver_own(work.storage, journal, engine, time.monotonic() - begun)


def run_search(request: Request, listener: Listener) -> Delivery:
    """Searches, or goes on with a search, until its trials are observed; then delivers its portfolio.

    Args:
        request: what is asked for.
        listener: called with everything that happens.

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
    with _searched(work, listener) as (journal, engine):
        assert work.header.search is not None
        validation = work.pairs.validation.head(work.setup.validation_images)
        most = work.header.search.portfolio
        return deliver(work.run, journal, validation, most, begun, engine=engine)


@contextmanager
def _searched(work: Plan | OwnWork, listener: Listener) -> Iterator[tuple[Journal, Engine]]:
    """The journal of a search whose trials are all observed, and an engine that knows it; its last words."""
    with recorded(work, listener) as journal:
        check_candidates(journal, work.space)
        adviser = partial(_engine, work, journal)
        with journal_copied(work.run, work.storage, listener.say) as copy:
            engine = adviser()
            if journal.pending() or not _ended(engine, journal, work.header):
                engine = Session(work, adviser, journal, listener, copy).run()
            yield journal, engine
        for line in _last_words(engine, len(journal.candidates()), work.header):
            listener.say(line)


def _engine(work: Plan | OwnWork, journal: Journal) -> Engine:
    """An engine that knows what a journal holds."""
    engine = engine_for(work.space, work.header)
    engine.replay(journal.candidates(), journal.observations())
    return engine


def _ended(engine: Engine, journal: Journal, header: Header) -> bool:
    """Whether nothing more is to be proposed."""
    if len(journal.candidates()) >= header.trials:
        return True
    prospect = None if header.stop_below is None else engine.prospect()
    return prospect is not None and prospect.settles(header.stop_below)


def _last_words(engine: Engine, proposed: int, header: Header) -> Iterator[str]:
    """What a search has taught, what stopping now is expected to lose, and how far that can be trusted."""
    learned, diagnostics = taught(engine)
    yield from learned.conclusions(header.objective.unit) if learned else ()
    yield from _ahead(engine, proposed, header)
    yield diagnostics.warning or diagnostics.in_words


def _ahead(engine: Engine, proposed: int, header: Header) -> Iterator[str]:
    """What stopping now is expected to lose, and why a search ended early that did."""
    prospect = engine.prospect()
    if prospect is None:
        return
    unit = header.objective.unit
    about, most = (f"{each:.3f} {unit}".rstrip() for each in (prospect.regret, prospect.bound))
    yield f"left to gain: {gain_in_words(about, most, prospect.bound < prospect.regret)}"
    if proposed < header.trials and prospect.settles(header.stop_below):
        yield (
            f"ended after {proposed} of {header.trials} trials, since that is below `search.stop_below`, "
            f"{header.stop_below:g}; lower it, or leave it out, and the same command goes on"
        )
