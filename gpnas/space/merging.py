"""Which architectures are equivalent, and the first of them that stands for the others.

Glossary: n architectures. `full` is a place in the full enumeration of a space, limits aside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpnas.space.encoding import Places
from gpnas.space.expressions import Values

Representatives = tuple[Places, Places]
"""Full places that were merged, increasing, and the full places of those that stand for them."""


def codes(values: Values) -> Places:
    """(n,) integers that are equal where values are."""
    if values.dtype == object:
        known: dict[object, int] = {}
        return np.array([known.setdefault(value, len(known)) for value in values.tolist()])
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def combined(
    number: Places,  # (n,)
    keys: Places,  # (n, k), at least -1
) -> Places:
    """(n,) integers that are equal where the number and all keys are."""
    combination = number
    for column in keys.T:
        # compressed column by column, so that it stays below n² and cannot overflow
        wide = combination * (int(column.max()) + 2) + column + 1
        combination = np.unique(wide, return_inverse=True)[1].reshape(-1)
    return combination


def merged(
    key: Places,  # (n,)
    full: Places,  # (n,)
    before: Representatives | None,
) -> tuple[NDArray[np.bool_], Representatives | None]:
    """Which architectures are the first of their key (n,), and who stands for the others.

    Args:
        key: equal where architectures are equivalent.
        full: their full places.
        before: who stood for whom before.
    """
    _, lowest, inverse = np.unique(key, return_index=True, return_inverse=True)
    first = lowest[inverse.reshape(-1)]
    kept = first == np.arange(len(key))
    left, into = full[~kept], full[first[~kept]]
    if before is not None:
        # who stood for others may now be stood for
        earlier, stood = before
        places = np.unique(np.concatenate([full, stood]))
        final = places.copy()
        final[np.searchsorted(places, left)] = into
        left = np.concatenate([earlier, left])
        into = np.concatenate([final[np.searchsorted(places, stood)], into])
    order = left.argsort()
    return kept, (left[order], into[order]) if len(left) else None
