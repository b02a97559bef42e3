"""`gpnas search`: the main job."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn

from gpnas.cli.delivered import delivered
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import Words, bars
from gpnas.cli.watching import Watcher, means_of
from gpnas.dispatch.cluster import Cluster
from gpnas.dispatch.conductor import Event
from gpnas.dispatch.search import Request, run_search


class _Watcher(Watcher):
    """A search: one bar of all trials."""

    def __init__(self) -> None:
        columns = (Words(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(bars(*columns, transient=True), "trials observed")
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
    return Report(delivery.to_json(), delivered(delivery, "The best architectures, by posterior mean"))
