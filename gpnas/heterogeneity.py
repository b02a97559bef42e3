"""What a network would add to a portfolio, before it is trained.

The mean square error of an average depends on its members' own and on what their errors have in common
(`gpnas.portfolio`). Between trained networks the correlation of errors is measured; to one that is not
it is predicted from how far apart the architectures lie, and how far apart in PSNR.

A network that errs as another one does, and then some, has a correlation of 10^(-Δ/20) with it, where Δ is
the difference of their PSNR in dB: most of what keeps real networks' errors apart is that. What is left is
the overlap: the mean product of two networks' errors over the smaller one's mean square error. It is 1 of
errors that contain each other, and what is below 1 is what an average gains by.

Glossary: n trained networks, q candidates, d feature columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnas.portfolio import choose
from gpnas.records import Observation
from gpnas.space import Column

CORRELATION = "correlation "
"""Before a candidate's name: the metric that holds the correlation of errors with that candidate's."""
OUTCOMES, STRIDE = 55, 34
"""Values of a candidate and of its correlations over which an improvement is averaged; neighbours in
Fibonacci's sequence, so that pairs of values fill the plane evenly."""
PRIOR_DISAGREEMENT = 0.02
"""1 - overlap of errors, where nothing was measured: short trainings on photographs agree that much."""
REACH = 0.25
"""Distance at which two thirds of what levels off are reached; features span [0, 1]."""
PRIOR_PAIRS = 0.1
"""How many pairs of networks the prior counts for."""


@dataclass(frozen=True)
class Disagreement:
    """1 - overlap of two networks' errors, from what their architectures differ by.

    A level of any sign, and a sum of terms (`_terms`) that grow with distance, with weights that are not
    negative, so that like networks agree best and two trainings of one architecture agree most.
    """

    weights: Tensor  # (terms,)
    stddev: float
    """Standard deviation of what the terms leave unexplained."""

    def __call__(self, a: Tensor, b: Tensor, columns: Sequence[Column]) -> Tensor:  # (p, d), (q, d)
        """(p, q) predicted overlaps."""
        return 1 - _terms(a, b, columns) @ self.weights

    @classmethod
    def fitted(cls, x: Tensor, overlap: Tensor, columns: Sequence[Column]) -> Disagreement:
        """A fit by least squares with a weak prior.

        Args:
            x: (n, d) features of trained networks; n may be 0.
            overlap: (n, n), NaN where it is not known.
            columns: meaning of the features.
        """
        rows, others = (index.numpy() for index in torch.triu_indices(len(x), len(x), 1))
        known = ~np.isnan(overlap.numpy()[rows, others])
        rows, others = rows[known], others[known]
        design = _terms(x, x, columns).numpy()[rows, others]
        target = 1 - overlap.numpy()[rows, others]
        # the prior follows what is seen, or else a guess
        level = float(target.mean()) if len(target) else PRIOR_DISAGREEMENT
        count = design.shape[1]
        design = np.concatenate([design, math.sqrt(PRIOR_PAIRS) * np.eye(count)])
        guess = np.full(count, max(level, 0.0) / (count - 1))
        guess[0] = max(-level, 0.0)
        target = np.concatenate([target, math.sqrt(PRIOR_PAIRS) * guess])
        from scipy.optimize import nnls  # 40 MiB, which only a search aware of the portfolio needs

        found: NDArray[np.float64] = nnls(design, target)[0]
        left = design @ found - target
        return cls(torch.from_numpy(found), math.sqrt(float(left @ left) / len(left)))


def overlaps(correlation: Tensor, psnr: Tensor) -> Tensor:  # (n, n), (n,)
    """(n, n) overlaps of errors with these correlations, of networks with these PSNR in dB."""
    return correlation / _nested(psnr, psnr)


def correlations_from(overlap: Tensor, psnr: Tensor, others: Tensor) -> Tensor:  # (p, q), (p,), (q,)
    """(p, q) correlations of errors with these overlaps, of networks with these PSNR in dB."""
    return (overlap * _nested(psnr, others)).clamp(-1, 1)


def _nested(psnr: Tensor, others: Tensor) -> Tensor:  # (p,), (q,) -> (p, q)
    """Correlations of errors that contain each other."""
    return 10 ** (-(psnr[:, None] - others).abs() / 20)


