"""Every node of a cluster, looked at before the first trial, so that none fails for what it lacks.

One task runs on each node that will run trials. It needs no gpnas: what it sees it tells, and the driver
judges. A Ray that was started on this machine for this search is this machine, and needs no look.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gpnas.errors import TrialError
from gpnas.run.provenance import versions
from gpnas.run.storage import Storage

LEAST_FREE = 10**9
"""Bytes that must be free for checkpoints where the run folder lies."""
SECONDS = 60.0
"""How long a node may take to answer; for its first answer it starts a process."""
SAME = ("python", "torch", "ray", "gpnas")
"""What every node must have in the driver's version."""


@dataclass(frozen=True)
class Sight:
    """What a task saw on its node."""

    marker: str | None
    """What the driver's marker said; None where it could not be read."""
    written: str | None
    """Why the node's own marker could not be written; None where it could."""
    missing: tuple[str, ...]
    """Folders that could not be read."""
    free: int
    """Free bytes where the run folder lies."""
    versions: Mapping[str, str]
    gpus: int | None
    """How many PyTorch sees where the task was lent one; None where the node offers none."""


def preflight(storage: Storage, reading: Sequence[Path] = ()) -> None:
    """Looks at every node of the cluster that Ray is connected to.

    Args:
        storage: which every node must read and write.
        reading: folders that every node must read.

    Raises:
        TrialError: a node lacks something; a line for each.
    """
    folder = f"preflight-{secrets.token_hex(4)}"
    token = secrets.token_hex(16)
    storage.write(f"{folder}/driver", token.encode())
    try:
        nodes = [each for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU", 0) >= 1]
        probe = _probe()
        tasks = {}
        for node in nodes:
            gpus = node["Resources"].get("GPU", 0)
            task = ray.remote(probe).options(
                num_cpus=0,
                num_gpus=0.001 if gpus else 0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                name="preflight",
            )
            paths = [str(each) for each in reading]
            tasks[node["NodeID"]] = task.remote(storage.uri, folder, node["NodeID"], paths, bool(gpus), SAME)
        ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=SECONDS, fetch_local=False)
        lines = []
        for node in nodes:
            name = f"node {node['NodeManagerAddress']}"
            try:
                sight = Sight(**ray.get(tasks[node["NodeID"]], timeout=0.1))
            except GetTimeoutError:
                lines.append(f"{name}: it must answer within {SECONDS:.0f} s, but has not; look at its log")
                continue
            except RayError as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                lines.append(f"{name}: it must run tasks, but {reason}; look at its log")
                continue
            arrived = storage.exists(f"{folder}/{node['NodeID']}")
            lines += complaints(
                name, sight, run=storage.uri, token=token, arrived=arrived, expected=versions()
            )
    finally:
        storage.remove(folder)
    if lines:
        raise TrialError("; ".join(lines))


def complaints(
    name: str, sight: Sight, *, run: Path | str, token: str, arrived: bool, expected: Mapping[str, str]
) -> list[str]:
    """What is wrong with a node: a line for each rule that it breaks.

    Args:
        name: of the node.
        sight: what its task saw.
        run: the run folder, or the address of its storage.
        token: what the driver's marker says.
        arrived: whether the driver sees the marker that the node wrote.
        expected: the driver's versions, by name.
    """
    lines = []
    if sight.marker != token:
        found = "there is none" if sight.marker is None else "another one lies there"
        lines.append(
            f"{name}: the run folder {run} must be the driver's, but its marker is missing: {found}; "
            "mount the same storage at the same path on every node"
        )
    elif sight.written is not None:
        lines.append(
            f"{name}: trials must be able to write to {run}, but {sight.written}; give the user that runs "
            "Ray there the right to"
        )
    elif not arrived:
        lines.append(
            f"{name}: what it writes to {run} must reach the driver, but did not; mount the same storage at "
            "the same path on every node, without a delay"
        )
    lines += [
        f"{name}: trials read {path}, but it is not there; set GPNAS_CACHE to a folder that every node has"
        for path in sight.missing
    ]
    if sight.marker == token and sight.free < LEAST_FREE:
        lines.append(
            f"{name}: {LEAST_FREE / 1e9:g} GB must be free in {run}, but {sight.free / 1e9:.2f} GB are; "
            "make room or choose another run folder"
        )
    lines += [
        f"{name}: {each} must be {expected[each]} as on the driver, but is {sight.versions[each]}; install "
        "the same on every node"
        for each in SAME
        if sight.versions[each] != expected[each]
    ]
    if sight.gpus == 0:
        lines.append(
            f"{name}: it offers GPUs to Ray, but PyTorch there sees none; install PyTorch for its driver, or "
            "start it with --num-gpus=0"
        )
    return lines


def _probe() -> Callable[..., dict[str, Any]]:
    """The task; made here, since Ray copies what a function makes, and a node may lack gpnas."""

    def probe(
        uri: str, folder: str, node: str, reading: list[str], with_gpu: bool, packages: tuple[str, ...]
    ) -> dict[str, Any]:
        import os
        import platform
        import shutil
        import tempfile
        from importlib.metadata import PackageNotFoundError, version

        from pyarrow.fs import FileSystem, LocalFileSystem

        def version_of(name: str) -> str:
            try:
                return platform.python_version() if name == "python" else version(name)
            except PackageNotFoundError:
                return "not installed"

        marker = written = None
        try:
            system, root = FileSystem.from_uri(uri) if "://" in uri else (LocalFileSystem(), uri)
            with system.open_input_stream(f"{root}/{folder}/driver") as file:
                marker = file.read().decode()
        except OSError:
            pass
        else:
            try:
                with system.open_output_stream(f"{root}/{folder}/{node}") as file:
                    file.write(node.encode())
            except OSError as error:
                written = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        gpus = None
        if with_gpu:
            import torch

            gpus = torch.cuda.device_count()
        here = tempfile.gettempdir() if "://" in uri else uri
        while not os.path.isdir(here):
            here = os.path.dirname(here)
        return {
            "marker": marker,
            "written": written,
            "missing": tuple(each for each in reading if not os.access(each, os.R_OK | os.X_OK)),
            "free": shutil.disk_usage(here).free,
            "versions": {name: version_of(name) for name in packages},
            "gpus": gpus,
        }

    return probe
