"""What a search or a final training delivers: the ranking, the portfolio of the best average, its bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from gpnas.errors import JournalError, TrialError
from gpnas.fusing import FEWEST
from gpnas.journal import Journal
from gpnas.portfolio import Floats, correlations
from gpnas.records import Candidate, Observation, Portfolio
from gpnas.results.choosing import Chosen, choose_portfolio
from gpnas.results.exporting import write_portfolio
from gpnas.results.fusing import CONVEX, Fused, fused_by, outputs_on
from gpnas.results.networks import NetworkError, trained_network
from gpnas.run.layout import candidate_folder
from gpnas.run.products import products_of
from gpnas.run.residuals import ERRORS_FILE, ResidualError, write_errors
from gpnas.run.setup import Setup
from gpnas.run.storage import Storage, storage_of
from gpnas_trainers.cost import parameters
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import PairSet, bicubic_upscale

if TYPE_CHECKING:
    from gpnas.diagnostics import Diagnostics
    from gpnas.engine import Engine

MATRIX = 16
"""Networks of the ranking whose errors are compared in the document."""


@dataclass(frozen=True)
class Ranked:
    """One trained architecture of the final table."""

    candidate: Candidate
    observed: float
    """Validation PSNR in dB."""
    predicted: float | None
    """Posterior mean in dB, given all observations; None in a final training."""
    stddev: float | None
    """Posterior standard deviation in dB; None in a final training."""
    ssim: float
    parameters: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.candidate.id,
            "architecture": self.candidate.architecture.to_json(),
            "psnr": self.observed,
            "predicted": self.predicted,
            "stddev": self.stddev,
            "ssim": self.ssim,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Delivery:
    """A finished search or final training."""

    run: Path
    seconds: float
    """Wall time of this command."""
    observations: Sequence[Observation]
    """Those of the candidates that were to be delivered."""
    ranking: tuple[Ranked, ...]
    """Those trained to the end, best first: by posterior mean in a search, else by PSNR."""
    unusable: Mapping[str, str]
    """Name of each candidate whose network cannot be used, and why."""
    chosen: Chosen
    bicubic: float
    """PSNR in dB of bicubic upsampling on the same images."""
    gram: Floats
    """Mean products of the residuals of the first networks of the ranking, per image."""
    fused: Fused
    """How the portfolio's networks are fused, and why so."""
    diagnostics: Diagnostics | None
    """How far the predictions of the ranking can be trusted; None in a final training."""

    @property
    def portfolio(self) -> Portfolio:
        return self.chosen.portfolio

    @property
    def bundle(self) -> Path:
        return self.run / "bundle"

    @property
    def best(self) -> Ranked:
        """The network that is best alone on the validation images."""
        return max(self.ranking, key=lambda ranked: ranked.observed)

    @property
    def compared(self) -> list[Ranked]:
        """The networks that `gram` is of."""
        return [each for each in self.ranking if each.candidate.id not in self.unusable][:MATRIX]

    def to_json(self) -> dict[str, Any]:
        members, weights = self.portfolio.members, self.portfolio.weights
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "trials": {
                "observed": len(self.observations),
                "failed": sum(each.failed for each in self.observations),
                "stopped": sum(each.stopped is not None for each in self.observations),
            },
            "best": {
                "id": self.best.candidate.id,
                "architecture": self.best.candidate.architecture.to_json(),
                "psnr": self.best.observed,
            },
            "portfolio": [member.architecture.to_json() for member in members],
            "weights": list(weights),
            "shares": {member.id: weight for member, weight in zip(members, weights, strict=True)},
            "selection": self.chosen.to_json(),
            "fusion": self.fused.to_json(),
            "unusable": dict(self.unusable),
            "psnr": {
                "bicubic": self.bicubic,
                "best": self.best.observed,
                "average": self.portfolio.value,
                "ensemble": self.chosen.ensemble,
            },
            "bundle": str(self.bundle),
            "images": len(self.gram),
            "diagnostics": None if self.diagnostics is None else self.diagnostics.to_json(),
            "ranking": [ranked.to_json() for ranked in self.ranking],
            "candidates": [ranked.candidate.id for ranked in self.compared],
            "gram": self.gram.mean(axis=0).tolist(),
            "correlation": correlations(self.gram).tolist(),
        }


