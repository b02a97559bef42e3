"""Final training: a search's portfolio, or networks that a person chose, trained to the end.

It takes the way of a search: candidates in a journal, trials on Ray, observations in the journal. Its
candidates are known beforehand, so no engine is asked. Its folder, `final/` in the search's run folder, is a
run folder like any other: the same command goes on with it, and `gpnas status` and `gpnas export` read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gpnas_trainers
from gpnas.config import read_recipe_file
from gpnas.data import Prepared, data_errors, prepared_pairs
from gpnas.dispatch.initial import FRESH, SEARCH, Find, finder, lay_out
from gpnas.dispatch.request import Means
from gpnas.dispatch.session import Listener, Session, not_begun, recorded
from gpnas.dispatch.signals import interruptible
from gpnas.dispatch.watchers import check_tensorboard
from gpnas.dispatch.work import Work, check_patch, header_of
from gpnas.errors import DataError, SpaceError, TrialError
from gpnas.journal import Journal
from gpnas.records import Architecture, Candidate, Fidelity, Observation
from gpnas.results.choosing import Allowance, choose_portfolio, finished_candidates, most_networks
from gpnas.results.delivery import Delivery, deliver
from gpnas.run.copying import journal_copied, storage_for
from gpnas.run.networks import check_networks, named, own_networks, taken_up
from gpnas.run.setup import Data, OwnNetwork, Setup
from gpnas.run.storage import Folder
from gpnas_trainers.pairs import MINIMUM_NCC, Camera, PairsError, Rules, cache_folder, open_pairs
from gpnas_trainers.train import Recipe

FOLDER = "final"
"""Folder of a final training in the run folder of its search."""
CONCURRENT = 2
"""Trainings side by side where neither a user nor a search says."""


@dataclass(frozen=True)
class FinalRequest:
    """What a user asks a final training for; None where the search, or a default, decides."""

    search: Path | None = None
    """Run folder of a finished search whose portfolio is trained."""
    architectures: tuple[str, ...] = ()
    """Networks that a person chose, such as `drn:features=128,blocks=18,stages=3`; without a search."""
    networks: tuple[str, ...] = ()
    """Sources of networks of one's own among these, such as `nets.py:Mine`."""
    run: Path | None = None
    """Folder of this training; None is `final` in the search's."""
    top: int | None = None
    """How many networks of the portfolio are trained."""
    allowance: Allowance = field(default_factory=Allowance)
    """What the portfolio's networks may cost together."""
    data: Path | None = None
    """Folder of LR/HR pairs; None is what the search was given."""
    scale: int | None = None
    recipe_file: Path | None = None
    """YAML file with settings of the recipe."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings that stand above the file's, which stand above the search's."""
    warm_start: str | None = None
    """`search`, `none`, or the path of a run folder or a bundle."""
    seed: int | None = None
    concurrent: int | None = None
    means: Means = field(default_factory=Means)
    tensorboard: bool = False
    storage: str | None = None
    """Where checkpoints and networks go: a path, or an address that pyarrow knows; None is the folder of this
    training, or where an existing one has put them."""


@dataclass(frozen=True)
class FinalPlan(Work):
    """A request, made definite and checked."""

    architectures: tuple[tuple[str | None, Architecture], ...] = field(kw_only=True)
    """The networks to train, each with the name of its candidate in the search, if it has one."""
    find: Find | None = field(kw_only=True)
    """Finds the weights that a training begins with, if there are any for it; None: all begin anew."""


@dataclass(frozen=True)
class Wanted:
    """The networks that a request names, and where they are trained."""

    run: Path
    scale: int
    architectures: Sequence[tuple[str | None, Architecture]]
    """Each with the name of its candidate in the search, if it has one."""
    search: Path | None = None
    """Run folder of the search; None where a person named the networks."""
    setup: Setup | None = None
    """The search's."""
    seed: int = 0
    """Where a user gives none; so is the next."""
    concurrent: int = CONCURRENT
    networks: Mapping[str, OwnNetwork] = field(default_factory=dict)
    """Those that are a person's own, by family."""


class Settled:
    """An adviser without advice: what is to be trained stands in the journal already."""

    def suggest(self, n: int) -> list[Candidate]:
        return []

    def observe(self, observation: Observation) -> None: ...

    def outlook(self, architecture: Architecture) -> None: ...

    def uncertainty(self) -> None: ...

    def prospect(self) -> None: ...


