"""The processes that train one network together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class PeerError(RuntimeError):
    """Another process of a training does not answer: it has died, or ended with an error of its own."""


class Ranks:
    """This process alone, or its place in the default process group of `torch.distributed`.

    Every sum reaches all processes with the same bits, so that they stay equal without further words.
    Gradients are summed in one message after the backward pass, micro-batches and all; what a graph
    leaves out is left out everywhere, so no search for unused parameters is needed.

    Args:
        together: take the default process group, which must have been initialised.

    Raises:
        PeerError: from whatever needs the others, when one of them is gone.
    """

    def __init__(self, together: bool = False) -> None:
        self.rank, self.size = 0, 1
        if together:
            self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def slice(self, count: int) -> slice:
        """The part of `count` things that is this process's; parts differ by at most one in size."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum_numbers(self, *numbers: float) -> tuple[float, ...]:
        """The sum of each number over all processes."""
        if self.size == 1:
            return numbers
        # NCCL takes tensors of the GPU alone
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        total = torch.tensor(numbers, dtype=torch.float64, device=device)
        _send(torch.distributed.all_reduce, total)
        return tuple(total.tolist())

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Sums tensors over all processes, in place."""
        self._together(list(tensors), torch.distributed.all_reduce)

    def total(self, numbers: Tensor) -> Tensor:
        """The sums of numbers, (n,), over all processes, on the device where they are."""
        self.sum_([numbers])
        return numbers

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes the tensors of rank 0, in place."""
        self._together(list(tensors), lambda flat: torch.distributed.broadcast(flat, 0))

    def _together(self, tensors: list[Tensor], send: Callable[[Tensor], Any]) -> None:
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        _send(send, flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def _send(send: Callable[[Tensor], Any], tensor: Tensor) -> None:
    try:
        send(tensor)
    except RuntimeError as error:  # gloo and NCCL have no class of their own for it
        raise PeerError(f"another process of the training is gone: {' '.join(str(error).split())}") from error
