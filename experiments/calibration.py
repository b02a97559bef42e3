"""Whether nominal 90 % intervals hold 90 % of what is then measured.

    python experiments/calibration.py [--seeds 20]

After 24 trainings: the share of all rows' single trainings that fall into their predictive intervals,
mean over seeds (lowest and highest seed), for architectures drawn at random and for those that gpnas
chose itself. Beside it BoTorch's SingleTaskGP on the random ones, with and without the cost columns, and
Kendall's τ of the predictions with the mean over replicates. Writes `results/calibration.md`.
"""

from __future__ import annotations

import argparse
import os
import warnings
from datetime import date

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from numpy.typing import NDArray
from peers import PACKAGES, Prediction, quieten
from scipy.stats import kendalltau
from search_quality import RESULTS, _replace
from tables import TABLES, Table, load_table

from gpnas import Engine, Observation
from gpnas.surrogate import fit

TRAININGS = 24


def judged(table: Table, prediction: Prediction) -> tuple[float, float]:
    inside = (prediction.low[:, None] <= table.runs) & (table.runs <= prediction.high[:, None])
    return float(inside.mean()), float(kendalltau(prediction.mean, table.mean).statistic)


def drawn(table: Table, seed: int) -> tuple[NDArray[np.int64], torch.Tensor]:
    generator = np.random.default_rng((seed, 4))
    chosen = generator.choice(len(table.space), TRAININGS, replace=False)
    runs = generator.integers(table.runs.shape[1], size=TRAININGS)
    return chosen, torch.from_numpy(table.runs[chosen, runs])


def of_gpnas(table: Table, seed: int) -> Prediction:
    chosen, y = drawn(table, seed)
    posterior = fit(table.space.features[chosen], y, table.space.columns)
    mean, _ = posterior.mean_and_variance(table.space.features)
    low, high = posterior.interval(table.space.features)
    return Prediction(mean.numpy(), low.numpy(), high.numpy())


def of_search(table: Table, seed: int) -> Prediction:
    engine, generator = Engine(table.space, seed, trials=40), np.random.default_rng((seed, 5))
    for _ in range(TRAININGS):
        (candidate,) = engine.suggest(1)
        index = table.space.index(candidate.architecture)
        value = table.runs[index, generator.integers(table.runs.shape[1])]
        engine.observe(Observation(candidate, float(value)))
    belief = engine.belief()
    return Prediction(belief.mean.numpy(), belief.low.numpy(), belief.high.numpy())


def of_botorch(table: Table, seed: int, *, costs: bool) -> Prediction:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    columns = table.space.columns
    kept = [number for number, column in enumerate(columns) if costs or column.kind != "cost"]
    x = table.space.features[:, kept]
    chosen, y = drawn(table, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(x[chosen], y[:, None], outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        posterior = model.posterior(x, observation_noise=True)
    mean, variance = (each.detach()[:, 0].numpy() for each in (posterior.mean, posterior.variance))
    return Prediction.normal(mean, variance)


MODELS = {
    "gpnas, its own choice": of_search,
    "gpnas, random": of_gpnas,
    "BoTorch, random": lambda table, seed: of_botorch(table, seed, costs=False),
    "BoTorch with costs, random": lambda table, seed: of_botorch(table, seed, costs=True),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=20)
    arguments = options.parse_args()
    quieten()
    known = versions(("torch", "gpytorch", "scipy", *PACKAGES.values()))
    lines = [
        f"# Coverage of nominal 90 % intervals after {TRAININGS} trainings",
        "",
        f"{processor()}; {known}; {date.today()}. {arguments.seeds} seeds: mean (lowest–highest).",
        "",
        "| table | model, architectures | coverage, % | τ |",
        "|---|---|---|---|",
    ]
    for table in filter(None, map(load_table, TABLES)):
        for name, model in MODELS.items():
            found = np.array([judged(table, model(table, seed)) for seed in range(arguments.seeds)])
            cover, tau = 100 * found[:, 0], found[:, 1]
            lines.append(
                f"| {table.name} | {name} | {cover.mean():.0f} ({cover.min():.0f}–{cover.max():.0f}) | "
                f"{tau.mean():.2f} ({tau.min():.2f}–{tau.max():.2f}) |"
            )
            print(lines[-1], flush=True)
    _replace(RESULTS / "calibration.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
