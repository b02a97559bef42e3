"""Scores of a posterior: what training an architecture is expected to bring.

They are BoTorch acquisition functions over single points, (b, 1, d) -> (b,), on the latent scale of the
surrogate. BoTorch's own serve beside them (`Engine(space, acquisition=…)`).

Glossary: q candidates, b base points (observed or pending, each once), t trained points, S draws,
M members of the posterior's mixture.
"""

from __future__ import annotations

import math

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import _log_ei_helper
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor

from gpnas.surrogate import Surrogate, cholesky

DRAWS = 16
"""Quasi-random draws of the base points' values per member of the mixture."""
RIVALS = 100
"""Largest number of trained architectures among which the recommended one is: those of the best
posterior means."""
ROUNDED = 1e-12
"""Gain, in standardised units, up to which it may be an error of rounding, so that it is none."""
OUTCOMES = 24
"""Outcomes of a training over which the knowledge gradient is averaged."""
NUGGET = 1e-6
"""Variance that keeps a condition on exact latent values well posed, in standardised units."""
SCORES = 4_000_000
"""Numbers in one block of draws by candidates (32 MB)."""


class LogNoisyExpectedImprovement(AcquisitionFunction):
    """Log expected improvement over the unknown best of what is observed or pending.

    B. Letham et al., "Constrained Bayesian optimization with noisy experiments", Bayesian Analysis
    14(2), 2019, Eq. 7: the improvement over the best latent value among the base points, averaged
    over joint quasi-random draws of those values, each draw conditioning the posterior without noise.
    Pending points are base points without an observation, so their outcome is integrated over, as are
    the hyperparameters. BoTorch's own is for a single process of known noise.

    Args:
        model: of the observations.
        base: (b, d), what is observed or pending, each architecture once; at least one.
        seed: of the draws.
        draws: per member of the model's mixture.
    """

    _log = True

    def __init__(self, model: Surrogate, base: Tensor, *, seed: int, draws: int = DRAWS) -> None:
        super().__init__(model)
        self._base, kernel, count = base, model.covar_module, len(model.theta)
        sobol = torch.quasirandom.SobolEngine(len(base), scramble=True, seed=seed)
        uniform = sobol.draw(count * draws, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        # a member's draws follow each other, since every M-th point of the sequence fills no cube
        normal = torch.special.ndtri(uniform).view(count, draws, -1)  # (M, S, b)
        values = model.drawn(base, normal)  # (M, S, b)
        self._best = values.amax(dim=2, keepdim=True)
        self._factor = cholesky(kernel.forward(base, base) + NUGGET * torch.eye(len(base)))  # (M, b, b)
        self._weights = torch.cholesky_solve(values.mT, self._factor)  # (M, b, S)

    @t_batch_mode_transform(expected_q=1)  # type: ignore[untyped-decorator]
    def forward(self, X: Tensor) -> Tensor:
        kernel, x = self.model.covar_module, X[:, 0]
        scores = []
        members, draws = self._best.shape[:2]
        for part in x.split(max(1, SCORES // (members * (draws + len(self._base))))):
            cross = kernel.forward(self._base, part)  # (M, b, q)
            solved = torch.linalg.solve_triangular(self._factor, cross, upper=False)
            variance = kernel.forward(part, part, diag=True) - solved.square().sum(dim=1)  # (M, q)
            stddev = variance.clamp_min(1e-12).sqrt()[:, None]
            improvement = _log_ei_helper((self._weights.mT @ cross - self._best) / stddev) + stddev.log()
            scores.append(improvement.flatten(end_dim=1).logsumexp(dim=0) - math.log(members * draws))
        return torch.cat(scores)


class LogKnowledgeGradient(AcquisitionFunction):
    """Log of what one more training is expected to add to the value of what would be recommended.

    P. Frazier, W. Powell, S. Dayanik, "The knowledge-gradient policy for correlated normal beliefs",
    INFORMS Journal on Computing 21(4), 2009, Eq. 12: recommended is the best posterior mean among
    what is trained, the new one included. Unlike improvement over the best value it counts what an
    observation tells of the others, so that a replicate of a leader has its price, and a lucky
    observation none. The outcome is integrated over by the midpoints of equal shares, and, since no midpoint
    lies where a rare outcome would turn the order, it is at least what the likeliest single architecture to
    overtake the leader is expected to gain over it, in closed form.

    Args:
        model: of the observations.
        rivals: (t, d), what may be recommended; at least one.
    """

    _log = True

    def __init__(self, model: Surrogate, rivals: Tensor) -> None:
        super().__init__(model)
        if len(rivals) > RIVALS:
            order = model.latent(rivals)[0].argsort(descending=True, stable=True)
            rivals = rivals[order[:RIVALS].sort().values]
        self._rivals = rivals

    @t_batch_mode_transform(expected_q=1)  # type: ignore[untyped-decorator]
    def forward(self, X: Tensor) -> Tensor:
        own, mean, variance, between = self.model.beside(X[:, 0], self._rivals)
        return log_knowledge_gradient(own, mean, variance, between, self.model.noise)


def log_knowledge_gradient(
    own: Tensor,  # (t,)
    mean: Tensor,  # (q,)
    variance: Tensor,  # (q,)
    between: Tensor,  # (t, q)
    noise: float,
) -> Tensor:  # (q,)
    """The values of `LogKnowledgeGradient`, from latent means of rivals, latent means and variances of
    candidates, the covariances between them, and the variance of an observation."""
    outcome = (variance + noise).sqrt()  # standard deviation of one more observation
    slope = between / outcome  # (t, q), by which means then move
    shares = (torch.arange(OUTCOMES, dtype=torch.float64) + 0.5) / OUTCOMES
    outcomes = torch.special.ndtri(shares)
    # what cannot become the best whatever comes out need not be looked at
    reach = float(outcomes[-1]) * slope.abs().amax(dim=1)
    rivals = own + reach >= (own - reach).max()
    added, up = torch.zeros_like(mean), variance / outcome
    for normal in outcomes:
        best = (own[rivals, None] + slope[rivals] * normal).amax(dim=0)
        added += torch.maximum(best, mean + up * normal) / OUTCOMES
    gain = added - own.max()
    leader = own.argmax()  # over which one alone is expected to gain E[max(0, apart + turn Z)]
    apart = torch.cat([own[:, None].expand_as(slope), mean[None]]) - own[leader]
    turn = (torch.cat([slope, up[None]]) - slope[leader]).abs().clamp_min(1e-150)
    alone = (_log_ei_helper(apart / turn) + turn.log()).amax(dim=0)
    return torch.maximum(torch.where(gain > ROUNDED, gain, 0.0).log(), alone)


def success_labels(succeeded: Tensor, failed: Tensor) -> tuple[Tensor, Tensor]:  # (·, d) each
    """Features and labels of trainings that ended, as a surrogate learns from them whether one succeeds.

    Least-squares classification (Rasmussen & Williams, section 6.5): a Gaussian process with the
    surrogate's covariance over labels of 1 and -1, prior mean 1, which are counted from there.
    """
    labels = torch.cat([torch.zeros(len(succeeded)), torch.full((len(failed),), -2.0)])
    return torch.cat([succeeded, failed]), labels.double()


def log_success_probability(model: Surrogate, x: Tensor) -> Tensor:  # (q, d) -> (q,)
    """Log probability that a training succeeds, through the normal distribution function.

    The model's linear term learns that dear architectures fail from a few that did, its lengthscales
    where a wall stands.

    Args:
        model: of `success_labels`, with the likeliest hyperparameters.
        x: candidates.
    """
    mean, variance = model.latent(x)
    return torch.special.log_ndtr((1 + mean) / (variance + model.noise).sqrt())
