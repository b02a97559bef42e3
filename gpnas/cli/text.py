"""Text from outside, made fit for one line of a terminal, and the short names of architectures."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from gpnas.records import Architecture

CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb]"
)
"""Characters that a terminal would obey, that turn the direction of writing, that nobody sees, and bytes of
file names that are no text."""


BLOCKS = "▁▂▃▄▅▆▇█"


def printable(text: object) -> str:
    r"""Text on one line, with `\x1b` and the like for what would command a terminal."""
    return CONTROLS.sub(lambda match: _escaped(match[0]), str(text))


def _escaped(character: str) -> str:
    number = ord(character)
    if character in "\n\t":
        return {"\n": r"\n", "\t": r"\t"}[character]
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name, as Python reads it
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def label(architecture: Architecture) -> str:
    """An architecture in short, such as `drn 16·4·3`; `legend` says what the numbers are."""
    values = architecture.axes.values()
    shown = "·".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return f"{architecture.family} {shown}"


def legend(architectures: Iterable[Architecture]) -> str:
    """What the numbers of labels are, such as `drn features·blocks·stages`; empty without architectures."""
    families = {each.family: "·".join(each.axes) for each in architectures}
    return "; ".join(f"{family} {axes}" for family, axes in families.items())


def duration(seconds: float) -> str:
    """A time in its two largest units, such as `4 min 10 s`."""
    whole = round(seconds)
    for size, unit, part, less in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {less}"
    return f"{whole} s"


def sparkline(values: Sequence[float], width: int) -> str:
    """Numbers as blocks of eight heights, the lowest number the lowest; of more than fit, the newest."""
    shown = values[-width:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    span = high - low
    return "".join(BLOCKS[round((value - low) / span * 7) if span else 3] for value in shown)


def program() -> str:
    """How this program was called, so that what it advises to type can be typed."""
    called = sys.argv[0]
    if os.path.basename(called) == "__main__.py":
        return f"{Path(sys.executable).name} -m gpnas.cli"
    if os.path.basename(called) != "gpnas":  # called from Python
        return "gpnas"
    on_path = shutil.which("gpnas")
    is_on_path = on_path is not None and os.path.realpath(on_path) == os.path.realpath(called)
    return "gpnas" if is_on_path else shlex.quote(called)


def advice(command: str, *arguments: object) -> str:
    """A command to type next, quoted for a shell."""
    return " ".join([program(), command, *(shlex.quote(str(each)) for each in arguments)])
