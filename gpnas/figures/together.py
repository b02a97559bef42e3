"""Which trained networks of a run belong together, from the products of their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpnas.figures.data import Together
from gpnas.journal import Journal
from gpnas.portfolio import correlations, ensemble_psnr, frontier
from gpnas.results.choosing import LEAST_SHARE, Allowance, finished_candidates
from gpnas.run.products import products_of
from gpnas.run.setup import Setup

SHOWN = 10
"""Networks of the matrix of correlations."""
MOST = 60
"""Networks among which portfolios are sought: the best alone."""


def together_of(run: Path) -> Together:
    """What a delivered run's networks are worth together.

    Raises:
        JournalError: there is no such run.
        TrialError: it has delivered nothing yet, or what networks left behind is missing or damaged.
    """
    with Journal.read(run) as journal, journal.moment():
        candidates = finished_candidates(run, journal)
        delivery, scale = journal.result("delivery") or {}, Setup.of(journal).scale
    candidates = [each for each in candidates if each.id not in delivery["unusable"]]
    shares = {str(name): float(weight) for name, weight in delivery["shares"].items()}
    gram = products_of(run.absolute(), candidates)
    alone = ensemble_psnr(gram, np.arange(len(candidates))[:, None])
    order = np.argsort(-alone, kind="stable").tolist()
    kept = sorted(order[:MOST])
    costs = Allowance().costs([candidates[place] for place in kept], scale)
    size = max(1, min(len(shares), len(kept)))
    found = frontier(gram[:, kept][:, :, kept], costs[:, 0], size, convex=True, share=LEAST_SHARE)
    names = [candidates[place].id for place in kept]
    best = order[:SHOWN]
    return Together(
        names=tuple(candidates[place].id for place in best),
        psnr=tuple(float(alone[place]) for place in best),
        correlation=tuple(map(tuple, correlations(gram)[best][:, best].tolist())),
        frontier=tuple(
            (tuple(names[place] for place in each.members), spent, each.psnr) for spent, each in found
        ),
        members=tuple(shares),
        weights=tuple(shares.values()),
        delivered=float(delivery["psnr"]["average"]),
    )
