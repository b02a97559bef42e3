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
    near = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearby(path: Path, suits: Callable[[Path], bool]) -> str:
    """The same for a path: of each of its parts that there is not the nearest that there is.

    Args:
        path: one that does not suit.
        suits: says whether a path is of the kind that is wanted.
    """
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not (found / part).exists() or (part == path.name and not suits(found / part)):
            near = difflib.get_close_matches(part, _names(found), n=1)
            if not near:
                return ""
            part = near[0]
        found = found / part
    return f"; did you mean {str(found)!r}?" if found != path and suits(found) else ""


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in itertools.islice(folder.iterdir(), MOST)]
    except OSError:
        return []
