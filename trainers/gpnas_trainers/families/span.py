"""SPAN, swift parameter-free attention: B blocks of three convolutions with F features.

The official one has 6 blocks and 48 or 52 features. Each of its convolutions is trained as a chain of 1×1,
3×3 and 1×1 beside a 1×1, which are one 3×3 for inference: the parameters are those of the chain, the
multiplications those of the one.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer
from gpnas_trainers.families.naming import counted, direct_scale


def _chain(inputs: int, outputs: int, *, keeps: int = 0, times: int = 1) -> Layer:
    """A merged convolution, which keeps its kernel and what it is made of once per step."""
    inner = inputs * 2 * inputs + 2 * inputs * 2 * outputs * 9 + 2 * outputs * outputs
    numbers = inner + 2 * inputs + 2 * outputs + outputs + inputs * outputs + outputs
    merged = 9 * inputs * outputs
    held = merged + 9 * 2 * outputs * inputs
    return Layer(inputs, outputs, 3, learned=False, numbers=numbers, keeps=keeps, holds=held, times=times)


def _layers(scale: int, *, features: int, blocks: int, image_skip: bool) -> Iterator[Layer]:
    yield _chain(3, features)
    # SiLU keeps its input, the sigmoid its output, the attention's product the sum and the gate
    yield _chain(features, features, keeps=features, times=2 * blocks)
    yield _chain(features, features, keeps=3 * features, times=blocks)
    yield _chain(features, features)
    yield Layer(4 * features, features)
    yield Layer(features, 3 * scale * scale, 3)


def _recognised(shapes: Shapes) -> Recognised:
    first, scale = shapes.get("conv_1.sk.weight", ()), direct_scale(shapes, "upsampler.0")
    blocks = counted(shapes, r"block_(\d+)\.c1_r\.sk\.")
    if len(first) != 4 or not scale or not blocks:
        return None
    return scale, {"features": first[0], "blocks": blocks}


SPAN = NetworkFamily(
    name="span",
    network="gpnas_trainers.networks.span:SPAN",
    axes=(
        NetworkAxis("features", published=48),
        NetworkAxis("blocks", published=6),
        NetworkAxis("image_skip", False),
    ),
    layers=_layers,
    official=Official("hongyuanyu/SPAN", _recognised, optional=r".*\.eval_conv\.(weight|bias)"),
)
