"""EDSR, the enhanced deep residual network: B residual blocks with F features, without norms.

B. Lim et al., "Enhanced deep residual networks for single image super-resolution", CVPR workshops 2017.
The official code is sanghyun-son/EDSR-PyTorch (MIT licence); BasicSR renamed its layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Shapes
from gpnas_trainers.families.layers import Layer, shuffling_upsampler
from gpnas_trainers.families.naming import counted, renamed


def _layers(scale: int, *, features: int, blocks: int, damped: bool, image_skip: bool) -> Iterator[Layer]:
    yield Layer(3, 3)
    yield Layer(3, 3, side=scale, runs=not image_skip)
    yield Layer(3, features, 3)
    yield Layer(features, features, 3, times=2 * blocks + 1)
    yield from shuffling_upsampler(scale, features)


def _recognised(shapes: Shapes) -> tuple[int, dict[str, Any]] | None:
    head, first = shapes.get("head.0.weight", ()), shapes.get("body.0.body.0.weight", ())
    steps = [shape for name, shape in shapes.items() if re.fullmatch(r"tail\.0\.\d+\.weight", name)]
    if not steps or {len(each) for each in (head, first, *steps)} != {4}:
        return None
    features, blocks = head[0], counted(shapes, r"body\.(\d+)\.") - 1
    # a factor leaves no trace in a file: the authors damp their large network alone
    axes = {"features": features, "blocks": blocks, "damped": (features, blocks) == (256, 32)}
    return 3 if steps[0][0] == 9 * features else 2 ** len(steps), axes


def _official_names(names: Sequence[str]) -> dict[str, str]:
    blocks = counted(names, r"body\.(\d+)\.conv1\.")
    rules = (
        (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
        (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
        (r"conv_after_body\.", f"body.{blocks}."),
        (r"conv_first\.", "head.0."),
        (r"upsample\.", "tail.0."),
        (r"conv_last\.", "tail.1."),
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
    official=Official(
        "sanghyun-son/EDSR-PyTorch",
        _recognised,
        _official_names,
        optional=r"(sub|add)_mean\.(weight|bias)",
        plain={"image_skip": False},
    ),
)
