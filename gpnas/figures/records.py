"""What the figures of a search are drawn from: plain records, without a tensor or a file behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from gpnas.records import AxisValue, Progress, Stop

if TYPE_CHECKING:
    from gpnas.space import Axis


@dataclass(frozen=True)
class Measure:
    """How values of a search's objective are told."""

    name: str = "PSNR"
    unit: str = "dB"
    """Empty where it has none."""
    decimals: int = 2
    """Digits after the point with which values are told."""
    lower: bool = False
    """Whether a lower value is better."""

    def merit(self, value: float) -> float:
        """A number that is the larger, the better the value is."""
        return -value if self.lower else value

    @property
    def label(self) -> str:
        """Name and unit, as the title of an axis."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def shown(self, value: float, *, signed: bool = False, more: int = 0) -> str:
        """A value with its unit.

        Args:
            value: in the objective's unit.
            signed: whether a positive value has a plus.
            more: additional digits, for differences.
        """
        text = f"{value:{'+' if signed else ''},.{self.decimals + more}f}"
        return f"{text} {self.unit}" if self.unit else text

    def about(self, value: float) -> str:
        """A value that is at least 0, to one digit more, and in words where that leaves nothing of it."""
        least = 10.0 ** -(self.decimals + 1)
        return (
            f"about {self.shown(value, more=1)}"
            if value >= least / 2
            else f"less than {self.shown(least, more=1)}"
        )


def decimals_for(values: Sequence[float]) -> int:
    """Digits after the point that tell these values apart: two more than their spread has, 0 … 8."""
    finite = [value for value in values if math.isfinite(value)]
    spread = max(finite) - min(finite) if finite else 0.0
    if spread <= 0:
        return 2
    return min(8, max(0, 2 - math.floor(math.log10(spread))))


T = TypeVar("T")


def spread(count: int, most: int) -> list[int]:
    """Places 0, 1, … of so many things; of more than `most` a part evenly spread, with both ends."""
    if count <= most:
        return list(range(count))
    return sorted({round((count - 1) * step / (most - 1)) for step in range(most)})


def thinned(things: Sequence[T], most: int, order: Callable[[T], float]) -> list[T]:
    """Things; of more than `most` the first half in this order, and an even part of the rest."""
    if len(things) <= most:
        return list(things)
    ordered = sorted(things, key=order)
    half = most // 2
    stride = -(-(len(ordered) - half) // half)
    return ordered[:half] + ordered[half::stride]


@dataclass(frozen=True)
class Span:
    """One attempt at a trial."""

    number: int
    """Its number; the first is 1."""
    started: float
    """Seconds since the search's first start."""
    ended: float | None
    """None while it runs."""
    outcome: str | None


@dataclass(frozen=True)
class Trial:
    """One candidate: why it was chosen and what came of it."""

    id: str
    family: str
    axes: Mapping[str, AxisValue]
    phase: str
    """How it was chosen, such as `knowledge gradient`."""
    state: str
    """`observed`, `stopped`, `failed`, `running` or `pending`."""
    value: float | None = None
    """The value in the objective's unit; of a stopped trial what its curve predicted; None while there is
    none."""
    failure: str | None = None
    stop: Stop | None = None
    seconds: float = 0.0
    """Seconds of training and validation, over all attempts."""
    place: int | None = None
    """Its place in the order in which trials were observed, the first 1; None while it is not."""
    mean: float | None = None
    """Predicted when it was chosen, in the objective's unit; None where nothing was known then."""
    stddev: float | None = None
    """The standard deviation of that prediction, without the noise of a training."""
    score: float | None = None
    """The acquisition's number."""
    known: int | None = None
    """How many observations the engine knew when it chose."""
    replicate: bool = False
    """Whether its architecture had been proposed before."""
    proposed: float = 0.0
    """Seconds since the search's first start."""
    observed: float | None = None
    """Seconds since the search's first start."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Known before training, such as `parameters` and `gmacs`."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Progress, ...] = ()
    """Its validations on the way that have a value."""
    spans: tuple[Span, ...] = ()

    @property
    def label(self) -> str:
        """The architecture in one line."""
        return f"{self.family}:" + ",".join(f"{name}={value}" for name, value in self.axes.items())

    @property
    def finished(self) -> bool:
        """Whether it was trained to its last step, so that its value was measured."""
        return self.state == "observed"

    @property
    def shown_state(self) -> str:
        """Its state, for a person."""
        return "stopped early" if self.state == "stopped" else self.state


def improvements(trials: Iterable[Trial], unit: Measure) -> list[tuple[Trial, float]]:
    """The trials whose measured value is better than all before them, each with that value."""
    found: list[tuple[Trial, float]] = []
    for trial in trials:
        if not trial.finished or trial.value is None:
            continue
        if not found or unit.merit(trial.value) > unit.merit(found[-1][1]):
            found.append((trial, trial.value))
    return found


@dataclass(frozen=True)
class Recorded:
    """A search as its journal tells it."""

    run: str
    """Its folder, as a person wrote it."""
    state: str
    """`running`, `finished` or `interrupted`."""
    objective: Measure
    trials: tuple[Trial, ...]
    """Every trial, the earliest proposed first."""
    granted: int | None
    """Trials that the search is allowed."""
    header: Mapping[str, object]
    """What the run is, as plain JSON, for people to read."""
    search: Mapping[str, object] = field(default_factory=dict)
    """How it chooses; empty of a final training."""
    families: Mapping[str, tuple[Axis, ...]] = field(default_factory=dict)
    """The axes of each family, by name; empty where the journal does not describe its space."""
    architectures: int | None = None
    """Size of the space; None where the journal does not describe it."""
    steps: int | None = None
    """Granted to each training."""
    delivery: Mapping[str, object] | None = None
    """What was delivered, as plain JSON."""
    events: tuple[tuple[str, str, str], ...] = ()
    """Time, kind and details of what happened besides."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the file itself, such as damage."""

    @property
    def finished(self) -> list[Trial]:
        """The trials that were trained to their last step."""
        return [trial for trial in self.trials if trial.finished]

    @property
    def succeeded(self) -> list[Trial]:
        """The trials with a value, measured or predicted by their curve."""
        return [trial for trial in self.trials if trial.value is not None]

    @property
    def best(self) -> Trial | None:
        """The trial with the best measured value, the first of several."""
        merit = self.objective.merit
        return max(self.finished, key=lambda trial: merit(trial.value or 0.0), default=None)

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)
