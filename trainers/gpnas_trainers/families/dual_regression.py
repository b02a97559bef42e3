"""The dual regression network: a U-Net of F features at HR size, with B attention blocks of each size."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer, channel_attention, repeated
from gpnas_trainers.families.naming import MEAN_SHIFTS, counted


def _layers(scale: int, *, features: int, blocks: int) -> Iterator[Layer]:
    phases = scale.bit_length() - 1
    widths = [features * 2**phase for phase in range(phases + 1)]
    yield Layer(3, 3, side=scale, times=2)
    yield Layer(3, features, 3, scale)
    for phase, width in enumerate(widths[:-1]):
        side = Fraction(scale, 2 ** (phase + 1))
        yield Layer(width, width, 3, side, stride=2, bias=False)
        yield Layer(width, 2 * width, 3, side, bias=False)
    # images of the smaller sizes are made in a dual training alone
    yield Layer(widths[-1], 3, 3, runs=False)
    inputs = widths[-1]
    for phase, outputs in enumerate(reversed(widths[:-1])):
        side = 2**phase
        yield Layer(inputs, inputs, 3, side, times=2 * blocks)
        yield from repeated(blocks, channel_attention(inputs, side=side))
        yield Layer(inputs, 4 * inputs, 3, side)
        yield Layer(inputs, outputs, 1, 2 * side)
        inputs = 2 * outputs
        yield Layer(inputs, 3, 3, 2 * side, runs=phase == phases - 1)


def _recognised(shapes: Shapes) -> Recognised:
    head = shapes.get("head.weight", ())
    phases = counted(shapes, r"up_blocks\.(\d+)\.")
    if len(head) != 4 or not phases or "down.0.dual_module.1.weight" not in shapes:
        return None
    # behind the attention blocks stand an upsampler and a 1×1 convolution
    return 2**phases, {"features": head[0], "blocks": counted(shapes, r"up_blocks\.0\.(\d+)\.") - 2}


DUAL_REGRESSION = NetworkFamily(
    name="dual_regression",
    network="gpnas_trainers.networks.dual_regression:DualRegression",
    axes=(NetworkAxis("features", published=16), NetworkAxis("blocks", published=30)),
    layers=_layers,
    scales=(2, 4, 8),
    official=Official("guoyongcs/DRN", _recognised, optional=MEAN_SHIFTS),
)
