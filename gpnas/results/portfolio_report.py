"""`gpnas portfolio`: which networks of a run belong together, at which cost, and what would add to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpnas.engine import engine_for
from gpnas.errors import TrialError
from gpnas.heterogeneity import (
    Disagreement,
    correlations_from,
    leave_one_out,
    log_portfolio_improvement,
    overlaps,
)
from gpnas.journal import Journal
from gpnas.portfolio import Choice, Floats, choose, correlations, ensemble_psnr, frontier
from gpnas.records import Candidate
from gpnas.results.choosing import LEAST_SHARE, Allowance, Outside, choose_portfolio, finished_candidates
from gpnas.results.exporting import fusion_of_choice, write_portfolio
from gpnas.run.cores import one_core
from gpnas.run.pricing import searched_space
from gpnas.run.products import products_of
from gpnas.run.setup import Setup

if TYPE_CHECKING:
    from gpnas.results.guests import Company
    from gpnas_trainers.pairs import PairSet

SHOWN = 10
"""Networks of the matrix of correlations, and architectures of the list of untrained ones."""
PROMISING = 2_000
"""Untrained architectures that are weighed: those of the best mean plus two standard deviations."""


def portfolio_document(
    run: Path,
    top: int | None = None,
    allowance: Allowance | None = None,
    *,
    guests: Sequence[str] = (),
    data: Path | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """What a run's networks are worth together, as a JSON document.

    Args:
        run: run folder of a search or of a final training that has delivered.
        top: the largest number of networks; None is the run's.
        allowance: what they may cost together.
        guests: networks that no trial trained, as `read_guests` takes them: they take part in everything but
            `untrained`, and `guests` says how good each is.
        data: folder of the run's pairs, for guests; None is the shipped photographs.
        output: where a bundle of the choice is written; None writes none.

    Returns:
        `frontier`: portfolios of 1 … `top` networks, the cheapest first, each better than all cheaper
        ones; `choice`: the one of them that is worth its networks; `selection`: why, judged as
        `choose_portfolio` does; `fusion`: how they are fused, and why; `compared`: the choice beside the best
        by PSNR and the best of each family;
        `correlation` of the errors of the best networks alone; `untrained`: what would add most,
        with the error of that prediction, None where there is no search behind it. PSNR in dB on the
        validation images of the trials, without self-ensemble but for `ensemble`; GMACs at 120×120 LR pixels.

    Raises:
        JournalError: there is no such run.
        TrialError: it has delivered nothing yet, no networks keep the limits, or a bundle is asked for
            without guests.
        DataError: a guest cannot be used, or the pairs are others than the run's.
        BundleError: the bundle cannot be written.
    """
    run, allowance = run.absolute(), allowance or Allowance()
    if output is not None and not guests:
        raise TrialError(
            f"{output}: a bundle is written of networks from elsewhere, but none is named by --with; "
            "`gpnas export` writes one of the run's own"
        )
    with one_core(), Journal.read(run) as journal, journal.moment():
        search = journal.header.search
        own, delivery = finished_candidates(run, journal), journal.result("delivery")
        observations, every = journal.observations(), journal.candidates()
        together = _together(run, journal, own, guests, data)
        candidates, gram, costs = together.candidates, together.gram, together.costs
        count = min(top or (search.portfolio if search else len(candidates)), len(candidates))
        chosen = choose_portfolio(
            *(run, journal, candidates, count, allowance, together.pairs), outside=together.outside
        )
        if output is not None:
            assert delivery is not None
            write_portfolio(journal, chosen, delivery, output, company=together.company)
        found = frontier(
            gram, costs[:, 0], count, convex=True, share=LEAST_SHARE, limits=allowance.limits(costs)
        )
        members = [candidates.index(member) for member in chosen.portfolio.members]
        choice = Choice(tuple(members), chosen.portfolio.weights, chosen.portfolio.value)
        order = np.argsort(-together.alone, kind="stable").tolist()
        ways = [("chosen", choice)]
        ways += [(way, _weighed(gram, members)) for way, members in _ways(order, candidates, count)]
        return {
            "run": str(run),
            "images": len(gram),
            "networks": len(candidates),
            "guests": [] if together.company is None else together.company.to_json(),
            "bundle": None if output is None else str(output),
            "frontier": [together.described(each) for _, each in found],
            "choice": together.described(choice) | {"ensemble": chosen.ensemble},
            "selection": chosen.to_json(),
            "fusion": fusion_of_choice(chosen, delivery or {}),
            "compared": [
                {"way": way, "plain_psnr": float(ensemble_psnr(gram, [sorted(each.members)])[0])}
                | together.described(each)
                for way, each in ways
            ],
            "correlation": together.correlation(order[:SHOWN]),
            "untrained": None
            if search is None
            else _untrained(journal, every, observations, own, gram[:, : len(own), : len(own)], count),
        }


@dataclass(frozen=True, eq=False)
class _Together:
    """Networks that may be averaged, with all that decides of them."""

    candidates: Sequence[Candidate]
    gram: Floats  # (I, n, n)
    costs: Floats  # (n, 2), GMACs and parameters
    company: Company | None
    pairs: PairSet | None = None
    """The images on which a company was measured."""
    outside: Outside | None = None
    """What no journal holds; None without a company."""

    @property
    def alone(self) -> Floats:  # (n,)
        """PSNR in dB of each."""
        return ensemble_psnr(self.gram, np.arange(len(self.candidates))[:, None])

    def described(self, portfolio: Choice) -> dict[str, Any]:
        members = [self.candidates[place] for place in portfolio.members]
        spent = self.costs[list(portfolio.members)].sum(axis=0)
        return {
            "members": [member.id for member in members],
            "architectures": [member.architecture.to_json() for member in members],
            "weights": list(portfolio.weights),
            "psnr": portfolio.psnr,
            "gmacs": float(spent[0]),
            "parameters": int(spent[1]),
        }

    def correlation(self, places: Sequence[int]) -> dict[str, Any]:
        """How the errors of some correlate."""
        shown = list(places)
        return {
            "candidates": [self.candidates[place].id for place in shown],
            "psnr": self.alone[shown].tolist(),
            "matrix": correlations(self.gram)[shown][:, shown].tolist(),
        }


def _together(
    run: Path, journal: Journal, own: Sequence[Candidate], guests: Sequence[str], data: Path | None
) -> _Together:
    """The run's networks and those that no trial trained, measured on the same images."""
    setup = Setup.of(journal)
    costs = Allowance().costs(own, setup.scale)
    if not guests:
        return _Together(own, products_of(run, own), costs, None)
    from gpnas.results.guests import costs_of, measured, read_guests
    from gpnas.results.picture import validation_pairs

    pairs = validation_pairs(setup, data).head(setup.validation_images)
    company = measured(run, own, read_guests(guests, pairs), pairs)
    costs = np.concatenate([costs, costs_of(company.guests)])
    networks = {each.candidate.id: each.network for each in company.guests}
    outside = Outside(company.gram, costs, networks)
    every = [*own, *(each.candidate for each in company.guests)]
    return _Together(every, company.gram, costs, company, pairs, outside)


