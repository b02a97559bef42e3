"""Image files and their pixels: strictly RGB in, whole or by rows; atomically out."""

from __future__ import annotations

from gpnas_trainers.images.decoding import read_levels, reading
from gpnas_trainers.images.encoding import SUFFIXES, bits_of, check_target, format_of, writing
from gpnas_trainers.images.errors import ImageError, NotRgb
from gpnas_trainers.images.header import Header, read_header
from gpnas_trainers.images.listing import list_images
from gpnas_trainers.images.metadata import Metadata, for_format

__all__ = [
    "SUFFIXES",
    "Header",
    "ImageError",
    "Metadata",
    "NotRgb",
    "bits_of",
    "check_target",
    "for_format",
    "format_of",
    "list_images",
    "read_header",
    "read_levels",
    "reading",
    "writing",
]
