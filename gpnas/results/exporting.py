"""A chosen portfolio, written as a bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.bundle import (
    Bundle,
    Description,
    Licence,
    Member,
    Picture,
    StoredFusion,
    read_bundle,
    write_bundle,
)
from gpnas.errors import BundleError
from gpnas.journal import Journal, excerpt
from gpnas.records import Candidate
from gpnas.results.choosing import Allowance, Chosen, choose_portfolio, finished_candidates, most_networks
from gpnas.results.networks import trained_weights
from gpnas.run.setup import Setup
from gpnas.run.storage import Storage, storage_of

if TYPE_CHECKING:
    from gpnas.results.guests import Company
    from gpnas_trainers.pairs import PairSet


def export(
    run: Path,
    top: int | None,
    output: Path,
    *,
    allowance: Allowance | None = None,
    picture: bool | Path = True,
    licence: Licence | None = None,
) -> dict[str, Any]:
    """Writes a bundle of the best portfolio of a finished search.

    Args:
        run: its run folder.
        top: how many networks at most; None is as the search has it.
        output: a folder, or a file that ends in .zip.
        allowance: what they may cost together.
        picture: whether the model card shows one where the data are the shipped photographs; other
            people's are shown only where their folder is given here.
        licence: of the weights.

    Returns:
        A JSON document: the portfolio's architectures, weights and PSNR in dB, why it has no more networks,
        how they are fused, the bundle.

    Raises:
        JournalError: there is no such run.
        TrialError: the search has not finished.
        DataError: the folder of the picture holds other validation images.
        BundleError: the bundle cannot be written.
    """
    run = run.absolute()
    with Journal.read(run) as journal:
        candidates = finished_candidates(run, journal)
        most = most_networks(run, journal, len(candidates), top)
        setup = Setup.of(journal)
        chosen = choose_portfolio(run, journal, candidates, most, allowance)
        same = _delivered_bundle(run, chosen)
        fusion = None if same is None else same.fusion
        seen: PairSet | Picture | None = None
        if picture and (isinstance(picture, Path) or setup.data.is_shipped):
            seen = None if isinstance(picture, Path) or same is None else same.picture
            if seen is None:
                from gpnas.results.picture import validation_pairs  # with PyTorch, which exporting needs not

                seen = validation_pairs(setup, picture if isinstance(picture, Path) else None)
        delivery = journal.result("delivery")
        assert delivery is not None
        write_portfolio(journal, chosen, delivery, output, seen=seen, licence=licence, fusion=fusion)
    return {
        "portfolio": [member.architecture.to_json() for member in chosen.portfolio.members],
        "weights": list(chosen.portfolio.weights),
        "psnr": chosen.portfolio.value,
        "selection": chosen.to_json(),
        "fusion": fusion_of_choice(chosen, delivery),
        "bundle": str(output),
    }


def write_portfolio(
    journal: Journal,
    chosen: Chosen,
    delivery: Mapping[str, Any],
    output: Path,
    *,
    seen: PairSet | Picture | None = None,
    licence: Licence | None = None,
    fusion: StoredFusion | None = None,
    company: Company | None = None,
) -> None:
    """Writes a portfolio's bundle, with what the journal tells of it.

    Args:
        journal: of the run.
        chosen: the portfolio to write.
        delivery: the run's, as JSON.
        output: the bundle's folder or zip file.
        seen: the model card's picture, or validation pairs of which it shows a part; None: no picture.
        licence: of the weights.
        fusion: weights of the members, in their order, for each pixel.
        company: the networks that no trial trained, where some are members.

    Raises:
        TrialError: a network's weights are missing or damaged.
        BundleError: the bundle cannot be written.
    """
    header, setup, storage = journal.header, Setup.of(journal), storage_of(journal)
    portfolio = chosen.portfolio
    members = [
        _member(candidate, weight, storage, delivery, company)
        for candidate, weight in zip(portfolio.members, portfolio.weights, strict=True)
    ]
    sources = {
        family: {"network": own.network, "sha256": own.sha256} for family, own in setup.networks.items()
    }
    best = delivery["psnr"]["best"]
    if company is not None:
        sources |= company.sources
        best = max(best, *(company.psnr.get(each.id, best) for each in portfolio.members))
    if seen is not None and not isinstance(seen, Picture):
        from gpnas.results.picture import make_picture

        seen = make_picture(members, seen)
    metrics = {"bicubic": delivery["psnr"]["bicubic"], "best": best, "ensemble": portfolio.value}
    description = Description(
        scale=setup.scale,
        recipe=setup.recipe_document(),
        data=setup.data.to_json(),
        metrics=metrics,
        seed=header.seed,
        versions=header.versions,
        machine=header.machine,
        networks={
            family: source
            for family, source in sources.items()
            if any(member.architecture.family == family for member in members)
        },
        journal=excerpt(journal, (member.id for member in portfolio.members)),
    )
    write_bundle(output, members, description, licence=licence, picture=seen, fusion=fusion)


def _member(
    candidate: Candidate,
    weight: float,
    storage: Storage,
    delivery: Mapping[str, Any],
    company: Company | None,
) -> Member:
    """A network of a portfolio as a bundle takes it."""
    guest = None if company is None else company.by_name(candidate.id)
    if company is not None and guest is not None:
        return Member(candidate.architecture, guest.state, weight, {"psnr": company.psnr[candidate.id]})
    row = next(each for each in delivery["ranking"] if each["id"] == candidate.id)
    metrics = {name: row[name] for name in ("psnr", "ssim")}
    return Member(candidate.architecture, trained_weights(storage, candidate), weight, metrics, candidate.id)


def fusion_of_choice(chosen: Chosen, delivery: Mapping[str, Any]) -> dict[str, Any]:
    """How the networks of a choice are fused, as JSON: as in the delivery, if that is the same choice."""
    portfolio = chosen.portfolio
    own = {each.id: share for each, share in zip(portfolio.members, portfolio.weights, strict=True)}
    found: dict[str, Any] | None = delivery.get("fusion")
    if found is not None and _alike(own, delivery["shares"]):
        return found
    why = "fused by one weight per network: more is learned where a command delivers what it trained"
    return {"kind": "convex", "images": 0, "tried": [], "why": why}


def _delivered_bundle(run: Path, chosen: Chosen) -> Bundle | None:
    """The run's own, where that has the same average; so neither picture nor fusion is computed again."""
    try:
        bundle = read_bundle(run / "bundle")
    except BundleError:
        return None
    portfolio = chosen.portfolio
    own = {str(each.candidate): each.weight for each in bundle.members}
    ids = [each.id for each in portfolio.members]
    same = list(own) == ids and _alike(own, dict(zip(ids, portfolio.weights, strict=True)))
    return bundle if same else None


def _alike(own: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether two averages are of the same networks, with the same weights up to rounding."""
    return own.keys() == others.keys() and all(
        math.isclose(weight, others[name], abs_tol=1e-6) for name, weight in own.items()
    )
