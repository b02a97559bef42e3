"""What a search tells Prometheus through Ray, and by which names.

Ray exports each of these from the node it was set on, with `ray_` before its name; `ray_gpnas_best_psnr`
and the others are what a board asks for (`docker/grafana`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from ray.util.metrics import Gauge

from gpnas.dispatch import private_ray


@dataclass(frozen=True)
class Metric:
    """One number, or one for each value of a tag."""

    description: str
    """What it counts, with its unit, as Prometheus shows it."""
    tag: str | None = None
    """Name of the label that sets its numbers apart, beside the run's; None where there is one number."""


METRICS = {
    "gpnas_best_psnr": Metric("The best observed validation PSNR, dB."),
    "gpnas_trials": Metric("Candidates by state: pending, running, observed, failed, stopped.", "State"),
    "gpnas_trials_left": Metric("Trials of the allowance that no candidate was suggested for yet."),
    "gpnas_uncertainty_left": Metric(
        "Standard deviation that the surrogate has left, dB, on average over the ten untrained "
        "architectures of the best predictions."
    ),
    "gpnas_seconds_per_step": Metric(
        "Seconds of training and validation for one optimiser step, on average over the running trials."
    ),
    "gpnas_gpu_memory_bytes": Metric(
        "The most GPU memory that the tensors of a worker's running trial have taken, bytes."
    ),
}
"""Each metric by its name in the code; all have the tag `Run`, the name of the run folder."""


class Gauges:
    """The metrics of one search in one process; each is made when it is first set."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def set(self, name: str, value: float | None, of: str | None = None) -> None:
        """Sets one of `METRICS`; None, what is not known, leaves it as it is.

        Args:
            name: of the metric.
            value: in the metric's unit.
            of: the value of the metric's own tag.
        """
        if value is None:
            return
        metric = METRICS[name]
        tags = {"Run": self._run} | ({metric.tag: str(of)} if metric.tag else {})
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, metric.description, tuple(tags))
        self._gauges[name].set(value, tags)


class Worker:
    """How a worker shows in the dashboard, whichever trial it runs.

    Ray keeps the name that an actor is born with, and ours are reused: what changes with the trial is
    the title of the process, which the cluster page shows.
    """

    def __init__(self, run: str) -> None:
        self._gauges = Gauges(run)

    def begins(self, trial: str) -> None:
        """Notes that a trial takes the worker over."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        # the actor's log in the dashboard tells what it ran
        sys.stdout.write(f"{trial}\n")
        sys.stdout.flush()

    def works(self, trial: str) -> None:
        """Names the worker after its trial; called in each step, since Ray writes its own title around it."""
        private_ray.set_title(f"ray::{trial}")
        if torch.cuda.is_available():
            self._gauges.set("gpnas_gpu_memory_bytes", torch.cuda.max_memory_allocated())
