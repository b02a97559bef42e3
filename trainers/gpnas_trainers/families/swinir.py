"""SwinIR: G groups of B transformer blocks with F features, whose attention sees windows of W×W pixels.

The official code has 910 thousand parameters in the lightweight network for ×2, where the paper says 878: a
convolution of 32 thousand is not counted there. Both of its networks for bicubic images are built: the
lightweight one (`direct`) and the classical one (`shuffle`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer, shuffling_upsampler
from gpnas_trainers.families.naming import counted, direct_scale, shuffling_scale

EXPANSION = 2
"""Channels of the mixer in F."""
HR_FEATURES = 64
"""Features of the classical network from its upsampler on."""


def _layers(
    scale: int,
    *,
    features: int,
    groups: int,
    blocks: int,
    heads: int,
    window: int,
    upsampler: str,
    image_skip: bool,
) -> Iterator[Layer]:
    seen, wide, every = window**2, EXPANSION * features, groups * blocks
    yield Layer(3, features, 3)
    yield Layer(numbers=4 * features, keeps=2 * features + 4)  # norms of the first and the last features
    # both norms keep their input; attention keeps queries, keys and values, the queries once more, scaled,
    # the softmax of each head, and once the places in the table of biases
    yield Layer(
        numbers=4 * features + (2 * window - 1) ** 2 * heads,
        keeps=6 * features + 4 + heads * seen,
        holds=2 * seen**2,
        times=every,
    )
    yield Layer(features, 3 * features, times=every)
    yield Layer(features, 2 * seen, bias=False, learned=False, keeps=-features, times=every)
    yield Layer(features, features, times=every)
    yield Layer(features, wide, keeps=wide, times=every)
    yield Layer(wide, features, times=every)
    yield Layer(features, features, 3, times=groups + 1)
    if upsampler == "direct":
        yield Layer(features, 3 * scale * scale, 3)
    else:
        yield Layer(features, HR_FEATURES, 3)
        yield from shuffling_upsampler(scale, HR_FEATURES)


def _check(axes: Mapping[str, Any]) -> None:
    if axes["features"] % axes["heads"]:
        raise ValueError(
            f"`features` of swinir must be a multiple of `heads`, but got features={axes['features']}, "
            f"heads={axes['heads']}"
        )


def _recognised(shapes: Shapes) -> Recognised:
    inner = "layers.0.residual_group.blocks.0"
    first = shapes.get("conv_first.weight", ())
    table = shapes.get(f"{inner}.attn.relative_position_bias_table", ())
    direct = "conv_last.weight" not in shapes
    scale = direct_scale(shapes, "upsample.0") if direct else shuffling_scale(shapes, "upsample")
    if len(first) != 4 or len(table) != 2 or not scale or "conv_up1.weight" in shapes:
        return None
    return scale, {
        "features": first[0],
        "groups": counted(shapes, r"layers\.(\d+)\."),
        "blocks": counted(shapes, r"layers\.0\.residual_group\.blocks\.(\d+)\."),
        "heads": table[1],
        "window": (math.isqrt(table[0]) + 1) // 2,
        "upsampler": "direct" if direct else "shuffle",
    }


SWINIR = NetworkFamily(
    name="swinir",
    network="gpnas_trainers.networks.swinir:SwinIR",
    axes=(
        NetworkAxis("features", published=60),
        NetworkAxis("groups", published=4),
        NetworkAxis("blocks", published=6),
        NetworkAxis("heads", 6, published=6),
        NetworkAxis("window", 8, published=8),
        NetworkAxis("upsampler", "direct", ("direct", "shuffle")),
        NetworkAxis("image_skip", False),
    ),
    layers=_layers,
    pads_to=lambda axes: int(axes["window"]),
    check=_check,
    official=Official(
        "JingyunLiang/SwinIR", _recognised, optional=r".*\.(attn_mask|relative_position_index)"
    ),
)
