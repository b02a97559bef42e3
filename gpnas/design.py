"""The first trainings of a search: the architectures that tell most about all the others.

Chance decides among those that are equally good, with a generator of its own for each choice: the Mersenne
Twister that PyTorch has, so that an engine that holds tensors chooses the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnas.mutual_information import gains
from gpnas.prior import NOISE, covariance
from gpnas.records import Architecture, derived_seed
from gpnas.space import Column, SearchSpace

EQUAL = 0.05
"""Share by which gains may differ and count as equal, so that chance decides among them: it is within
what the surrogate knows of them, and repeated searches differ from the first training on."""
SIZES = {"mi+kg": (1, 0.0), "mi+nei": (4, 0.1), "published": (4, 0.5), "random": (0, 0.0)}
"""Least number of trials that mutual information chooses, and their share of all trials. The knowledge
gradient explores by itself: after one observation it measured no worse than after four. Workers that
ask before there is an observation get more of the design."""
TRIALS = 40
"""Trials counted on where nobody says how many there will be."""
POINTS = 1_000
"""Largest number of architectures among which a design weighs mutual information; of more, a random
part stands for all."""

Places = NDArray[np.int64]
Believed = Callable[[Places], tuple[NDArray[np.float64], float]]
"""Indices of n architectures to the covariance of their latent values (n, n) and the noise variance."""


@dataclass(frozen=True)
class Choice:
    """What one training of the design is chosen from."""

    points: Places  # (q,)
    gains: NDArray[np.float64]  # (q,)
    """Nats that each would add to the mutual information."""
    place: int
    """Where the chosen one stands among the points."""


def size_of(strategy: str, trials: int | None) -> int:
    """How many of so many trials mutual information chooses; None counts on `TRIALS`."""
    least, share = SIZES[strategy]
    return max(least, round(share * (trials or TRIALS)))


def choose(free: Places, forced: Sequence[int], believed: Believed, seed: int, number: int) -> Choice:
    """The architecture that tells most about the others, given what is observed or pending.

    Args:
        free: indices of the architectures that may be suggested, increasing.
        forced: indices of those that were suggested, increasing.
        believed: of any architectures.
        seed: of the search.
        number: how many were suggested.
    """
    points = free
    if len(points) > POINTS:
        points = points[_part(len(points), POINTS, derived_seed(seed, "design", 0))]
    points = np.unique(np.concatenate([points, np.array(forced, dtype=np.int64)]))
    covariances, noise = believed(points)
    gain = gains([covariances], noise, np.searchsorted(points, forced).tolist())
    allowed = ~np.isin(points, forced)
    points, gain = points[allowed], gain[allowed]
    # where more than half of the space is taken, nothing may tell anything about the rest
    best = max(float(gain.max()), 0.0)
    equal = gain >= (1 - EQUAL) * best if best else np.ones(len(gain), dtype=np.bool_)
    return Choice(points, gain, one_of(equal, seed, number))


def first(space: SearchSpace, seed: int, strategy: str, trials: int | None) -> list[Architecture]:
    """The architectures that a search would train before it heeds an observation, as its engine chooses."""
    columns = space.columns or (Column("constant", "ordered"),)
    chosen: list[int] = []
    for number in range(min(size_of(strategy, trials), len(space))):
        free = np.setdiff1d(np.arange(len(space)), chosen)
        believed = before_anything(space.points, columns, linear=strategy == "published")
        choice = choose(free, sorted(chosen), believed, seed, number)
        chosen.append(int(choice.points[choice.place]))
    return [space[index] for index in chosen]


def before_anything(points: NDArray[np.float64], columns: Sequence[Column], *, linear: bool) -> Believed:
    """What the priors say of architectures with these features, (all, d)."""
    return lambda at: (covariance(points[at], columns, linear=linear), NOISE)


def one_of(equal: NDArray[np.bool_], seed: int, number: int) -> int:  # (q,)
    """The place of one of those that are equally good, as `torch.randint` would have it."""
    places = np.flatnonzero(equal)
    return int(places[_words(1, derived_seed(seed, "choice", number))[0] % len(places)])


def _part(count: int, part: int, seed: int) -> Places:
    """The first numbers of a random order of 0 … count - 1, as `torch.randperm` would have them."""
    order = np.arange(count)
    for place, word in enumerate(_words(part, seed).tolist()):
        other = place + word % (count - place)
        order[place], order[other] = order[other], order[place]
    return order[:part]


def _words(count: int, seed: int) -> NDArray[np.uint32]:
    """The first 32-bit words of the Mersenne Twister MT19937."""
    return np.random.RandomState(seed).randint(0, 2**32, size=count, dtype=np.uint32)
