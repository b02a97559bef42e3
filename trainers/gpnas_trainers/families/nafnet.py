"""NAFNet for super-resolution: B blocks of width W without activation functions.

The published stereo networks exchange features between two views, which a single image does not have; they
are not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer
from gpnas_trainers.families.naming import counted, direct_scale


def _layers(scale: int, *, width: int, blocks: int) -> Iterator[Layer]:
    yield Layer(3, width, 3)
    # both norms keep their input, and both factors of the skip connections theirs
    yield Layer(numbers=6 * width, keeps=4 * width, times=blocks)
    yield Layer(width, 2 * width, times=blocks)
    # the gate keeps both halves, and the attention's product its factors
    yield Layer(2 * width, 2 * width, 3, groups=2 * width, keeps=3 * width, times=blocks)
    yield Layer(width, width, side=0, keeps=width, times=blocks)
    yield Layer(width, width, times=blocks)
    yield Layer(width, 2 * width, keeps=2 * width, times=blocks)
    yield Layer(width, width, times=blocks)
    yield Layer(width, 3 * scale * scale, 3)


def _recognised(shapes: Shapes) -> Recognised:
    first, scale = shapes.get("intro.weight", ()), direct_scale(shapes, "up.0")
    if len(first) != 4 or not scale or "body.0.module.blk.conv1.weight" not in shapes:
        return None
    return scale, {"width": first[0], "blocks": counted(shapes, r"body\.(\d+)\.")}


NAFNET = NetworkFamily(
    name="nafnet",
    network="gpnas_trainers.networks.nafnet:NAFNet",
    axes=(NetworkAxis("width", published=64), NetworkAxis("blocks", published=32)),
    layers=_layers,
    official=Official("megvii-research/NAFNet", _recognised),
)
