"""Weights to start from: those of the same architecture at another scale, or of a shorter training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from gpnas_trainers.tensors import not_finite


@dataclass(frozen=True)
class WarmStart:
    """The tensors that a network took over, and the others."""

    taken: tuple[str, ...]
    """Names of the tensors that were taken."""
    fresh: tuple[str, ...]
    """Names of the network's other tensors, which keep the values they had."""

    def __str__(self) -> str:
        text = f"warm start: {len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors taken"
        return f"{text}; fresh: {', '.join(self.fresh)}" if self.fresh else text


def warm_start(network: nn.Module, weights: Mapping[str, Tensor]) -> WarmStart:
    """Takes every tensor whose name and shape fit the network; the others stay as they are.

    So RCAN's ×3 and ×4 networks were begun with the weights of ×2: all but the upsampler fits.

    Args:
        network: changed in place.
        weights: of another network, such as its `state_dict()`.

    Raises:
        ValueError: nothing fits, or what fits has numbers that are not finite.
    """
    own = network.state_dict()
    fitting = {
        name: value for name, value in own.items() if name in weights and weights[name].shape == value.shape
    }
    if not fitting:
        raise ValueError(
            f"weights to start from must fit the network in some tensor's name and shape, but none of their "
            f"{len(weights)} does; take those of the same architecture"
        )
    if name := not_finite({name: weights[name] for name in fitting}):
        raise ValueError(f"weights to start from must be finite numbers, but those of {name} are not")
    network.load_state_dict({name: weights[name] for name in fitting}, strict=False)
    return WarmStart(tuple(fitting), tuple(name for name in own if name not in fitting))
