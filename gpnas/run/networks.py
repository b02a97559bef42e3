"""Networks of a run's own before its first trial: their source, their contract, their costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from gpnas.errors import SpaceError
from gpnas.journal import Journal
from gpnas.records import Architecture
from gpnas.run.pricing import costs_of
from gpnas.run.setup import OwnNetwork, Setup
from gpnas_trainers.families import FAMILIES, declare, family_of, label
from gpnas_trainers.own import Code, OwnError, own_family, read_code, read_named
from gpnas_trainers.rehearsal import SECONDS, Rehearsal, rehearse

TRIED = 32
"""Architectures of a family, at most, whose contract is tried."""


def taken_up(codes: Mapping[str, Code], run: Path, say: Callable[[str], None]) -> dict[str, Code]:
    """The sources with which a run goes on, declared: those that it began with, where it exists.

    Args:
        codes: by family, as the space file has them now.
        run: its folder.
        say: gets a line for each source that has changed since.
    """
    began: dict[str, Code] = {}
    known: dict[str, OwnNetwork] = {}
    if codes and Journal.exists(run):
        with Journal.read(run) as journal:
            known = dict(Setup.of(journal).networks)
    for name, code in codes.items():
        own = known.get(name)
        began[name] = gone_on(code, None if own is None else own.code, run, say)
        declare(own_family(name, began[name], None if own is None else own.costs))
    return began


def gone_on(code: Code, began: Code | None, run: Path, say: Callable[[str], None]) -> Code:
    """The source with which a run goes on: the one that it began with, where that has the same name.

    Args:
        code: as it is named now.
        began: what the run began with; None where it had none.
        run: its folder.
        say: gets a line where the source has changed since.
    """
    if began is None or began.network != code.network:
        return code
    if began.sha256 != code.sha256:
        say(
            f"{code.file} has changed since {run} was begun (SHA-256 {began.sha256[:12]}…, now "
            f"{code.sha256[:12]}…): the run goes on with the source that it began with; search with the new "
            "one in another folder, by --run"
        )
    return began


@contextmanager
def source_errors(where: str = "") -> Iterator[None]:
    """Has a source that cannot be used end in a `SpaceError`, whose line begins with `where`."""
    try:
        yield
    except OwnError as error:
        raise SpaceError(f"{where}{error}") from None


def check_networks(
    architectures: Iterable[Architecture],
    scale: int,
    codes: Mapping[str, Code],
    *,
    hr_patch: int | None = None,
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Tries networks of families that are a file's own, on small images, and counts what all of them cost.

    That is done in a process of its own, so that whatever their source does ends in an error. The families
    are declared anew with what was counted; what is known of them already is not counted again.

    Args:
        architectures: of which few are tried that together have every value of every axis.
        scale: of the networks.
        codes: sources, by family.
        hr_patch: side of the patches of trainings, where their memory is to be counted.
        seconds: that each network may take.
        progress: called with how many networks are counted, and of how many.

    Raises:
        SpaceError: one breaks the contract; a line with the file and line of its source.
    """
    if not codes:
        return
    architectures = list(architectures)
    few = {name: islice(_covering(architectures, name), TRIED) for name in codes}
    tried = [
        Rehearsal(code, "contract", tuple(dict(each.axes) for each in few[name]), name)
        for name, code in codes.items()
    ]
    side = None if hr_patch is None else hr_patch // scale
    costs = [_uncounted(architectures, name, code, side) for name, code in codes.items()]
    _count([*tried, *costs], scale, seconds, progress)


