"""The error of everything that prepares or opens pairs."""

from __future__ import annotations


class PairsError(ValueError):
    """Pairs that cannot be used: one line with the file, the rule, the value, what to do."""
