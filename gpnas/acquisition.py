"""Scores of a posterior: what training an architecture is expected to bring.

Glossary: q candidates, b base points (observed or pending, each once), t trained points, S draws,
M members of the posterior's mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpnas.space import Column
from gpnas.surrogate import Member, Posterior, cholesky, covariance, likeliest, prior_variance

DRAWS = 16
"""Quasi-random draws of the base points' values per member of the mixture."""
OUTCOMES = 24
"""Outcomes of a training over which the knowledge gradient is averaged."""
NUGGET = 1e-6
"""Variance that keeps a condition on exact latent values well posed, in standardised units."""
SCORES = 4_000_000
"""Numbers in one block of draws by candidates (32 MB)."""


def log_expected_improvement(mean: Tensor, stddev: Tensor, best: Tensor | float) -> Tensor:
    """log E[max(f - best, 0)] for f ~ N(mean, stddev²), stable down to any distance.

    S. Ament et al., "Unexpected improvements to expected improvement", NeurIPS 2023, Eq. 9. All
    arguments broadcast.
    """
    u = (mean - best) / stddev
    log_density = -0.5 * u.square() - 0.5 * math.log(2 * math.pi)
    # φ(u) + uΦ(u): directly where it is safe, else φ(u)·(1 - |u|Φ(u)/φ(u)) in logarithms
    plain = (log_density.exp() + u * torch.special.ndtr(u)).clamp_min(1e-300).log()
    far = u.clamp_max(-1.0).abs()
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(far / math.sqrt(2))
    tail = log_density + torch.log1p(-(far * mills).clamp_max(1 - 1e-16))
    beyond = log_density - 2 * far.log()  # the asymptote φ(u)/u², where 1 - |u|·Mills runs out of digits
    return torch.where(u > -1, plain, torch.where(u > -1e4, tail, beyond)) + stddev.log()


def log_noisy_expected_improvement(
    posterior: Posterior,
    x: Tensor,  # (q, d)
    base: Tensor,  # (b, d)
    *,
    seed: int,
    draws: int = DRAWS,
) -> Tensor:  # (q,)
    """Log expected improvement over the unknown best of what is observed or pending.

    B. Letham et al., "Constrained Bayesian optimization with noisy experiments", Bayesian Analysis
    14(2), 2019, Eq. 7: the improvement over the best latent value among the base points, averaged
    over joint quasi-random draws of those values, each draw conditioning the posterior without noise.
    Pending points are base points without an observation, so their outcome is integrated over, as are
    the hyperparameters.

    Args:
        posterior: of the observations.
        x: candidates.
        base: what is observed or pending, each architecture once; at least one.
        seed: of the draws.
        draws: per member of the posterior's mixture.
    """
    count = len(posterior.members)
    sobol = torch.quasirandom.SobolEngine(len(base), scramble=True, seed=seed)
    uniform = sobol.draw(count * draws, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    normal = torch.special.ndtri(uniform)  # (M·S, b); every M-th to one member
    scores = [
        _log_improvement(member, x, base, normal[number::count])
        for number, member in enumerate(posterior.members)
    ]
    return torch.logsumexp(torch.stack(scores), dim=0) - math.log(count)


def _log_improvement(member: Member, x: Tensor, base: Tensor, normal: Tensor) -> Tensor:  # (q,)
    columns, hyperparameters = member.columns, member.hyperparameters
    mean, _, joint = member.joint(base, base)
    values = mean + normal @ cholesky(joint).T  # (S, b)
    best = values.max(dim=1, keepdim=True).values
    nugget = NUGGET * torch.eye(len(base), dtype=torch.float64)
    factor = cholesky(covariance(base, base, columns, hyperparameters) + nugget)
    weights = torch.cholesky_solve(values.T, factor)  # (b, S)
    scores = []
    for part in x.split(max(1, SCORES // (len(normal) + len(base)))):
        cross = covariance(base, part, columns, hyperparameters)  # (b, q)
        solved = torch.linalg.solve_triangular(factor, cross, upper=False)
        variance = prior_variance(part, columns, hyperparameters) - solved.square().sum(dim=0)
        improvement = log_expected_improvement(
            weights.T @ cross, variance.clamp_min(1e-12).sqrt(), best
        )  # (S, q)
        scores.append(torch.logsumexp(improvement, dim=0) - math.log(len(normal)))
    return torch.cat(scores)


def log_knowledge_gradient(
    posterior: Posterior,
    x: Tensor,  # (q, d)
    rows: Tensor,  # (t,)
) -> Tensor:  # (q,)
    """Log of what one more training is expected to add to the value of what would be recommended.

    P. Frazier, W. Powell, S. Dayanik, "The knowledge-gradient policy for correlated normal beliefs",
    INFORMS Journal on Computing 21(4), 2009, Eq. 12: recommended is the best posterior mean among
    what is trained, the new one included. Unlike improvement over the best value it counts what an
    observation tells of the others, so that a replicate of a leader has its price, and a lucky
    observation none. The outcome is integrated over by the midpoints of equal shares.

    Args:
        posterior: of the observations; what pends is believed (`Posterior.believing`).
        x: candidates, trained ones among them for replicates.
        rows: of the posterior's observations, what may be recommended, pending ones included; at least
            one.

    Returns:
        On the posterior's latent scale; -inf where nothing can be added.
    """
    own, mean, variance, between = posterior.beside(x, rows)
    outcome = (variance + posterior.noise).sqrt()  # standard deviation of one more observation
    slope = between / outcome  # (t, q), by which means then move
    shares = (torch.arange(OUTCOMES, dtype=torch.float64) + 0.5) / OUTCOMES
    outcomes = torch.special.ndtri(shares)
    # what cannot become the best whatever comes out need not be looked at
    reach = float(outcomes[-1]) * slope.abs().amax(dim=1)
    rivals = own + reach >= (own - reach).max()
    own, slope = own[rivals], slope[rivals]
    added = torch.zeros_like(mean)
    for normal in outcomes:
        best = (own[:, None] + slope * normal).max(dim=0).values
        added += torch.maximum(best, mean + variance / outcome * normal) / OUTCOMES
    return (added - own.max()).clamp_min(0).log()


def log_success_probability(
    x: Tensor,  # (q, d)
    succeeded: Tensor,  # (·, d)
    failed: Tensor,  # (·, d)
    columns: Sequence[Column],
) -> Tensor:  # (q,)
    """Log probability that a training succeeds, learned from those that ended.

    Least-squares classification (Rasmussen & Williams, section 6.5): a Gaussian process with the
    surrogate's covariance and the likeliest hyperparameters over labels of 1 and -1, prior mean 1,
    through the normal distribution function. Its linear term learns that dear architectures fail from
    a few that did, its lengthscales where a wall stands.

    Args:
        x: candidates.
        succeeded, failed: features of ended trainings.
        columns: meaning of the features.

    Returns:
        0 everywhere while nothing failed.
    """
    if not len(failed):
        return torch.zeros(len(x), dtype=torch.float64)
    ended = torch.cat([succeeded, failed])
    below = torch.cat([torch.zeros(len(succeeded)), torch.full((len(failed),), -2.0)]).double()
    member = Member(ended, below, tuple(columns), likeliest(ended, below, columns))
    mean, variance = member.mean_and_variance(x)
    return torch.special.log_ndtr((1 + mean) / (variance + member.hyperparameters.noise_variance).sqrt())
