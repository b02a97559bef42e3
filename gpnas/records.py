"""The frozen records that travel between the parts of a search.

Each checks itself once, when it is made; code that holds one may rely on it.
`to_json` and `from_json` are the one home of their written form (journal, bundle, `--json`).
"""

from __future__ import annotations

import hashlib
import math
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

Strategy = Literal["mi+kg", "mi+nei", "published", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
"""How a search chooses. `mi+kg`: a mutual-information design, then the knowledge gradient, which may
train an architecture again. `mi+nei`: then noisy expected improvement. `published`: rounds of mutual
information, then the best posterior mean (Li et al., CVPR 2020). `random`: uniform."""

WANTED, ENTERED = "a person's wish", "a training made elsewhere"
"""Phases of candidates that no engine chose: a person has one trained, or tells what a training made
elsewhere came to."""

AxisValue = bool | int | float | str
"""What an axis can take: a switch, an integer count, a real, or a name."""


def plain_value(value: Any) -> Any:
    """A value as Python has it, where NumPy or pandas gave it; anything else as it is."""
    if type(value) in (bool, int, float, str):
        return value
    if isinstance(value, int | str):  # a subclass
        return int(value) if isinstance(value, int) else str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    item = getattr(value, "item", None)  # a switch of NumPy's, or an array of one value
    return value if item is None or getattr(value, "size", 1) != 1 else plain_value(item())


V = TypeVar("V", covariant=True)


class FrozenMapping(Mapping[str, V]):
    """A read-only mapping that hashes and compares by content, keeps its order, and pickles."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        self._items: dict[str, V] = dict(items or {})

    def __getitem__(self, key: str) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[type, tuple[dict[str, V]]]:
        return (FrozenMapping, (self._items,))


@dataclass(frozen=True)
class Architecture:
    """One point of a search space: a family of networks and a value for each of its axes."""

    family: str
    """Name of the family, such as `drn` or `rcan`; not empty."""
    axes: Mapping[str, AxisValue]
    """Axis name to value, in the family's order; copied and frozen at birth."""

    def __post_init__(self) -> None:
        if not self.family:
            raise ValueError("an architecture's family must have a name, but got ''")
        axes = {name: plain_value(value) for name, value in self.axes.items()}
        object.__setattr__(self, "axes", FrozenMapping(axes))

    def __str__(self) -> str:
        return f"{self.family}:" + ",".join(f"{name}={value}" for name, value in self.axes.items())

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """The architecture that a person wrote as `family:axis=value,…`.

        Raises:
            ValueError: it is not written so.
        """
        family, _, rest = text.partition(":")
        axes: dict[str, AxisValue] = {}
        for part in rest.split(",") if rest else ():
            name, equals, value = (each.strip() for each in part.partition("="))
            if not equals or not name or name in axes:
                raise ValueError(
                    f"must be like drn:features=128,blocks=18,stages=3, but {part.strip()!r} is not "
                    "`axis=value`, once"
                )
            axes[name] = _written(value)
        return cls(family.strip(), axes)

    def to_json(self) -> dict[str, Any]:
        return {"family": self.family, "axes": dict(self.axes)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Architecture:
        return cls(document["family"], document["axes"])


def _written(text: str) -> AxisValue:
    """An axis's value as a person wrote it."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?", text) else text


@dataclass(frozen=True)
class Objective:
    """What a search is to make as good as it can."""

    name: str
    """Such as `psnr`; the value of a training stands under this name wherever people read it."""
    unit: str
    """Such as `dB`; empty for a number without a unit."""
    goal: Literal["maximise", "minimise"] = "maximise"

    def __post_init__(self) -> None:
        if self.goal not in ("maximise", "minimise"):
            raise ValueError(
                f"an objective's goal must be `maximise` or `minimise`, but got {self.goal!r:.40}"
            )
        if not (self.name and self.name.isprintable() and self.unit.isprintable()):
            raise ValueError(f"an objective must have a name, but got {self.name!r:.40}, {self.unit!r:.40}")

    @property
    def sign(self) -> int:
        """1 where the larger of two values is the better one, else -1."""
        return 1 if self.goal == "maximise" else -1

    def best(self, observations: Iterable[Observation]) -> Observation | None:
        """That of the best value that was measured, the first of several; None where there is none."""
        finished = [each for each in observations if each.finished]
        return max(finished, key=lambda each: self.sign * (each.value or 0.0), default=None)


@dataclass(frozen=True)
class Fidelity:
    """The training granted to one trial."""

    steps: int
    """Optimiser steps; at least 1."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"`steps >= 1` must hold, but got steps={self.steps}")


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """A seed for one purpose of a search, 0 … 2³¹-1."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class Candidate:
    """An architecture that the engine proposes to train, and why."""

    id: str
    """Unique within a search and stable: `c0000`, `c0001`, … in the order of proposal."""
    architecture: Architecture
    fidelity: Fidelity
    seed: int
    """Seeds the training (weights, patches); 0 … 2³¹-1."""
    decision: Mapping[str, Any] = field(default_factory=dict)
    """Why it was chosen, plain JSON values: at least `phase`, and where they exist `observations` (how
    many the engine knew), `engine` (its version), `score` (the acquisition's number), `mean` and `stddev`
    (the posterior's, in units of the objective)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "decision", FrozenMapping(self.decision))


@dataclass(frozen=True)
class Stop:
    """Why a training was ended before its last step."""

    step: int
    """The last one at which it was evaluated; at least 1."""
    value: float
    """The objective at that step."""
    stddev: float
    """Standard deviation of the final value that its curve predicted."""
    chance: float
    """That it would have ended among the best, in [0, 1]."""
    best: int
    """Among how many best; at least 1."""

    def __post_init__(self) -> None:
        if self.step < 1 or self.best < 1:
            raise ValueError(
                f"`step >= 1` and `best >= 1` must hold, but got step={self.step}, best={self.best}"
            )
        if not math.isfinite(self.value) or not 0 <= self.stddev < math.inf:
            raise ValueError(
                "a stopped training's value must be finite and its `stddev >= 0`, "
                f"but got value={self.value}, stddev={self.stddev}"
            )
        if not 0 <= self.chance <= 1:
            raise ValueError(f"`0 <= chance <= 1` must hold, but got {self.chance}")

    def __str__(self) -> str:
        among = "is best" if self.best == 1 else f"among best {self.best}"
        return f"stopped at step {self.step}: P({among}) = {self.chance:.2g}"


@dataclass(frozen=True)
class Observation:
    """What the trial of one candidate told."""

    candidate: Candidate
    value: float | None
    """The search's objective, in its own unit; of a stopped trial the final value that its curve
    predicted; None exactly when the trial failed."""
    failure: str | None = None
    """One line that says why the trial failed; None when it did not."""
    seconds: float = 0.0
    """Training and validation time over all attempts; at least 0."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What was measured besides, by name."""
    stopped: Stop | None = None
    """Why the trial was ended early; None when it was not. There is no trained network then."""

    def __post_init__(self) -> None:
        if self.stopped is not None and self.value is None:
            raise ValueError("a stopped trial must have a predicted value, but got value=None")
        if (self.value is None) == (self.failure is None):
            raise ValueError(
                "an observation holds either a value or a failure, "
                f"but got value={self.value}, failure={self.failure!r}"
            )
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"an observed value must be finite, but got {self.value}")
        object.__setattr__(self, "metrics", FrozenMapping(self.metrics))

    @property
    def failed(self) -> bool:
        return self.value is None

    @property
    def finished(self) -> bool:
        """Trained to the last step: the value was measured, and there is a network."""
        return self.value is not None and self.stopped is None


@dataclass(frozen=True)
class Progress:
    """What an attempt at a candidate reported on its way."""

    attempt: int
    """Number of the attempt, from 1."""
    step: int
    """Optimiser steps done."""
    value: float | None
    """The search's objective, where it was evaluated at this step and finite; else None."""
    metrics: Mapping[str, float]
    """What was measured besides, by name; numbers that are not finite are left out of a journal."""
    seconds: float
    """Training and validation time over all attempts; at least 0."""


SETTLED = 8
"""Observations before which a search does not end for want of prospects: too few to learn the noise from."""


@dataclass(frozen=True)
class Prospect:
    """What a surrogate makes of a search: how good its best is, and what going on would gain."""

    observations: int
    """How many it rests on; at least 1."""
    leader: str
    """Name of the candidate that would be recommended, of those that were trained to the end."""
    mean: float
    """Mean of many trainings of the leader, in the objective's unit."""
    stddev: float
    """Standard deviation of that mean; at least 0."""
    regret: float
    """Expected loss of stopping now: the value of the best of the space less the leader's; at least 0."""
    bound: float
    """The loss that is exceeded with a probability of 10 %."""

    def settles(self, stop_below: float | None) -> bool:
        """Whether a search may end: its bound is lower than this, in the objective's unit, and so is what is
        expected, which a few large draws may lift above the bound; None ends none."""
        if stop_below is None or self.observations < SETTLED:
            return False
        return max(self.bound, self.regret) < stop_below


def trials_of(count: int) -> str:
    """A number of trials as a sentence has it: `1 trial`, `8 trials`."""
    return number_of(count, "trial")


def number_of(count: int, thing: str) -> str:
    """A number of things as a sentence has it: `1 image`, `8 images`."""
    return f"{count} {thing}{'s' * (count != 1)}"


def otherwise(failed: int, stopped: int) -> str:
    """How trials ended otherwise, such as ` (2 failed, 1 stopped early)`; empty where none did."""
    counted = [f"{count} {how}" for count, how in ((failed, "failed"), (stopped, "stopped early")) if count]
    return f" ({', '.join(counted)})" if counted else ""


def gain_in_words(regret: str, bound: str, is_below: bool) -> str:
    """What going on would gain: `about` its expectation, in 9 of 10 cases `at most` its bound.

    Args:
        regret, bound: as they are shown, with their unit.
        is_below: whether the bound is below the expectation, which a few large draws make, so that it says
            nothing.
    """
    at_most = "" if is_below or regret == bound else f", in 9 of 10 cases at most {bound}"
    return f"about {regret}{at_most}"


@dataclass(frozen=True)
class Source:
    """What another search observed on the same axes: another scale, another data set."""

    name: str
    architectures: tuple[Architecture, ...]
    """The members, each as often as it was trained."""
    values: tuple[float, ...]
    """What each training came to, larger is better, in a unit of the source's own."""

    def __post_init__(self) -> None:
        if len(self.architectures) != len(self.values):
            raise ValueError(
                "a source must have a value for each architecture, "
                f"but got {len(self.values)} and {len(self.architectures)}"
            )


@dataclass(frozen=True)
class Portfolio:
    """The top heterogeneous architectures: those whose average is best."""

    members: tuple[Candidate, ...]
    """The chosen candidates, the heaviest first; at least one."""
    weights: tuple[float, ...]
    """Share of each member in the average; non-negative, sum 1."""
    value: float
    """The objective of the average of the members' outputs."""

    def __post_init__(self) -> None:
        if not self.members or len(self.members) != len(self.weights):
            raise ValueError(
                "a portfolio must have at least one member and a weight for each, "
                f"but got {len(self.members)} and {len(self.weights)}"
            )
