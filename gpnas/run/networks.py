"""Networks of a run's own before its first trial: their source, their contract, their costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from gpnas.errors import SpaceError
from gpnas.journal import Journal
from gpnas.records import Architecture
from gpnas.run.setup import OwnNetwork, Setup
from gpnas.space import SearchSpace
from gpnas_trainers import cost
from gpnas_trainers.cost import TILE
from gpnas_trainers.families import FAMILIES, declare, label
from gpnas_trainers.own import Code, OwnError, own_family, read_named
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
        began[name] = code
        if (own := known.get(name)) is not None and own.network == code.network:
            began[name] = own.code
            if own.sha256 != code.sha256:
                say(
                    f"{code.file} has changed since {run} was begun (SHA-256 {own.sha256[:12]}…, now "
                    f"{code.sha256[:12]}…): the run goes on with the source that it began with; search with "
                    "the new one in another folder, by --run"
                )
        declare(own_family(name, began[name], own.costs if own is not None else None))
    return began


def check_networks(
    architectures: Iterable[Architecture], scale: int, codes: Mapping[str, Code], *, seconds: float = SECONDS
) -> None:
    """Tries networks of families that are a file's own, on small images, without training them.

    They are tried in a process of their own, so that whatever their source does ends in an error.

    Args:
        architectures: of which few are tried that together have every value of every axis.
        scale: of the networks.
        codes: sources, by family.
        seconds: that each network may take.

    Raises:
        SpaceError: one breaks the contract; a line with the file and line of its source.
    """
    if not codes:
        return
    tried = [
        Rehearsal(code, "contract", tuple(dict(each.axes) for each in _covering(architectures, name)), name)
        for name, code in codes.items()
    ]
    try:
        rehearse(tried, scale, seconds=seconds)
    except OwnError as error:
        raise SpaceError(str(error)) from None


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
        try:
            code = read_named(place)
        except OwnError as error:
            raise SpaceError(f"--networks {source}: {error}") from None
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


def counted(
    architectures: Iterable[Architecture], scale: int, codes: Mapping[str, Code]
) -> dict[str, OwnNetwork]:
    """What a journal holds of networks that a person chose.

    Raises:
        SpaceError: one's costs cannot be counted.
    """
    costs: dict[str, dict[str, tuple[int, float]]] = {name: {} for name in codes}
    for each in architectures:
        if each.family in costs:
            try:
                costs[each.family][label(each.axes)] = (
                    cost.parameters(each.family, scale, **each.axes),
                    cost.gmacs(each.family, scale, TILE, TILE, **each.axes),
                )
            except ValueError as error:
                raise SpaceError(f"--architecture {each}: {error}") from None
    return {name: OwnNetwork.of(code, costs[name]) for name, code in codes.items()}


def check_trainer(code: Code, *, seconds: float = SECONDS) -> None:
    """Imports the source of a training of one's own, in a process of its own.

    Raises:
        SpaceError: it cannot be imported, or has no such function; a line with its file and line.
    """
    try:
        rehearse([Rehearsal(code, "import")], 1, seconds=seconds)
    except OwnError as error:
        raise SpaceError(str(error)) from None


def own_networks(space: SearchSpace, codes: Mapping[str, Code]) -> dict[str, OwnNetwork]:
    """What a journal holds of the networks of a priced space that are a file's own."""
    costs: dict[str, dict[str, tuple[int, float]]] = {name: {} for name in codes}
    if codes:
        parameters, gmacs = (space.costs[name].tolist() for name in ("parameters", "gmacs"))
        for place, architecture in enumerate(space):
            if architecture.family in costs:
                found = (int(parameters[place]), gmacs[place])
                costs[architecture.family][label(architecture.axes)] = found
    return {name: OwnNetwork.of(code, costs[name]) for name, code in codes.items()}


def _covering(space: Iterable[Architecture], family: str) -> Iterator[Architecture]:
    """Few architectures of a family that together have every value of every axis."""
    seen: set[tuple[str, object]] = set()
    tried = 0
    for architecture in space:
        if architecture.family == family and not seen.issuperset(architecture.axes.items()):
            seen.update(architecture.axes.items())
            yield architecture
            tried += 1
            if tried == TRIED:
                return
