"""The errors of image files."""

from __future__ import annotations


class ImageError(ValueError):
    """An image that cannot be read or written: one line with the file, the rule, the value, what to do."""


class NotRgb(ImageError):
    """A sound image, but not one RGB picture.

    Attributes:
        convertible: whether it is read where it is asked for that pictures of other kinds be converted.
    """

    def __init__(self, message: str, *, convertible: bool = True) -> None:
        super().__init__(message)
        self.convertible = convertible
