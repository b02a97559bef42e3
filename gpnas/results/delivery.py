"""What a search delivers: the ranking, the portfolio of the best average, and its bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from gpnas.bundle import Member, write_bundle
from gpnas.diagnostics import Diagnostics, diagnose
from gpnas.engine import Engine
from gpnas.errors import TrialError
from gpnas.journal import Journal
from gpnas.portfolio import Limits, choose, correlations
from gpnas.records import Candidate, Observation, Portfolio
from gpnas.results.picture import make_picture, validation_pairs
from gpnas.run.layout import NETWORK_FILE, candidate_folder
from gpnas.run.pricing import TILE
from gpnas.run.products import products_of
from gpnas.run.residuals import errors_name, write_errors
from gpnas.run.setup import Setup
from gpnas.run.storage import Storage, storage_of
from gpnas_trainers import build
from gpnas_trainers.cost import gmacs, parameters
from gpnas_trainers.infer import upscale
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import PairSet, bicubic_upscale

LEAST_SHARE = 0.1
"""Least weight of a portfolio's member, relative to an equal share."""


@dataclass(frozen=True)
class Ranked:
    """One trained architecture of the final table."""

    candidate: Candidate
    observed: float
    """Validation PSNR in dB."""
    predicted: float
    """Posterior mean in dB, given all observations."""
    stddev: float
    """Posterior standard deviation in dB."""
    ssim: float
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Delivery:
    """A finished search."""

    run: Path
    seconds: float
    """Wall time of this command."""
    observed: int
    failed: int
    stopped: int
    """Ended before their last step, since they would hardly have mattered."""
    ranking: tuple[Ranked, ...]
    """Those trained to the end, by posterior mean, best first."""
    portfolio: Portfolio
    bicubic: float
    """PSNR in dB of bicubic upsampling on the same images."""
    ensemble: float
    """PSNR in dB of the portfolio on the same images with both the average of its networks and that
    of eight flips and transposes."""
    bundle: Path
    diagnostics: Diagnostics
    """How far the predictions of the ranking can be trusted."""

    @property
    def best(self) -> Ranked:
        """The network that is best alone on the validation images."""
        return max(self.ranking, key=lambda ranked: ranked.observed)

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "trials": {"observed": self.observed, "failed": self.failed, "stopped": self.stopped},
            "best": {"architecture": self.best.candidate.architecture.to_json(), "psnr": self.best.observed},
            "portfolio": [member.architecture.to_json() for member in self.portfolio.members],
            "weights": list(self.portfolio.weights),
            "psnr": {
                "bicubic": self.bicubic,
                "best": self.best.observed,
                "average": self.portfolio.value,
                "ensemble": self.ensemble,
            },
            "bundle": str(self.bundle),
            "diagnostics": self.diagnostics.to_json(),
            "ranking": [
                {
                    "id": ranked.candidate.id,
                    "architecture": ranked.candidate.architecture.to_json(),
                    "psnr": ranked.observed,
                    "predicted": ranked.predicted,
                    "stddev": ranked.stddev,
                    "ssim": ranked.ssim,
                    "parameters": ranked.parameters,
                    "seconds": ranked.seconds,
                }
                for ranked in self.ranking
            ],
        }


def deliver(
    run: Path, journal: Journal, engine: Engine, validation: PairSet, size: int, begun: float
) -> Delivery:
    """Ranks what was trained, chooses the portfolio by its average, and writes its bundle.

    Args:
        run: the run folder.
        journal: with every observation.
        engine: that has seen them.
        validation: the pairs that the trials were judged by.
        size: how many members the portfolio shall have.
        begun: `time.monotonic()` when the command began.

    Raises:
        TrialError: no trial succeeded, or what one left behind is damaged.
        BundleError: the bundle cannot be written.
    """
    observations = journal.observations()
    ranking = rank(engine, observations)
    if not ranking:
        reasons = "; ".join(sorted({observation.failure or "" for observation in observations}))
        raise TrialError(f"at least one trial must succeed, but all {len(observations)} failed: {reasons}")
    storage = storage_of(journal)
    restore_errors(storage, [ranked.candidate for ranked in ranking], validation)
    portfolio = choose_portfolio(run, [ranked.candidate for ranked in ranking], size, validation.scale)
    delivery = Delivery(
        run=run,
        seconds=time.monotonic() - begun,
        observed=len(observations),
        failed=sum(observation.failed for observation in observations),
        stopped=sum(observation.stopped is not None for observation in observations),
        ranking=tuple(ranking),
        portfolio=portfolio,
        bicubic=bicubic_psnr(validation),
        ensemble=ensemble_psnr(storage, journal, portfolio, validation),
        bundle=run / "bundle",
        diagnostics=diagnose(engine.surrogate),
    )
    seen = validation if Setup.of(journal).data.is_shipped else None
    write_portfolio(storage, journal, delivery.portfolio, delivery.to_json(), delivery.bundle, seen=seen)
    journal.set_result("delivery", delivery.to_json())
    return delivery


