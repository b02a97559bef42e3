"""The dense residual network of the paper: F features, D blocks of L stages."""

from __future__ import annotations

from collections.abc import Iterator

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily
from gpnas_trainers.families.layers import (
    Layer,
    channel_attention,
    nearest_upsampler,
    repeated,
    shuffling_upsampler,
)


def _layers(
    scale: int,
    *,
    features: int,
    blocks: int,
    stages: int,
    fuse: int,
    global_skip: bool,
    image_skip: bool,
    upsampler: str,
) -> Iterator[Layer]:
    yield Layer(3, features, 3)
    yield Layer(features, features, 3, times=blocks * 2 * stages)
    yield Layer(features * stages, features, fuse, times=blocks)
    yield from repeated(blocks, channel_attention(features))
    match upsampler:
        case "shuffle":
            yield from shuffling_upsampler(scale, features)
        case "nearest":
            yield from nearest_upsampler(scale, features)
        case _:
            yield Layer(features, 3 * scale * scale, 3)


DRN = NetworkFamily(
    name="drn",
    network="gpnas_trainers.networks.drn:DRN",
    axes=(
        NetworkAxis("features", published=128),
        NetworkAxis("blocks", published=18),
        NetworkAxis("stages", published=3),
        NetworkAxis("fuse", 1, (1, 3)),
        NetworkAxis("global_skip", False),
        NetworkAxis("image_skip", True),
        NetworkAxis("upsampler", "shuffle", ("shuffle", "nearest", "direct")),
    ),
    layers=_layers,
)