def count_memory(architecture: Architecture, scale: int, code: Code, hr_patch: int) -> None:
    """Counts what training a network of a file's own keeps, in a process of its own.

    Raises:
        SpaceError: that cannot be counted; a line with the file and line of its source.
    """
    _count([_uncounted([architecture], architecture.family, code, hr_patch // scale)], scale, SECONDS, None)


def _uncounted(architectures: Iterable[Architecture], family: str, code: Code, side: int | None) -> Rehearsal:
    """What is to be counted of a family, besides what is known of it."""
    own = family_of(family)
    wanted = [
        dict(each.axes)
        for each in architectures
        if each.family == family
        and (
            label(each.axes) not in own.known
            or (side is not None and (label(each.axes), side) not in own.kept)
        )
    ]
    return Rehearsal(code, "costs", tuple(wanted), family, side)


def _count(
    rehearsals: Sequence[Rehearsal],
    scale: int,
    seconds: float,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Tries sources, and declares their families with the costs that were counted."""
    rehearsals = [each for each in rehearsals if each.axes]
    with source_errors():
        found = rehearse(rehearsals, scale, seconds=seconds, progress=progress)
    for rehearsal, costs in zip(rehearsals, found, strict=True):
        family = family_of(rehearsal.family)
        counted = [(label(axes), each) for axes, each in zip(rehearsal.axes, costs, strict=False)]
        known = {name: (each.parameters, each.gmacs) for name, each in counted}
        kept = {
            (name, rehearsal.side): each.kept
            for name, each in counted
            if each.kept is not None and rehearsal.side is not None
        }
        declare(replace(family, known={**family.known, **known}, kept={**family.kept, **kept}))


def named(sources: Sequence[str], families: Iterable[str]) -> dict[str, Code]:
    """The sources of families that are no built-in ones, by family.

    Args:
        sources: such as `nets.py:Mine`; of several, each is the one of the family of its name, or of the one
            that stands before it, as in `mine=nets.py:Mine`.
        families: that are wanted.

    Raises:
        SpaceError: a family has no source, a source no family, or one cannot be read.
    """
    own = [each for each in dict.fromkeys(families) if each not in FAMILIES]
    codes: dict[str, Code] = {}
    for source in sources:
        family, is_said, place = source.rpartition("=")
        with source_errors(f"--networks {source}: "):
            code = read_named(place)
        if not is_said:
            family = own[0] if len(own) == len(sources) == 1 else _called(code.entry, own)
        if family not in own or family in codes:
            raise SpaceError(
                f"--networks {source}: a source must be of one family among {', '.join(own) or 'none'} that "
                f"--architecture names and gpnas lacks, but is of {family}; write it as family={place}"
            )
        codes[family] = code
    if missing := [each for each in own if each not in codes]:
        raise SpaceError(
            f"--architecture {missing[0]}: a family must be built in ({', '.join(FAMILIES)}) or have its "
            f"source named, but has none; name it by --networks, such as {missing[0]}=nets.py:Mine"
        )
    return codes


def _called(entry: str, families: Sequence[str]) -> str:
    return next((each for each in families if each.casefold() == entry.casefold()), entry)


def own_networks(
    architectures: Iterable[Architecture], scale: int, codes: Mapping[str, Code]
) -> dict[str, OwnNetwork]:
    """What a journal holds of networks that are a file's own, whose costs `check_networks` has counted."""
    costs: dict[str, dict[str, tuple[int, float]]] = {name: {} for name in codes}
    for each in architectures:
        if each.family in costs:
            costs[each.family][label(each.axes)] = costs_of(each, scale)
    return {name: OwnNetwork.of(code, costs[name]) for name, code in codes.items()}


def check_trainer(code: Code) -> None:
    """Imports the source of a training of one's own, in a process of its own.

    Raises:
        SpaceError: it cannot be imported, or has no such function; a line with its file and line.
    """
    with source_errors():
        rehearse([Rehearsal(code, "import")], 1)


def named_trainer(name: str) -> Code:
    """The source of a training that a user names, `train.py:train` of any folder or `package.module:train`.

    Raises:
        SpaceError: it cannot be read or imported, or has no such function; one line.
    """
    with source_errors():
        code = read_named(name, "trainer")
    check_trainer(code)
    return code


def texts_of(file: str, folder: Path) -> dict[str, str]:
    """The text of a training's file, and those of the files that it imports from beside it, by their paths.

    Args:
        file: its name in the folder.
        folder: which none of them leaves.

    Raises:
        SpaceError: they cannot be read, are too many or too large, or lead out of the folder.
    """
    with source_errors():
        code = read_code(f"{file}:train", folder, "trainer")
    return {file: code.text, **code.files}


def _covering(space: Iterable[Architecture], family: str) -> Iterator[Architecture]:
    """Few architectures of a family that together have every value of every axis."""
    seen: set[tuple[str, object]] = set()
    for architecture in space:
        if architecture.family == family and not seen.issuperset(architecture.axes.items()):
            seen.update(architecture.axes.items())
            yield architecture
