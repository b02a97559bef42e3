"""Tensors in files of weights: how many there are of a kind, what scale they tell, how others call them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from gpnas_trainers.families.declaration import Shapes

MEAN_SHIFTS = r"(sub|add)_mean\.(weight|bias)"
"""Names of layers that add or subtract the mean colour, which some files lack."""
BASICSR = ((r"conv_first\.", "head.0."), (r"upsample\.", "tail.0."), (r"conv_last\.", "tail.1."))
"""What BasicSR, which renamed the layers of EDSR and RCAN, has in common for both; for `renamed`."""


def counted(names: Iterable[str], pattern: str) -> int:
    """How many different values the pattern's group has in the names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def shuffling_scale(shapes: Shapes, upsampler: str) -> int:
    """The scale of convolutions and pixel shuffles in a row, named by a pattern; 0 where there are none."""
    steps = [shape for name, shape in shapes.items() if re.fullmatch(rf"{upsampler}\.\d+\.weight", name)]
    if {len(each) for each in steps} != {4}:
        return 0
    return 3 if steps[0][0] == 9 * steps[0][1] else 2 ** len(steps)


def direct_scale(shapes: Shapes, convolution: str) -> int:
    """The scale of one sub-pixel convolution to the image; 0 where there is none."""
    bias = shapes.get(f"{convolution}.bias", ())
    return math.isqrt(bias[0] // 3) if bias else 0


def renamed(names: Sequence[str], rules: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The names with their beginnings replaced by the first rule that fits; the others stay as they are.

    A rule is a regular expression and what takes its place, as `re.sub` takes them.
    """
    found = {}
    for name in names:
        found[name] = name
        for pattern, new in rules:
            if match := re.match(pattern, name):
                found[name] = match.expand(new) + name[match.end() :]
                break
    return found
