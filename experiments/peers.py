"""Searches, gpnas and others, behind one interface: ask for an architecture, tell what came of it.

All see the same table. gpnas, BoTorch and the random search choose among its rows; Optuna, SMAC3
and Ax among the codes on its axes, and may ask for a network again, which then counts as one more
trial. Each has its package's defaults unless said otherwise. A package that is missing is an
ImportError when its search is made; `requirements-peers.txt` lists them.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tables import Table
from torch import Tensor

from gpnas import Candidate, Engine, Observation

Array = NDArray[np.float64]


NORMAL_90 = 1.6449
"""So many standard deviations to either side hold nine tenths of a normal distribution."""


class Prediction(NamedTuple):
    """What a search believes of every architecture of the table, in the objective's unit."""

    mean: Array  # (n,)
    low: Array  # (n,)
    high: Array  # (n,)
    """Bounds that should hold one more training in nine cases of ten."""

    @classmethod
    def normal(cls, mean: Array, variance: Array) -> Prediction:
        """A prediction of values that are normal; the variance is that of the latent value and the noise."""
        half = NORMAL_90 * np.sqrt(variance)
        return cls(mean, mean - half, mean + half)


class Peer(ABC):
    """A search over a table.

    Args:
        table: to choose from.
        seed: of everything random.
        trials: the whole allowance.
    """

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        self.table, self.seed, self.trials = table, seed, trials
        self.told: list[tuple[int, float]] = []

    @abstractmethod
    def ask(self) -> int:
        """The index of what to train next; it is pending until it is told."""

    def tell(self, index: int, value: float) -> None:
        """One training of `index` came to `value`."""
        self.told.append((index, value))

    def recommend(self) -> dict[str, int]:
        """The architecture that would be delivered now, by each rule: `observed` is the best that was
        seen, `posterior` the best posterior mean among those trained."""
        return {"observed": max(self.told, key=lambda each: each[1])[0]}

    def predict(self) -> Prediction | None:
        """What is believed now; None where a search does not say."""
        return None


class Random(Peer):
    """Uniform, without repeats."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        super().__init__(table, seed, trials)
        self._order = iter(np.random.default_rng(seed).permutation(len(table.space)))

    def ask(self) -> int:
        return int(next(self._order))


class Gpnas(Peer):
    """`gpnas.Engine`, by strategy."""

    def __init__(self, table: Table, seed: int, trials: int, *, strategy: str) -> None:
        super().__init__(table, seed, trials)
        self._engine = Engine(table.space, seed, strategy, trials=trials)
        self._pending: dict[int, list[Candidate]] = defaultdict(list)

    def ask(self) -> int:
        (candidate,) = self._engine.suggest(1)
        index = self.table.space.index(candidate.architecture)
        self._pending[index].append(candidate)
        return index

    def tell(self, index: int, value: float) -> None:
        super().tell(index, value)
        self._engine.observe(Observation(self._pending[index].pop(0), value))

    def recommend(self) -> dict[str, int]:
        best = self._engine.recommend()[0]
        return {"posterior": self.table.space.index(best.architecture)} | super().recommend()

    def predict(self) -> Prediction:
        belief = self._engine.belief()
        return Prediction(belief.mean.numpy(), belief.low.numpy(), belief.high.numpy())


class BoTorch(Peer):
    """qLogEI of a SingleTaskGP, exactly maximised over the rows that are free; eight random first.

    Args:
        costs: whether log costs are features besides the axes.
    """

    DESIGN = 8
    PART = 1_024

    def __init__(self, table: Table, seed: int, trials: int, *, costs: bool) -> None:
        import botorch  # noqa: F401  a missing package is to be noticed here

        super().__init__(table, seed, trials)
        kept = [number for number, column in enumerate(table.space.columns) if costs or column.kind != "cost"]
        self._x = table.space.features[:, kept]
        self._first = iter(np.random.default_rng(seed).permutation(len(table.space))[: self.DESIGN])
        self._pending: list[int] = []
        self._asked: set[int] = set()
        self._model: Any = None

    def ask(self) -> int:
        index = int(next(self._first, -1))
        if index < 0:
            index = self._by_improvement()
        self._asked.add(index)
        self._pending.append(index)
        return index

    def tell(self, index: int, value: float) -> None:
        super().tell(index, value)
        self._pending.remove(index)
        self._model = None

    def recommend(self) -> dict[str, int]:
        trained = [index for index, _ in self.told]
        model = self._fitted()
        with torch.no_grad():
            mean = model.posterior(self._x[trained]).mean[:, 0]
        return {"posterior": trained[int(mean.argmax())]} | super().recommend()

    def predict(self) -> Prediction:
        means, variances = [], []
        model = self._fitted()
        with torch.no_grad():
            for part in self._x.split(self.PART):
                # a batch of single points: no covariance between them is needed
                posterior = model.posterior(part[:, None], observation_noise=True)
                means.append(posterior.mean[:, 0, 0])
                variances.append(posterior.variance[:, 0, 0])
        return Prediction.normal(torch.cat(means).numpy(), torch.cat(variances).numpy())

    def _fitted(self) -> Any:
        from botorch import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        if self._model is None:
            x = self._x[[index for index, _ in self.told]]
            y = torch.tensor([[value] for _, value in self.told], dtype=torch.float64)
            self._model = SingleTaskGP(x, y)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(self._model.likelihood, self._model))
        return self._model

    def _by_improvement(self) -> int:
        from botorch.acquisition import qLogExpectedImprovement
        from botorch.sampling import SobolQMCNormalSampler

        free = [index for index in range(len(self._x)) if index not in self._asked]
        acquisition = qLogExpectedImprovement(
            self._fitted(),
            best_f=max(value for _, value in self.told),
            sampler=SobolQMCNormalSampler(torch.Size([128]), seed=1_000 * self.seed + len(self._asked)),
            X_pending=self._x[self._pending] if self._pending else None,
        )
        with torch.no_grad():
            scores: Tensor = torch.cat(
                [acquisition(part[:, None]) for part in self._x[free].split(self.PART)]
            )
        return free[int(scores.argmax())]


class _OnCodes(Peer):
    """A search among codes, which keeps its own record of each trial; one network may be pending twice."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        super().__init__(table, seed, trials)
        self._levels = {name: len(values) for name, values in table.axes.items()}
        self._pending: dict[int, list[Any]] = defaultdict(list)

    def _index(self, places: dict[str, int], trial: Any) -> int:
        """Index of the network at a place on each axis; notes the trial as pending."""
        values = {name: self.table.axes[name][int(places[name])] for name in self._levels}
        index = self.table.index(values)
        self._pending[index].append(trial)
        return index


