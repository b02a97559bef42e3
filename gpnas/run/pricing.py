"""What an architecture costs, known before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gpnas.errors import JournalError, SpaceError
from gpnas.journal import Journal
from gpnas.records import Architecture
from gpnas.run.setup import OwnSetup, Setup
from gpnas_trainers import cost
from gpnas_trainers.cost import TILE as TILE
from gpnas_trainers.recipe import Recipe

if TYPE_CHECKING:
    from gpnas.space import SearchSpace


def costs_of(architecture: Architecture, scale: int) -> tuple[int, float]:
    """Parameters of an architecture's network, and its GMACs at 120×120 LR pixels."""
    family, axes = architecture.family, architecture.axes
    return cost.parameters(family, scale, **axes), cost.gmacs(family, scale, TILE, TILE, **axes)


def priced(
    space: SearchSpace,
    scale: int,
    limits: Mapping[str, float] | None = None,
    recipe: Recipe | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> SearchSpace:
    """The space with what is known before training: parameters, and GMACs at 120×120 LR pixels.

    Args:
        space: what may be built.
        scale: of the networks.
        limits: the largest `parameters`, `gmacs` and `memory` allowed.
        recipe: sets the memory that a training step takes; only a limit on memory needs it.
        progress: called with how many architectures are counted, and of how many.

    Raises:
        SpaceError: an architecture cannot be built, or the limits leave none.
    """

    def named(architecture: Architecture) -> dict[str, float]:
        parameters, gmacs = costs_of(architecture, scale)
        return {"parameters": float(parameters), "gmacs": gmacs}

    costs = dict(limits or {})
    memory = costs.pop("memory", None)
    try:
        space = space.with_costs(named, costs, progress=progress)
    except ValueError as error:
        raise SpaceError(str(error)) from None
    if memory is None:
        return space
    assert recipe is not None
    return within_memory(space, scale, memory, recipe, progress=progress)


def searched_space(journal: Journal) -> SearchSpace:
    """The space of a search, with what is known before training.

    Raises:
        JournalError: the run is no search, or its journal does not describe its space, or holds candidates of
            another one.
    """
    from gpnas.space import SearchSpace  # with PyTorch, which whoever only exports a bundle does without

    search = journal.header.search
    if search is None:
        raise JournalError(f"{journal.run}: only a search has a space, but this is a {journal.header.kind}")
    try:
        space = SearchSpace.from_document(search.space)
        if OwnSetup.describes(journal):
            space = with_known_costs(space, journal.setup(OwnSetup).costs)
        else:
            space = priced(space, Setup.of(journal).scale)
    except (SpaceError, ValueError, KeyError) as error:
        raise JournalError(
            f"{journal.run}: a search's journal must describe its space, but {error}"
        ) from None
    check_candidates(journal, space)
    return space


def check_candidates(journal: Journal, space: SearchSpace) -> None:
    """Raises a `JournalError` where a candidate of a search is not of its space."""
    for candidate in journal.candidates():
        if candidate.architecture not in space:
            raise JournalError(
                f"{journal.run}: a search's candidates must be of its space, but {candidate.id} is "
                f"{candidate.architecture}; somebody has changed the journal: copy it back"
            )


def with_known_costs(space: SearchSpace, costs: Mapping[str, Sequence[float]]) -> SearchSpace:
    """The space with costs that were counted before, by name, one for each architecture in order."""
    names = list(costs)
    rows = zip(*costs.values(), strict=True)
    return space.with_costs(lambda _: dict(zip(names, next(rows), strict=True))) if costs else space


def within_memory(
    space: SearchSpace,
    scale: int,
    limit: float,
    recipe: Recipe,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> SearchSpace:
    """The part of a space whose training steps hold at most so many bytes.

    Memory is no cost of the space that is returned: it nearly follows from the GMACs, so a surrogate
    would learn nothing from it.

    Raises:
        SpaceError: the limit leaves nothing.
    """
    return space.with_costs(
        lambda each: {"memory": memory_of(each, scale, recipe)},
        {"memory": limit},
        limit_only=["memory"],
        progress=progress,
    )


def memory_of(architecture: Architecture, scale: int, recipe: Recipe) -> float:
    """Bytes that a training step of an architecture holds at once."""
    return cost.training_memory(
        architecture.family,
        scale,
        batch_size=min(recipe.micro_batch or recipe.batch_size, recipe.batch_size),
        hr_patch=recipe.hr_patch,
        ms_ssim=recipe.ms_ssim_weight > 0,
        **architecture.axes,
    )
