"""What a user asks of a search, and what trials may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gpnas.dispatch.resources import Asked
from gpnas.records import Strategy


@dataclass(frozen=True)
class Means:
    """What trials may use, and for how long; a user says."""

    asked: Asked = field(default_factory=Asked)
    """CPUs and GPUs of each trial."""
    devices: int = 1
    """How many share each training: GPUs where there are any, otherwise CPUs."""
    address: str | None = None
    """Address of a running Ray cluster; None starts Ray on this machine."""
    budget_hours: float | None = None
    """After so many hours the search ends in good order; None never."""


@dataclass(frozen=True)
class Request:
    """What a user asks of a search; None where the space file decides."""

    space: str
    run: Path | None = None
    """Run folder; None is `runs/` and the space file's name."""
    data: Path | None = None
    """Folder of LR/HR pairs; None is the shipped photographs."""
    scale: int | None = None
    trials: int | None = None
    concurrent: int | None = None
    strategy: Strategy | None = None
    cost_aware: bool | None = None
    """Whether gains count per predicted second."""
    portfolio_aware: bool | None = None
    """Whether an architecture is valued by what it would add to the portfolio's average."""
    warm_start: tuple[Path, ...] = ()
    """Run folders of finished searches that this one learns from."""
    seed: int = 0
    early_stopping: bool | None = None
    """Whether trainings that will not matter are ended early."""
    storage: str | None = None
    """Where checkpoints, networks and residuals go: a path, or an address that pyarrow knows; None is
    the run folder, or where an existing run has put them."""
    trial_hours: float | None = None
    """Longest time of an attempt of a training of one's own; None sets no limit."""
    means: Means = field(default_factory=Means)
