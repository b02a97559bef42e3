"""Which pairs train and which validate: a photograph, whatever its copies, stays on one side."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpnas_trainers.pairs.checks import connected, links_of, same_photographs
from gpnas_trainers.pairs.examining import decoded

_CROP = re.compile(r"[_-](?:(?:patch|crop|tile|sub)[_-]?\d+|s\d{3})$", re.IGNORECASE)
"""How cutters of photographs number the pieces; `s001` is BasicSR's."""


@dataclass(frozen=True)
class Split:
    """The names of the pairs of each side."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()
    """Pairs that show one photograph, and are therefore on one side; two or more names each."""


def split_pairs(
    names: Sequence[str],
    hr_sha256: Sequence[str],
    thumbnails: Sequence[str | None],
    *,
    seed: int,
    fraction: float,
    limit: int | None,
) -> Split:
    """The photographs whose seeded hashes are lowest are held for validation.

    A group whose members are too many for what is still to be held is passed over; if all are, the
    smallest group is held. So with single photographs exactly the due number is held.

    Args:
        names: of the pairs, unique.
        hr_sha256: of their HR pixels, unique.
        thumbnails: of their HR images.
        seed: of the split.
        fraction: share to hold, rounded, but at least one pair; 0 … 1.
        limit: at most so many are held; None sets no limit.
    """
    groups = grouped(names, thumbnails)
    due = max(1, round(fraction * len(names)))
    due = due if limit is None else min(due, limit)

    def place(group: Sequence[int]) -> bytes:
        return min(hashlib.sha256(f"{seed}:{hr_sha256[index]}".encode()).digest() for index in group)

    held: set[int] = set()
    order = sorted(groups, key=place)
    for group in order:
        if len(held) + len(group) <= due:
            held.update(group)
    if not held:
        smallest = min(order, key=len)
        held.update(smallest)
    return Split(
        train=tuple(name for index, name in enumerate(names) if index not in held),
        validation=tuple(name for index, name in enumerate(names) if index in held),
        groups=tuple(tuple(names[index] for index in group) for group in groups if len(group) > 1),
    )


def grouped(names: Sequence[str], thumbnails: Sequence[str | None]) -> list[list[int]]:
    """The indices of all pairs, those of one photograph together: alike by thumbnail, or crops by name."""
    crops: dict[str, int] = {}
    alike = [index for index, thumbnail in enumerate(thumbnails) if thumbnail is not None]
    groups: list[list[int]] = []
    if alike:
        pictures = np.stack([decoded(thumbnails[index] or "") for index in alike])
        groups = [[alike[place] for place in group] for group in same_photographs(pictures)]
    for index, name in enumerate(names):
        if _CROP.search(name):
            groups.append([crops.setdefault(_CROP.sub("", name), index), index])
    return connected(len(names), links_of(groups))