def deliver_networks(
    run: Path, journal: Journal, names: Sequence[str], validation: PairSet, begun: float
) -> dict[str, Any]:
    """Weighs the average of all networks of a final training, and writes its bundle.

    Args:
        run: its folder.
        journal: with every observation.
        names: of the candidates that the average is to have.
        validation: the pairs that the trials were judged by.
        begun: `time.monotonic()` when the command began.

    Returns:
        A JSON document, which the journal keeps too.

    Raises:
        TrialError: no training succeeded, or what one left behind is damaged.
        BundleError: the bundle cannot be written.
    """
    observations = [each for each in journal.observations() if each.candidate.id in set(names)]
    finished = [each for each in observations if each.finished]
    if not finished:
        reasons = "; ".join(sorted({each.failure or "" for each in observations}))
        raise TrialError(f"at least one training must succeed, but all {len(observations)} failed: {reasons}")
    candidates = [each.candidate for each in finished]
    storage = storage_of(journal)
    restore_errors(storage, candidates, validation)
    gram = products_of(run, candidates)
    portfolio = choose_portfolio(run, candidates, len(candidates), validation.scale)
    best = max(finished, key=lambda each: each.value or 0.0)
    document = {
        "run": str(run),
        "seconds": time.monotonic() - begun,
        "trials": {"observed": len(observations), "failed": len(observations) - len(finished)},
        "best": {"architecture": best.candidate.architecture.to_json(), "psnr": best.value},
        "portfolio": [member.architecture.to_json() for member in portfolio.members],
        "weights": list(portfolio.weights),
        "shares": {each.id: share for each, share in zip(portfolio.members, portfolio.weights, strict=True)},
        "psnr": {"bicubic": bicubic_psnr(validation), "best": best.value, "average": portfolio.value},
        "bundle": str(run / "bundle"),
        "images": len(validation),
        "candidates": [candidate.id for candidate in candidates],
        "gram": gram.mean(dim=0).tolist(),
        "correlation": correlations(gram).tolist(),
        "ranking": [
            {
                "id": each.candidate.id,
                "architecture": each.candidate.architecture.to_json(),
                "psnr": each.value,
                "ssim": each.metrics["ssim"],
                "parameters": parameters(
                    each.candidate.architecture.family, validation.scale, **each.candidate.architecture.axes
                ),
                "seconds": each.seconds,
            }
            for each in sorted(finished, key=lambda each: -(each.value or 0.0))
        ],
    }
    seen = validation if Setup.of(journal).data.is_shipped else None
    write_portfolio(storage, journal, portfolio, document, run / "bundle", seen=seen)
    journal.set_result("delivery", document)
    return document


def ensemble_psnr(storage: Storage, journal: Journal, portfolio: Portfolio, pairs: PairSet) -> float:
    """Mean PSNR in dB of a portfolio's networks, averaged with each other and over eight transforms.

    Kept in the journal, so that a finished search does not compute it again.
    """
    key = [[member.id, weight] for member, weight in zip(portfolio.members, portfolio.weights, strict=True)]
    kept = journal.result("ensemble")
    if kept is not None and kept["portfolio"] == key:
        return float(kept["psnr"])
    networks = []
    for member in portfolio.members:
        network = build(member.architecture.family, pairs.scale, **member.architecture.axes)
        network.load_state_dict(trained_weights(storage, member))
        networks.append(network)
    values = []
    for index in range(len(pairs)):
        lr, hr = pairs.tensors(index)
        values.append(psnr(upscale(networks, lr, pairs.scale, tile=0, weights=portfolio.weights), hr))
    mean = sum(values) / len(values)
    journal.set_result("ensemble", {"portfolio": key, "psnr": mean})
    return mean


