"""The top heterogeneous architectures: those whose average is best, not those best alone.

The average of networks with weights w has the residual Σ wᵢ rᵢ, so its mean square error on an
image is wᵀGw, where G holds the mean products of the networks' residuals on that image. What two
networks' errors have in common decides, as section 5.1 of the paper observes; here it is counted.

Glossary: I images, n networks, k members, m subsets, c costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXHAUSTIVE = 50_000
"""Up to so many subsets are all tried; beyond, a greedy choice is improved by swaps."""
SAVING = 0.85
"""The cost of the next subset on the frontier, where there are many, is at most this share of the last
one's."""
ROUNDS = 100
"""Most steps towards convex weights; a few are enough where no step gains `GAIN` any more."""
GAIN = 1e-9
"""dB."""
PIVOTS = 200
"""Most of them for one form; a few are enough, but rounding might have them go round."""
RIDGE = 1e-10
"""A small number on the diagonal of residual products of about one: two equal networks share their weight."""

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """A subset of networks, the weights of its average, and what that reaches."""

    members: tuple[int, ...]
    """Indices of the networks, the heaviest first, equal ones by index."""
    weights: tuple[float, ...]
    """Weights of the members, non-negative, sum 1."""
    psnr: float
    """PSNR of the weighted average in dB, mean over images."""


def ensemble_psnr(
    gram: ArrayLike,  # (I, n, n)
    subsets: ArrayLike,  # (m, k)
    weights: ArrayLike | None = None,  # (m, k)
) -> Floats:  # (m,)
    """PSNR in dB of the average of each subset's outputs, mean over images.

    Args:
        gram: mean products of residuals in [-1, 1], per image.
        subsets: indices of the members of each subset.
        weights: of the members; None is the plain average.
    """
    places = np.asarray(subsets)
    shares = np.full(places.shape, 1 / places.shape[1]) if weights is None else np.asarray(weights)
    return _psnr(_products(np.asarray(gram, np.float64), places), shares).mean(axis=0)


@dataclass(frozen=True, eq=False)
class Limits:
    """What the members of a portfolio may cost together, such as GMACs."""

    costs: Floats  # (n, c), non-negative
    largest: Floats  # (c,), of the sum over members

    def allow(self, subsets: Places) -> NDArray[np.bool_]:  # (m, j) -> (m,)
        """Whether each subset keeps every limit."""
        return (self.costs[subsets].sum(axis=1) <= self.largest).all(axis=1)


def choose(
    gram: ArrayLike, k: int, *, convex: bool = False, least: float = 0.0, limits: Limits | None = None
) -> Choice:
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
        limits: what the members may cost together.

    Raises:
        ValueError: a shape, k or `least` is wrong, or no k networks keep the limits.
    """
    products = _checked(gram, k, least)
    n = products.shape[1]
    best_of = partial(_best, products, least=least if convex else None)
    if math.comb(n, k) <= EXHAUSTIVE:
        found = [best_of(subsets) for subsets in _subsets(products, k, limits)]
        choice = max(found, key=lambda each: each.psnr, default=None)
    else:
        choice = _greedy(best_of, n, k, limits)
    if choice is None:
        raise ValueError(f"no {k} of the {n} networks keep the limits together; raise a limit or lower k")
    return choice


def frontier(
    gram: ArrayLike,  # (I, n, n)
    cost: ArrayLike,  # (n,)
    most: int,
    *,
    convex: bool = False,
    share: float = 0.0,
    limits: Limits | None = None,
) -> list[tuple[float, Choice]]:
    """Portfolios of 1 … `most` networks of which no other is both as good and as cheap.

    Exact where a size has at most 50,000 subsets; of more, those that are best at costs that fall by a
    seventh at a time.

    Args:
        gram, convex, limits: as `choose`.
        cost: of each network; a portfolio's is their sum.
        most: the largest size, 1 … n.
        share: least convex weight, relative to an equal share.

    Returns:
        Cost and choice, the cheapest first; each is better than all before it.
    """
    products, spending = _checked(gram, most, 0.0), np.asarray(cost, np.float64)
    n = products.shape[1]
    found: list[tuple[float, Choice]] = []
    for k in range(1, most + 1):
        least = share / k if convex else None
        if math.comb(n, k) <= EXHAUSTIVE:
            for subsets in _subsets(products, k, limits):
                found += _undominated(products, spending, subsets, least)
            continue
        best_of = partial(_best, products, least=least)
        costs = spending[:, None] if limits is None else np.column_stack([spending, limits.costs])
        rest = [] if limits is None else list(limits.largest)
        largest = math.inf
        while choice := _greedy(best_of, n, k, Limits(costs, np.array([largest, *rest]))):
            spent = float(spending[list(choice.members)].sum())
            found.append((spent, choice))
            largest = SAVING * spent
    found.sort(key=lambda each: (each[0], -each[1].psnr))
    kept: list[tuple[float, Choice]] = []
    for spent, choice in found:
        if not kept or choice.psnr > kept[-1][1].psnr + 1e-12:
            kept.append((spent, choice))
    return kept


def correlations(gram: ArrayLike) -> Floats:  # (I, n, n) -> (n, n)
    """Correlations of the networks' errors, over all images."""
    mean = np.asarray(gram, np.float64).mean(axis=0)
    root = np.sqrt(mean.diagonal().clip(1e-30))
    return np.asarray(mean / root / root[:, None])


