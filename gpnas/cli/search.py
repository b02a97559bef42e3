"""`gpnas search`: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from gpnas.cli.reporting import Report
from gpnas.cli.terminal import Words, log, table
from gpnas.cli.text import advice, label, legend, printable
from gpnas.cli.watching import Watcher, means_of
from gpnas.dispatch.cluster import Cluster
from gpnas.dispatch.conductor import Event
from gpnas.dispatch.search import Request, run_search
from gpnas.results.delivery import Delivery

SHOWN = 10
"""Architectures of the table, beside those of the portfolio."""


class _Watcher(Watcher):
    """A search: one bar of all trials."""

    def __init__(self) -> None:
        columns = (Words(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(Progress(*columns, console=log, transient=True), "trials observed")
        self._task = self.bars.add_task("trials", total=None)
        self._best = float("-inf")

    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None:
        super().started(run, trials, observed, cluster)
        self.bars.update(self._task, total=trials, completed=observed)

    def event(self, event: Event) -> None:
        candidate, observation = event.candidate, event.observation
        if event.note:
            self.note(candidate, event.note)
        if observation is None:
            return
        self.ended(candidate, observation, candidate.decision.get("phase", ""))
        if observation.value is not None and observation.stopped is None:
            self._best = max(self._best, observation.value)
        best = f", best {self._best:.2f} dB" if self._best > float("-inf") else ""
        self.bars.update(self._task, advance=1, description=f"trials{best}")


def run(options: argparse.Namespace) -> Report:
    with (watcher := _Watcher()):
        delivery = run_search(
            Request(
                space=options.space,
                run=options.run,
                data=options.data,
                scale=options.scale,
                trials=options.trials,
                concurrent=options.concurrent,
                strategy=options.strategy,
                cost_aware=options.cost_aware,
                portfolio_aware=options.portfolio_aware,
                warm_start=tuple(options.warm_start),
                seed=options.seed,
                early_stopping=options.early_stopping,
                storage=options.storage,
                means=means_of(options),
            ),
            watcher,
        )
    return Report(delivery.to_json(), _shown(delivery))


def _shown(delivery: Delivery) -> Iterator[RenderableType]:
    best = table(
        "The best architectures, by posterior mean",
        *(
            "candidate",
            "architecture",
            "share",
            "predicted dB",
            "observed dB",
            "SSIM",
            "parameters",
            "seconds",
        ),
        whole=("candidate", "architecture"),
    )
    shares = zip(delivery.portfolio.members, delivery.portfolio.weights, strict=True)
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
            f"{ranked.predicted:.2f} ± {ranked.stddev:.2f}",
            f"{ranked.observed:.2f}",
            f"{ranked.ssim:.4f}",
            f"{ranked.parameters:,}",
            f"{ranked.seconds:.1f}",
        )
    yield best
    yield legend(ranked.candidate.architecture for ranked in rows)
    yield (
        f"bicubic {delivery.bicubic:.2f} dB, best network {delivery.best.observed:.2f} dB, "
        f"portfolio of {len(chosen)} averaged {delivery.portfolio.value:.2f} dB, "
        f"and over eight transforms {delivery.ensemble:.2f} dB"
    )
    yield (
        f"{delivery.observed} trials ({delivery.failed} failed, {delivery.stopped} stopped early), "
        f"{delivery.seconds:.0f} s"
    )
    yield f"bundle: {printable(delivery.bundle)}"
    yield ""
    yield "next: " + printable(advice("evaluate", delivery.bundle))
    yield "      " + printable(advice("upscale", delivery.bundle, "photo.jpg", "-o", "photo_sr.png"))
