"""Names of tensors in files of weights: how many there are of a kind, and what other tools call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def counted(names: Iterable[str], pattern: str) -> int:
    """How many different values the pattern's group has in the names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def renamed(names: Sequence[str], rules: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The names with their beginnings replaced by the first rule that fits; the others stay as they are.

    Args:
        names: of a file.
        rules: pairs of a regular expression and what takes its place, as `re.sub` takes them.
    """
    found = {}
    for name in names:
        found[name] = name
        for pattern, new in rules:
            if match := re.match(pattern, name):
                found[name] = match.expand(new) + name[match.end() :]
                break
    return found