def fitted(gram: Floats, subsets: Places, least: float | None) -> tuple[Floats, Floats]:  # (I, n, n), (m, j)
    """(m,) PSNR and (m, j) weights of subsets, weights being at least `least`; without it, equal."""
    products = _products(gram, subsets)
    k = subsets.shape[1]
    weights = np.full(subsets.shape, 1 / k)
    if least is not None:
        # w = (free I + least 11ᵀ) u with u in the simplex: the members are such mixtures
        mixtures = (1 - k * least) * np.eye(k) + least
        weights = _convex_weights(mixtures @ products @ mixtures) @ mixtures
    return _psnr(products, weights).mean(axis=0), weights


def _checked(gram: ArrayLike, k: int, least: float) -> Floats:
    """The products as float64; a `ValueError` where something breaks a rule."""
    products = np.asarray(gram, np.float64)
    if products.ndim != 3 or products.shape[1] != products.shape[2] or not products.size:
        raise ValueError(f"residual products must be (images, n, n), but are {products.shape}")
    n = products.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"`1 <= k <= {n}` must hold, but got k={k}")
    if not 0 <= least * k <= 1:
        raise ValueError(f"`0 <= least <= 1/k` must hold, but got least={least}, k={k}")
    return products


def choice_of(subset: Places, weights: Floats, psnr: float) -> Choice:  # (j,) each
    """Some networks with their weights, in order."""
    order = np.lexsort((subset, -weights))
    return Choice(tuple(subset[order].tolist()), tuple(weights[order].tolist()), float(psnr))


def _products(gram: Floats, subsets: Places) -> Floats:  # (I, m, k, k)
    return gram[:, subsets[:, :, None], subsets[:, None, :]]


def _psnr(products: Floats, weights: Floats) -> Floats:  # (I, m, k, k), (m, k) -> (I, m)
    mse = ((products @ weights[:, :, None])[..., 0] * weights).sum(axis=2)
    return -10 * np.log10(mse.clip(1e-30))


def _convex_weights(products: Floats) -> Floats:  # (I, m, k, k) -> (m, k)
    """Weights of least mean log mean-square error, from equal weights on.

    With e = wᵀGw on each image, log e is at most its tangent in e, so that the weights of the least
    wᵀ mean(G/e) w are never worse (D. R. Hunter, K. Lange, The American Statistician 58(1), 2004, Eq. 3).
    Where errors have nearly everything in common that gains little by little; Newton's step, whose form is
    mean(G/e - 2tt'), t = Gw/e - 1, is tried beside it wherever that is convex.
    """
    _, m, k, _ = products.shape
    weights = np.full((m, k), 1 / k)
    psnr = _psnr(products, weights).mean(axis=0)
    for _ in range(ROUNDS):
        slopes = (products @ weights[:, :, None])[..., 0]  # (I, m, k)
        mse = (slopes * weights).sum(axis=2, keepdims=True).clip(1e-30)
        above = (products / mse[..., None]).mean(axis=0)
        tilts = slopes / mse - 1
        newton = above - 2 * np.einsum("imj,iml->mjl", tilts, tilts) / len(products)
        before = psnr
        for form in (above, np.where(_is_positive(newton)[:, None, None], newton, above)):
            weights, psnr = _better(products, least_on_simplex(form), weights, psnr)
        if (psnr - before <= GAIN).all():
            break
    for corner in np.eye(k):  # where there are several local minima, one of these may be the least
        weights, psnr = _better(products, np.broadcast_to(corner, (m, k)), weights, psnr)
    return weights


def _is_positive(forms: Floats) -> NDArray[np.bool_]:  # (m, k, k) -> (m,)
    """Whether each form is positive definite: all its leading minors are above 0."""
    minors = [np.linalg.det(forms[:, :size, :size]) for size in range(1, forms.shape[1] + 1)]
    return np.asarray((np.array(minors) > 0).all(axis=0))


