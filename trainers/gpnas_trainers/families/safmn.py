"""SAFMN, spatially-adaptive feature modulation: B blocks with F features, widened E times in between."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer
from gpnas_trainers.families.naming import counted, direct_scale


def _layers(scale: int, *, features: int, blocks: int, expansion: int, image_skip: bool) -> Iterator[Layer]:
    part, wide = features // 4, expansion * features
    yield Layer(3, features, 3)
    # both norms keep their input; the modulation keeps its two factors and the input of GELU
    yield Layer(numbers=4 * features, keeps=4 * features, times=blocks)
    for level in range(4):
        yield Layer(part, part, 3, Fraction(1, 2**level), groups=part, times=blocks)
    yield Layer(features, features, keeps=features, times=blocks)
    yield Layer(features, wide, 3, keeps=wide, times=blocks)
    yield Layer(wide, features, times=blocks)
    yield Layer(features, 3 * scale * scale, 3)


def _recognised(shapes: Shapes) -> Recognised:
    first, wide = shapes.get("to_feat.weight", ()), shapes.get("feats.0.ccm.ccm.0.weight", ())
    scale = direct_scale(shapes, "to_img.0")
    if {len(first), len(wide)} != {4} or not scale or "feats.0.safm.mfr.3.weight" not in shapes:
        return None
    blocks, expansion = counted(shapes, r"feats\.(\d+)\."), wide[0] // max(1, first[0])
    return scale, {"features": first[0], "blocks": blocks, "expansion": expansion}


SAFMN = NetworkFamily(
    name="safmn",
    network="gpnas_trainers.networks.safmn:SAFMN",
    axes=(
        NetworkAxis("features", published=36, multiple=4),
        NetworkAxis("blocks", published=8),
        NetworkAxis("expansion", 2, published=2),
        NetworkAxis("image_skip", False),
    ),
    layers=_layers,
    official=Official("sunny2109/SAFMN", _recognised),
)
