"""Super-resolution networks, their data, training and use; without Ray and without the search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

SCALES = (2, 3, 4, 8)
"""Super-resolution factors that the networks support."""
AXES = {
    "drn": ("features", "blocks", "stages"),
    "rcan": ("features", "groups", "blocks"),
    "dual_regression": ("features", "blocks"),
}
"""Families of networks and the axes that each must be given."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "drn": ("fuse", "global_skip", "image_skip", "upsampler"),
    "rcan": ("reduction", "image_skip"),
    "dual_regression": (),
}
"""Families of networks and what may be given besides."""
UPSAMPLERS = ("shuffle", "nearest", "direct")
"""Ways of `drn` from features of LR size to an image."""


def build(family: str, scale: int, **axes: Any) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator.

    It maps (B, 3, h, w) to (B, 3, scale·h, scale·w), RGB in [0, 1].

    Args:
        family: `drn`, `rcan` or `dual_regression`.
        scale: 2, 3, 4 or 8; not 3 for `dual_regression`.
        axes: the family's axes (`AXES`) and options (`OPTIONS`).

    Raises:
        ValueError: a family, scale or axis that does not exist, a missing axis, or one below 1.
    """
    from gpnas_trainers.drn import DRN
    from gpnas_trainers.dual_regression import DualRegression
    from gpnas_trainers.rcan import RCAN

    check(family, scale, **axes)
    match family:
        case "drn":
            return DRN(scale, **axes)
        case "dual_regression":
            return DualRegression(scale, **axes)
        case _:
            return RCAN(scale, **axes)


def check(family: str, scale: int, **axes: Any) -> None:
    """Raises the `ValueError` that `build` would, without building anything."""
    if family not in AXES:
        raise ValueError(f"a family must be one of {', '.join(AXES)}, but got {family!r}")
    if scale not in SCALES:
        raise ValueError(f"a scale must be one of {', '.join(map(str, SCALES))}, but got {scale}")
    if family == "dual_regression" and scale == 3:
        raise ValueError("a scale of dual_regression must be one of 2, 4, 8, but got 3")
    allowed = AXES[family] + OPTIONS[family]
    for name in AXES[family]:
        if name not in axes:
            raise ValueError(f"{family} must be given {', '.join(AXES[family])}, but {name} is missing")
    for name, value in axes.items():
        if name not in allowed:
            raise ValueError(f"an axis of {family} must be one of {', '.join(allowed)}, but got {name!r}")
        if name == "upsampler":
            if value not in UPSAMPLERS:
                raise ValueError(f"`upsampler` must be one of {', '.join(UPSAMPLERS)}, but got {value!r}")
        elif name.endswith("skip"):
            if not isinstance(value, bool):
                raise ValueError(f"`{name}` must be true or false, but got {value!r}")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be an integer of at least 1, but got {value!r}")
    if axes.get("fuse", 1) not in (1, 3):
        raise ValueError(f"`fuse` must be 1 or 3, but got {axes['fuse']}")