def _better(products: Floats, tried: Floats, weights: Floats, psnr: Floats) -> tuple[Floats, Floats]:
    """Weights and their PSNR, changed for those that are tried where these gain."""
    value = _psnr(products, tried).mean(axis=0)
    gains = value > psnr
    return np.where(gains[:, None], tried, weights), np.where(gains, value, psnr)


def least_on_simplex(forms: Floats) -> Floats:  # (m, k, k) -> (m, k)
    """The w ≥ 0 of sum 1 with the least wᵀQw, for positive definite forms Q.

    It is u / Σu, where u ≥ 0, Qu ≥ 1 and u(Qu - 1) = 0, by block principal pivoting (L. F. Portugal et al.,
    Mathematics of Computation 63, 1994): whatever breaks a sign changes sides, one by one where all at once
    does not help.
    """
    m, k, _ = forms.shape
    eye = np.eye(k)
    forms = forms + RIDGE * eye
    inside = np.ones((m, k), bool)
    fewest, chances = np.full(m, k + 1), np.full(m, 3)
    for _ in range(PIVOTS):
        held = inside[:, :, None] & inside[:, None, :]
        found = np.linalg.solve(np.where(held, forms, eye), inside[..., None].astype(np.float64))[..., 0]
        pull = (forms @ found[..., None])[..., 0] - 1
        broken = np.where(inside, found < -1e-12, pull < -1e-9)
        count = broken.sum(axis=1)
        if not count.any():
            break
        fewer = count < fewest
        chances = np.where(fewer, 3, chances - 1)
        fewest = np.minimum(fewest, count)
        last = broken & (broken[:, ::-1].cumsum(axis=1)[:, ::-1] == 1)
        inside = inside ^ np.where((chances > 0)[:, None], broken, last)
    found = np.where(inside, found, 0.0).clip(0.0)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _best(gram: Floats, subsets: Places, *, least: float | None) -> Choice:  # (m, j)
    """The best of some subsets."""
    values, weights = fitted(gram, subsets, least)
    place = int(values.argmax())
    return choice_of(subsets[place], weights[place], values[place])


def _undominated(
    gram: Floats, cost: Floats, subsets: Places, least: float | None
) -> Iterator[tuple[float, Choice]]:
    """Those of some subsets than which none cheaper is as good."""
    values, weights = fitted(gram, subsets, least)
    spent = cost[subsets].sum(axis=1)
    best = -math.inf
    for place in sorted(range(len(subsets)), key=lambda i: (float(spent[i]), -float(values[i]))):
        if values[place] > best:
            best = float(values[place])
            yield float(spent[place]), choice_of(subsets[place], weights[place], best)


def _subsets(gram: Floats, k: int, limits: Limits | None) -> Iterator[Places]:  # (m, k)
    """All subsets that keep the limits, in portions of about 32 MB of products."""
    images, n = gram.shape[:2]
    rows = max(1, 4_000_000 // (images * k * k))
    combinations = itertools.combinations(range(n), k)
    while chunk := list(itertools.islice(combinations, rows)):
        subsets = np.array(chunk)
        if limits is not None:
            subsets = subsets[limits.allow(subsets)]
        if len(subsets):
            yield subsets


def _greedy(best_of: Callable[[Places], Choice], n: int, k: int, limits: Limits | None) -> Choice | None:
    """Networks added one by one, then swapped; None where it finds no k that keep the limits."""

    def extended(kept: tuple[int, ...], barred: tuple[int, ...] = ()) -> Choice | None:
        """The best subset of `kept` and one more network that is not barred."""
        others = [index for index in range(n) if index not in kept and index not in barred]
        subsets = np.array([sorted([*kept, other]) for other in others]).reshape(-1, len(kept) + 1)
        if limits is not None:
            subsets = subsets[_completable(subsets, k - len(kept) - 1, limits)]
        return best_of(subsets) if len(subsets) else None

    best = extended(())
    while best is not None and len(best.members) < k:
        best = extended(best.members)
    while best is not None:
        for member in sorted(best.members):
            kept = tuple(other for other in best.members if other != member)
            swapped = extended(kept, (member,))
            if swapped is not None and swapped.psnr > best.psnr + 1e-12:
                best = swapped
                break
        else:
            return best
    return None


def _completable(subsets: Places, left: int, limits: Limits) -> NDArray[np.bool_]:  # (m, j) -> (m,)
    """Whether the cheapest of the other networks, so many as are left to add, keep each limit by itself."""
    costs = np.repeat(limits.costs[None].astype(np.float64), len(subsets), axis=0)  # (m, n, c)
    rows = np.arange(len(subsets))[:, None]
    own = costs[rows, subsets].sum(axis=1)
    costs[rows, subsets] = math.inf
    cheapest = np.sort(costs, axis=1)[:, :left].sum(axis=1)
    return np.asarray((own + cheapest <= limits.largest).all(axis=1))