def trained_weights(storage: Storage, candidate: Candidate) -> dict[str, Tensor]:
    """The state dictionary that a candidate's trial left behind.

    Raises:
        TrialError: it is missing or damaged.
    """
    name = f"{candidate_folder(candidate)}/{NETWORK_FILE}"
    try:
        state: dict[str, Tensor] = load(storage.read(name))
    except (OSError, SafetensorError) as error:
        raise TrialError(
            f"{storage.uri}/{name}: a trained network's weights must be readable, but {error}"
        ) from None
    return state


def restore_errors(storage: Storage, candidates: Sequence[Candidate], validation: PairSet) -> None:
    """Makes anew, from the weights, what is missing of what products of residuals need.

    Args:
        storage: of the run.
        candidates: each trained to the end.
        validation: the pairs that they were judged by.

    Raises:
        TrialError: weights are missing or damaged.
    """
    for candidate in candidates:
        folder = candidate_folder(candidate)
        if not storage.exists(errors_name(storage, folder)):
            architecture = candidate.architecture
            network = build(architecture.family, validation.scale, **architecture.axes)
            network.load_state_dict(trained_weights(storage, candidate))
            write_errors(storage, folder, network.eval(), validation)


def export(
    run: Path,
    top: int,
    output: Path,
    *,
    allowance: Allowance | None = None,
    picture: bool | Path = True,
    licence: str | None = None,
    licence_text: str | None = None,
) -> dict[str, Any]:
    """Writes a bundle of the best portfolio of a finished search.

    Args:
        run: its run folder.
        top: how many networks.
        output: a folder, or a file that ends in .zip.
        allowance: what they may cost together.
        picture: whether the model card shows one where the data are the shipped photographs; other
            people's are shown only where their folder is given here.
        licence: of the weights, an SPDX identifier where there is one.
        licence_text: its text; None: that of `licence` where it is known, else none.

    Returns:
        A JSON document: the portfolio's architectures, weights and PSNR in dB, the bundle.

    Raises:
        JournalError: there is no such run.
        TrialError: the search has not finished.
        DataError: the folder of the picture holds other validation images.
        BundleError: the bundle cannot be written.
    """
    run = run.absolute()
    with Journal.read(run) as journal:
        storage = storage_of(journal)
        candidates = finished_candidates(run, journal)
        if top > len(candidates):
            raise TrialError(f"{run}: `--top` must be at most the {len(candidates)} networks, but got {top}")
        setup = Setup.of(journal)
        portfolio = choose_portfolio(run, candidates, top, setup.scale, allowance)
        delivery = journal.result("delivery") or {}
        seen = None
        if isinstance(picture, Path):
            seen = validation_pairs(setup, picture)
        elif picture and setup.data.is_shipped:
            seen = validation_pairs(setup, None)
        write_portfolio(
            storage,
            journal,
            portfolio,
            delivery,
            output,
            seen=seen,
            licence=licence,
            licence_text=licence_text,
        )
    return {
        "portfolio": [member.architecture.to_json() for member in portfolio.members],
        "weights": list(portfolio.weights),
        "psnr": portfolio.value,
        "bundle": str(output),
    }


@dataclass(frozen=True)
class Allowance:
    """What the members of a portfolio may cost together, when images are upscaled."""

    gmacs: float = math.inf
    """Of one forward pass of all at 120×120 LR pixels."""
    parameters: float = math.inf

    def costs(self, candidates: Sequence[Candidate], scale: int) -> Tensor:  # (n, 2)
        """GMACs and parameters of each candidate's network."""
        rows = []
        for each in candidates:
            family, axes = each.architecture.family, each.architecture.axes
            rows.append([gmacs(family, scale, TILE, TILE, **axes), parameters(family, scale, **axes)])
        return torch.tensor(rows, dtype=torch.float64)

    def limits(self, costs: Tensor) -> Limits | None:
        """None where everything is allowed."""
        if math.inf == self.gmacs == self.parameters:
            return None
        return Limits(costs, torch.tensor([self.gmacs, self.parameters], dtype=torch.float64))


