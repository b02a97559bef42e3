"""The families of networks that are built in, one file each; neither these nor their costs need torch.

What each network is, with its source and its official code, is told in the module of `networks` of its name.
Beside them stand those that a run or a bundle has declared: people's own networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpnas_trainers.families.compact import COMPACT
from gpnas_trainers.families.declaration import SCALES as SCALES
from gpnas_trainers.families.declaration import NetworkAxis as NetworkAxis
from gpnas_trainers.families.declaration import NetworkFamily as NetworkFamily
from gpnas_trainers.families.declaration import label as label
from gpnas_trainers.families.drn import DRN
from gpnas_trainers.families.dual_regression import DUAL_REGRESSION
from gpnas_trainers.families.edsr import EDSR
from gpnas_trainers.families.nafnet import NAFNET
from gpnas_trainers.families.plksr import PLKSR
from gpnas_trainers.families.rcan import RCAN
from gpnas_trainers.families.rrdb import RRDB
from gpnas_trainers.families.safmn import SAFMN
from gpnas_trainers.families.span import SPAN
from gpnas_trainers.families.swinir import SWINIR

if TYPE_CHECKING:
    from torch import nn

BUILT_IN = (DRN, RCAN, DUAL_REGRESSION, EDSR, RRDB, SPAN, PLKSR, SAFMN, NAFNET, COMPACT, SWINIR)
FAMILIES = {family.name: family for family in BUILT_IN}
"""The built-in families by name."""
_OWN: dict[str, NetworkFamily] = {}
"""The families that were declared, by name."""


def declare(family: NetworkFamily) -> None:
    """Makes a family known by its name to `build`, to costs and to all else; a later one takes its place.

    Raises:
        ValueError: a built-in family has this name.
    """
    if family.name in FAMILIES:
        raise ValueError(f"a family of one's own must have a name of its own, but {family.name} is built in")
    _OWN[family.name] = family


def is_known(family: str) -> bool:
    """Whether a family is built in or has been declared."""
    return family in FAMILIES or family in _OWN


def family_of(family: str | NetworkFamily) -> NetworkFamily:
    """A built-in or declared family by its name; a family itself is returned as it is.

    Raises:
        ValueError: no family has this name.
    """
    if isinstance(family, NetworkFamily):
        return family
    known = FAMILIES | _OWN
    if family not in known:
        raise ValueError(f"a family must be one of {', '.join(known)}, but got {family!r}")
    return known[family]


def declared(network: nn.Module) -> NetworkFamily | None:
    """The built-in family of a network; None for any other module."""
    kind = type(network)
    place = f"{kind.__module__}:{kind.__qualname__}"
    return next((family for family in FAMILIES.values() if family.network == place), None)


def build(family: str | NetworkFamily, scale: int, **axes: Any) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator.

    It maps (B, 3, h, w) to (B, 3, scale·h, scale·w), RGB in [0, 1].

    Args:
        family: the name of a built-in or declared family, or a family.
        scale: one of the family's scales.
        axes: the family's axes; those with a default may be left out.

    Raises:
        ValueError: a family, scale or axis that does not exist, a missing axis, or a value not allowed.
    """
    return family_of(family).build(scale, **axes)


def check(family: str | NetworkFamily, scale: int, **axes: Any) -> None:
    """Raises the `ValueError` that `build` would, without building anything."""
    family_of(family).complete(scale, axes)
