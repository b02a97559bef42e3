"""What a trial is lent: CPUs, and a part of a GPU that follows from the memory its training takes.

Ray counts what is lent and hands out no more; that the parts of a GPU fit its memory is seen to here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gpnas.dispatch.cluster import Cluster
from gpnas.errors import TrialError

PARTS = (1 / 8, 1 / 4, 1 / 2)
"""The parts of a GPU that trials may share: few, since a worker takes over trials with equal parts alone."""
PROCESS_BYTES = 700 * 2**20
"""GPU memory that a process takes before any training: CUDA's context and its libraries' kernels."""
SLACK = 1.5
"""Factor by which a training takes more than `cost.training_memory` counts: workspaces of convolutions,
gradients of activations, the allocator's gaps, and the pairs that lie in a GPU's memory."""
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Asked:
    """What a user asks for each trial; None where its memory and the cluster decide."""

    cpus: int | None = None
    """Threads of a training, too, where it has no GPU."""
    gpus: float | None = None
    """0: trainings run on CPUs; else up to 1, a part of a GPU."""

    def check(self, devices: int) -> None:
        """Raises a `TrialError` where a rule is broken, before anything starts.

        Args:
            devices: that share each training.
        """
        if self.cpus is not None and self.cpus < 1:
            raise TrialError(f"--cpus-per-trial must be at least 1, but got {self.cpus}")
        if self.gpus is not None and not 0 <= self.gpus <= 1:
            raise TrialError(
                f"--gpus-per-trial must be 0 or a part of a GPU, at most 1, but got {self.gpus:g}; "
                "several GPUs share a training by `gpnas train --devices`"
            )
        if devices > 1 and self != Asked():
            raise TrialError(
                f"--devices {devices} takes a CPU and a whole GPU for each device, so --cpus-per-trial and "
                "--gpus-per-trial cannot be given with it; leave them out"
            )

    def given(self) -> dict[str, float]:
        """What was asked for, as the journal's header records it."""
        named = {"cpus_per_trial": self.cpus, "gpus_per_trial": self.gpus}
        return {name: value for name, value in named.items() if value is not None}


def part_of_gpu(training: float, gpu: float) -> float:
    """The least of `PARTS` of a GPU, else 1, that holds a training.

    Args:
        training: bytes, as `gpnas_trainers.cost.training_memory` counts them.
        gpu: bytes of the GPU's memory. A training that does not fit all of it takes smaller micro-batches.
    """
    needed = SLACK * training + PROCESS_BYTES
    return next((part for part in PARTS if needed <= part * gpu), 1.0)


class Lender:
    """What each trial of a search is lent.

    Where nobody asks for more or less: a CPU; and where there are GPUs, an equal part for each of the
    trials side by side, so that none idles, or more where a training's memory takes it.
    """

    def __init__(self, asked: Asked, cluster: Cluster, concurrent: int) -> None:
        """Looks at the cluster that Ray is connected to.

        Args:
            asked: for each trial.
            cluster: its CPUs and GPUs.
            concurrent: trials side by side.

        Raises:
            TrialError: no node has what a single trial takes.
        """
        self._cpus = asked.cpus or 1
        self._gpus = min(1.0, cluster.gpus / concurrent) if asked.gpus is None else asked.gpus
        nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        self.room = room(nodes, self._cpus, self._gpus)
        """Trials of this size that the cluster has room for."""
        self.side_by_side = min(concurrent, self.room)
        """Trials that run at once, at most."""
        self._memory = gpu_memory() if asked.gpus is None and self._gpus else None

    def lend(self, training: Callable[[], float]) -> dict[str, float]:
        """What a trial is lent: keys of its configuration.

        Args:
            training: counts the bytes of GPU memory that its training takes.
        """
        gpus = self._gpus
        if self._memory is not None:
            gpus = max(gpus, part_of_gpu(training(), self._memory))
        return {"cpus": self._cpus, "gpus": gpus}


def room(nodes: Sequence[Mapping[str, float]], cpus: int, gpus: float) -> int:
    """How many trials run at once where each takes so much.

    Args:
        nodes: the `CPU` and `GPU` of each, as Ray counts them.
        cpus, gpus: what a trial takes of one node.

    Raises:
        TrialError: not a single one.
    """

    def fits(node: Mapping[str, float]) -> int:
        side_by_side = int(node.get("CPU", 0) // cpus)
        if gpus:
            # a part lies on one GPU; Ray counts in ten-thousandths
            side_by_side = min(side_by_side, int(node.get("GPU", 0)) * int((1 + 1e-4) / gpus))
        return side_by_side

    count = sum(fits(node) for node in nodes)
    if not count:
        largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
        both = f"{largest.get('CPU', 0):g} CPUs" + (f" and {largest.get('GPU', 0):g} GPUs" if gpus else "")
        raise TrialError(
            f"a trial takes {cpus} CPUs{f' and {gpus:g} of a GPU' if gpus else ''} of one node, but the "
            f"largest node has {both}; lower --cpus-per-trial{' or --gpus-per-trial' if gpus else ''}, or "
            "add a node"
        )
    return count


def check_machine(asked: Asked) -> None:
    """Raises a `TrialError` where this machine has fewer CPUs than a trial takes; Ray would believe it."""
    cores = os.cpu_count() or 1
    if asked.cpus is not None and asked.cpus > cores:
        raise TrialError(
            f"a trial takes {asked.cpus} CPUs of one node, but this machine has {cores}; "
            "lower --cpus-per-trial"
        )


def gpu_memory() -> float | None:
    """Bytes of the smallest GPU of the cluster, as PyTorch sees it there; None where it sees none."""
    nodes = [each["NodeID"] for each in ray.nodes() if each["Alive"] and each["Resources"].get("GPU", 0)]

    def look() -> int | None:
        import torch

        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None

    task = ray.remote(look).options(num_cpus=0, num_gpus=0.001, name="GPU memory")
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in nodes
    ]
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    found = [each for each in ray.get(done) if each is not None]
    return float(min(found)) if found else None


def placed(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial, as its configuration says."""
    return _placement(float(config["cpus"]), float(config["gpus"]))


@lru_cache
def _placement(cpus: float, gpus: float) -> tune.PlacementGroupFactory:  # one of each kind, not of each trial
    return tune.PlacementGroupFactory([{"CPU": cpus} | ({"GPU": gpus} if gpus else {})])
