"""The first design: what an engine would choose, and PyTorch's own chance, without either."""

import numpy as np
import pytest
import torch

from gpnas import Engine, SearchSpace
from gpnas.design import _part, first, one_of, size_of
from gpnas.prior import NOISE, covariance
from gpnas.records import derived_seed
from gpnas.space import CategoricalAxis, Column, Family, IntegerAxis
from gpnas.surrogate import Surrogate

SIZES = IntegerAxis("size", tuple(range(1, 41)))
SPACE = SearchSpace(
    [
        Family("one", (SIZES, IntegerAxis("depth", (1, 2, 4), "log"), CategoricalAxis("act", ("a", "b")))),
        Family("two", (SIZES, CategoricalAxis("norm", (True, False)))),
    ]
)
LARGE = SearchSpace([Family("net", (IntegerAxis("size", tuple(range(1, 1301))),))])


@pytest.mark.parametrize(("space", "strategy"), [(SPACE, "mi+nei"), (SPACE, "published"), (LARGE, "mi+kg")])
def test_it_is_what_the_engine_suggests_before_it_has_observed_anything(
    space: SearchSpace, strategy: str
) -> None:
    engine = Engine(space, 5, strategy, trials=12)
    suggested = [each.architecture for each in engine.suggest(engine.design)]
    assert first(space, 5, strategy, 12) == suggested
    assert len(suggested) == size_of(strategy, 12)


@pytest.mark.parametrize("linear", [True, False])
def test_the_covariance_is_that_of_a_surrogate_that_has_observed_nothing(linear: bool) -> None:
    columns = (*SPACE.columns, Column("other", "task"))
    x = torch.cat([SPACE.features, torch.zeros(len(SPACE), 1, dtype=torch.float64)], dim=1)
    prior = Surrogate(x[:0], torch.empty(0, dtype=torch.float64), columns)
    pairs = prior.covar_module.distances(x, x)
    if not linear:
        pairs = pairs._replace(linear=torch.zeros_like(pairs.linear))
    expected = prior.covar_module.of(pairs)[0].numpy()
    np.testing.assert_allclose(covariance(x.numpy(), columns, linear=linear), expected, rtol=1e-12)
    assert pytest.approx(prior.noise) == NOISE


@pytest.mark.parametrize("number", [0, 7, 1_000])
def test_chance_is_pytorchs(number: int) -> None:
    for count in (1, 2, 999):
        generator = torch.Generator().manual_seed(derived_seed(3, "choice", number))
        drawn = int(torch.randint(count, (1,), generator=generator))
        assert one_of(np.ones(count, dtype=np.bool_), 3, number) == drawn
    order = torch.randperm(3_000, generator=torch.Generator().manual_seed(number))
    assert _part(3_000, 1_000, number).tolist() == order[:1_000].tolist()
