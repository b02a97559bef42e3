"""What a network costs, counted on itself: for families that list no layers.

The network is built on PyTorch's meta device, where tensors have shapes and no numbers, so that neither
memory nor time is spent on them. Where it needs numbers, it is built and run on the CPU instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gpnas_trainers.families import NetworkFamily

if TYPE_CHECKING:
    from torch import Tensor, nn

BYTES = 4
"""Size of a float32 number."""


def parameters(family: NetworkFamily, scale: int, axes: Mapping[str, Any]) -> int:
    """Numbers that training may change, and those that are fixed but are parameters all the same.

    Raises:
        ValueError: no such network can be built.
    """
    return _counted(_parameters, family, scale, tuple(axes.items()))


def stored(family: NetworkFamily, scale: int, axes: Mapping[str, Any]) -> int:
    """Numbers in a network's state dictionary: its parameters, and buffers that are kept; errors likewise."""
    return _counted(_stored, family, scale, tuple(axes.items()))


def macs(family: NetworkFamily, scale: int, height: int, width: int, axes: Mapping[str, Any]) -> int:
    """Multiply-accumulates of convolutions and products of matrices in one forward pass of one image.

    Raises:
        ValueError: no such network can be built, or it cannot take images of this size.
    """
    return _counted(_macs, family, scale, tuple(axes.items()), height, width)


def kept(family: NetworkFamily, scale: int, side: int, axes: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers that a network keeps from the forward to the backward pass: once, and for each image.

    Args:
        family, scale, axes: as `gpnas_trainers.build` takes them.
        side: of a patch in LR pixels.

    Raises:
        ValueError: no such network can be built, or it cannot take images of this size.
    """
    return _counted(_kept, family, scale, tuple(axes.items()), side)


def _parameters(network: nn.Module, device: str) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _stored(network: nn.Module, device: str) -> int:
    return sum(value.numel() for value in network.state_dict().values())


def _macs(network: nn.Module, device: str, height: int, width: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, height, width, device=device))
    return int(counter.get_total_flops()) // 2  # a multiplication and an addition are two there


def _kept(network: nn.Module, device: str, side: int) -> tuple[int, int]:
    one, two = (_saved(network.train(), images, side, device) for images in (1, 2))
    return max(0, 2 * one - two), two - one


def _saved(network: nn.Module, images: int, side: int, device: str) -> int:
    """Numbers in all that autograd keeps of a pass, each storage once, parameters aside."""
    import torch
    from torch.autograd.graph import saved_tensors_hooks

    own = {each.untyped_storage()._cdata for each in network.parameters()}
    found: dict[int, Tensor] = {}  # which holds the storages, so that none has the address of another

    def pack(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage()._cdata) not in own:
            found[place] = tensor.detach()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.zeros(images, 3, side, side, device=device))
    return sum(each.untyped_storage().nbytes() for each in found.values()) // BYTES


@lru_cache(maxsize=100_000)
def _counted(
    count: Callable[..., Any],
    family: NetworkFamily,
    scale: int,
    axes: tuple[tuple[str, Any], ...],
    *size: int,
) -> Any:
    """What `count` returns of the network, its device and the size."""
    import torch

    try:
        with torch.device("meta"):
            return count(family.build(scale, **dict(axes)), "meta", *size)
    except Exception:  # it may ask for numbers, or mix in those of other devices
        with torch.random.fork_rng(devices=[]):
            network = family.build(scale, **dict(axes))
            try:
                return count(network, "cpu", *size)
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"{family.name} must be a network whose costs can be counted, but {reason}"
                ) from error
