"""Image files and their pixels: strictly RGB in, whole or by rows; atomically out.

`reading` and `writing`, for images that need not fit the memory, stand in `images.large_reading` and
`images.large_writing`: they load libvips and PyTorch, which what prepares pairs does not need.
"""

from __future__ import annotations

from gpnas_trainers.images.reading import (
    SUFFIXES,
    Header,
    ImageError,
    NotRgb,
    read_header,
    read_levels,
    read_rgb,
    read_size,
    to_pixels,
    to_tensor,
    write_rgb,
)

__all__ = [
    "SUFFIXES",
    "Header",
    "ImageError",
    "NotRgb",
    "read_header",
    "read_levels",
    "read_rgb",
    "read_size",
    "to_pixels",
    "to_tensor",
    "write_rgb",
]
