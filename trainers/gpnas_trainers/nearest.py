"""What a person may have meant by a name that there is not."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

MOST = 1_000
"""Entries of a folder among which a name is sought."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is none of the known ones: `; did you mean 'x'?` with the
    nearest of them, or nothing where none is near."""
    near = _nearest(wrong, list(known))
    return f"; did you mean {near!r}?" if near else ""


def nearby(path: Path, suits: Callable[[Path], bool]) -> str:
    """The same for a path: of each of its parts that there is not the nearest that there is.

    Args:
        path: one that does not suit.
        suits: says whether a path is of the kind that is wanted.
    """
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not (found / part).exists() or (part == path.name and not suits(found / part)):
            near = _nearest(part, _names(found))
            if near is None:
                return ""
            part = near
        found = found / part
    return f"; did you mean {str(found)!r}?" if found != path and suits(found) else ""


def _nearest(wrong: str, known: list[str]) -> str | None:
    """The nearest of some names; a file's type that two share makes them no more alike."""
    suffix = Path(wrong).suffix
    same = {name.removesuffix(suffix): name for name in known if suffix and name.endswith(suffix)}
    near = difflib.get_close_matches(wrong.removesuffix(suffix), same, n=1)
    if near:
        return same[near[0]]
    others = [name for name in known if name not in same.values()]
    return next(iter(difflib.get_close_matches(wrong, others, n=1)), None)


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in itertools.islice(folder.iterdir(), MOST)]
    except OSError:
        return []
