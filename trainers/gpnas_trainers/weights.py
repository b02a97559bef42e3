"""Published weights of RCAN, read without being told what network they are of.

Two families of names are in use. Ours are the official code's (yulunzhang/RCAN, and tools that follow
it); those of BasicSR are renamed:

| official | BasicSR |
|---|---|
| `head.0` | `conv_first` |
| `body.{g}.body.{b}.body.{0,2}` | `body.{g}.residual_group.{b}.rcab.{0,2}` |
| `body.{g}.body.{b}.body.3.conv_du.{0,2}` | `body.{g}.residual_group.{b}.rcab.3.attention.{1,3}` |
| `body.{g}.body.{blocks}` | `body.{g}.conv` |
| `body.{groups}` | `conv_after_body` |
| `tail.0.{i}` | `upsample.{i}` |
| `tail.1` | `conv_last` |
| `sub_mean`, `add_mean` | none: the mean colour of DIV2K is fixed in its code |

Some numbers leave no trace in a file: a residual scale other than 1 and a pixel range other than 255
are not supported and cannot be noticed.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gpnas_trainers.families import build
from gpnas_trainers.networks.blocks import MeanShift
from gpnas_trainers.networks.rcan import RCAN

WRAPPERS = ("params_ema", "params", "state_dict")
"""Where training tools keep the weights inside a file, the better ones first."""


class WeightsError(ValueError):
    """A file does not hold weights that we can use; one line."""


class Published(NamedTuple):
    """A network as it was published."""

    network: RCAN
    """Float32, on the CPU, in training mode as any fresh network."""
    scale: int
    axes: dict[str, int]
    """`features`, `groups`, `blocks`, `reduction`, as `build("rcan", scale, **axes)` takes them."""


def load_rcan(path: Path) -> Published:
    """RCAN with the weights of a file, official or BasicSR's; its size is inferred from the tensors.

    Args:
        path: a `.safetensors` file, or any other name for one that `torch.save` wrote. No code in it
            is ever run.

    Raises:
        WeightsError: the file cannot be read, or is not of an RCAN.
    """
    try:
        return from_state(_read(path))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def from_state(state: Mapping[str, Tensor]) -> Published:
    """RCAN with the weights of a state dict, official or BasicSR's.

    Raises:
        WeightsError: it is not of an RCAN.
    """
    state = {name.removeprefix("module."): value.float() for name, value in state.items()}
    if "conv_first.weight" in state:
        state = _official(state)
    scale, axes = _infer(state)
    with torch.device("meta"):
        network = build("rcan", scale, **axes)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise WeightsError(
                f"weights must be those of an RCAN ×{scale} with {axes}, but {name} must be "
                f"{_shown(expected.get(name))} and is {_shown(found.get(name))}"
            )
    network.load_state_dict(state, assign=True)
    assert isinstance(network, RCAN)
    return Published(network.requires_grad_(True), scale, axes)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "×".join(map(str, shape))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"a file must hold nothing but weights, but {reason}") from None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"a file must hold named weights, but got {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"a file must hold named weights, but {name!r} is {type(value).__name__}")
    return dict(content)


_BLOCK = re.compile(r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.([02])\.(.+)")
_GATE = re.compile(r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.([13])\.(.+)")
_GROUP = re.compile(r"body\.(\d+)\.conv\.(.+)")


def _official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under BasicSR's names, under the official ones."""
    groups = _count(state, r"body\.(\d+)\.")
    blocks = _count(state, r"body\.0\.residual_group\.(\d+)\.")
    plain = {
        "conv_first": "head.0",
        "conv_after_body": f"body.{groups}",
        "upsample": "tail.0",
        "conv_last": "tail.1",
    }
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if match := _BLOCK.fullmatch(name):
            new = "body.{}.body.{}.body.{}.{}".format(*match.groups())
        elif match := _GATE.fullmatch(name):
            group, block, layer, rest = match.groups()
            new = f"body.{group}.body.{block}.body.3.conv_du.{int(layer) - 1}.{rest}"
        elif match := _GROUP.fullmatch(name):
            new = f"body.{match[1]}.body.{blocks}.{match[2]}"
        elif first in plain:
            new = f"{plain[first]}.{rest}"
        else:
            raise WeightsError(f"a weight of BasicSR's RCAN must have a name of its, but got {name!r}")
        renamed[new] = value
    for name, shift in (("sub_mean", MeanShift(-1)), ("add_mean", MeanShift(1))):
        renamed |= {f"{name}.{key}": value for key, value in shift.state_dict().items()}
    return renamed


def _infer(state: Mapping[str, Tensor]) -> tuple[int, dict[str, Any]]:
    """Scale and axes of the RCAN whose weights these seem to be, under the official names."""
    gate, head = state.get("body.0.body.0.body.3.conv_du.0.weight"), state.get("head.0.weight")
    steps = [value for name, value in state.items() if re.fullmatch(r"tail\.0\.\d+\.weight", name)]
    if (
        gate is None
        or head is None
        or not steps
        or {head.ndim, gate.ndim, *(step.ndim for step in steps)} != {4}
    ):
        names = ", ".join(list(state)[:3])
        raise WeightsError(f"weights must be those of an RCAN, official or BasicSR's, but got {names}, …")
    features, hidden = head.shape[0], gate.shape[0]
    scale = 3 if steps[0].shape[0] == 9 * features else 2 ** len(steps)
    axes: dict[str, Any] = {
        "features": features,
        # the last is the convolution after the groups, or after the blocks
        "groups": _count(state, r"body\.(\d+)\.") - 1,
        "blocks": _count(state, r"body\.0\.body\.(\d+)\.") - 1,
        "reduction": max(1, features // max(1, hidden)),
    }
    if scale not in (2, 3, 4, 8) or min(axes.values()) < 1:
        raise WeightsError(
            f"an RCAN must be ×2, ×3, ×4 or ×8 and not empty, but this is ×{scale} with {axes}"
        )
    return scale, axes


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})