def _ways(
    order: Sequence[int], candidates: Sequence[Candidate], count: int
) -> Iterator[tuple[str, list[int]]]:
    """What a choice is compared with, by name; `order` has the best alone first."""
    yield "best by PSNR", list(order[:count])
    first: dict[str, int] = {}
    for place in order:
        first.setdefault(candidates[place].architecture.family, place)
    if len(first) > 1:
        yield "best of each family", list(first.values())[:count]


def _weighed(gram: Floats, members: Sequence[int]) -> Choice:
    own = gram[:, list(members)][:, :, list(members)]
    found = choose(own, len(members), convex=True, least=LEAST_SHARE / len(members))
    return Choice(tuple(members[place] for place in found.members), found.weights, found.psnr)


def _untrained(
    journal: Journal,
    every: Sequence[Candidate],
    observations: Sequence[Any],
    candidates: Sequence[Candidate],
    gram: Floats,
    count: int,
) -> dict[str, Any]:
    """The untrained architectures that are expected to add most to a plain average of `count`."""
    space = searched_space(journal)
    engine = engine_for(space, journal.header)
    engine.replay(list(every), list(observations))
    own = torch.tensor([space.index(each.architecture) for each in candidates])
    belief = engine.belief()
    mean, stddev = belief.mean, belief.stddev
    free = torch.ones(len(mean), dtype=torch.bool)
    free[[space.index(each.architecture) for each in every]] = False
    indices = free.nonzero()[:, 0]
    columns, features = engine.surrogate.columns, engine.features()
    measured = torch.from_numpy(correlations(gram))
    psnr = torch.from_numpy(ensemble_psnr(gram, np.arange(len(own))[:, None]))
    off, guess = leave_one_out(features[own], measured, columns, psnr)
    document: dict[str, Any] = {
        "architectures": int(free.sum()),
        "leave_one_out": {
            "networks": len(own),
            "rmse": None if math.isnan(off) else off,
            "mean_correlation_rmse": None if math.isnan(guess) else guess,
        },
        "rows": [],
    }
    if not len(indices):
        return document
    promise = mean[indices] + 2 * stddev[indices]
    indices = indices[promise.argsort(descending=True, stable=True)[:PROMISING]]
    disagreement = Disagreement.fitted(features[own], overlaps(measured, psnr), columns)
    cross = disagreement(features[indices], features[own], columns)
    gain = log_portfolio_improvement(
        mean[indices],
        stddev[indices],
        psnr,
        measured,
        cross,
        count,
        uncertainty=disagreement.stddev,
    ).exp()
    expected = correlations_from(cross, mean[indices], psnr)
    for place in gain.argsort(descending=True, stable=True)[:SHOWN].tolist():
        index = int(indices[place])
        document["rows"].append(
            {
                "architecture": space[index].to_json(),
                "gain": float(gain[place]),
                "predicted": float(mean[index]),
                "stddev": float(stddev[index]),
                "correlation": float(expected[place].mean()),
            }
        )
    return document