def leave_one_out(
    x: Tensor,  # (n, d)
    correlation: Tensor,  # (n, n)
    columns: Sequence[Column],
    psnr: Tensor,  # (n,)
) -> tuple[float, float]:
    """Error of the correlations that are predicted of a network whose PSNR is known.

    Each network is left out once, and its correlations with the others are predicted from theirs alone, its
    architecture, and its PSNR, since a search weighs each PSNR that a network may come to.

    Returns:
        Root mean square error over all that were measured, and that of the others' mean correlation as the
        prediction; NaN where there are fewer than three networks.
    """
    own, plain = [], []
    for left in range(len(x) if len(x) > 2 else 0):
        rest = [index for index in range(len(x)) if index != left]
        among = correlation[rest][:, rest]
        truth = correlation[left, rest]
        known = ~truth.isnan()
        pairs = among[tuple(torch.triu_indices(len(rest), len(rest), 1))]
        fitted = Disagreement.fitted(x[rest], overlaps(among, psnr[rest]), columns)
        overlap = fitted(x[[left]], x[rest], columns)
        own.append((correlations_from(overlap, psnr[[left]], psnr[rest])[0] - truth)[known])
        plain.append((pairs[~pairs.isnan()].mean() - truth)[known])
    if not own:
        return math.nan, math.nan
    return tuple(float(torch.cat(each).square().mean().sqrt()) for each in (own, plain))  # type: ignore[return-value]


def _terms(a: Tensor, b: Tensor, columns: Sequence[Column]) -> Tensor:  # (p, d), (q, d) -> (p, q, 2d + 4)
    """A negative and a positive constant; whether the architectures differ; the distance in each column,
    plain and levelling off, and that in all columns, levelling off."""
    apart = (a[:, None] - b[None]).abs()
    codes = torch.tensor([column.kind not in ("ordered", "cost") for column in columns])
    apart = torch.where(codes, (apart > 0).double(), apart)
    whole = apart.sum(dim=2, keepdim=True)
    levelling = 1 - torch.exp(-torch.cat([apart, whole], dim=2) / REACH)
    one = torch.ones_like(whole)
    return torch.cat([-one, one, (whole > 0).double(), apart, levelling], dim=2)


def measured_correlation(observations: Sequence[Observation]) -> Tensor:  # (n, n)
    """Correlations of the errors of trained networks, 1 with themselves, NaN where it was not measured."""
    place = {each.candidate.id: number for number, each in enumerate(observations)}
    found = torch.full((len(place), len(place)), math.nan, dtype=torch.float64)
    found.fill_diagonal_(1.0)
    for number, each in enumerate(observations):
        for key, value in each.metrics.items():
            other = place.get(key.removeprefix(CORRELATION)) if key.startswith(CORRELATION) else None
            if other is not None:
                found[number, other] = found[other, number] = value
    return found


def log_portfolio_improvement(
    mean: Tensor,  # (q,)
    stddev: Tensor,  # (q,)
    trained: Tensor,  # (n,)
    correlation: Tensor,  # (n, n)
    cross: Tensor,  # (q, n)
    size: int,
    *,
    uncertainty: float = 0.0,
) -> Tensor:  # (q,)
    """Log of the PSNR in dB that one more network is expected to add to the best portfolio.

    The portfolio is the plain average of `size` trained networks that is best by `portfolio.choose`; the
    new one is added while there are fewer, or takes the place of one of them where that helps. The
    candidate's PSNR is integrated over by the midpoints of equal shares of its normal distribution.

    Args:
        mean, stddev: of the candidates' PSNR in dB.
        trained: PSNR of the trained networks in dB; at least one.
        correlation: of the errors of trained networks.
        cross: overlaps of the candidates' errors with theirs.
        size: members of the portfolio, at least 1.
        uncertainty: standard deviation of each of `cross`.

    Returns:
        -inf where nothing can be added.
    """
    root = 10 ** (-trained / 20)  # of mean square errors
    gram = correlation * root[:, None] * root
    count = min(size, len(trained))
    choice = choose(gram[None], count)
    members = list(choice.members)
    kept = [members] if count < size else [[m for m in members if m != left] for left in members]
    parts = [(float(gram[rest][:, rest].sum()), rest) for rest in kept]
    added = torch.zeros_like(mean)
    for normal, other in _normal_pairs():
        own = 10 ** (-(mean + stddev * normal) / 20)
        # mean square errors of the candidate and a trained network: the smaller, and their geometric mean
        smaller = torch.minimum(own[:, None], root).square()
        both = own[:, None] * root
        errors = []
        for a, rest in parts:
            product = (cross[:, rest] * smaller[:, rest]).clamp(-both[:, rest], both[:, rest]).sum(dim=1)
            product = product + uncertainty * other * smaller[:, rest].norm(dim=1)
            errors.append((a + 2 * product + own.square()) / (len(rest) + 1) ** 2)
        psnr = -10 * torch.stack(errors).amin(dim=0).clamp_min(1e-30).log10()
        added += (psnr - choice.psnr).clamp_min(0) / OUTCOMES
    return added.log()


def _normal_pairs() -> Tensor:  # (OUTCOMES, 2)
    """Equal shares of one normal variable, each beside a share of another: Fibonacci's lattice."""
    number = torch.arange(OUTCOMES, dtype=torch.float64)
    other = (number * STRIDE + 0.5).remainder(OUTCOMES)
    return torch.special.ndtri(torch.stack([number + 0.5, other], dim=1) / OUTCOMES)
