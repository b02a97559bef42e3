"""What a search by a training of one's own came to: a ranking, and a portfolio by products of errors.

Trainings that report errors on one fixed validation set, by `trial.report(…, errors=array)`, can be averaged
as networks are: with errors e of the members, weights w and the mean products G of their errors, the mean
square error of the weighted average is wᵀGw, exactly. Errors are outputs minus truth: values of a regression,
or class probabilities minus one-hot labels, whose mean square is the Brier score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas.engine import Engine
from gpnas.errors import TrialError
from gpnas.journal import Journal
from gpnas.portfolio import choose, correlations
from gpnas.records import Candidate
from gpnas.run.layout import candidate_folder
from gpnas.run.own_errors import errors_in, products
from gpnas.run.setup import OwnSetup
from gpnas.run.storage import Storage, storage_of

TINY = 1e-12
"""Added to each mean square error, since a perfect one has no logarithm."""
LEAST_WEIGHT = 0.05
"""The least weight of a member of the average."""
MOST_SHOWN = 12
"""The most trainings whose errors' correlations are shown."""


@dataclass(frozen=True)
class OwnRanked:
    """A training, as a search ranks it."""

    candidate: Candidate
    observed: float
    predicted: float
    stddev: float
    seconds: float


@dataclass(frozen=True)
class OwnPortfolio:
    """Trainings whose average has the least mean square error on the validation set."""

    members: tuple[Candidate, ...]
    weights: tuple[float, ...]
    error: float
    """Mean square error of the average."""
    best: float
    """The least of one member alone, of all."""


