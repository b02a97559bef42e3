"""A part of an enumeration as text: which places were kept, for a journal's header."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import torch
from torch import Tensor


def pack(kept: Tensor) -> str:  # (n,) increasing
    """Increasing 64-bit places as ASCII; the steps between them are few and alike, so it is short."""
    steps = np.diff(kept.numpy(), prepend=0).astype("<i8")
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()


def unpack(text: str) -> Tensor:  # (n,)
    """The places of `pack`; a ValueError where the text is none of its."""
    try:
        steps = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<i8")
    except zlib.error as error:
        raise ValueError(f"packed places must be zlib data, but {error}") from None
    return torch.from_numpy(steps.cumsum())
