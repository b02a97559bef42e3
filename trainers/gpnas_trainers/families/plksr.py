"""PLKSR, partial large kernels: B blocks with F features, of which one in S goes through a K×K kernel.

Its mixer is the doubled one, as in the published networks.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpnas_trainers.families.declaration import NetworkAxis, NetworkFamily, Official, Recognised, Shapes
from gpnas_trainers.families.layers import Layer
from gpnas_trainers.families.naming import counted, direct_scale


def _layers(
    scale: int, *, features: int, blocks: int, kernel: int, split: int, attention: bool
) -> Iterator[Layer]:
    large = max(1, features // split)
    yield Layer(3, features, 3)
    yield Layer(features, 2 * features, 3, keeps=2 * features, times=blocks)  # GELU keeps its input
    yield Layer(2 * features, features, 3, times=blocks)
    yield Layer(large, large, kernel, times=blocks)
    if attention:  # the sigmoid keeps its output
        yield Layer(features, features, 3, keeps=features, times=blocks)
    yield Layer(features, features, times=blocks)
    yield Layer(features, 3 * scale * scale, 3)


def _recognised(shapes: Shapes) -> Recognised:
    first, large = shapes.get("feats.0.weight", ()), shapes.get("feats.1.lk.conv.weight", ())
    count = counted(shapes, r"feats\.(\d+)\.")
    scale = direct_scale(shapes, f"feats.{count - 1}")
    if {len(first), len(large)} != {4} or not scale or "feats.1.channe_mixer.2.weight" not in shapes:
        return None
    return scale, {
        "features": first[0],
        "blocks": count - 2,
        "kernel": large[-1],
        "split": max(1, first[0] // max(1, large[0])),
        "attention": "feats.1.attn.f.0.weight" in shapes,
    }


PLKSR = NetworkFamily(
    name="plksr",
    network="gpnas_trainers.networks.plksr:PLKSR",
    axes=(
        NetworkAxis("features", published=64),
        NetworkAxis("blocks", published=28),
        NetworkAxis("kernel", 17, published=17, odd=True),
        NetworkAxis("split", 4, published=4),
        NetworkAxis("attention", True),
    ),
    layers=_layers,
    official=Official("dslisleedh/PLKSR", _recognised),
)
