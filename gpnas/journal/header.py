"""The header of a journal: what a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from gpnas.records import Architecture, FrozenMapping, Objective, Source, Strategy

SESSION = ("trials", "concurrent", "early_stopping", "stop_below", "versions", "machine")
"""Fields of a header that may differ from one session of a run to the next."""
CHECKED = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""How pydantic reads a record that stands in a journal."""


@dataclass(frozen=True)
class Search:
    """What only the header of a search has: its space, and how it chooses."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    space: Mapping[str, Any]
    """The space, as `SearchSpace.to_document` writes it, and its `fingerprint`."""
    strategy: Strategy
    steps: int
    """Optimiser steps granted to each trial."""
    portfolio: int
    """The most networks of the portfolio."""
    cost_aware: bool = False
    """Whether gains count per predicted second."""
    portfolio_aware: bool = False
    """Whether an architecture is valued by what it would add to the portfolio's average."""
    common_seeds: bool = False
    """Whether all architectures are trained from the same seeds, each replicate from the next."""
    sources: tuple[Source, ...] = ()
    """Other searches that this one learns from."""
    defaults: tuple[Architecture, ...] = ()
    """First trials of their families."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", FrozenMapping(self.space))
        if min(self.steps, self.portfolio) < 1:
            raise ValueError(
                f"`steps` and `portfolio` must be at least 1, but got {self.steps} and {self.portfolio}"
            )


@dataclass(frozen=True)
class Header:
    """What a run is: a search, or a final training of candidates that were known beforehand."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    trials: int
    """Granted in all."""
    objective: Objective
    search: Search | None = None
    """None exactly for a final training."""
    setup: Mapping[str, Any] = field(default_factory=dict)
    """How a candidate is trained, on what: plain JSON in a form of the trainings' own."""
    seed: int = 0
    concurrent: int = 1
    """Trials side by side."""
    early_stopping: bool = False
    """Whether trainings that will not matter are ended early."""
    stop_below: float | None = None
    """What is expected to be lost by stopping, in the objective's unit, so that a search ends where it will
    hardly lose more; None trains all that is granted."""
    storage: str | None = None
    """Address of checkpoints, networks and residuals; None is the run folder."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and of the packages that the results depend on."""
    machine: Mapping[str, str | int | float] = field(default_factory=dict)
    """What the driver runs on, and what each trial is lent."""

    def __post_init__(self) -> None:
        for name in ("setup", "versions", "machine"):
            object.__setattr__(self, name, FrozenMapping(getattr(self, name)))
        for name in ("trials", "concurrent"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name} >= 1` must hold, but got {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"`0 <= seed < 2**31` must hold, but got {self.seed}")
        if self.storage is not None and not (self.storage and self.storage.isprintable()):
            raise ValueError(f"`storage` must be a path or an address, but got {self.storage!r:.60}")

    @property
    def kind(self) -> Literal["search", "final training"]:
        return "final training" if self.search is None else "search"

    @property
    def best(self) -> int | None:
        """A training is stopped early where it will hardly end among so many best; None stops none."""
        return self.search.portfolio if self.search is not None and self.early_stopping else None

    @property
    def portfolio_aware(self) -> bool:
        """Whether candidates are valued by what they add, so that trainings compare their errors."""
        return self.search is not None and self.search.portfolio_aware

    def to_json(self) -> dict[str, Any]:
        """The form that journals and exports hold."""
        document = {name: value for name, value in asdict(self).items() if name != "stop_below" or value}
        for name in ("defaults", "common_seeds"):  # searches that were begun before knew of none
            if self.search is not None and not getattr(self.search, name):
                del document["search"][name]
        return document

    def session(self) -> dict[str, Any]:
        """The part that may differ from one session to the next, as JSON."""
        return {name: getattr(self, name) for name in SESSION}


@dataclass(frozen=True)
class Session:
    """One opening of a run by a driver."""

    number: int
    """Number of the session, from 1."""
    time: str
    """ISO 8601, UTC."""
    pid: int
    """Number of the driver's process."""
    header: Header
    """The header as it was then."""
