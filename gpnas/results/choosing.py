"""Which networks of a run are averaged: judged as they will be used, and no more of them than help."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpnas.errors import JournalError, TrialError
from gpnas.journal import Journal
from gpnas.portfolio import Floats, Limits, choose, ensemble_psnr
from gpnas.records import Candidate, Portfolio
from gpnas.results.networks import trained_network
from gpnas.run.pricing import costs_of
from gpnas.run.products import products_of
from gpnas.run.setup import Setup
from gpnas.run.storage import storage_of
from gpnas.selection import Selection, contenders, select
from gpnas_trainers import check

if TYPE_CHECKING:
    from torch import nn

    from gpnas_trainers.pairs import PairSet

LEAST_SHARE = 0.1
"""Least weight of a portfolio's member, relative to an equal share."""
JUDGED = "ensemble"
"""Name of the journal's result that keeps products of residuals with self-ensemble."""


@dataclass(frozen=True)
class Allowance:
    """What the members of a portfolio may cost together, when images are upscaled."""

    gmacs: float = math.inf
    """GMACs of one forward pass of all at 120×120 LR pixels."""
    parameters: float = math.inf

    def costs(self, candidates: Sequence[Candidate], scale: int) -> Floats:  # (n, 2)
        """GMACs and parameters of each candidate's network."""
        counted = [costs_of(each.architecture, scale) for each in candidates]
        return np.array([(gmacs, parameters) for parameters, gmacs in counted], np.float64)

    def limits(self, costs: Floats) -> Limits | None:
        """None where everything is allowed."""
        if math.inf == self.gmacs == self.parameters:
            return None
        return Limits(costs, np.array([self.gmacs, self.parameters]))


@dataclass(frozen=True, eq=False)
class Outside:
    """What is known of candidates among which are networks that no trial trained."""

    gram: Floats  # (I, n, n)
    """Mean products of the residuals of all candidates, in their order."""
    costs: Floats  # (n, 2)
    """GMACs and parameters of all."""
    networks: Mapping[str, nn.Module]
    """Those that no trial trained, by name, with their weights."""


@dataclass(frozen=True)
class Chosen:
    """A portfolio, and why it is that one."""

    portfolio: Portfolio
    most: int
    """How many networks it might have had."""
    ensemble: float | None
    """PSNR in dB with self-ensemble on the validation images, by which it was chosen; None where it was
    chosen without."""
    selection: Selection
    judged: tuple[Candidate, ...]
    """The candidates that the selection's indices name."""

    @property
    def left_out(self) -> list[str]:
        """A line for each larger portfolio that gains nothing beyond its uncertainty."""
        images = self.selection.images
        over_images = f"cross-validated over {images} images" if images > 1 else "on a single image"
        how = "with self-ensemble" if self.ensemble is not None else "without self-ensemble"
        own, lines = {member.id for member in self.portfolio.members}, []
        for each in self.selection.compared:
            added = ", ".join(sorted(self._ids(each.members) - own))
            if added and not each.accepted:
                error = "" if each.error is None else f" ± {each.error:.4f}"
                lines.append(
                    f"{added} left out: {len(each.members)} networks instead of {len(each.over)} would "
                    f"change PSNR by {each.gain:+.4f}{error} dB ({how}, {over_images})"
                    + ("" if each.eligible else "; nor is there a gain without self-ensemble")
                )
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "at_most": self.most,
            "self_ensemble": self.ensemble is not None,
            "images": self.selection.images,
            "compared": [
                {
                    "networks": sorted(self._ids(each.members)),
                    "psnr": each.psnr,
                    "over": sorted(self._ids(each.over)),
                    "gain": each.gain,
                    "error": each.error,
                    "eligible": each.eligible,
                    "accepted": each.accepted,
                }
                for each in self.selection.compared
            ],
            "left_out": self.left_out,
        }

    def _ids(self, members: Sequence[int]) -> set[str]:
        return {self.judged[place].id for place in members}


def most_networks(run: Path, journal: Journal, count: int, top: int | None) -> int:
    """How many of `count` networks a portfolio may have: as many as asked for, or as the run has it.

    Raises:
        TrialError: more are asked for than there are.
    """
    if top is not None and top > count:
        raise TrialError(f"{run}: `--top` must be at most the {count} networks, but got {top}")
    search = journal.header.search
    return top or (search.portfolio if search else count)


