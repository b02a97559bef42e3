"""Which architectures are equivalent, and the first of them that stands for the others.

Glossary: n architectures. `full` is a place in the full enumeration of a space, limits aside.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gpnas.space.expressions import Values

Representatives = tuple[Tensor, Tensor]
"""Full places that were merged, increasing, and the full places of those that stand for them."""


def codes(values: Values) -> Tensor:
    """(n,) integers that are equal where values are."""
    if values.dtype == object:
        known: dict[object, int] = {}
        return torch.tensor([known.setdefault(value, len(known)) for value in values.tolist()])
    return torch.from_numpy(np.unique(values, return_inverse=True)[1].reshape(-1))


def combined(
    number: Tensor,  # (n,)
    keys: Tensor,  # (n, k), at least -1
) -> Tensor:
    """(n,) integers that are equal where the number and all keys are."""
    combination = number
    for column in keys.T:
        # compressed column by column, so that it stays below n² and cannot overflow
        wide = combination * (int(column.max()) + 2) + column + 1
        combination = torch.unique(wide, return_inverse=True)[1]
    return combination


def merged(
    key: Tensor,  # (n,)
    full: Tensor,  # (n,)
    before: Representatives | None,
) -> tuple[Tensor, Representatives | None]:
    """Which architectures are the first of their key (n,), and who stands for the others.

    Args:
        key: equal where architectures are equivalent.
        full: their full places.
        before: who stood for whom before.
    """
    _, inverse = torch.unique(key, return_inverse=True)
    indices = torch.arange(len(key))
    lowest = torch.full((len(key),), len(key)).scatter_reduce(0, inverse, indices, "amin")
    first = lowest[inverse]
    kept = first == indices
    left, into = full[~kept], full[first[~kept]]
    if before is not None:
        # who stood for others may now be stood for
        earlier, stood = before
        places = torch.cat([full, stood]).unique()
        final = places.clone()
        final[torch.searchsorted(places, left)] = into
        left = torch.cat([earlier, left])
        into = torch.cat([final[torch.searchsorted(places, stood)], into])
    order = left.argsort()
    return kept, (left[order], into[order]) if len(left) else None
