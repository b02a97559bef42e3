"""What a search or a final training delivered, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from gpnas.cli.tables import Table
from gpnas.cli.text import advice, label, legend, printable
from gpnas.records import number_of, trials_of
from gpnas.results.delivery import Delivery
from gpnas.results.fusing import why
from gpnas.results.own_delivery import OwnDelivery

SHOWN = 10
"""Architectures of the table, beside those of the portfolio."""


def delivered(delivery: Delivery, title: str) -> Iterator[RenderableType]:
    """The ranking, what the average reaches and what was left out of it, and what to do next."""
    searched = delivery.diagnostics is not None
    columns = ["candidate", "architecture", "share", "PSNR dB", "SSIM", "parameters", "seconds"]
    if searched:
        columns[3:4] = ["predicted dB", "observed dB"]
    best = Table(title, *columns, whole=("candidate", "architecture"))
    portfolio = delivery.portfolio
    shares = zip(portfolio.members, portfolio.weights, strict=True)
    chosen = {member.id: f"{weight:.0%}" for member, weight in shares}
    rows = [
        ranked
        for place, ranked in enumerate(delivery.ranking)
        if place < SHOWN or ranked.candidate.id in chosen
    ]
    for ranked in rows:
        best.add_row(
            ranked.candidate.id,
            label(ranked.candidate.architecture),
            chosen.get(ranked.candidate.id, ""),
            *([f"{ranked.predicted:.2f} ± {ranked.stddev:.2f}"] if searched else []),
            f"{ranked.observed:.2f}",
            f"{ranked.ssim:.4f}",
            f"{ranked.parameters:,}",
            f"{ranked.seconds:.1f}",
        )
    yield best
    yield legend(ranked.candidate.architecture for ranked in rows)
    yield _reached(delivery)
    for line in (*delivery.chosen.left_out, *delivery.unusable.values()):
        yield printable(line)
    if len(chosen) > 1:
        yield why(delivery.fused)
    trials = delivery.to_json()["trials"]
    yield (
        f"{trials_of(trials['observed'])} ({trials['failed']} failed, {trials['stopped']} stopped early), "
        f"{delivery.seconds:.0f} s, {number_of(len(delivery.gram), 'validation image')}"
    )
    yield f"bundle: {printable(delivery.bundle)}"
    yield ""
    yield "next: " + printable(advice("evaluate", delivery.bundle))
    yield "      " + printable(advice("upscale", delivery.bundle, "photo.jpg", "-o", "photo_sr.png"))


def _reached(delivery: Delivery) -> str:
    """What the delivered networks reach, beside bicubic interpolation and the best network alone."""
    members, value = delivery.portfolio.members, delivery.portfolio.value
    best, ensemble = delivery.best, delivery.chosen.ensemble
    text = f"bicubic {delivery.bicubic:.2f} dB, best network {best.observed:.2f} dB"
    by = ""
    if len(members) > 1:
        text += f", average of {len(members)} {value:.2f} dB"
    elif members[0].id != best.candidate.id:
        text += f", {members[0].id} alone {value:.2f} dB"
        by = ", by which it was chosen,"
    text += "" if ensemble is None else f", and over eight transforms{by} {ensemble:.2f} dB"
    reached = value if ensemble is None else ensemble
    if reached < delivery.bicubic:
        text += (
            f"; that is worse than bicubic interpolation by {delivery.bicubic - reached:.2f} dB: train longer"
        )
    return text


def own_delivered(delivery: OwnDelivery) -> Iterator[RenderableType]:
    """What a search by a training of one's own came to."""
    unit = printable(delivery.objective["unit"])
    name = f"{printable(delivery.objective['name'])} {unit}".strip()
    chosen = delivery.portfolio
    shares = {} if chosen is None else dict(zip(chosen.members, chosen.weights, strict=True))
    best = Table(
        f"The best architectures, by posterior mean of {name}",
        *("candidate", "architecture", "share", f"predicted {unit}".strip(), f"observed {unit}".strip()),
        "seconds",
        whole=("candidate", "architecture"),
    )
    rows = [each for place, each in enumerate(delivery.ranking) if place < SHOWN or each.candidate in shares]
    for each in rows:
        best.add_row(
            each.candidate.id,
            label(each.candidate.architecture),
            f"{shares[each.candidate]:.0%}" if each.candidate in shares else "",
            f"{each.predicted:.4g} ± {each.stddev:.2g}",
            f"{each.observed:.4g}",
            f"{each.seconds:.1f}",
        )
    yield best
    yield legend(each.candidate.architecture for each in rows)
    if chosen is not None:
        yield (
            f"mean square error on the validation set: best alone {chosen.best:.4g}, "
            f"average of {len(chosen.members)} {chosen.error:.4g}"
        )
    if delivery.note:
        yield printable(delivery.note)
    yield (
        f"{trials_of(delivery.observed)} ({delivery.failed} failed, {delivery.stopped} stopped early), "
        f"{delivery.seconds:.0f} s; run: {printable(delivery.run)}"
    )
