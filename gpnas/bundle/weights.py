"""A network's state dictionary as it is stored: checked byte by byte, without PyTorch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, deserialize

if TYPE_CHECKING:
    from torch import Tensor

TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
"""Types of weights, and of what networks count, as safetensors and NumPy call them; bfloat16 by its bits."""
NAMES = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "C": "complex"}
BF16_INFINITY = 0x7F80
"""Exponent bits of a bfloat16, all of which are set in infinities and NaN."""


class StoredWeights(Mapping[str, "Tensor"]):
    """A state dictionary in the bytes of its safetensors file; a tensor that is asked for loads PyTorch.

    Attributes:
        content: of the file.
        count: numbers in all tensors.
    """

    def __init__(self, content: bytes) -> None:
        """Raises a `ValueError` where the content is no safetensors file, or its numbers are of another type
        than `TYPES` or not finite."""
        self.content, self.count = content, 0
        try:
            tensors = deserialize(content)
        except SafetensorError as error:
            raise ValueError(f"must be a safetensors file, but {' '.join(str(error).split())}") from None
        for name, tensor in tensors:
            kind = tensor["dtype"]
            if kind not in TYPES:
                kinds = ", ".join(map(_name, TYPES))
                raise ValueError(f"must be of {kinds}, but `{name}` is {_name(kind)}")
            numbers = np.frombuffer(tensor["data"], TYPES[kind])
            whole = (numbers & BF16_INFINITY) != BF16_INFINITY if kind == "BF16" else np.isfinite(numbers)
            if not whole.all():
                raise ValueError(f"must be finite, but `{name}` holds NaN or infinity")
            self.count += math.prod(tensor["shape"])

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> StoredWeights:
        """A state dictionary, stored; raises as the constructor."""
        if isinstance(state, cls):
            return state
        from safetensors.torch import save

        # tensors that share memory, or lie in another order, have no written form
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        try:
            return cls(bytes(save(copies)))
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"must have a safetensors form, but {' '.join(str(error).split())}") from None

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from safetensors.torch import load

        tensors: dict[str, Tensor] = load(self.content)
        return tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class Graph(dict[str, "Tensor"]):
    """A network as its ONNX file; an empty state dictionary, since its weights have no names of their own.

    Attributes:
        content: of the file.
        count: numbers in its tensors, as whoever made it counted them.
    """

    def __init__(self, content: bytes, count: int) -> None:
        self.content, self.count = content, count


def _name(kind: str) -> str:
    """A type as PyTorch calls it."""
    return re.sub("^[A-Z]+", lambda letters: NAMES.get(letters[0], letters[0]), kind).lower()