@dataclass(frozen=True)
class OwnDelivery:
    """A finished search."""

    run: Path
    objective: dict[str, str]
    ranking: tuple[OwnRanked, ...]
    """The most promising first, by posterior mean."""
    portfolio: OwnPortfolio | None
    """None where no two trainings reported errors."""
    note: str
    """Why there is no portfolio, or whose errors could not be used; empty where all is well."""
    observed: int
    failed: int
    stopped: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The form that `--json` prints and the journal keeps."""
        name = self.objective["name"]
        rows = [
            {
                "id": each.candidate.id,
                "architecture": each.candidate.architecture.to_json(),
                "value": each.observed,
                name: each.observed,
                "predicted": each.predicted,
                "stddev": each.stddev,
                "seconds": each.seconds,
            }
            for each in self.ranking
        ]
        chosen = self.portfolio
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "objective": self.objective,
            "trials": {"observed": self.observed, "failed": self.failed, "stopped": self.stopped},
            "best": rows[0],
            "ranking": rows,
            "portfolio": []
            if chosen is None
            else [
                {"id": each.id, "architecture": each.architecture.to_json(), "weight": weight}
                for each, weight in zip(chosen.members, chosen.weights, strict=True)
            ],
            "mean_square_error": None if chosen is None else {"best": chosen.best, "average": chosen.error},
            "note": self.note,
        }


def deliver_own(storage: Storage, journal: Journal, engine: Engine, seconds: float) -> OwnDelivery:
    """Ranks what was trained, and chooses what is averaged; the journal keeps both.

    Args:
        storage: where trials wrote.
        journal: open for writing.
        engine: which has seen every observation.
        seconds: that the command took.

    Raises:
        TrialError: no training succeeded.
    """
    observations = journal.observations()
    seconds_of = {each.candidate.id: each.seconds for each in observations}
    values = {each.candidate.id: each.value for each in observations if each.value is not None}
    order = engine.recommend()
    if not order:
        why = next((each.failure for each in observations if each.failed), "all were stopped")
        raise TrialError(f"{journal.run}: at least one training must succeed, but none did; the first: {why}")
    indices = [engine.space.index(each.architecture) for each in order]
    import torch

    belief = engine.belief(torch.tensor(indices))
    ranking = [
        OwnRanked(each, values[each.id], float(mean), float(stddev), seconds_of[each.id])
        for each, mean, stddev in zip(order, belief.mean, belief.stddev, strict=True)
    ]
    header = journal.header
    assert header.search is not None
    portfolio, note = _portfolio(storage, order, header.search.portfolio)
    delivery = OwnDelivery(
        journal.run,
        asdict(header.objective),
        tuple(ranking),
        portfolio,
        note,
        len(observations),
        sum(each.failed for each in observations),
        sum(each.stopped is not None for each in observations),
        seconds,
    )
    journal.set_result("own delivery", delivery.to_json())
    return delivery


def is_own(run: Path) -> bool:
    """Whether a run's trainings are those of a space file's `trainer`, which may report errors.

    Raises:
        JournalError: the journal cannot be read.
    """
    with Journal.read(run) as journal:
        return OwnSetup.describes(journal) and bool(journal.setup(OwnSetup).code)


def own_portfolio(run: Path, top: int | None = None) -> dict[str, Any]:
    """Which trainings of one's own belong together, by products of the errors that they reported.

    Args:
        run: folder of the search.
        top: the most members; None is what the search says.

    Returns:
        Plain JSON values. `frontier`: the best average of 1, 2, … members, with its weights and mean square
        error; `correlation` of the errors of the `candidates` with the least mean square errors alone;
        `note` of errors that could not be used.

    Raises:
        JournalError: the journal cannot be read.
        TrialError: no training reported errors.
    """
    with Journal.read(run) as journal:
        header = journal.header
        finished = [each for each in journal.observations() if each.finished]
        storage = storage_of(journal)
    assert header.search is not None
    errors, unusable = _reported(storage, [each.candidate for each in finished])
    if not errors:
        note = "; ".join(unusable) or "none of them did; call `trial.report(…, errors=array)`"
        raise TrialError(f"{run}: a portfolio needs trainings that reported errors, but {note}")
    members = [each.candidate for each in finished if each.candidate.id in errors]
    gram = products([errors[each.id] for each in members])
    chosen = [
        _chosen(members, gram, size)
        for size in range(1, min(top or header.search.portfolio, len(members)) + 1)
    ]
    alone = gram[0].diagonal()
    best = [int(place) for place in alone.argsort(kind="stable")[:MOST_SHOWN]]
    matrix = correlations(gram)[np.ix_(best, best)]
    return {
        "run": str(run),
        "trainings": len(members),
        "numbers": int(next(iter(errors.values())).size),
        "frontier": [
            {
                "members": [each.id for each in portfolio.members],
                "architectures": [each.architecture.to_json() for each in portfolio.members],
                "weights": list(portfolio.weights),
                "mean_square_error": portfolio.error,
            }
            for portfolio in chosen
        ],
        "correlation": {
            "candidates": [members[place].id for place in best],
            "mean_square_error": [float(alone[place]) for place in best],
            "matrix": matrix.tolist(),
        },
        "note": "; ".join(unusable),
    }


def _portfolio(storage: Storage, order: Sequence[Candidate], most: int) -> tuple[OwnPortfolio | None, str]:
    """The average of at most so many members whose mean square error is least, and a note on others."""
    errors, unusable = _reported(storage, order)
    if not errors:
        told = "; ".join(unusable)
        return None, told or "no training reported errors (`trial.report(…, errors=array)`): no portfolio"
    members = [each for each in order if each.id in errors]
    gram = products([errors[each.id] for each in members])
    chosen = (_chosen(members, gram, count) for count in range(1, min(most, len(members)) + 1))
    return min(chosen, key=lambda each: each.error), "; ".join(unusable)


def _reported(
    storage: Storage, order: Sequence[Candidate]
) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """The errors that trainings reported, all of one shape, and why those of others cannot be used."""
    errors: dict[str, NDArray[np.float32]] = {}
    unusable = []
    for candidate in order:
        try:
            errors[candidate.id] = errors_in(storage, candidate_folder(candidate))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, EOFError) as error:
            unusable.append(f"{candidate.id}: {' '.join(str(error).split())}")
    shape = next(iter(errors.values())).shape if errors else ()
    for name in [name for name, each in errors.items() if each.shape != shape]:
        unusable.append(f"{name}: its errors have the shape {errors.pop(name).shape}, others' {shape}")
    return errors, unusable


def _chosen(members: Sequence[Candidate], gram: NDArray[np.float64], count: int) -> OwnPortfolio:
    """The average of so many members whose mean square error is least."""
    choice = choose(
        gram + TINY * np.eye(len(members)), count, convex=True, least=min(LEAST_WEIGHT, 1 / count)
    )
    weights = np.array(choice.weights)
    places = list(choice.members)
    mean = gram.mean(axis=0)
    together = float(weights @ mean[np.ix_(places, places)] @ weights)
    return OwnPortfolio(
        tuple(members[place] for place in places),
        tuple(float(each) for each in weights),
        together,
        float(mean.diagonal().min()),
    )
