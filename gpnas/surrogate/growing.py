"""Surrogates of ever more observations, so that a long search waits no longer than people do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gpnas.surrogate.model import Surrogate
from gpnas.surrogate.warp import Warp

REFITTED = tuple(round(200 * 1.25**step) for step in range(40))
"""Numbers of observations at which hyperparameters are learned anew, once there are more than the first;
up to it they are learned at every one."""
LEARNED_FROM = 300
"""Largest number of observations that hyperparameters are learned from; of more, evenly spread ones serve."""

Learn = Callable[[Tensor, Tensor, int | None], Surrogate]
"""Features (n, d), values (n,) and how many hyperparameter draws, None where it is free, to a surrogate."""


class Growing:
    """Surrogates of a growing number of observations.

    Beyond the first of `REFITTED` hyperparameters are those learned from the last such number of
    observations, and what was computed of the rows of that time serves on: one more observation adds a row
    to a factor. It is a cache alone: the surrogate is a function of what it is asked for.

    Args:
        learn: learns hyperparameters.
        watched: (w, d) points that are asked about again and again, such as a space's.
    """

    def __init__(self, learn: Learn, watched: Tensor | None = None) -> None:
        self._learn, self._watched = learn, watched
        self._learned: tuple[int, Surrogate] | None = None
        self._base: Surrogate | None = None

    def of(self, x: Tensor, y: Tensor, came: Sequence[int]) -> Surrogate:
        """The surrogate of observations.

        Args:
            x: (n, d) features.
            y: (n,) values.
            came: rows in the order in which they came, so that one that comes late leaves what was learned
                from the first.
        """
        if len(y) <= REFITTED[0]:
            return self._learn(x, y, None)
        size = max(each for each in REFITTED if each <= len(y))
        if self._learned is None or self._learned[0] != size:
            self._base = None  # whose memory is needed no longer
            part = torch.tensor(sorted(came[:size][:: -(-size // LEARNED_FROM)]))
            self._learned = (size, self._learn(x[part], y[part], 1))
        then = self._learned[1]
        # other tasks have a say in the unit, so that it is not that of a standardisation
        warp = Warp(y, then.warp.power, then.warp.unit if then.context else None)
        grown = Surrogate(x, y, then.columns, then.theta, warp, then.context)
        return grown if then.context else grown.upon(self._rows(x[:size], then))

    def _rows(self, x: Tensor, then: Surrogate) -> Surrogate:
        """A surrogate of these rows, whose values do not matter, with the hyperparameters of then."""
        if self._base is None or not torch.equal(self._base.x, x):
            self._base = None
            self._base = Surrogate(x, torch.zeros(len(x), dtype=x.dtype), then.columns, then.theta)
            if self._watched is not None:
                self._base.watch(self._watched)
        return self._base
