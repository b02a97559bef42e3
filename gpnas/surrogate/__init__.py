"""The surrogate: exact Gaussian processes over the architectures of a space.

    warp(y) = c + linear + local + own + noise

`kernel` says what the covariance is; families are as correlated as their observations say. Costs
(parameters, GMACs) are known before training and count as columns, by their logarithms. Values are
standardised, and warped where that makes them likelier.

A handful of observations leaves the hyperparameters open, and intervals drawn from the likeliest ones
are too narrow. So the posterior is a mixture: hyperparameters are drawn from the Laplace approximation
of their posterior around its maximum, by a fixed quasi-random sequence. A fit is a pure function.

The model is a GPyTorch one and speaks BoTorch; what they lack is here: a product of one-dimensional
kernels with an architecture's own variance (`kernel`), the warp as an outcome transform (`warp`), a
posterior whose single points share one factor (`model`), and a fit over starts and warps at once with
Laplace draws (`fitting`).

C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006: Eq. 2.23-2.26
(posterior), 2.30 and 5.9 (evidence, its gradient), 3.32 (Laplace), 4.17 (Matérn), 5.10-5.12
(leave-one-out). Lengthscale prior, growing with √d: C. Hvarfner et al., "Vanilla Bayesian
optimization performs great in high dimensions", ICML 2024.

Glossary: n observed points, q queried points, d feature columns, p = d + 3 hyperparameters, M members
of the mixture. All float64.
"""

from gpnas.surrogate.believing import Believing as Believing
from gpnas.surrogate.fitting import Evidence as Evidence
from gpnas.surrogate.fitting import fit as fit
from gpnas.surrogate.fitting import likeliest as likeliest
from gpnas.surrogate.growing import Growing as Growing
from gpnas.surrogate.model import Context as Context
from gpnas.surrogate.model import Surrogate as Surrogate
from gpnas.surrogate.model import cholesky as cholesky
from gpnas.surrogate.warp import Warp as Warp
