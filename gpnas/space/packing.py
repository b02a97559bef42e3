"""A part of an enumeration as text: which places were kept, for a journal's header."""

from __future__ import annotations

import base64
import zlib

import numpy as np

from gpnas.space.encoding import Places

MOST_BYTES = 2**30
"""Largest list of places that is unpacked."""


def pack(kept: Places) -> str:  # (n,)
    """64-bit places as ASCII; the steps between them are small and alike, so it is short."""
    steps = np.diff(kept, prepend=0).astype("<i8")
    return base64.b64encode(zlib.compress(steps.tobytes(), 6)).decode()


def unpack(text: str) -> Places:  # (n,)
    """The places in a text that `pack` made.

    Raises:
        ValueError: the text was made by something else, or holds more than `MOST_BYTES`.
    """
    inflating = zlib.decompressobj()
    try:
        data = inflating.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"packed places must be zlib data, but {error}") from None
    if not inflating.eof:
        raise ValueError(f"packed places must be whole and have at most {MOST_BYTES:,} bytes")
    steps = np.frombuffer(data, "<i8")
    return steps.cumsum()
