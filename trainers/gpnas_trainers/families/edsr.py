"""EDSR, the enhanced deep residual network: B residual blocks with F features, without norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer, shuffling_upsampler
from gpnas_trainers.families.naming import BASICSR, MEAN_SHIFTS, counted, renamed, shuffling_scale


def _layers(scale: int, *, features: int, blocks: int, damped: bool, image_skip: bool) -> Iterator[Layer]:
    yield Layer(3, 3)
    yield Layer(3, 3, side=scale, runs=not image_skip)
    yield Layer(3, features, 3)
    yield Layer(features, features, 3, times=2 * blocks + 1)
    yield from shuffling_upsampler(scale, features)


def _recognised(shapes: Shapes) -> Recognised:
    head, first = shapes.get("head.0.weight", ()), shapes.get("body.0.body.0.weight", ())
    scale = shuffling_scale(shapes, r"tail\.0")
    if not scale or {len(head), len(first)} != {4}:
        return None
    features, blocks = head[0], counted(shapes, r"body\.(\d+)\.") - 1
    # a factor leaves no trace in a file: the authors damp their large network alone
    axes = {"features": features, "blocks": blocks, "damped": (features, blocks) == (256, 32)}
    return scale, axes


def _official_names(names: Sequence[str]) -> dict[str, str]:
    blocks = counted(names, r"body\.(\d+)\.conv1\.")
    rules = (
        (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
        (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
        (r"conv_after_body\.", f"body.{blocks}."),
        *BASICSR,
    )
    return renamed(names, rules)


EDSR = NetworkFamily(
    name="edsr",
    network="gpnas_trainers.networks.edsr:EDSR",
    axes=(
        NetworkAxis("features", published=64),
        NetworkAxis("blocks", published=16),
        NetworkAxis("damped", False),
        NetworkAxis("image_skip", False),
    ),
    layers=_layers,
    official=Official("sanghyun-son/EDSR-PyTorch", _recognised, _official_names, MEAN_SHIFTS),
)
