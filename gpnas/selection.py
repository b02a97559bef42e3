"""How many networks an average is worth: the smallest portfolio that no larger one clearly beats.

Weights and members that are fitted to some images promise more than they hold on others. So each size of
portfolio is cross-validated: for each image in turn, the best portfolio of that size is found on the other
images, and measured on that one. A larger portfolio takes the place of a smaller one where its mean gain
over the images exceeds the standard error of that mean (the one-standard-error rule of Breiman et al.,
Classification and Regression Trees, 1984, section 3.4.3, for differences between pairs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gpnas.portfolio import Choice, Floats, Limits, choice_of, ensemble_psnr, fitted, frontier

MARGIN = 0.1
"""dB below the best portfolio up to which another one may turn out better when it is judged anew."""
CONTENDERS = 12
"""Portfolios that are judged at most."""


@dataclass(frozen=True)
class Comparison:
    """What the best portfolio of a size gains over the best smaller one."""

    members: tuple[int, ...]
    """Indices of its networks, the heaviest first."""
    psnr: float
    """Value in dB with weights fitted to all images."""
    over: tuple[int, ...]
    """Members of the smaller portfolio."""
    gain: float
    """Mean over held-out images in dB; of a single image, the gain on it."""
    error: float | None
    """Standard error of `gain` in dB; None where there is a single image."""
    eligible: bool
    """Whether no portfolio that costs no more is better without self-ensemble."""
    accepted: bool
    """Whether it is eligible and the gain exceeds its error."""


@dataclass(frozen=True)
class Selection:
    """A portfolio, and why it has no more networks."""

    choice: Choice
    compared: tuple[Comparison, ...]
    """One for each larger size, ascending."""
    images: int


def contenders(
    gram: ArrayLike,  # (I, n, n)
    cost: ArrayLike,  # (n,)
    most: int,
    share: float,
    limits: Limits | None = None,
) -> list[tuple[int, ...]]:
    """Portfolios that are worth judging anew: nearly the best of the frontier, each with its members sorted.

    None of them is beaten by a portfolio that costs no more.

    Args:
        gram, cost, most, share, limits: as `frontier` takes them; weights are convex.

    Raises:
        ValueError: an argument breaks its rule, or not even one network keeps the limits.
    """
    found = frontier(gram, cost, most, convex=True, share=share, limits=limits)
    if not found:
        raise ValueError("no network keeps the limits by itself; raise a limit")
    best = found[-1][1].psnr
    near = [tuple(sorted(choice.members)) for _, choice in found if choice.psnr >= best - MARGIN]
    return near[-CONTENDERS:]


def select(
    gram: ArrayLike,  # (I, n, n)
    portfolios: Sequence[tuple[int, ...]],
    cost: ArrayLike,  # (n,)
    share: float,
    others: Sequence[tuple[int, ...]] = (),
) -> Selection:
    """The smallest of some portfolios that no larger one clearly beats.

    If another one is better than that and costs no more, then the best such.

    Args:
        gram: mean products of residuals, as the networks will be used.
        portfolios: indices of members; at least one portfolio.
        cost: of each network; a portfolio's is their sum.
        share: least convex weight, relative to an equal share.
        others: portfolios of other sizes that are compared, but not chosen.
    """
    products, costs = np.asarray(gram, np.float64), np.asarray(cost, np.float64)
    eligible = {len(each) for each in portfolios}
    sizes = sorted(eligible | {len(each) for each in others})
    best: dict[int, Choice] = {}
    held: dict[int, Floats] = {}
    every: list[Choice] = []
    for size in sizes:
        among = portfolios if size in eligible else others
        subsets = np.array([sorted(each) for each in among if len(each) == size])
        values, weights = fitted(products, subsets, share / size)
        choices = [choice_of(*each) for each in zip(subsets, weights, values, strict=True)]
        best[size] = max(choices, key=lambda each: (each.psnr, -costs[list(each.members)].sum()))
        held[size] = _held_out(products, subsets, share / size)
        every += choices if size in eligible else []
    chosen, compared = min(eligible), []
    for size in sizes:
        if size <= chosen:
            continue
        gains = held[size] - held[chosen]
        error = float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else None
        gain = float(gains.mean())
        helps = gain > (error or 0.0) and best[size].psnr > best[chosen].psnr
        accepted = helps and size in eligible
        compared.append(
            Comparison(
                members=best[size].members,
                psnr=best[size].psnr,
                over=best[chosen].members,
                gain=gain,
                error=error,
                eligible=size in eligible,
                accepted=accepted,
            )
        )
        chosen = size if accepted else chosen
    spent = costs[list(best[chosen].members)].sum()
    affordable = [each for each in every if costs[list(each.members)].sum() <= spent]
    choice = max([best[chosen], *affordable], key=lambda each: each.psnr)
    return Selection(choice, tuple(compared), len(products))


def _held_out(products: Floats, subsets: np.ndarray, least: float) -> Floats:  # (I,)
    """PSNR on each image of the subset and weights that are best on the others; of one image, on itself."""
    values = np.empty(len(products))
    for image in range(len(products)):
        others = np.delete(products, image, axis=0) if len(products) > 1 else products
        scores, weights = fitted(others, subsets, least)
        place = int(scores.argmax())
        own = slice(image, image + 1)
        values[image] = ensemble_psnr(products[own], subsets[place][None], weights[place][None])[0]
    return values