def plan_final(
    request: FinalRequest,
    say: Callable[[str], None],
    preparing: Callable[[str, int, int], None] | None = None,
) -> FinalPlan:
    """Reads and checks everything that a request names, and prepares its pairs.

    Raises:
        SpaceError, DataError, JournalError, BundleError, TrialError: something in it breaks a rule.
    """
    request.means.asked.check(request.means.devices)
    if request.tensorboard:
        check_tensorboard()
    wanted = _wanted(request, say)
    searched = wanted.setup
    run, scale = wanted.run, wanted.scale
    in_file = read_recipe_file(request.recipe_file).given() if request.recipe_file else {}
    settings = {**in_file, **request.recipe}
    recipe = _recipe(settings, searched.recipe if searched else {})
    progress = preparing and partial(preparing, "pairs")
    pairs, data = _pairs(request, scale, recipe, searched, say, progress)
    check_patch(pairs.training, recipe)
    if recipe.batch_size < request.means.devices:
        raise SpaceError(
            f"each device needs a patch of every batch, but got batch_size={recipe.batch_size} "
            f"and devices={request.means.devices}; lower --devices"
        )
    storage = storage_for(run, request.storage, say)
    if request.tensorboard and not isinstance(storage, Folder):
        raise TrialError(
            f"--tensorboard writes files that grow, which {storage.uri} cannot hold; leave one of them out"
        )
    warm_start = request.warm_start or (SEARCH if searched else FRESH)
    setup = Setup(
        scale=scale,
        recipe=recipe.to_json(),
        data=data,
        validation_images=len(pairs.validation),
        search=wanted.search.name if wanted.search else None,
        warm_start=warm_start if warm_start in (FRESH, SEARCH) else Path(warm_start).name,
        family_recipes={
            family: {name: value for name, value in own.items() if name not in settings}
            for family, own in (searched.family_recipes if searched else {}).items()
        },
        networks=wanted.networks,
    )
    header = header_of(
        run,
        setup,
        storage,
        request.means,
        trials=len(wanted.architectures),
        seed=wanted.seed if request.seed is None else request.seed,
        concurrent=request.concurrent or min(wanted.concurrent, len(wanted.architectures)),
    )
    watch = ("json", "tensorboard") if request.tensorboard else ("json",)
    return FinalPlan(
        *(run, setup, pairs, storage, request.means, header),
        watch=watch if isinstance(storage, Folder) else (),
        architectures=tuple(wanted.architectures),
        find=None if warm_start == FRESH else finder(warm_start, wanted.search),
    )


def run_final(request: FinalRequest, listener: Listener) -> Delivery:
    """Trains, or goes on with, a final training; then weighs the average and writes its bundle.

    Returns:
        The finished training: ranking, portfolio, bundle.

    Raises:
        SpaceError, DataError, JournalError, BundleError: something given cannot be used.
        Interrupted: a signal or the time budget came before the last step.
        TrialError: trials cannot run, or none succeeded.
    """
    begun = time.monotonic()
    with interruptible(not_begun):
        work = plan_final(request, listener.say, listener.preparing)
    with recorded(work, listener) as journal:
        wanted = _enter(work, journal)
        if work.find is not None:
            for each in wanted:
                if not lay_out(work.storage, each, work.find):
                    listener.say(f"{each.id} begins with fresh weights: no {each.architecture} to start from")
        with journal_copied(work.run, work.storage, listener.say) as copy:
            if journal.pending():
                Session(work, Settled, journal, listener, copy).run()
            names = [each.id for each in wanted]
            validation = work.pairs.validation
            return deliver(work.run, journal, validation, len(names), begun, names=names)


def architecture_of(text: str, scale: int) -> Architecture:
    """The architecture that a person wrote as `family:axis=value,…`.

    Raises:
        SpaceError: it is not written so, or there is no such network.
    """
    try:
        architecture = Architecture.parse(text)
        gpnas_trainers.check(architecture.family, scale, **architecture.axes)
    except ValueError as error:
        raise SpaceError(f"--architecture {text}: {error}") from None
    return architecture


def _wanted(request: FinalRequest, say: Callable[[str], None]) -> Wanted:
    if (request.search is None) == (not request.architectures):
        raise TrialError(
            "a final training needs either the run folder of a finished search or --architecture, "
            f"but got {'both' if request.architectures else 'neither'}; name one of them"
        )
    if request.search is not None:
        if request.networks:
            raise TrialError(
                f"a run trains its networks with the source that it began with, but got --networks "
                f"{request.networks[0]}; name networks by --architecture to train them with another"
            )
        return _portfolio(request, request.search.absolute())
    if request.run is None:
        raise TrialError("networks named by --architecture need a folder of their own; name it with --run")
    if request.top is not None:
        raise TrialError(
            f"only a search has a portfolio to choose, but got --top {request.top}; leave it out"
        )
    scale, run = request.scale or 2, request.run.absolute()
    families = [text.partition(":")[0] for text in request.architectures]
    codes = taken_up(named(request.networks, families), run, say)
    architectures = [architecture_of(text, scale) for text in request.architectures]
    check_networks(architectures, scale, codes)
    own = own_networks(architectures, scale, codes)
    return Wanted(run, scale, [(None, each) for each in architectures], networks=own)