def deliver(
    run: Path,
    journal: Journal,
    validation: PairSet,
    most: int,
    begun: float,
    *,
    engine: Engine | None = None,
    names: Sequence[str] | None = None,
) -> Delivery:
    """Ranks what was trained, chooses the portfolio by its average, and writes its bundle.

    Networks that cannot be used are left out, and named in the delivery.

    Args:
        run: the run folder.
        journal: with every observation, open for writing.
        validation: the pairs that the trials were judged by.
        most: how many members the portfolio may have.
        begun: `time.monotonic()` when the command began.
        engine: of a search, which has seen the observations.
        names: of the candidates to choose from; None: all.

    Raises:
        TrialError: no training succeeded, or no network can be used.
        JournalError: an observation lacks what a training reports.
        BundleError: the bundle cannot be written.
    """
    observations = [each for each in journal.observations() if names is None or each.candidate.id in names]
    for each in observations:
        if each.finished and "ssim" not in each.metrics:
            raise JournalError(
                f"{run}: an observation must have `ssim` among its metrics, but that of {each.candidate.id} "
                "has not; somebody has changed the journal: copy it back"
            )
    ranking = rank(observations, validation.scale, engine)
    if not ranking:
        reasons = "; ".join(sorted({observation.failure or "" for observation in observations}))
        raise TrialError(f"at least one trial must succeed, but all {len(observations)} failed: {reasons}")
    candidates = [ranked.candidate for ranked in ranking]
    chosen, unusable = _chosen(run, journal, candidates, most, validation)
    diagnostics = None
    if engine is not None:
        from gpnas.diagnostics import diagnose

        diagnostics = diagnose(engine.surrogate)
    usable = [each for each in candidates if each.id not in unusable]
    delivery = Delivery(
        run=run,
        seconds=time.monotonic() - begun,
        observations=observations,
        ranking=tuple(ranking),
        unusable=unusable,
        chosen=chosen,
        bicubic=bicubic_psnr(validation),
        gram=products_of(run, usable[:MATRIX]),
        fused=_fused(storage_of(journal), chosen, validation, journal.header.seed),
        diagnostics=diagnostics,
    )
    document = delivery.to_json()
    seen = validation if Setup.of(journal).data.is_shipped else None
    write_portfolio(journal, chosen, document, delivery.bundle, seen=seen, fusion=delivery.fused.stored)
    journal.set_result("delivery", document)
    return delivery


def _chosen(
    run: Path, journal: Journal, candidates: Sequence[Candidate], most: int, validation: PairSet
) -> tuple[Chosen, dict[str, str]]:
    """The choice among the candidates whose networks can be used, and why the others cannot."""
    storage, unusable, remade = storage_of(journal), dict[str, str](), set[str]()
    while usable := [each for each in candidates if each.id not in unusable]:
        try:
            for each in usable:
                if not storage.exists(f"{candidate_folder(each)}/{ERRORS_FILE}"):
                    restore_errors(storage, each, validation)
            chosen = choose_portfolio(run, journal, usable, most, validation=validation)
            for each in chosen.portfolio.members:
                trained_network(storage, each, validation.scale)
            return chosen, unusable
        except NetworkError as error:
            unusable[error.candidate.id] = str(error)
        except ResidualError as error:
            (damaged,) = (e for e in usable if e.id == PurePosixPath(error.file).parent.name)
            if damaged.id in remade:
                unusable[damaged.id] = str(error)
                continue
            remade.add(damaged.id)
            try:
                restore_errors(storage, damaged, validation)
            except NetworkError as of_network:
                unusable[damaged.id] = str(of_network)
    raise TrialError("at least one network must be usable, but " + "; ".join(unusable.values()))


def _fused(storage: Storage, chosen: Chosen, validation: PairSet, seed: int) -> Fused:
    """How the members of a portfolio are fused."""
    members = chosen.portfolio.members
    if len(members) == 1 or len(validation) < FEWEST:
        return Fused(CONVEX, None, (), len(validation))
    networks = [trained_network(storage, each, validation.scale) for each in members]
    return fused_by(outputs_on(networks, validation), validation.scale, seed)


def restore_errors(storage: Storage, candidate: Candidate, validation: PairSet) -> None:
    """Makes anew, from a trained network's weights, what products of its residuals need.

    Raises:
        NetworkError: the weights are missing or damaged.
    """
    network = trained_network(storage, candidate, validation.scale)
    write_errors(storage, candidate_folder(candidate), network, validation)


def rank(observations: Sequence[Observation], scale: int, engine: Engine | None = None) -> list[Ranked]:
    """Every architecture that was trained to the end, best first.

    In a search the posterior mean ranks, rather than the observation, since a replicate's luck is not an
    architecture's merit.

    Args:
        observations: of candidates.
        scale: of the networks.
        engine: of a search, which has seen the observations.
    """
    finished = [observation for observation in observations if observation.finished]
    belief = engine.belief() if engine is not None and finished else None
    ranking = []
    for observation in finished:
        assert observation.value is not None
        architecture = observation.candidate.architecture
        predicted = stddev = None
        if engine is not None and belief is not None:
            index = engine.space.index(architecture)
            predicted, stddev = float(belief.mean[index]), float(belief.stddev[index])
        ranking.append(
            Ranked(
                candidate=observation.candidate,
                observed=observation.value,
                predicted=predicted,
                stddev=stddev,
                ssim=observation.metrics["ssim"],
                parameters=parameters(architecture.family, scale, **architecture.axes),
                seconds=observation.seconds,
            )
        )
    return sorted(
        ranking,
        key=lambda each: (-(each.observed if each.predicted is None else each.predicted), each.candidate.id),
    )


def bicubic_psnr(pairs: PairSet) -> float:
    """Mean PSNR in dB of bicubic upsampling over the pairs, RGB, without border."""
    images = map(pairs.tensors, range(len(pairs)))
    values = [psnr(bicubic_upscale(lr, pairs.scale), hr) for lr, hr in images]
    return sum(values) / len(values)
