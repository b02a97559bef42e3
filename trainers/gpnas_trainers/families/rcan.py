"""The residual channel attention network: G groups of B blocks with F features.

Published weights have the names of the official code, or of BasicSR, which renamed the layers and has no
`sub_mean` and `add_mean`: the mean colour of DIV2K is fixed in its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer, channel_attention, repeated, shuffling_upsampler
from gpnas_trainers.families.naming import BASICSR, MEAN_SHIFTS, counted, renamed, shuffling_scale


def _layers(
    scale: int, *, features: int, groups: int, blocks: int, reduction: int, image_skip: bool
) -> Iterator[Layer]:
    yield Layer(3, 3)
    yield Layer(3, 3, side=scale, runs=not image_skip)
    yield Layer(3, features, 3)
    yield Layer(features, features, 3, times=groups * (2 * blocks + 1) + 1)
    yield from repeated(groups * blocks, channel_attention(features, reduction))
    yield from shuffling_upsampler(scale, features)


def _recognised(shapes: Shapes) -> Recognised:
    gate, head = shapes.get("body.0.body.0.body.3.conv_du.0.weight", ()), shapes.get("head.0.weight", ())
    scale = shuffling_scale(shapes, r"tail\.0")
    if not scale or {len(gate), len(head)} != {4}:
        return None
    return scale, {
        "features": head[0],
        # the last is the convolution after the groups, or after the blocks
        "groups": counted(shapes, r"body\.(\d+)\.") - 1,
        "blocks": counted(shapes, r"body\.0\.body\.(\d+)\.") - 1,
        "reduction": max(1, head[0] // max(1, gate[0])),
    }


def _official_names(names: Sequence[str]) -> dict[str, str]:
    if "conv_first.weight" not in names:
        return {name: name for name in names}
    groups, blocks = counted(names, r"body\.(\d+)\."), counted(names, r"body\.0\.residual_group\.(\d+)\.")
    block = r"body\.(\d+)\.residual_group\.(\d+)\.rcab"
    rules = (
        (rf"{block}\.([02])\.", r"body.\1.body.\2.body.\3."),
        (rf"{block}\.3\.attention\.1\.", r"body.\1.body.\2.body.3.conv_du.0."),
        (rf"{block}\.3\.attention\.3\.", r"body.\1.body.\2.body.3.conv_du.2."),
        (r"body\.(\d+)\.conv\.", rf"body.\1.body.{blocks}."),
        (r"conv_after_body\.", f"body.{groups}."),
        *BASICSR,
    )
    return renamed(names, rules)


RCAN = NetworkFamily(
    name="rcan",
    network="gpnas_trainers.networks.rcan:RCAN",
    axes=(
        NetworkAxis("features", published=64),
        NetworkAxis("groups", published=10),
        NetworkAxis("blocks", published=20),
        NetworkAxis("reduction", 16),
        NetworkAxis("image_skip", False),
    ),
    layers=_layers,
    official=Official("yulunzhang/RCAN", _recognised, _official_names, MEAN_SHIFTS),
)
