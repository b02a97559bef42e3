"""How far the surrogate's predictions can be trusted: leave-one-out, beside ridge regression.

Each observation is predicted from all others, in closed form: C. E. Rasmussen, C. K. I. Williams,
"Gaussian Processes for Machine Learning", 2006, Eq. 5.10-5.12 for the surrogate; G. H. Golub, M.
Heath, G. Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter",
Technometrics 21(2), 1979, for the ridge. Both keep what was fitted to all observations: the one its
hyperparameters, the other its penalty and its noise.

Glossary: n observations, d feature columns, p columns of a design matrix. All float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gpnas.space import Column
from gpnas.surrogate import Surrogate

LEAST = 8
"""Observations below which nothing is said: a rank correlation of fewer is chance."""
COVERAGE = 0.9
"""Nominal probability of the intervals whose coverage is counted."""
NOISE = 2.0
"""Standard errors within which a difference of two predictors is taken for noise."""
PENALTIES = torch.logspace(-4, 4, 65, dtype=torch.float64)
"""Ridge penalties that are tried; features span [0, 1]."""


@dataclass(frozen=True)
class Quality:
    """How good predictions are for observations that they were not made from."""

    tau: float | None
    """Kendall's rank correlation (τ-b) of predicted and observed, -1 … 1; None where either is
    constant. Without any signal it is below 0: what is left out pulls the prediction away from it."""
    nlpd: float
    """Mean negative log predictive density, per observation, in nats, of values in their own unit:
    the smaller, the better. Punishes wrong means and wrong widths alike."""
    coverage: float
    """Share of the observations within their 90 % intervals."""


@dataclass(frozen=True)
class Diagnostics:
    """The surrogate's leave-one-out predictions beside those of ridge regression."""

    observations: int
    surrogate: Quality | None
    """None where there are fewer than `LEAST` observations, or where all are the same."""
    ridge: Quality | None
    """None exactly where `surrogate` is."""
    penalty: float | None
    """The ridge's, which is the one of the least squared leave-one-out errors."""
    advantage: float | None
    """Mean log predictive density of the surrogate less the ridge's, in nats per observation."""
    advantage_error: float | None
    """Standard error of `advantage`."""

    @property
    def summary(self) -> str:
        """One line for a person."""
        if self.surrogate is None or self.ridge is None:
            if self.observations < LEAST:
                return f"leave-one-out: needs at least {LEAST} observations, there are {self.observations}"
            return "leave-one-out: needs observations that differ"
        return (
            f"leave-one-out over {self.observations} observations (ridge regression in brackets): "
            f"τ {_number(self.surrogate.tau)} ({_number(self.ridge.tau)}), "
            f"NLPD {self.surrogate.nlpd:.2f} ({self.ridge.nlpd:.2f}), "
            f"90 % intervals hold {self.surrogate.coverage:.0%} ({self.ridge.coverage:.0%}); {self._verdict}"
        )

    @property
    def in_words(self) -> str:
        """One line for someone who knows none of these measures."""
        if self.surrogate is None:
            return self.summary
        tau = self.surrogate.tau
        if tau is None or tau <= 0:
            return (
                "what was learned does not foretell trainings that it has not seen: trust observed values "
                "alone, or grant more trials"
            )
        return (
            "where each training is foretold from the others, "
            f"{(1 + tau) / 2:.0%} of all pairs come in the right order, and by chance 50% would"
        )

    @property
    def _verdict(self) -> str:
        assert self.advantage is not None
        assert self.advantage_error is not None
        if abs(self.advantage) <= NOISE * self.advantage_error:
            return "within noise the two predict alike"
        return f"the surrogate predicts {'better' if self.advantage > 0 else 'worse'}"

    @property
    def warning(self) -> str | None:
        """One line where the surrogate's NLPD is worse than the ridge's beyond noise, else None."""
        if self.advantage is None or self.advantage_error is None:
            return None
        if self.advantage >= -NOISE * self.advantage_error:
            return None
        return (
            "the surrogate predicts worse than ridge regression (NLPD higher by "
            f"{-self.advantage:.2f} ± {self.advantage_error:.2f}): trust observed values more than "
            "predicted ones, or grant more trials"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "needed": LEAST, "summary": self.summary, "warning": self.warning}


