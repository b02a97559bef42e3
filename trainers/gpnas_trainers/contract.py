"""What a network of one's own must keep to, tried before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gpnas_trainers import cost, counting
from gpnas_trainers.families import NetworkFamily
from gpnas_trainers.networks.padded import Padded
from gpnas_trainers.own import Code, OwnError, in_words, place_of

ODD = (13, 9)
"""Height and width of the images that are tried, in LR pixels."""
STORED = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)
"""Types that a file of weights may have."""
MULTIPLES = (2, 4, 8, 16, 32, 64)
"""Numbers that the sides may have to be multiples of."""


def check_contract(family: NetworkFamily, code: Code, scale: int, axes: Mapping[str, Any]) -> None:
    """Builds a network and passes two small images of odd sides through it, there and back, on the CPU.

    Raises:
        OwnError: it cannot be built, or makes of (B, 3, h, w) in [0, 1] anything but finite float32 numbers
            of (B, 3, s·h, s·w) that can be differentiated, or changes its input.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = family.build(scale, **axes)
        rule = _Rule(code, scale, axes)
        for training in (True, False):
            _tried(network.train(training), rule)


def check_pass(family: NetworkFamily, code: Code, scale: int, axes: Mapping[str, Any]) -> None:
    """Builds a network and passes a small image of odd sides through it, as one that is not trained here.

    Raises:
        OwnError: it cannot be built, or makes of (B, 3, h, w) anything but (B, 3, s·h, s·w).
    """
    with torch.inference_mode():
        _passed(family.build(scale, **axes).eval(), torch.rand(1, 3, *ODD), _Rule(code, scale, axes))


def check_costs(
    family: NetworkFamily, code: Code, scale: int, axes: Mapping[str, Any], side: int | None
) -> tuple[int, float, tuple[int, int] | None]:
    """Counts what a network costs: parameters, GMACs at 120×120 LR pixels, and what a training keeps.

    Args:
        family, code, scale, axes: of the network.
        side: of a training's patch in LR pixels; None leaves out what a training keeps.

    Raises:
        OwnError: that cannot be counted.
    """
    try:
        return (
            cost.parameters(family, scale, **axes),
            cost.gmacs(family, scale, cost.TILE, cost.TILE, **axes),
            None if side is None else counting.kept(family, scale, side, axes),
        )
    except OwnError:
        raise
    except (ValueError, SystemExit) as error:
        cause = error.__cause__ or error
        raise _Rule(code, scale, axes).broken(
            f"have costs that can be counted, but {in_words(cause)}", cause
        ) from None


class _Rule:
    """How errors about one network read."""

    def __init__(self, code: Code, scale: int, axes: Mapping[str, Any]) -> None:
        self.call, self.file, self.scale = code.call(scale, axes), code.file, scale

    def broken(self, what: str, error: BaseException | None = None) -> OwnError:
        place = self.file if error is None else place_of(error, self.file)
        return OwnError(f"{place}: {self.call} must {what}")


def _tried(network: nn.Module, rule: _Rule) -> None:
    if not any(each.requires_grad for each in network.parameters()):
        raise rule.broken("have parameters to train, but has none")
    for name, value in network.state_dict().items():
        if value.dtype not in STORED:
            kind = str(value.dtype).removeprefix("torch.")
            raise rule.broken(
                f"keep numbers that weights are written as, but `{name}` is {kind}; register it with "
                "`persistent=False`"
            )
    try:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    except (RuntimeError, TypeError) as error:
        raise rule.broken(f"bear the memory format channels_last, but {in_words(error)}", error) from None
    lr = torch.rand(2, 3, *ODD)
    given = lr.clone()
    sr = _passed(network, lr, rule)
    if not torch.equal(lr, given):
        raise rule.broken("leave its input as it is, but changes it")
    if sr.dtype != torch.float32:
        raise rule.broken(f"return float32, but returned {str(sr.dtype).removeprefix('torch.')}")
    if not sr.isfinite().all():
        raise rule.broken("return finite numbers, but returned NaN or infinity with fresh weights")
    if not sr.requires_grad:
        raise rule.broken("be differentiable, but its output does not depend on any parameter")
    try:
        sr.square().mean().backward()
    except (Exception, SystemExit) as error:
        raise rule.broken(f"be differentiable, but {in_words(error)}", error) from None
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    if not gradients:
        raise rule.broken("be differentiable, but no parameter has a gradient")
    if not all(bool(each.isfinite().all()) for each in gradients):
        raise rule.broken("have finite gradients, but they hold NaN or infinity with fresh weights")
    network.zero_grad(set_to_none=True)


def _passed(network: nn.Module, lr: Tensor, rule: _Rule) -> Tensor:
    """What becomes of images; an `OwnError` says for which sides it would be what it must."""
    expected = _shape(lr, rule.scale)
    size = f"{lr.shape[2]}×{lr.shape[3]} LR pixels"
    try:
        sr = network(lr)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        what = f"take an image of {size} and return {expected[2]}×{expected[3]}, but {in_words(error)}"
        raise rule.broken(f"{what}{_hint(network, rule.scale)}", error) from None
    if not isinstance(sr, Tensor):
        what = "None" if sr is None else f"a {type(sr).__name__}"
        raise rule.broken(f"return a tensor, but returned {what}")
    if sr.shape != expected:
        raise rule.broken(
            f"make {expected} of {tuple(lr.shape)}, but made {tuple(sr.shape)}{_hint(network, rule.scale)}"
        )
    return sr


def _hint(network: nn.Module, scale: int) -> str:
    """What to do about sides that a network cannot take, where multiples of a number would do."""
    if isinstance(network, Padded):
        return f"; `multiple_of = {network.multiple}` does not suffice: try a larger one"
    for multiple in MULTIPLES:
        lr = torch.rand(1, 3, 3 * multiple, multiple)
        try:
            with torch.no_grad():
                if network(lr).shape == _shape(lr, scale):
                    need = f"multiple_of = {multiple}"
                    return f"; it takes sides that are multiples of {multiple}: say so by `{need}`"
        except (Exception, SystemExit):
            continue
    return ""


def _shape(lr: Tensor, scale: int) -> tuple[int, ...]:
    return (*lr.shape[:2], scale * lr.shape[2], scale * lr.shape[3])
