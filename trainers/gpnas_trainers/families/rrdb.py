"""The residual-in-residual dense network of ESRGAN: B blocks with F features and G channels of growth.

Names are those of its authors' BasicSR, in which Real-ESRGAN is published too; xinntao/ESRGAN itself has two
older ways to name the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from operator import mul

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer, factors
from gpnas_trainers.families.naming import counted, renamed


def _layers(
    scale: int, *, features: int, blocks: int, growth: int, unshuffle: int, image_skip: bool
) -> Iterator[Layer]:
    side = Fraction(1, unshuffle)
    yield Layer(3 * unshuffle**2, features, 3, side)
    for place in range(4):
        # of a dense layer the concatenated input and the output of its LeakyReLU are kept
        yield Layer(features + place * growth, growth, 3, side, keeps=growth, times=3 * blocks)
    yield Layer(features + 4 * growth, features, 3, side, times=3 * blocks)
    yield Layer(features, features, 3, side)
    steps = list(accumulate(factors(scale) + factors(unshuffle), mul, initial=1))[1:]
    for step in steps:
        # the last output is kept by the convolution behind it
        yield Layer(features, features, 3, side * step, keeps=0 if step == steps[-1] else features)
    yield Layer(features, features, 3, scale)
    yield Layer(features, 3, 3, scale)


def _recognised(shapes: Shapes) -> Recognised:
    first, dense = shapes.get("conv_first.weight", ()), shapes.get("body.0.rdb1.conv1.weight", ())
    steps = counted(shapes, r"conv_up(\d+)\.")
    if len(first) != 4 or len(dense) != 4 or not steps or first[1] not in (3, 12):
        return None
    unshuffle = 1 if first[1] == 3 else 2
    axes = {"features": first[0], "blocks": counted(shapes, r"body\.(\d+)\."), "growth": dense[0]}
    return 2**steps // unshuffle, axes | {"unshuffle": unshuffle}


def _official_names(names: Sequence[str]) -> dict[str, str]:
    rules = [
        (r"RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
        (r"trunk_conv\.", "conv_body."),
        (r"upconv(\d)\.", r"conv_up\1."),
        (r"HRconv\.", "conv_hr."),
    ]
    places = sorted({int(match[1]) for name in names if (match := re.match(r"model\.(\d+)\.(?!sub)", name))})
    if len(places) > 3:  # the oldest names count layers, also those without weights
        rules = [
            (r"model\.1\.sub\.(\d+)\.RDB(\d)\.(conv\d)\.0\.", r"body.\1.rdb\2.\3."),
            (r"model\.1\.sub\.\d+\.(?!RDB)", "conv_body."),
            (rf"model\.{places[0]}\.", "conv_first."),
            *((rf"model\.{place}\.", f"conv_up{step}.") for step, place in enumerate(places[1:-2], 1)),
            (rf"model\.{places[-2]}\.", "conv_hr."),
            (rf"model\.{places[-1]}\.", "conv_last."),
        ]
    return renamed(names, rules)


RRDB = NetworkFamily(
    name="rrdb",
    network="gpnas_trainers.networks.rrdb:RRDB",
    axes=(
        NetworkAxis("features", published=64),
        NetworkAxis("blocks", published=23),
        NetworkAxis("growth", published=32),
        NetworkAxis("unshuffle", 1, (1, 2)),
        NetworkAxis("image_skip", False),
    ),
    layers=_layers,
    pads_to=lambda axes: int(axes["unshuffle"]),
    official=Official("xinntao/BasicSR", _recognised, _official_names),
)
