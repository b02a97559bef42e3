"""The compact network of Real-ESRGAN (SRVGGNet): a plain row of C convolutions with F features."""

from __future__ import annotations

from collections.abc import Iterator

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer
from gpnas_trainers.families.naming import counted, direct_scale


def _layers(scale: int, *, features: int, convolutions: int) -> Iterator[Layer]:
    # PReLU has a slope for each channel and keeps its input
    yield Layer(3, features, 3, numbers=features, keeps=features)
    yield Layer(features, features, 3, numbers=features, keeps=features, times=convolutions)
    yield Layer(features, 3 * scale * scale, 3)


def _recognised(shapes: Shapes) -> Recognised:
    first, slopes = shapes.get("body.0.weight", ()), shapes.get("body.1.weight", ())
    count = counted(shapes, r"body\.(\d+)\.")
    scale = direct_scale(shapes, f"body.{count - 1}")
    if len(first) != 4 or len(slopes) != 1 or not scale or count % 2 == 0:
        return None
    return scale, {"features": first[0], "convolutions": (count - 3) // 2}


COMPACT = NetworkFamily(
    name="compact",
    network="gpnas_trainers.networks.compact:Compact",
    axes=(NetworkAxis("features", published=64), NetworkAxis("convolutions", published=16)),
    layers=_layers,
    official=Official("xinntao/Real-ESRGAN", _recognised),
)
