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

import torch
from torch import Tensor

EXHAUSTIVE = 50_000
"""Up to so many subsets are all tried; beyond, a greedy choice is improved by swaps."""
SAVING = 0.85
"""Of many subsets the frontier takes the best, then the best of at most so much of its cost, and so on."""
ROUNDS = 100
"""Most steps towards convex weights; a few are enough where no step gains `GAIN` any more."""
GAIN = 1e-9
"""dB."""
PIVOTS = 200
"""Most of them for one form; a few are enough, but rounding might have them go round."""
RIDGE = 1e-10
"""On the diagonal of residual products of about one: two equal networks share their weight."""


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


@dataclass(frozen=True)
class Limits:
    """What the members of a portfolio may cost together, such as GMACs."""

    costs: Tensor  # (n, c), non-negative
    largest: Tensor  # (c,), of the sum over members

    def allow(self, subsets: Tensor) -> Tensor:  # (m, j) -> (m,)
        return (self.costs[subsets].sum(dim=1) <= self.largest).all(dim=1)


def choose(
    gram: Tensor, k: int, *, convex: bool = False, least: float = 0.0, limits: Limits | None = None
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
    n = _checked(gram, k, least)
    gram = gram.double()
    best_of = partial(_best, gram, least=least if convex else None)
    if math.comb(n, k) <= EXHAUSTIVE:
        found = [best_of(subsets) for subsets in _subsets(gram, k, limits)]
        choice = max(found, key=lambda each: each.psnr, default=None)
    else:
        choice = _greedy(best_of, n, k, limits)
    if choice is None:
        raise ValueError(f"no {k} of the {n} networks keep the limits together; raise a limit or lower k")
    return _sorted(choice)


def frontier(
    gram: Tensor,  # (I, n, n)
    cost: Tensor,  # (n,)
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
    n = _checked(gram, most, 0.0)
    gram, cost = gram.double(), cost.double()
    found: list[tuple[float, Choice]] = []
    for k in range(1, most + 1):
        best_of = partial(_best, gram, least=share / k if convex else None)
        if math.comb(n, k) <= EXHAUSTIVE:
            for subsets in _subsets(gram, k, limits):
                found += _undominated(gram, cost, subsets, share / k if convex else None)
            continue
        costs = cost[:, None] if limits is None else torch.cat([cost[:, None], limits.costs], dim=1)
        rest = torch.zeros(0, dtype=cost.dtype) if limits is None else limits.largest
        largest = math.inf
        while True:
            within = Limits(costs, torch.cat([torch.tensor([largest], dtype=cost.dtype), rest]))
            choice = _greedy(best_of, n, k, within)
            if choice is None:
                break
            spent = float(cost[list(choice.members)].sum())
            found.append((spent, choice))
            largest = SAVING * spent
    found.sort(key=lambda each: (each[0], -each[1].psnr))
    kept: list[tuple[float, Choice]] = []
    for spent, choice in found:
        if not kept or choice.psnr > kept[-1][1].psnr + 1e-12:
            kept.append((spent, _sorted(choice)))
    return kept


def correlations(gram: Tensor) -> Tensor:  # (I, n, n) -> (n, n)
    """Of the networks' errors, over all images."""
    mean = gram.double().mean(dim=0)
    root = mean.diagonal().clamp_min(1e-30).sqrt()
    return mean / root / root[:, None]


def _checked(gram: Tensor, k: int, least: float) -> int:
    """The number of networks; a `ValueError` where something breaks a rule."""
    if gram.dim() != 3 or gram.shape[1] != gram.shape[2] or not gram.numel():
        raise ValueError(f"residual products must be (images, n, n), but are {tuple(gram.shape)}")
    n = gram.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"`1 <= k <= {n}` must hold, but got k={k}")
    if not 0 <= least * k <= 1:
        raise ValueError(f"`0 <= least <= 1/k` must hold, but got least={least}, k={k}")
    return n


def _sorted(choice: Choice) -> Choice:
    """The heaviest member first."""
    order = sorted(range(len(choice.members)), key=lambda i: (-choice.weights[i], choice.members[i]))
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
    """Weights of least mean log mean-square error, from equal weights on.

    With e = wᵀGw on each image, log e is at most its tangent in e, so that the weights of the least
    wᵀ mean(G/e) w are never worse (D. R. Hunter, K. Lange, The American Statistician 58(1), 2004, Eq. 3).
    Where errors have nearly everything in common that gains little by little; Newton's step, whose form is
    mean(G/e - 2tt'), t = Gw/e - 1, is tried beside it wherever that is convex.
    """
    _, m, k, _ = products.shape
    weights = torch.full((m, k), 1 / k, dtype=products.dtype)
    psnr = _psnr(products, weights)
    for _ in range(ROUNDS):
        slopes = torch.einsum("imjl,ml->imj", products, weights)
        mse = (slopes * weights).sum(dim=2, keepdim=True).clamp_min(1e-30)
        above = (products / mse[..., None]).mean(dim=0)
        tilts = slopes / mse - 1
        newton = above - 2 * torch.einsum("imj,iml->mjl", tilts, tilts) / len(products)
        convex = torch.linalg.cholesky_ex(newton).info == 0
        before = psnr
        for form in (above, torch.where(convex[:, None, None], newton, above)):
            tried = _least_on_simplex(form)
            weights, psnr = _better(products, tried, weights, psnr)
        if bool((psnr - before <= GAIN).all()):
            break
    for corner in torch.eye(k, dtype=products.dtype):  # of several hollows these may be the deepest
        weights, psnr = _better(products, corner.expand(m, k), weights, psnr)
    return weights


def _better(products: Tensor, tried: Tensor, weights: Tensor, psnr: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and their PSNR, changed for those that are tried where these gain."""
    value = _psnr(products, tried)
    gains = value > psnr
    return torch.where(gains[:, None], tried, weights), torch.where(gains, value, psnr)


def _least_on_simplex(forms: Tensor) -> Tensor:  # (m, k, k) -> (m, k)
    """The w ≥ 0 of sum 1 with the least wᵀQw, for positive definite forms Q.

    It is u / Σu, where u ≥ 0, Qu ≥ 1 and u(Qu - 1) = 0, by block principal pivoting (L. F. Portugal et al.,
    Mathematics of Computation 63, 1994): whatever breaks a sign changes sides, one by one where all at once
    does not help.
    """
    m, k, _ = forms.shape
    eye = torch.eye(k, dtype=forms.dtype)
    forms = forms + RIDGE * eye
    inside = torch.ones(m, k, dtype=torch.bool)
    fewest, chances = torch.full((m,), k + 1), torch.full((m,), 3)
    for _ in range(PIVOTS):
        held = inside[:, :, None] & inside[:, None, :]
        found = torch.linalg.solve(torch.where(held, forms, eye), inside.to(forms.dtype))
        pull = torch.einsum("mjl,ml->mj", forms, found) - 1
        broken = torch.where(inside, found < -1e-12, pull < -1e-9)
        count = broken.sum(dim=1)
        if not count.any():
            break
        fewer = count < fewest
        chances = torch.where(fewer, 3, chances - 1)
        fewest = torch.minimum(fewest, count)
        last = broken & (broken.flip(1).cumsum(dim=1).flip(1) == 1)
        inside = inside ^ torch.where((chances > 0)[:, None], broken, last)
    found = torch.where(inside, found, 0.0).clamp_min(0.0)
    return found / found.sum(dim=1, keepdim=True)


def _weighed(gram: Tensor, subsets: Tensor, least: float | None) -> tuple[Tensor, Tensor]:  # (m, j)
    """(m,) PSNR and (m, j) weights of subsets, weights being at least `least`; without it, equal."""
    products = _products(gram, subsets)
    k = subsets.shape[1]
    weights = torch.full(subsets.shape, 1 / k, dtype=gram.dtype)
    if least is not None:
        # w = (free I + least 11ᵀ) u with u in the simplex: the members are such mixtures
        free = 1 - k * least
        mixtures = free * torch.eye(k, dtype=gram.dtype) + least
        weights = _convex_weights(mixtures @ products @ mixtures) @ mixtures
    return _psnr(products, weights), weights


def _best(gram: Tensor, subsets: Tensor, *, least: float | None) -> Choice:  # (m, j)
    """The best of some subsets."""
    values, weights = _weighed(gram, subsets, least)
    place = int(values.argmax())
    return Choice(tuple(subsets[place].tolist()), tuple(weights[place].tolist()), float(values[place]))


def _undominated(
    gram: Tensor, cost: Tensor, subsets: Tensor, least: float | None
) -> Iterator[tuple[float, Choice]]:
    """Of some subsets those than which none cheaper is as good."""
    values, weights = _weighed(gram, subsets, least)
    spent = cost[subsets].sum(dim=1)
    best = -math.inf
    for place in sorted(range(len(subsets)), key=lambda i: (float(spent[i]), -float(values[i]))):
        if values[place] > best:
            best = float(values[place])
            members, shares = tuple(subsets[place].tolist()), tuple(weights[place].tolist())
            yield float(spent[place]), Choice(members, shares, best)


def _subsets(gram: Tensor, k: int, limits: Limits | None) -> Iterator[Tensor]:  # (m, k)
    """All subsets that keep the limits, in portions of about 32 MB of products."""
    images, n = gram.shape[:2]
    rows = max(1, 4_000_000 // (images * k * k))
    combinations = itertools.combinations(range(n), k)
    while chunk := list(itertools.islice(combinations, rows)):
        subsets = torch.tensor(chunk)
        if limits is not None:
            subsets = subsets[limits.allow(subsets)]
        if len(subsets):
            yield subsets


def _greedy(best_of: Callable[[Tensor], Choice], n: int, k: int, limits: Limits | None) -> Choice | None:
    """Networks added one by one, then swapped; None where it finds no k that keep the limits."""

    def extended(kept: tuple[int, ...], barred: tuple[int, ...] = ()) -> Choice | None:
        """The best subset of `kept` and one more network that is not barred."""
        others = [index for index in range(n) if index not in kept and index not in barred]
        subsets = torch.tensor([sorted([*kept, other]) for other in others])
        if limits is not None:
            subsets = subsets[_completable(subsets, k - len(kept) - 1, limits)]
        return best_of(subsets) if len(subsets) else None

    best = extended(())
    while best is not None and len(best.members) < k:
        best = extended(best.members)
    while best is not None:
        for place in range(k):
            kept = best.members[:place] + best.members[place + 1 :]
            swapped = extended(kept, (best.members[place],))
            if swapped is not None and swapped.psnr > best.psnr + 1e-12:
                best = swapped
                break
        else:
            return best
    return None


def _completable(subsets: Tensor, left: int, limits: Limits) -> Tensor:  # (m, j) -> (m,)
    """Whether the cheapest of the other networks, so many as are left to add, keep each limit by itself."""
    costs = limits.costs.double()[None].expand(len(subsets), -1, -1)  # (m, n, c)
    own = costs.gather(1, subsets[:, :, None].expand(-1, -1, costs.shape[2])).sum(dim=1)
    others = costs.scatter(1, subsets[:, :, None].expand(-1, -1, costs.shape[2]), math.inf)
    cheapest = others.topk(left, dim=1, largest=False).values.sum(dim=1) if left else torch.zeros_like(own)
    return (own + cheapest <= limits.largest).all(dim=1)
