"""Scores of a posterior: what training an architecture is expected to bring.

Glossary: q candidates, b base points (observed or pending, each once), S draws, M members of the
posterior's mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpnas.space import Column
from gpnas.surrogate import Hyperparameters, Member, Posterior, cholesky, covariance, prior_variance

DRAWS = 16
"""Quasi-random draws of the base points' values per member of the mixture."""
LABEL_NOISE = 0.25
"""Variance of a success or failure that says nothing of its architecture, such as bad luck."""
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
    return torch.logsumexp(torch.stack(scores), dim=0) - math.log(count) + math.log(posterior.unit)


def _log_improvement(member: Member, x: Tensor, base: Tensor, normal: Tensor) -> Tensor:  # (q,)
    columns, hyperparameters = member.columns, member.hyperparameters
    mean, joint = member.joint(base)
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


def log_success_probability(
    x: Tensor,  # (q, d)
    succeeded: Tensor,  # (·, d)
    failed: Tensor,  # (·, d)
    columns: Sequence[Column],
) -> Tensor:  # (q,)
    """Log probability that a training succeeds, learned from those that ended.

    Least-squares classification (Rasmussen & Williams, section 6.5): a Gaussian process with the
    surrogate's prior covariance over labels of 1 and -1, prior mean 1, through the normal
    distribution function. Its linear term learns that dear architectures fail from a few that did.

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
    prior = Hyperparameters.default(columns)
    noise = LABEL_NOISE * torch.eye(len(ended), dtype=torch.float64)
    factor = cholesky(covariance(ended, ended, columns, prior) + noise)
    cross = covariance(ended, x, columns, prior)
    solved = torch.linalg.solve_triangular(factor, cross, upper=False)
    mean = 1 + cross.T @ torch.cholesky_solve(below[:, None], factor)[:, 0]
    variance = prior_variance(x, columns, prior) - solved.square().sum(dim=0)
    return torch.special.log_ndtr(mean / (variance.clamp_min(0) + LABEL_NOISE).sqrt())