def _portfolio(request: FinalRequest, search: Path) -> Wanted:
    with Journal.read(search) as journal:
        header = journal.header
        if header.search is None:
            raise TrialError(f"{search}: is a final training itself; name the run folder of a search")
        setup, candidates = Setup.of(journal), finished_candidates(search, journal)
        if request.scale not in (None, setup.scale):
            raise SpaceError(
                f"{search}: a search's networks are trained at its scale {setup.scale}, but got "
                f"{request.scale}; name them by --architecture to train them at another"
            )
        most = most_networks(search, journal, len(candidates), request.top)
        chosen = choose_portfolio(search, journal, candidates, most, request.allowance)
    run = (request.run or search / FOLDER).absolute()
    members = [(each.id, each.architecture) for each in chosen.portfolio.members]
    families = {architecture.family for _, architecture in members}
    own = {family: network for family, network in setup.networks.items() if family in families}
    return Wanted(run, setup.scale, members, search, setup, header.seed, header.concurrent, own)


def _recipe(asked: Mapping[str, Any], searched: Mapping[str, Any]) -> Recipe:
    settings = dict(asked)
    if "steps" in settings and "steps" in searched and "evaluate_every" not in settings:
        # as many validations as in the search, since these are on all images
        settings["evaluate_every"] = max(
            1, round(searched["evaluate_every"] * settings["steps"] / searched["steps"])
        )
    try:
        return Recipe(**(dict(searched) | settings))
    except ValueError as error:
        raise SpaceError(f"the recipe of a final training: {error}") from None


def _pairs(
    request: FinalRequest,
    scale: int,
    recipe: Recipe,
    searched: Setup | None,
    say: Callable[[str], None],
    preparing: Callable[[int, int], None] | None,
) -> tuple[Prepared, Data]:
    """The prepared pairs, and what is recorded of them."""
    known = searched.data if searched else None
    source, side = request.data, max(recipe.hr_patch, searched.recipe.get("hr_patch", 0) if searched else 0)
    if source is None and known and known.camera is None:
        source = _prepared(known.fingerprint)
        if source is None:
            raise DataError(
                f"a final training needs the pairs of its search, but those of {known.source} are no "
                "longer prepared; name their folder with --data"
            )
    with data_errors():
        camera = Camera(**((known and known.camera) or {})) if source is None else None
    rules = Rules(minimum_side=side, minimum_ncc=MINIMUM_NCC)
    pairs = prepared_pairs(source, scale, rules, camera=camera, report=say, progress=preparing)
    of_search = None if known is None else pairs.training.fingerprint == known.fingerprint
    if of_search is False:
        say("these are not the pairs of the search; the journal and the bundle say so")
    return pairs, Data(
        fingerprint=pairs.training.fingerprint,
        validation=pairs.validation.fingerprint,
        source=request.data.name if request.data else known.source if known else "photographs",
        camera=asdict(camera) if camera else None,
        pairs=len(pairs.training),
        of_search=of_search,
        pictures=pairs.training.pictures,
    )


def _prepared(fingerprint: str) -> Path | None:
    """The prepared set whose training pairs have this fingerprint, where the cache still holds it."""
    for path in sorted(cache_folder().glob("*/manifest.json")):
        with suppress(PairsError):
            if open_pairs(path.parent, "train").fingerprint == fingerprint:
                return path.parent
    return None


def _enter(work: FinalPlan, journal: Journal) -> list[Candidate]:
    """The candidates of the wanted networks, in order; those that the journal lacks are committed."""
    known = journal.candidates()
    free = list(known)
    wanted: list[Candidate] = []
    new: list[Candidate] = []
    for name, architecture in work.architectures:
        found = next(
            (each for each in free if each.architecture == architecture and name in (None, each.id)), None
        )
        if found is not None:
            free.remove(found)
        else:
            name = name or f"c{len(known) + len(new):04d}"
            seed = int(np.random.SeedSequence([work.header.seed, *name.encode()]).generate_state(1)[0]) >> 1
            decision = {"phase": "final training"}
            found = Candidate(name, architecture, Fidelity(work.recipe.steps), seed, decision)
            new.append(found)
        wanted.append(found)
    journal.commit_candidates(new)
    return wanted
