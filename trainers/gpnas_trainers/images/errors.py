"""The errors of image files."""

from __future__ import annotations


class ImageError(ValueError):
    """An image that cannot be read or written: one line with the file, the rule, the value, what to do."""


class NotRgb(ImageError):
    """A sound image, but not one RGB picture."""
