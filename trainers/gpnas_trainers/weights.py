"""Published weights, read without being told what network they are of.

Training tools wrap weights in dictionaries (`params_ema`, `state_dict`, …), put prefixes before their
names (`module.`, `netG.`, …) and add counters; all of these are taken off. Which family the weights are
of, and its scale and axes, follows from their names and shapes.

Some numbers leave no trace in a file, such as a residual scale or a pixel range other than the usual one:
they are not supported and cannot be noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gpnas_trainers.families import FAMILIES, NetworkFamily
from gpnas_trainers.files import check, opened
from gpnas_trainers.tensors import load_tensors, not_finite

WRAPPERS = (
    "params_ema", "params-ema", "ema_state_dict", "model_ema", "ema", "params", "state_dict",
    "model_state_dict", "net_g", "netG", "generator", "model", "net", "network", "weights",
)  # fmt: skip
"""Keys under which training tools keep the weights, the better ones first."""
PREFIXES = (
    "module.", "ema_model.", "netG.", "net_g.", "generator.", "model.", "net.", "network.",
)  # fmt: skip
"""Prefixes of a network's names; where there is one, names without it are those of other networks."""
COUNTERS = {"n_averaged", "num_updates", "decay", "initted", "step"}
"""Numbers that stand beside the weights of an average."""


class WeightsError(ValueError):
    """A file does not hold weights that we can use; one line."""


class Published(NamedTuple):
    """A network as it was published."""

    network: nn.Module
    """Float32, on the CPU, in training mode as any fresh network."""
    scale: int
    axes: dict[str, int]
    """The axes that `build(family, scale, **axes)` takes."""


def load_rcan(path: Path) -> Published:
    """RCAN with the weights of a file, official or BasicSR's; arguments and errors as `load_published`."""
    return load_published(path, FAMILIES["rcan"])[1]


def load_published(path: Path, family: NetworkFamily | None = None) -> tuple[str, Published]:
    """The name of the family whose weights a file holds, and the network with these weights.

    Args:
        path: a `.safetensors` file, or any other name for one that `torch.save` wrote. No code in it
            is ever run.
        family: what the weights must be of; None for any built-in family that has official code.

    Raises:
        WeightsError: the file cannot be read, or is not of such a network.
    """
    try:
        return from_state(_read(path), family)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def from_state(state: Mapping[str, Tensor], family: NetworkFamily | None = None) -> tuple[str, Published]:
    """The name of the family and the network of a state dict; arguments and errors as `load_published`."""
    families = [each for each in ([family] if family else FAMILIES.values()) if each.official]
    for names in _unprefixed(list(state)):
        for each in families:
            assert each.official is not None
            own = each.official.names(list(names))
            renamed = {own[new]: state[old] for new, old in names.items()}
            found = each.official.recognise(_shapes(renamed))
            if found is not None:
                return each.name, _filled(each, *found, renamed)
    kinds = ", ".join(f"{each.name} ({each.official.code})" for each in families if each.official)
    first = ", ".join(list(state)[:3])
    raise WeightsError(f"weights must be those of {kinds}, but got {first}, …")


def _unprefixed(names: list[str]) -> Iterator[dict[str, str]]:
    """The names in a file by what they are without prefixes, from those with the most to those with none."""
    current = {name.replace("_orig_mod.", ""): name for name in names}
    while True:
        current = {new: old for new, old in current.items() if new not in COUNTERS}
        yield current
        prefix = next((each for each in PREFIXES if any(new.startswith(each) for new in current)), None)
        if prefix is None:
            shared = {new.partition(".")[:2] for new in current}
            if len(shared) != 1 or not min(shared)[1]:
                return
            prefix = "".join(shared.pop())
        current = {new.removeprefix(prefix): old for new, old in current.items() if new.startswith(prefix)}


def _filled(
    family: NetworkFamily, scale: int, axes: dict[str, Any], state: Mapping[str, Tensor]
) -> Published:
    """The network of these axes with these weights, which must be its own to the last name."""
    assert family.official is not None
    try:
        with torch.device("meta"):  # before any memory is taken
            expected = _shapes(family.build(scale, **axes).state_dict())
    except ValueError as error:
        raise WeightsError(f"weights must be those of a network that can be built, but {error}") from None
    found, optional = _shapes(state), re.compile(family.official.optional)
    for name in sorted(expected.keys() | found.keys()):
        one_sided = name not in found or name not in expected
        if expected.get(name) != found.get(name) and not (one_sided and optional.fullmatch(name)):
            raise WeightsError(
                f"weights must be those of {family.name} ×{scale} with {axes}, but {name} must be "
                f"{_shown(expected.get(name))} and is {_shown(found.get(name))}"
            )
    if wrong := not_finite(state):
        raise WeightsError(f"weights must be finite numbers, but those of {wrong} are not")
    network = family.build(scale, **axes)
    network.load_state_dict({name: value.clone() for name, value in state.items()}, strict=False)
    return Published(network, scale, axes)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _shown(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "absent"
    return "×".join(map(str, shape)) or "a single number"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            check(path, follow=True)
            content: Any = load_file(path)
        else:
            with opened(path, follow=True) as file:
                content = load_tensors(file)
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"a file must hold nothing but weights, but {reason}") from None
    content = _unwrapped(content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"a file must hold named weights, but got {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"a file must hold named weights, but {name!r} is {type(value).__name__}")
    return dict(content)


def _unwrapped(content: Any) -> Any:
    """What the innermost wrapper holds; one of another name must be the only one with tensors alone."""
    while isinstance(content, Mapping):
        inner = [content[each] for each in WRAPPERS if isinstance(content.get(each), Mapping)]
        if not inner:
            inner = [each for each in content.values() if isinstance(each, Mapping) and _is_state(each)]
            if len(inner) != 1:
                break
        content = inner[0]
    return content


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())
