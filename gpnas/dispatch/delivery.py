"""What a search delivers: the ranking, the portfolio of the best average, and its bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from gpnas.bundle import Member, write_bundle
from gpnas.dispatch.trial import NETWORK_FILE, RESIDUALS_FILE, candidate_folder
from gpnas.engine import Engine
from gpnas.errors import TrialError
from gpnas.journal import Journal
from gpnas.portfolio import choose
from gpnas.records import Candidate, Observation, Portfolio
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import PairSet, bicubic_upscale, open_pairs


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
    ranking: tuple[Ranked, ...]
    """By posterior mean, best first."""
    portfolio: Portfolio
    bicubic: float
    """PSNR in dB of bicubic upsampling on the same images."""
    bundle: Path

    @property
    def best(self) -> Ranked:
        """The network that is best alone on the validation images."""
        return max(self.ranking, key=lambda ranked: ranked.observed)

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "trials": {"observed": self.observed, "failed": self.failed},
            "best": {"architecture": self.best.candidate.architecture.to_json(), "psnr": self.best.observed},
            "portfolio": [member.architecture.to_json() for member in self.portfolio.members],
            "psnr": {
                "bicubic": self.bicubic,
                "best": self.best.observed,
                "ensemble": self.portfolio.psnr,
            },
            "bundle": str(self.bundle),
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


def deliver(work: Any, journal: Journal, engine: Engine, begun: float) -> Delivery:
    """Ranks what was trained, chooses the portfolio by its average, and writes its bundle.

    Args:
        work: the search's `Plan`.
        journal: with every observation.
        engine: that has seen them.
        begun: `time.monotonic()` when the command began.

    Raises:
        TrialError: no trial succeeded.
        BundleError: the bundle cannot be written.
    """
    observations = journal.observations()
    ranking = rank(engine, observations)
    if not ranking:
        reasons = "; ".join(sorted({o.failure or "" for o in observations}))
        raise TrialError(f"at least one trial must succeed, but all {len(observations)} failed: {reasons}")
    pairs = open_pairs(work.pairs, "validation").head(work.validation_images)
    candidates = [ranked.candidate for ranked in ranking]
    files = [candidate_folder(work.run, candidate) / RESIDUALS_FILE for candidate in candidates]
    chosen, ensemble = choose(residual_products(files, len(pairs)), min(work.portfolio, len(candidates)))
    portfolio = Portfolio(tuple(candidates[index] for index in chosen), ensemble)
    delivery = Delivery(
        run=work.run,
        seconds=time.monotonic() - begun,
        observed=len(observations),
        failed=sum(observation.failed for observation in observations),
        ranking=tuple(ranking),
        portfolio=portfolio,
        bicubic=bicubic_psnr(pairs),
        bundle=work.run / "bundle",
    )
    _write(work, journal, delivery, pairs)
    journal.set_result("delivery", delivery.to_json())
    return delivery


def rank(engine: Engine, observations: Sequence[Observation]) -> list[Ranked]:
    """Every architecture that was trained, by posterior mean, best first.

    The posterior mean rather than the observation ranks, since a replicate's luck is not an
    architecture's merit.
    """
    succeeded = [observation for observation in observations if observation.value is not None]
    if not succeeded:
        return []
    mean, stddev = engine.posterior()
    parameters = engine.space.costs["parameters"]
    ranking = []
    for observation in succeeded:
        assert observation.value is not None
        index = engine.space.index(observation.candidate.architecture)
        ranking.append(
            Ranked(
                candidate=observation.candidate,
                observed=observation.value,
                predicted=float(mean[index]),
                stddev=float(stddev[index]),
                ssim=observation.metrics["ssim"],
                parameters=int(parameters[index]),
                seconds=observation.seconds,
            )
        )
    return sorted(ranking, key=lambda ranked: (-ranked.predicted, ranked.candidate.id))


def residual_products(files: Sequence[Path], images: int) -> Tensor:
    """Mean products of the networks' residuals, one Gram matrix per image.

    With it the mean square error of an average with weights w is wᵀGw, exactly.

    Args:
        files: residuals of each network, as `dispatch.trial.residuals` keeps them.
        images: how many images they hold.

    Returns:
        (images, n, n) float64, n the number of files.

    Raises:
        TrialError: a file is missing or damaged.
    """
    products = torch.empty(images, len(files), len(files), dtype=torch.float64)
    for image in range(images):
        rows = []
        for path in files:
            try:
                with safe_open(path, "pt") as file:  # one image at a time: memory stays small
                    rows.append(file.get_tensor(f"{image:04d}").float().flatten())
            except (OSError, SafetensorError) as error:
                raise TrialError(
                    f"{path}: a trained network's residuals must be readable, but {error}; remove the run "
                    "folder's candidate and start another run"
                ) from None
        stacked = torch.stack(rows)  # (n, pixels)
        products[image] = (stacked @ stacked.T).double() / stacked.shape[1]
    return products


def bicubic_psnr(pairs: PairSet) -> float:
    """Mean PSNR in dB of bicubic upsampling over the pairs, RGB, without border."""
    values = []
    for index in range(len(pairs)):
        lr, hr = (torch.from_numpy(array).float() / 255 for array in pairs.image(index))
        values.append(psnr(bicubic_upscale(lr, pairs.scale), hr))
    return sum(values) / len(values)


def _write(work: Any, journal: Journal, delivery: Delivery, pairs: PairSet) -> None:
    by_id = {ranked.candidate.id: ranked for ranked in delivery.ranking}
    members = []
    for candidate in delivery.portfolio.members:
        ranked = by_id[candidate.id]
        members.append(
            Member(
                architecture=candidate.architecture,
                state=load_file(candidate_folder(work.run, candidate) / NETWORK_FILE),
                weight=1 / len(delivery.portfolio.members),
                metrics={"psnr": ranked.observed, "ssim": ranked.ssim},
                candidate=candidate.id,
            )
        )
    write_bundle(
        delivery.bundle,
        members,
        scale=work.scale,
        recipe=work.recipe.to_json(),
        data=work.header["data"],
        metrics=delivery.to_json()["psnr"],
        seed=work.seed,
        versions=work.header["versions"],
        machine=work.header["machine"],
    )
