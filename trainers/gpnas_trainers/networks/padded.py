"""A network that takes images whose sides are multiples of a number, made to take any."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gpnas_trainers.networks.blocks import reflected


class Padded(nn.Module):
    """Mirrors rows below and columns at the right, and cuts off what becomes of them.

    Its weights have the names of the network's own, so that a file of them fits the network alone.

    Args:
        network: maps (B, 3, h, w) to (B, 3, s·h, s·w) where h and w are multiples.
        scale: s.
        multiple: at least 1.
    """

    def __init__(self, network: nn.Module, scale: int, multiple: int) -> None:
        super().__init__()
        self.network, self.scale, self.multiple = network, scale, multiple

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        sr: Tensor = self.network(reflected(x, self.multiple))
        return sr[..., : self.scale * x.shape[-2], : self.scale * x.shape[-1]]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.network.load_state_dict(*args, **kwargs)