def diagnose(posterior: Surrogate) -> Diagnostics:
    """The leave-one-out predictions of a posterior of observations, and the ridge's for the same."""
    y = posterior.y
    n = len(y)
    if n < LEAST or float(y.max() - y.min()) <= 1e-9 * max(1.0, float(y.abs().max())):
        return Diagnostics(n, None, None, None, None, None)
    latent, spread = posterior.leave_one_out()
    z = posterior.warp.latent(y)
    # a density changes with the map's slope
    own = log_normal(z, latent, spread) + posterior.warp.log_slope(y)
    mean, variance, penalty = ridge_leave_one_out(design_matrix(posterior.x[:n], posterior.columns), y)
    other = log_normal(y, mean, variance)
    difference = own - other
    return Diagnostics(
        observations=n,
        surrogate=_quality(latent, z, spread, own),
        ridge=_quality(mean, y, variance, other),
        penalty=penalty,
        advantage=float(difference.mean()),
        advantage_error=float(difference.std() / math.sqrt(n)),
    )


def design_matrix(x: Tensor, columns: Sequence[Column]) -> Tensor:  # (n, d) -> (n, p)
    """Features as a linear model takes them: ordered ones as they are, categories one-hot."""
    parts = []
    for number, column in enumerate(columns):
        if column.kind == "task":  # all are of one
            continue
        values = x[:, number, None]
        if column.kind in ("categorical", "family"):
            values = (values == values.unique()[None, :]).double()
        parts.append(values)
    return torch.cat(parts, dim=1)


def ridge_leave_one_out(matrix: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:  # (n, p), (n,)
    """Each observation as a ridge regression with a free intercept predicts it from all others.

    With the hat matrix H of all observations the error is (y_i - ŷ_i) / (1 - H_ii), and the variance
    of one observation s² / (1 - H_ii), as of a Bayesian linear model; the penalty minimises the
    squared errors, s² is the likeliest.

    Returns:
        Means and variances, (n,) each, and the penalty.
    """
    left, singular, _ = torch.linalg.svd(matrix - matrix.mean(dim=0), full_matrices=False)
    centred = y - y.mean()
    shrunk = singular.square() / (singular.square() + PENALTIES[:, None])  # (penalties, r)
    fitted = (shrunk * (left.T @ centred)) @ left.T  # (penalties, n)
    kept = (1 - 1 / len(y) - shrunk @ left.square().T).clamp_min(1e-12)  # 1 - H_ii
    errors = (centred - fitted) / kept
    best = int(errors.square().sum(dim=1).argmin())
    error, rest = errors[best], kept[best]
    # a perfect fit leaves no noise, of which no density can be made
    noise = (error.square() * rest).mean().clamp_min(1e-12 * centred.square().mean())
    return y - error, noise / rest, float(PENALTIES[best])


def log_normal(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:  # (n,) each
    """Log densities of normal distributions."""
    return -0.5 * ((y - mean).square() / variance + variance.log() + math.log(2 * math.pi))


def _quality(mean: Tensor, y: Tensor, variance: Tensor, log_density: Tensor) -> Quality:
    """Mean, y and variance on one scale, any monotone map of the values' own."""
    half = float(torch.special.ndtri(torch.tensor(0.5 + COVERAGE / 2, dtype=torch.float64)))
    return Quality(
        tau=_tau(mean, y),
        nlpd=-float(log_density.mean()),
        coverage=float(((y - mean).abs() <= half * variance.sqrt()).double().mean()),
    )


def _tau(a: Tensor, b: Tensor) -> float | None:
    """Kendall's τ_b of (n,) and (n,), which counts ties; None where one of them is constant."""
    rows, columns = torch.triu_indices(len(a), len(a), 1)
    one, other = (torch.sign(each[rows] - each[columns]).double() for each in (a, b))
    pairs = float(one.square().sum() * other.square().sum())
    return float(one @ other) / math.sqrt(pairs) if pairs else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
