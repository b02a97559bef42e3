"""A search or a final training while it runs, as the terminal shows it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress
from rich.text import Text

from gpnas.cli.terminal import bar, log, say, styled
from gpnas.cli.text import label, legend, printable

if TYPE_CHECKING:
    from gpnas.dispatch.cluster import Cluster
    from gpnas.dispatch.work import Means
    from gpnas.records import Candidate, Observation


class Watcher:
    """Trials that run: a line for each that ends, above `bars`, which begin with the first trial.

    A context that ends them.

    Args:
        bars: of the trials.
        unit: what is counted, such as `trials observed`.
    """

    def __init__(self, bars: Progress, unit: str) -> None:
        self.bars, self._unit = bars, unit
        self._open = ExitStack()
        self._pairs: Callable[..., None] | None = None
        self._explained: set[str] = set()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.bars.stop()

    def say(self, line: str) -> None:
        say(line)

    def preparing(self, done: int, total: int) -> None:
        if self._pairs is None:
            self._pairs = self._open.enter_context(bar("pairs"))
        self._pairs(done, total)

    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None:
        self._open.close()
        say(f"run: {run}")
        if cluster.dashboard:
            say(f"dashboard: {cluster.dashboard} (it asks for the token in {cluster.token})")
        if cluster.address:
            say(f"Ray: {cluster.address}")
        if observed:
            say(f"going on: {observed} of {trials} {self._unit}")
        self.bars.start()

    def note(self, candidate: Candidate, text: str) -> None:
        say(f"{candidate.id}  {text}")

    def ended(self, candidate: Candidate, observation: Observation, phase: str = "") -> None:
        """Shows what became of a trial."""
        architecture = candidate.architecture
        if architecture.family not in self._explained:
            self._explained.add(architecture.family)
            say(f"candidate  {legend([architecture])}")
        if observation.value is None:
            result = styled("failed", "red") + f": {printable(observation.failure)}"
        elif observation.stopped is not None:
            result = styled(observation.stopped, "dim")
        else:
            result = Text(f"{observation.value:6.2f} dB  {observation.metrics['ssim']:.4f}")
        log.print(
            Text(f"{candidate.id}  {printable(label(architecture)):16s} ")
            + result
            + f"  {observation.seconds:5.1f} s  {printable(phase)}".rstrip()
        )


def means_of(options: argparse.Namespace, devices: int = 1) -> Means:
    """What trials may use, as the command line says."""
    from gpnas.dispatch.resources import Asked  # which loads Ray
    from gpnas.dispatch.work import Means

    asked = Asked(options.cpus_per_trial, options.gpus_per_trial)
    return Means(asked, devices, options.address, options.budget_hours)