class Optuna(_OnCodes):
    """Optuna's ask and tell with one of its samplers: `tpe` or `gp`."""

    def __init__(self, table: Table, seed: int, trials: int, *, sampler: str) -> None:
        import optuna

        super().__init__(table, seed, trials)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        made = {"tpe": optuna.samplers.TPESampler, "gp": optuna.samplers.GPSampler}[sampler](seed=seed)
        self._study = optuna.create_study(sampler=made, direction="maximize")
        self._distributions = {
            name: optuna.distributions.IntDistribution(0, levels - 1) for name, levels in self._levels.items()
        }

    def ask(self) -> int:
        trial = self._study.ask(self._distributions)
        return self._index(trial.params, trial)

    def tell(self, index: int, value: float) -> None:
        super().tell(index, value)
        self._study.tell(self._pending[index].pop(0), value)


class Smac(_OnCodes):
    """SMAC3's facade for hyperparameters (a random forest); each configuration is trained once."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        from ConfigSpace import ConfigurationSpace, UniformIntegerHyperparameter
        from smac import HyperparameterOptimizationFacade, Scenario

        super().__init__(table, seed, trials)
        space = ConfigurationSpace(seed=seed)
        for name, levels in self._levels.items():
            space.add(UniformIntegerHyperparameter(name, 0, levels - 1))
        self._folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            space, deterministic=True, n_trials=trials, seed=seed, output_directory=self._folder.name
        )
        self._facade = HyperparameterOptimizationFacade(
            scenario,
            lambda config, seed: 0.0,  # never called: it is asked and told
            overwrite=True,
            logging_level=False,
        )

    def ask(self) -> int:
        info = self._facade.ask()
        return self._index(dict(info.config), info)

    def tell(self, index: int, value: float) -> None:
        from smac.runhistory import TrialValue

        super().tell(index, value)
        self._facade.tell(self._pending[index].pop(0), TrialValue(cost=-value), save=False)


class Ax(_OnCodes):
    """Ax's Client, asked for one trial at a time."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        from ax.api.client import Client
        from ax.api.configs import RangeParameterConfig

        super().__init__(table, seed, trials)
        for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "ax"]:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(
            [
                RangeParameterConfig(name=name, bounds=(0, levels - 1), parameter_type="int")
                for name, levels in self._levels.items()
            ]
        )
        self._client.configure_optimization(objective="value")

    def ask(self) -> int:
        ((trial, places),) = self._client.get_next_trials(max_trials=1).items()
        return self._index(places, trial)

    def tell(self, index: int, value: float) -> None:
        super().tell(index, value)
        self._client.complete_trial(self._pending[index].pop(0), raw_data={"value": value})


PEERS: dict[str, Callable[[Table, int, int], Peer]] = {
    "gpnas": lambda *known: Gpnas(*known, strategy="mi+kg"),
    "gpnas-nei": lambda *known: Gpnas(*known, strategy="mi+nei"),
    "gpnas-published": lambda *known: Gpnas(*known, strategy="published"),
    "gpnas-random": lambda *known: Gpnas(*known, strategy="random"),
    "random": Random,
    "optuna-tpe": lambda *known: Optuna(*known, sampler="tpe"),
    "optuna-gp": lambda *known: Optuna(*known, sampler="gp"),
    "botorch": lambda *known: BoTorch(*known, costs=False),
    "botorch-costs": lambda *known: BoTorch(*known, costs=True),
    "smac": Smac,
    "ax": Ax,
}
"""Searches by name; each takes (table, seed, trials)."""

PACKAGES = {
    "gpnas": "gpnas",
    "optuna": "optuna",
    "botorch": "botorch",
    "smac": "smac",
    "ax": "ax-platform",
}
"""The distribution behind a search, by the first part of its name."""


def quieten() -> None:
    """One thread, and no warnings of the packages that are compared."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
