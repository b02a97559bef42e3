"""Why a file is left out: one line that names the file, the rule and the value."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Rule = Literal["inside", "unpaired", "name", "readable", "rgb", "size", "small", "ncc", "shift", "duplicate"]


@dataclass(frozen=True)
class Exclusion:
    """A file that is left out, with its pair."""

    file: str
    """Path within the folder, `/` between its parts, unprintable characters escaped."""
    rule: Rule
    """`inside` the folder, `unpaired`, equal `name`, `readable`, `rgb`, `size` against the scale, `small`,
    `ncc`, `shift`, `duplicate`."""
    value: str
    """What broke the rule."""
    why: str
    """The rule and the value in words."""

    @property
    def line(self) -> str:
        return f"{self.file}: excluded, {self.why}"


def printable(path: str | Path) -> str:
    """A path as one line of valid text, whatever bytes its file system allowed; composed (NFC)."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")
    text = unicodedata.normalize("NFC", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
