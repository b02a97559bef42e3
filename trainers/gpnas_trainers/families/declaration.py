"""The declaration of a family of networks: its axes, scales, network, layers and official code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpnas_trainers.families.layers import Layer

if TYPE_CHECKING:
    from torch import nn

SCALES = (2, 3, 4, 8)
"""Super-resolution factors that the networks support."""
AxisValue = int | bool | str


@dataclass(frozen=True)
class NetworkAxis:
    """One number, switch or name that tells a family's networks apart."""

    name: str
    default: AxisValue | None = None
    """Value where none is given; an axis without one must be given."""
    allowed: tuple[int, ...] | tuple[str, ...] = ()
    """All values that are allowed; empty for any integer of at least 1, or for both of a switch."""
    published: int | None = None
    """Value in the standard network of the family's authors."""
    multiple: int = 1
    """Factor of every value."""
    odd: bool = False
    """Whether every value is odd, as the side of a kernel."""

    @property
    def is_switch(self) -> bool:
        """Whether its values are true and false."""
        return isinstance(self.default, bool)

    def check(self, value: object) -> None:
        """Raises a `ValueError` unless a network can be built with the value."""
        if self.allowed:
            if isinstance(value, bool) or value not in self.allowed:
                *others, last = map(str, self.allowed)
                rule = f"one of {', '.join(others)}, {last}" if len(others) > 1 else f"{others[0]} or {last}"
                raise ValueError(f"`{self.name}` must be {rule}, but got {value!r}")
        elif self.is_switch:
            if not isinstance(value, bool):
                raise ValueError(f"`{self.name}` must be true or false, but got {value!r}")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{self.name}` must be an integer of at least 1, but got {value!r}")
        elif value % self.multiple or (self.odd and value % 2 == 0):
            rule = "odd" if self.odd else f"a multiple of {self.multiple}"
            raise ValueError(f"`{self.name}` must be {rule}, but got {value}")


def label(axes: Mapping[str, Any]) -> str:
    """Axes as they are written in short, such as `width=16,depth=2`; they tell a family's networks apart."""
    return ",".join(f"{name}={value}" for name, value in axes.items())


Shapes = Mapping[str, tuple[int, ...]]
"""Names and shapes of the tensors of a state dict."""
Recognised = tuple[int, dict[str, Any]] | None
"""Scale and axes of the network whose weights these seem to be; None where they are of another family."""


@dataclass(frozen=True)
class Official:
    """The code that a family's published weights belong to; our networks have its names."""

    code: str
    """The repository of its authors, `owner/name`."""
    recognise: Callable[[Shapes], Recognised]
    names: Callable[[Sequence[str]], Mapping[str, str]] = lambda names: {name: name for name in names}
    """The official name of each name in a file, for files of other tools that renamed the layers."""
    optional: str = ""
    """A regular expression of names that a file may have or lack, since their values are constants."""


@dataclass(frozen=True)
class NetworkFamily:
    """A family of networks that map (B, 3, h, w) to (B, 3, scale·h, scale·w), RGB in [0, 1]."""

    name: str
    network: str | Callable[..., nn.Module]
    """Called with `scale` and every axis by name: a callable, or `module:name`, imported once needed."""
    axes: tuple[NetworkAxis, ...]
    layers: Callable[..., Iterable[Layer]] | None = None
    """Called in the same way, gives the layers of the network; None: its costs are counted, and any axes may
    be given."""
    scales: tuple[int, ...] = SCALES
    pads_to: Callable[[Mapping[str, Any]], int] = lambda axes: 1
    """Called with the axes, gives the number to whose multiples the network pads height and width."""
    check: Callable[[Mapping[str, Any]], None] = lambda axes: None
    """Called with all axes, raises a `ValueError` for those that do not go together."""
    official: Official | None = None
    known: Mapping[str, tuple[int, float]] = field(default_factory=dict, hash=False)
    """Parameters, and GMACs at 120×120 LR pixels, of networks whose costs were counted before; by `label`."""
    kept: Mapping[tuple[str, int], tuple[int, int]] = field(default_factory=dict, hash=False)
    """What these keep from the forward to the backward pass, as `gpnas_trainers.counting.kept` counts it; by
    `label` and side of a patch in LR pixels."""

    def complete(self, scale: int, axes: Mapping[str, Any]) -> dict[str, Any]:
        """All axes of a network: those given, and the defaults of the others.

        Raises:
            ValueError: a scale or axis that does not exist, a missing axis, or a value not allowed.
        """
        if scale not in self.scales:
            whose = "" if self.scales == SCALES or scale not in SCALES else f" of {self.name}"
            scales = SCALES if not whose else self.scales
            raise ValueError(f"a scale{whose} must be one of {', '.join(map(str, scales))}, but got {scale}")
        if self.layers is None:
            self.check(axes)
            return dict(axes)
        required = [axis.name for axis in self.axes if axis.default is None]
        for name in required:
            if name not in axes:
                raise ValueError(f"{self.name} must be given {', '.join(required)}, but {name} is missing")
        known = {axis.name: axis for axis in self.axes}
        for name, value in axes.items():
            if name not in known:
                raise ValueError(
                    f"an axis of {self.name} must be one of {', '.join(known)}, but got {name!r}"
                )
            known[name].check(value)
        complete = {name: axes.get(name, axis.default) for name, axis in known.items()}
        self.check(complete)
        return complete

    def build(self, scale: int, **axes: Any) -> nn.Module:
        """A network with fresh weights, drawn from torch's global generator; errors as `complete`."""
        complete, network = self.complete(scale, axes), self.network
        if isinstance(network, str):
            module, _, name = network.partition(":")
            network = getattr(import_module(module), name)
        return network(scale=scale, **complete)