def finished_candidates(run: Path, journal: Journal) -> list[Candidate]:
    """The candidates among which a delivered run chose its portfolio.

    Raises:
        TrialError: it has delivered nothing yet.
    """
    delivery = journal.result("delivery")
    if delivery is None:
        raise TrialError(
            f"{run}: a search must be finished before its portfolio is chosen; run `gpnas search` again"
        )
    trained = {row["id"] for row in delivery["ranking"]}
    return [candidate for candidate in journal.candidates() if candidate.id in trained]


def choose_portfolio(
    run: Path, candidates: Sequence[Candidate], size: int, scale: int, allowance: Allowance | None = None
) -> Portfolio:
    """The best average of `size` trained candidates, or of all if there are fewer.

    Raises:
        TrialError: the residuals of one are missing or damaged, or no `size` of them keep the limits.
    """
    allowance = allowance or Allowance()
    size = min(size, len(candidates))
    limits = allowance.limits(allowance.costs(candidates, scale))
    try:
        choice = choose(
            products_of(run, candidates), size, convex=True, least=LEAST_SHARE / size, limits=limits
        )
    except ValueError as error:
        raise TrialError(f"{run}: {error}") from None
    return Portfolio(tuple(candidates[index] for index in choice.members), choice.weights, choice.psnr)


def write_portfolio(
    storage: Storage,
    journal: Journal,
    portfolio: Portfolio,
    delivery: Mapping[str, Any],
    output: Path,
    *,
    seen: PairSet | None = None,
    licence: str | None = None,
    licence_text: str | None = None,
) -> None:
    """Writes a portfolio's bundle, with what the journal tells of it.

    Args:
        storage: where the weights lie.
        journal: of the run.
        portfolio: to write.
        delivery: the search's, as JSON.
        output: the bundle's folder or zip file.
        seen: validation pairs of which the model card shows a part; None: no picture.
        licence, licence_text: as `write_bundle` takes them.

    Raises:
        TrialError: a network's weights are missing or damaged.
        BundleError: the bundle cannot be written.
    """
    rows = {row["id"]: row for row in delivery["ranking"]}
    header, setup = journal.header, Setup.of(journal)
    members = []
    for candidate, weight in zip(portfolio.members, portfolio.weights, strict=True):
        members.append(
            Member(
                architecture=candidate.architecture,
                state=trained_weights(storage, candidate),
                weight=weight,
                metrics={name: rows[candidate.id][name] for name in ("psnr", "ssim")},
                candidate=candidate.id,
            )
        )
    write_bundle(
        output,
        members,
        scale=setup.scale,
        recipe=setup.recipe,
        data=setup.data.to_json(),
        metrics={
            "bicubic": delivery["psnr"]["bicubic"],
            "best": delivery["psnr"]["best"],
            "ensemble": portfolio.value,
        },
        seed=header.seed,
        versions=header.versions,
        machine=header.machine,
        journal=journal.excerpt(member.id for member in portfolio.members),
        licence=licence,
        licence_text=licence_text,
        picture=None if seen is None else make_picture(members, seen),
    )


def rank(engine: Engine, observations: Sequence[Observation]) -> list[Ranked]:
    """Every architecture that was trained to the end, by posterior mean, best first.

    The posterior mean rather than the observation ranks, since a replicate's luck is not an
    architecture's merit.
    """
    finished = [observation for observation in observations if observation.finished]
    if not finished:
        return []
    belief = engine.belief()
    counts = engine.space.costs["parameters"]
    ranking = []
    for observation in finished:
        assert observation.value is not None
        index = engine.space.index(observation.candidate.architecture)
        ranking.append(
            Ranked(
                candidate=observation.candidate,
                observed=observation.value,
                predicted=float(belief.mean[index]),
                stddev=float(belief.stddev[index]),
                ssim=observation.metrics["ssim"],
                parameters=int(counts[index]),
                seconds=observation.seconds,
            )
        )
    return sorted(ranking, key=lambda ranked: (-ranked.predicted, ranked.candidate.id))


def bicubic_psnr(pairs: PairSet) -> float:
    """Mean PSNR in dB of bicubic upsampling over the pairs, RGB, without border."""
    values = []
    for index in range(len(pairs)):
        lr, hr = pairs.tensors(index)
        values.append(psnr(bicubic_upscale(lr, pairs.scale), hr))
    return sum(values) / len(values)
