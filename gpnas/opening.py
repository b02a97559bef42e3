"""Opens a run folder for a loop of one's own, or makes one: `gpnas.open_search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import JournalError, SpaceError
from gpnas.journal import Header, Journal, Search
from gpnas.own_search import LEASE_SECONDS, OwnSearch
from gpnas.records import STRATEGIES, Objective, Strategy
from gpnas.run.setup import OwnSetup

if TYPE_CHECKING:
    from gpnas.space import SearchSpace
    from gpnas_trainers.own import Code

VALUE = Objective("value", "")
"""What a search makes as large as it can where nobody says what it is."""
TRIALS = 40
"""Trainings granted where nobody says how many."""
MOST_COSTS = 200_000
"""Most architectures whose costs a header holds."""


@dataclass(frozen=True)
class Wishes:
    """What a user asks of a search of their own; None where the space file decides, or a default."""

    trials: int | None = None
    objective: Objective | None = None
    strategy: Strategy | None = None
    seed: int = 0
    steps: int | None = None
    """The steps of each training; the curves of those that end after so many say whether others will
    matter."""
    early_stopping: bool | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "steps"):
            if (count := getattr(self, name)) is not None and (type(count) is not int or count < 1):
                raise SpaceError(f"`{name}` must be a whole number of at least 1, but got {count!r:.40}")
        if self.strategy is not None and self.strategy not in STRATEGIES:
            raise SpaceError(
                f"`strategy` must be one of {', '.join(STRATEGIES)}, but got {self.strategy!r:.40}"
            )
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            raise SpaceError(f"`0 <= seed < 2**31` must hold, but got {self.seed!r:.40}")


def open_search(  # noqa: PLR0913 - the search's face for Python: each but the run may be left out
    run: Path | str,
    space: SearchSpace | Path | str | None = None,
    *,
    trials: int | None = None,
    objective: Objective | Mapping[str, str] | None = None,
    strategy: Strategy | None = None,
    seed: int = 0,
    steps: int | None = None,
    early_stopping: bool | None = None,
    worker: str | None = None,
    lease_seconds: float = LEASE_SECONDS,
    bound: bool = True,
) -> OwnSearch:
    """A search that is asked and told by a loop of one's own; a context manager.

    Several processes of one machine may open the same run folder. Where a process dies, whoever opens the
    folder again is given what it had not told.

    Args:
        run: the run folder; made where it is missing.
        space: a `SearchSpace`, a space file, or the name of a shipped one; None goes on with an existing run.
        trials: trainings granted in all; a larger number extends an existing run.
        objective: name, unit and goal of what is told, such as `{"name": "accuracy", "unit": "%"}`.
        strategy: how it chooses.
        seed: of its choices.
        steps: of each training, where progress is told.
        early_stopping: whether `progress` says stop to trainings that will not matter.
        worker: a name by which the one that asks is known again, also after it died.
        lease_seconds: length of leases that time ends.
        bound: whether leases end with this process, rather than with time.

    Raises:
        SpaceError: the space breaks a rule.
        JournalError: the run belongs to another search, a driver has it, or it cannot be used.
    """
    run = Path(run).absolute()
    wishes = Wishes(trials, _objective(objective), strategy, seed, steps, early_stopping)
    made: SearchSpace | None = None
    if space is None:
        journal = _gone_on(run, trials)
    else:
        header, made = header_of(space, wishes)
        journal = Journal.share(run, header)
    try:
        if journal.header.setup.get("trained_by") != "a person's own loop":
            raise JournalError(
                f"{run}: only the run of a loop of one's own is asked and told, but gpnas trains this one by "
                "itself; choose another folder"
            )
        make: Callable[[], SearchSpace] = partial(_space_of, journal) if made is None else lambda: made
        return OwnSearch(journal, make, worker=worker, seconds=lease_seconds, bound=bound)
    except BaseException:
        journal.close()
        raise


def _objective(given: Objective | Mapping[str, Any] | None) -> Objective | None:
    if given is None or isinstance(given, Objective):
        return given
    try:
        return Objective(**{"unit": "", **given})
    except (TypeError, ValueError) as error:
        raise SpaceError(f"an objective has a `name`, a `unit` and a `goal`, but {error}") from None


def header_of(
    space: SearchSpace | Path | str, wishes: Wishes, code: Code | None = None
) -> tuple[Header, SearchSpace]:
    """What a search of one's own is, and its space with what is known before training.

    Args:
        space: or the file that describes it.
        wishes: what a user asks.
        code: of a training of one's own; None for a loop.

    Raises:
        SpaceError: the space breaks a rule.
    """
    from gpnas.run.provenance import machine, versions
    from gpnas.space import SearchSpace

    settings: dict[str, Any] = {}
    if not isinstance(space, SearchSpace):
        space, settings = read_own(space)
    costs = {name: tuple(values.tolist()) for name, values in space.costs.items()}
    memory = settings.get("memory", ())
    if costs and len(space) > MOST_COSTS:
        raise SpaceError(
            f"a space with known costs must have at most {MOST_COSTS:,} architectures, but has {len(space):,}"
        )
    if code is None:
        setup = OwnSetup("a person's own loop", costs, memory=memory)
    else:
        setup = OwnSetup("a person's own training", costs, dataclasses.asdict(code), memory)
    objective = wishes.objective or settings.get("objective") or VALUE
    search = Search(
        space={"fingerprint": space.fingerprint, **space.to_document()},
        strategy=wishes.strategy or settings.get("strategy", "mi+kg"),
        steps=wishes.steps or settings.get("steps", 1),
        portfolio=settings.get("portfolio", 3),
        cost_aware=settings.get("cost_aware", False),
        common_seeds=settings.get("common_seeds", True),  # experiments/results/common_seeds.md
        defaults=settings.get("defaults", ()),
    )
    stops = settings.get("early_stopping", True) if wishes.early_stopping is None else wishes.early_stopping
    header = Header(
        trials=wishes.trials or settings.get("trials", TRIALS),
        objective=objective,
        search=search,
        setup=setup.to_json(),
        seed=wishes.seed,
        early_stopping=stops,
        versions=versions(),
        machine=machine(),
    )
    return header, space


def read_own(space: Path | str) -> tuple[SearchSpace, dict[str, Any]]:
    """A space file's space, with costs where gpnas has the networks, and its settings."""
    from gpnas.config import find_space, read_space_file
    from gpnas.run.defaults import defaults_of
    from gpnas.run.pricing import memory_of, priced
    from gpnas_trainers import FAMILIES

    path = find_space(space)
    file = read_space_file(path, own_families=True)
    made = file.search_space()
    limits = file.limits.given()
    memory: tuple[float, ...] = ()
    if all(family.name in FAMILIES for family in made.families):
        recipe = file.common_recipe
        made = priced(made, file.scale, limits, recipe)
        if len(made) <= MOST_COSTS:
            memory = tuple(memory_of(each, file.scale, recipe) for each in made)
    elif limits:
        raise SpaceError(
            f"{path}: `limits` need networks that gpnas can count, but has none of them; leave them out"
        )
    settings = {name: getattr(file.search, name) for name in file.search.model_fields_set}
    settings |= {"portfolio": file.search.portfolio, "early_stopping": file.search.early_stopping}
    settings["memory"] = memory
    published = file.search.defaults_first
    settings["defaults"] = defaults_of(made, file.families.defaults, published=published)
    if file.objective is not None:
        settings["objective"] = file.objective.record()
    given = file.recipe.given()
    return made, settings | ({"steps": given["steps"]} if "steps" in given else {})


def _gone_on(run: Path, trials: int | None) -> Journal:
    """The journal of an existing run, with more trials where more are asked for."""
    if trials is None:
        return Journal.share(run)
    with Journal.read(run) as journal:
        header = journal.header
    return Journal.share(run, dataclasses.replace(header, trials=trials))


def _space_of(journal: Journal) -> SearchSpace:
    from gpnas.run.pricing import searched_space

    return searched_space(journal)
