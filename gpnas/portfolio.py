"""The top heterogeneous architectures: those whose average is best, not those best alone.

The average of networks with weights w has the residual Σ wᵢ rᵢ, so its mean square error on an
image is wᵀGw, where G holds the mean products of the networks' residuals on that image. What two
networks' errors have in common decides, as section 5.1 of the paper observes; here it is counted.

Glossary: I images, n networks, k members, m subsets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

EXHAUSTIVE = 50_000
"""Up to so many subsets are all tried; beyond, a greedy choice is improved by swaps."""
ROUNDS = 300
"""Multiplicative updates of convex weights; the objective is then flat to about 1e-5 dB."""


@dataclass(frozen=True)
class Choice:
    """A subset of networks, the weights of its average, and what that reaches."""

    members: tuple[int, ...]
    """Indices of the networks, the heaviest first, equal ones by index."""
    weights: tuple[float, ...]
    """Of the members, non-negative, sum 1."""
    psnr: float
    """Of the weighted average in dB, mean over images."""


def ensemble_psnr(
    gram: Tensor,  # (I, n, n)
    subsets: Tensor,  # (m, k)
    weights: Tensor | None = None,  # (m, k)
) -> Tensor:  # (m,)
    """PSNR in dB of the average of each subset's outputs, mean over images.

    Args:
        gram: mean products of residuals in [-1, 1], per image.
        subsets: indices of the members of each subset.
        weights: of the members; None is the plain average.
    """
    if weights is None:
        weights = torch.full(subsets.shape, 1 / subsets.shape[1], dtype=gram.dtype)
    return _psnr(_products(gram, subsets), weights)


def choose(gram: Tensor, k: int, *, convex: bool = False, least: float = 0.0) -> Choice:
    """The k networks whose average has the best mean PSNR.

    All subsets are compared where there are at most 50,000; else networks are added greedily and
    swapped as long as a swap helps. Ties go to the lowest indices.

    Args:
        gram: (I, n, n) mean products of residuals, symmetric, n at least 1.
        k: 1 … n.
        convex: weighs the members by what is best for these images, instead of equally. With
            `least=0` the average is then never worse than its best member on them.
        least: of convex weights, 0 … 1/k. Weights fitted to few images are uncertain, and a network
            without any is carried for nothing.

    Raises:
        ValueError: a shape, k or `least` is wrong.
    """
    if gram.dim() != 3 or gram.shape[1] != gram.shape[2] or not gram.numel():
        raise ValueError(f"residual products must be (images, n, n), but are {tuple(gram.shape)}")
    n = gram.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"`1 <= k <= {n}` must hold, but got k={k}")
    if not 0 <= least * k <= 1:
        raise ValueError(f"`0 <= least <= 1/k` must hold, but got least={least}, k={k}")
    gram = gram.double()
    best_of = partial(_best, gram, least=least if convex else None)
    if math.comb(n, k) <= EXHAUSTIVE:
        choice = _exhaustive(best_of, n, k, rows=max(1, 4_000_000 // (gram.shape[0] * k * k)))  # 32 MB
    else:
        choice = _greedy(best_of, n, k)
    order = sorted(range(k), key=lambda place: (-choice.weights[place], choice.members[place]))
    return Choice(
        tuple(choice.members[place] for place in order),
        tuple(choice.weights[place] for place in order),
        choice.psnr,
    )


def _products(gram: Tensor, subsets: Tensor) -> Tensor:  # (I, m, k, k)
    return gram[:, subsets[:, :, None], subsets[:, None, :]]


def _psnr(products: Tensor, weights: Tensor) -> Tensor:  # (I, m, k, k), (m, k) -> (m,)
    mse = torch.einsum("mj,imjl,ml->im", weights, products, weights)
    return (-10 * torch.log10(mse.clamp_min(1e-30))).mean(dim=0)


def _convex_weights(products: Tensor) -> Tensor:  # (I, m, k, k) -> (m, k)
    """Weights of least mean log mean-square error, by exponentiated gradient from equal weights.

    J. Kivinen, M. K. Warmuth, Information and Computation 132(1), 1997, Eq. 3.5: the iterates stay in
    the simplex; the objective is smooth and every subset moves at once.
    """
    _, m, k, _ = products.shape
    weights = torch.full((m, k), 1 / k, dtype=products.dtype)
    best, best_psnr = weights, _psnr(products, weights)
    for round_ in range(ROUNDS):
        slopes = torch.einsum("imjl,ml->imj", products, weights)  # half the gradient of each mse
        mse = (slopes * weights).sum(dim=2, keepdim=True).clamp_min(1e-30)
        gradient = (slopes / mse).mean(dim=0)  # of half the mean log mse
        step = 2.0 / (1 + round_ / 50)
        weights = torch.softmax(weights.clamp_min(1e-12).log() - step * gradient, dim=1)
        psnr = _psnr(products, weights)
        better = psnr > best_psnr
        best = torch.where(better[:, None], weights, best)
        best_psnr = torch.maximum(psnr, best_psnr)
    # a corner is approached, not reached: one network alone is tried as it is
    corners = torch.eye(k, dtype=products.dtype)
    for corner in corners:
        alone = corner.expand(m, k)
        psnr = _psnr(products, alone)
        best = torch.where((psnr > best_psnr)[:, None], alone, best)
        best_psnr = torch.maximum(psnr, best_psnr)
    return best


def _best(gram: Tensor, subsets: Tensor, *, least: float | None) -> Choice:  # (m, j)
    """The best of some subsets, weights being at least `least`; without it, equal."""
    products = _products(gram, subsets)
    k = subsets.shape[1]
    weights = torch.full(subsets.shape, 1 / k, dtype=gram.dtype)
    if least is not None:
        # w = (free I + least 11ᵀ) u with u in the simplex: the members are such mixtures
        free = 1 - k * least
        mixtures = free * torch.eye(k, dtype=gram.dtype) + least
        weights = _convex_weights(mixtures @ products @ mixtures) @ mixtures
    values = _psnr(products, weights)
    place = int(values.argmax())
    return Choice(tuple(subsets[place].tolist()), tuple(weights[place].tolist()), float(values[place]))


def _exhaustive(best_of: Callable[[Tensor], Choice], n: int, k: int, rows: int) -> Choice:
    combinations = itertools.combinations(range(n), k)
    best: Choice | None = None
    while chunk := list(itertools.islice(combinations, rows)):
        found = best_of(torch.tensor(chunk))
        if best is None or found.psnr > best.psnr:
            best = found
    assert best is not None
    return best


def _greedy(best_of: Callable[[Tensor], Choice], n: int, k: int) -> Choice:
    def extended(kept: tuple[int, ...], barred: tuple[int, ...] = ()) -> Choice:
        """The best subset of `kept` and one more network that is not barred."""
        others = [index for index in range(n) if index not in kept and index not in barred]
        return best_of(torch.tensor([sorted([*kept, other]) for other in others]))

    best = extended(())
    while len(best.members) < k:
        best = extended(best.members)
    while True:
        for place in range(k):
            kept = best.members[:place] + best.members[place + 1 :]
            swapped = extended(kept, (best.members[place],))
            if swapped.psnr > best.psnr + 1e-12:
                best = swapped
                break
        else:
            return best
