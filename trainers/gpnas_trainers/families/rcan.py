"""The residual channel attention network: G groups of B blocks with F features."""

from __future__ import annotations

from collections.abc import Iterator

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily
from gpnas_trainers.families.layers import Layer, channel_attention, repeated, shuffling_upsampler


def _layers(
    scale: int, *, features: int, groups: int, blocks: int, reduction: int, image_skip: bool
) -> Iterator[Layer]:
    yield Layer(3, 3)
    yield Layer(3, 3, side=scale, runs=not image_skip)
    yield Layer(3, features, 3)
    yield Layer(features, features, 3, times=groups * (2 * blocks + 1) + 1)
    yield from repeated(groups * blocks, channel_attention(features, reduction))
    yield from shuffling_upsampler(scale, features)


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
)