def finished_candidates(run: Path, journal: Journal) -> list[Candidate]:
    """The candidates among which a delivered run chose its portfolio.

    Raises:
        TrialError: it has delivered nothing yet, or no network of it can be used.
        JournalError: a candidate is no network that can be built.
    """
    scale = Setup.of(journal).scale
    delivery = journal.result("delivery")
    if delivery is None:
        raise TrialError(
            f"{run}: a search must be finished before its portfolio is chosen; run `gpnas search` again, "
            f"with `--trials {max(1, len(journal.observations()))}` where what is observed is enough"
        )
    trained = {row["id"] for row in delivery["ranking"]} - set(delivery["unusable"])
    candidates = [candidate for candidate in journal.candidates() if candidate.id in trained]
    for candidate in candidates:
        try:
            check(candidate.architecture.family, scale, **candidate.architecture.axes)
        except (TypeError, ValueError) as error:
            raise JournalError(
                f"{run}: {candidate.id} must be a network that can be built, but {error}"
            ) from None
    if not candidates:
        raise TrialError(f"{run}: a delivered run must have a network that can be used, but has none")
    return candidates


def choose_portfolio(
    run: Path,
    journal: Journal,
    candidates: Sequence[Candidate],
    most: int,
    allowance: Allowance | None = None,
    validation: PairSet | None = None,
    *,
    outside: Outside | None = None,
) -> Chosen:
    """The portfolio of at most so many trained candidates that is worth its networks.

    Portfolios that are nearly the best without self-ensemble are judged with it, as `gpnas upscale` uses them
    unless told otherwise.

    Args:
        run: the run folder.
        journal: of the run; where `validation` is given, open for writing.
        candidates: to choose from, each trained to the end.
        most: networks at most.
        allowance: what they may cost together.
        validation: the pairs that they were validated by; None: what an earlier choice measured is used, and
            where that lacks a network, the portfolios are judged without self-ensemble.
        outside: what no journal holds, where networks that no trial trained are among the candidates.

    Raises:
        TrialError: residuals or weights are missing or damaged, or no network keeps the limits.
    """
    allowance, most = allowance or Allowance(), min(most, len(candidates))
    if outside is None:
        costs = allowance.costs(candidates, Setup.of(journal).scale)
        gram = products_of(run, candidates)
    else:
        gram, costs = outside.gram, outside.costs
    try:
        near = contenders(gram, costs[:, 0], most, LEAST_SHARE, allowance.limits(costs))
    except ValueError as error:
        raise TrialError(f"{run}: {error}") from None
    others = [
        _best_of(gram, size, allowance.limits(costs))
        for size in range(1, most + 1)
        if size not in {len(each) for each in near}
    ]
    others = [each for each in others if each]
    places = sorted({place for each in (*near, *others) for place in each})
    shortlist = tuple(candidates[place] for place in places)
    judged = _judged(journal, shortlist, validation, {} if outside is None else outside.networks)
    own = gram[:, places][:, :, places]
    near, others = (
        [tuple(places.index(place) for place in each) for each in some] for some in (near, others)
    )
    selection = select(own if judged is None else judged, near, costs[places, 0], LEAST_SHARE, others)
    members, weights = selection.choice.members, selection.choice.weights
    portfolio = Portfolio(
        tuple(shortlist[place] for place in members),
        weights,
        float(ensemble_psnr(own, [members], [weights])[0]),
    )
    return Chosen(portfolio, most, None if judged is None else selection.choice.psnr, selection, shortlist)


def _best_of(gram: Floats, size: int, limits: Limits | None) -> tuple[int, ...]:
    """The best portfolio of a size; empty where none keeps the limits."""
    try:
        return choose(gram, size, convex=True, least=LEAST_SHARE / size, limits=limits).members
    except ValueError:
        return ()


def _judged(
    journal: Journal,
    candidates: Sequence[Candidate],
    validation: PairSet | None,
    outside: Mapping[str, nn.Module],
) -> Floats | None:  # (I, n, n)
    """Mean products of the networks' residuals with self-ensemble.

    Those of a run's own networks are kept in the journal, so that neither a finished search nor a later
    choice computes them again.
    """
    kept = journal.result(JUDGED) or {"candidates": [], "products": []}
    ids = [each.id for each in candidates]
    if set(ids) <= set(kept["candidates"]):
        places = [kept["candidates"].index(each) for each in ids]
        return np.array(kept["products"], np.float64)[:, places][:, :, places]
    if validation is None:
        return None
    from gpnas_trainers.infer import Levels, upscale

    storage, scale = storage_of(journal), validation.scale
    networks = [
        outside[each.id] if each.id in outside else trained_network(storage, each, scale)
        for each in candidates
    ]
    products = np.empty((len(validation), len(ids), len(ids)))
    for index in range(len(validation)):
        lr, hr = validation.tensors(index)
        rows = np.stack(
            [(upscale([each], lr, scale, Levels(tile=0)) - hr).double().numpy().ravel() for each in networks]
        )
        products[index] = rows @ rows.T / rows.shape[1]
    if not outside:
        journal.set_result(JUDGED, {"candidates": ids, "products": products.tolist()})
    return products
