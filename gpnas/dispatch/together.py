"""One training on several devices: Ray Train inside a trial, its first process standing for all.

Each process runs the same `Trial`, with its part of every batch; the first validates, saves and writes
into the candidate's folder, so that the layout is that of any other trial, and a training may go on with
another number of devices.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any

import ray.train
import torch
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Empty, Queue

from gpnas.dispatch.cluster import Cluster
from gpnas.dispatch.conductor import Stopper
from gpnas.dispatch.halt import Halt
from gpnas.dispatch.private_ray import has_died
from gpnas.dispatch.report import TrialReport, to_result
from gpnas.dispatch.trial import Trial
from gpnas.errors import TrialError
from gpnas.run.storage import Storage, open_storage
from gpnas_trainers.ranks import Ranks

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 6 * 3600
"""How long processes wait for the first one, which validates alone."""
ORDERS = "orders"
"""The folder of a storage in which trainings on several devices find their orders."""
STOP = f"{ORDERS}/stop"
LOOK_SECONDS = 2.0
"""Least time between two looks for an order."""
HEED_SECONDS = 20.0
"""How long trainings may take to heed an order; then Tune ends them as they are."""


class Ended(Exception):
    """The last report of one process alone, which Ray Train takes for an error."""

    def __init__(self, report: TrialReport) -> None:
        super().__init__(report)
        self.report = report


class Ordering(Stopper):
    """Ends Tune's session once all trainings have written a checkpoint and ended.

    Tune itself would end a training on several devices where it is, since it knows its first process alone.
    """

    def __init__(self, halt: Halt, storage: Storage) -> None:
        super().__init__(halt)
        self._storage = storage
        self._last: float | None = None  # time.monotonic(); None while there is no order
        self.close()  # an order that a killed search has left

    def stop_all(self) -> bool:
        if not super().stop_all():
            return False
        if self._last is None:
            self._last = time.monotonic() + HEED_SECONDS
            try:
                self._storage.write(STOP, b"")
            except OSError as error:
                logger.warning("%s: the checkpoints before it serve, since %s", self._storage.uri, error)
                return True
        return has_died() or time.monotonic() > self._last

    def close(self) -> None:
        self._storage.remove(ORDERS)


def trial_on(devices: int, gpus: bool) -> Callable[[dict[str, Any]], None]:
    """What Tune runs for a candidate that is trained on so many devices."""

    def train_together(config: dict[str, Any]) -> None:
        reports = Queue(actor_options={"num_cpus": 0})
        with tempfile.TemporaryDirectory() as folder:
            trainer = TorchTrainer(
                _process,
                train_loop_config=config,
                torch_config=TorchConfig(timeout_s=PATIENCE_SECONDS),
                scaling_config=ScalingConfig(num_workers=devices, use_gpu=gpus),
                run_config=RunConfig(
                    name=config["id"],
                    storage_path=folder,
                    callbacks=[Telling(reports)],
                    # Tune starts the trial again
                    failure_config=FailureConfig(max_failures=0),
                ),
            )
            fitted: Future[object] = Future()
            Thread(target=_fill, args=(fitted, trainer.fit), daemon=True).start()
            for result in _until(fitted, reports):
                tune.report(result)
            try:
                fitted.result()
            except WorkerGroupError as error:
                ends = [each.report for each in error.worker_failures.values() if isinstance(each, Ended)]
                if not ends:
                    raise  # a process has died: Tune starts the trial again
                tune.report(_result(min(ends, key=lambda report: report.kind != "aborted")))

    return train_together


class Telling(UserCallback):
    """Puts the first process's reports into a queue.

    `TuneReportCallback` has Tune read such a queue beside what the trial's own thread reports, and with one
    result of each it waits for ever.
    """

    def __init__(self, reports: Queue) -> None:
        self._reports = reports

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        self._reports.put(metrics[0])


def _fill(future: Future[object], call: Callable[[], object]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # whoever waits for it raises it
        future.set_exception(error)


def _until(future: Future[object], reports: Queue) -> Iterator[dict[str, Any]]:
    """The results in a queue until a call has ended."""
    ended = False
    while not ended:
        ended = future.done()  # its last result is in the queue before
        with suppress(Empty):
            while True:
                yield reports.get(timeout=0.2)


def check_devices(devices: int, cluster: Cluster) -> None:
    """Raises a `TrialError` where a cluster has too few for a single training: it would wait for ever."""
    if devices > (cluster.gpus or cluster.cpus):
        kind = "GPUs" if cluster.gpus else "CPUs"
        raise TrialError(
            f"a training on {devices} devices needs as many {kind}, but the cluster has "
            f"{cluster.gpus or cluster.cpus:g}; lower --devices or add worker nodes"
        )


def _process(config: dict[str, Any]) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    trial = Trial(config | {"together": True})
    orders = Orders(config["storage"])
    last = False
    while not last:
        if orders.to_stop():
            report = trial.interrupt()
        else:
            report = trial.advance()
            if report.kind in ("aborted", "failed") and not report.common:
                raise Ended(report)
        ray.train.report(_result(report))
        last = report.last


def _result(report: TrialReport) -> dict[str, Any]:
    """A result that does not say that it is the last: Tune would end the trial before Ray Train has ended."""
    return {**to_result(report), "done": False}


class Orders:
    """The orders that the first process finds in the storage now and then, and that all heed at once."""

    def __init__(self, storage: str) -> None:
        self._storage = open_storage(storage)
        self._ranks = Ranks(together=True)
        self._looked = -LOOK_SECONDS

    def to_stop(self) -> bool:
        found = False
        if self._ranks.rank == 0 and time.monotonic() - self._looked >= LOOK_SECONDS:
            with suppress(OSError):  # the next look may succeed
                found = self._storage.exists(STOP)
            self._looked = time.monotonic()
        return bool(self._ranks.sum_numbers(found)[0])
