"""The surrogate: exact Gaussian processes over the architectures of a space.

    warp(y) = c + linear + local + own + noise

The covariance is a constant, a linear term (over ordered axes, log costs and one-hot categories), a
product of one-dimensional Matérn-5/2 kernels over the same columns, with an exponential of mismatch
for categorical axes and families (families are as correlated as their observations say), and what is
an architecture's own, told by no other. Costs (parameters, GMACs) are known before training and count
as columns. Values are standardised, and warped where that makes them likelier.

A handful of observations leaves the hyperparameters open, and intervals drawn from the likeliest ones
are too narrow. So the posterior is a mixture: hyperparameters are drawn from the Laplace approximation
of their posterior around its maximum, by a fixed quasi-random sequence. A fit is a pure function.

C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006: Eq. 2.23-2.26
(posterior), 2.30 and 5.9 (evidence, its gradient), 3.32 (Laplace), 4.17 (Matérn), 5.10-5.12
(leave-one-out). Lengthscale prior, growing with √d: C. Hvarfner et al., "Vanilla Bayesian
optimization performs great in high dimensions", ICML 2024.

Glossary: n observed points, q queried points, d feature columns, p = d + 3 hyperparameters, M members
of the mixture, m = n(n-1)/2 pairs. All float64.
"""

from gpnas.surrogate.fitting import VARIANCE_PRIOR as VARIANCE_PRIOR
from gpnas.surrogate.fitting import LogPosterior as LogPosterior
from gpnas.surrogate.fitting import fit as fit
from gpnas.surrogate.fitting import likeliest as likeliest
from gpnas.surrogate.kernel import CONSTANT_VARIANCE as CONSTANT_VARIANCE
from gpnas.surrogate.kernel import LENGTHSCALE_PRIOR as LENGTHSCALE_PRIOR
from gpnas.surrogate.kernel import NOISE_PRIOR as NOISE_PRIOR
from gpnas.surrogate.kernel import OWN_SHARE as OWN_SHARE
from gpnas.surrogate.kernel import TASK_PRIOR as TASK_PRIOR
from gpnas.surrogate.kernel import Hyperparameters as Hyperparameters
from gpnas.surrogate.kernel import cholesky as cholesky
from gpnas.surrogate.kernel import covariance as covariance
from gpnas.surrogate.kernel import prior_variance as prior_variance
from gpnas.surrogate.posterior import Context as Context
from gpnas.surrogate.posterior import Member as Member
from gpnas.surrogate.posterior import Posterior as Posterior
from gpnas.surrogate.warp import Warp as Warp
