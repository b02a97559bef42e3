"""What a command gives back to the one place that prints it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Report:
    """The outcome of a command."""

    document: Any
    """What `--json` prints."""
    shown: Iterable[RenderableType]
    """The same for a person; taken only where it is printed."""
    exit_code: int = 0
