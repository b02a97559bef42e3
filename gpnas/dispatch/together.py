"""One training on several devices: Ray Train inside a trial, its first process standing for all.

Each process runs the same `Trial`, with its part of every batch; the first validates, saves and writes
into the candidate's folder, so that the layout is that of any other trial, and a training may go on with
another number of devices.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import ray.train
import torch
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback

from gpnas.dispatch.cluster import Cluster
from gpnas.dispatch.trial import Trial
from gpnas.errors import TrialError

PATIENCE_SECONDS = 6 * 3600
"""So long processes wait for the first one, which validates alone."""


class Told(Exception):
    """The last result of one process alone, which Ray Train hears of as an error."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result)
        self.result = result


def trial_on(devices: int, gpus: bool) -> Callable[[dict[str, Any]], None]:
    """What Tune runs for a candidate that is trained on so many devices."""

    def train_together(config: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = TorchTrainer(
                _process,
                train_loop_config=config,
                torch_config=TorchConfig(timeout_s=PATIENCE_SECONDS),
                scaling_config=ScalingConfig(num_workers=devices, use_gpu=gpus),
                run_config=RunConfig(
                    name=config["id"],
                    storage_path=folder,
                    callbacks=[TuneReportCallback()],
                    # Tune starts the trial again
                    failure_config=FailureConfig(max_failures=0),
                ),
            )
            try:
                trainer.fit()
            except WorkerGroupError as error:
                told = [each.result for each in error.worker_failures.values() if isinstance(each, Told)]
                if not told:
                    raise  # a process has died: Tune starts the trial again
                tune.report(min(told, key=lambda result: "abort" not in result))

    return train_together


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
    done = False
    while not done:
        result = trial.step()
        done = result.pop("done")
        if done and ("abort" in result or ("failure" in result and not result.get("common"))):
            raise Told(result)
        ray.train.report(result)
