"""The top heterogeneous architectures: those whose average is best, not those best alone.

The average of networks with weights w has the residual Σ wᵢ rᵢ, so its mean square error on an
image is wᵀGw, where G holds the mean products of the networks' residuals on that image. What two
networks' errors have in common decides, as section 5.1 of the paper observes; here it is counted.

Glossary: I images, n networks, k members.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

EXHAUSTIVE = 200_000
"""Up to so many subsets are all tried; beyond, a greedy choice is improved by swaps."""


def ensemble_psnr(
    gram: Tensor,  # (I, n, n)
    subsets: Tensor,  # (m, k)
) -> Tensor:  # (m,)
    """PSNR in dB of the plain average of each subset's outputs, mean over images.

    Args:
        gram: mean products of residuals in [-1, 1], per image.
        subsets: indices of the members of each subset.
    """
    pairs = gram[:, subsets[:, :, None], subsets[:, None, :]]  # (I, m, k, k)
    mse = pairs.mean(dim=(2, 3))
    return (-10 * torch.log10(mse.clamp_min(1e-30))).mean(dim=0)


def choose(gram: Tensor, k: int) -> tuple[list[int], float]:
    """The k networks whose plain average has the best mean PSNR.

    All subsets are compared where there are at most 200,000; else networks are added greedily and
    swapped as long as a swap helps. Ties go to the lowest indices.

    Args:
        gram: (I, n, n) mean products of residuals, symmetric, n at least 1.
        k: 1 … n.

    Returns:
        Indices, the best alone of the members first, and the PSNR of their average in dB.

    Raises:
        ValueError: a shape or k is wrong.
    """
    if gram.dim() != 3 or gram.shape[1] != gram.shape[2] or not gram.numel():
        raise ValueError(f"residual products must be (images, n, n), but are {tuple(gram.shape)}")
    n = gram.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"`1 <= k <= {n}` must hold, but got k={k}")
    gram = gram.double()
    if math.comb(n, k) <= EXHAUSTIVE:
        members, best = _exhaustive(gram, k)
    else:
        members, best = _greedy(gram, k)
    alone = ensemble_psnr(gram, torch.arange(n)[:, None])
    return sorted(members, key=lambda index: (-float(alone[index]), index)), best


def _exhaustive(gram: Tensor, k: int) -> tuple[list[int], float]:
    combinations = itertools.combinations(range(gram.shape[1]), k)
    rows = max(1, 4_000_000 // (gram.shape[0] * k * k))  # 32 MB at a time
    members: list[int] = []
    best = -math.inf
    while chunk := list(itertools.islice(combinations, rows)):
        subsets = torch.tensor(chunk)
        values = ensemble_psnr(gram, subsets)
        place = int(values.argmax())
        if float(values[place]) > best:
            members, best = subsets[place].tolist(), float(values[place])
    return members, best


def _greedy(gram: Tensor, k: int) -> tuple[list[int], float]:
    members: list[int] = []
    best = -math.inf
    while len(members) < k:
        members, best = _best_change(gram, members, [])
    while True:
        for place in range(k):
            swapped, value = _best_change(gram, members[:place] + members[place + 1 :], [members[place]])
            if value > best + 1e-12:
                members, best = swapped, value
                break
        else:
            return members, best


def _best_change(gram: Tensor, kept: list[int], barred: list[int]) -> tuple[list[int], float]:
    """The best subset of `kept` and one more."""
    others = [index for index in range(gram.shape[1]) if index not in kept and index not in barred]
    subsets = torch.tensor([[*kept, other] for other in others])
    values = ensemble_psnr(gram, subsets)
    place = int(values.argmax())
    return subsets[place].tolist(), float(values[place])
