"""Every use of what Ray does not promise: private names, and variables that its documentation does not have.

The reason stands beside each. `NAMES` lists the private ones, and a test fails where one of them is gone; so
does the upper bound on Ray's version in `pyproject.toml` keep them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services, utils, worker
from ray.air.execution.resources import placement_group as reservations
from ray.job_config import JobConfig
from ray.tune.execution import class_cache, tune_controller

NAMES = (
    "ray._private.ray_constants.ENABLE_RAY_CLUSTER",
    "ray._private.ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR",
    "ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV",
    "ray._private.services.ConsolePopen",
    "ray._private.services.canonicalize_bootstrap_address",
    "ray._private.services.get_node",
    "ray._private.utils.get_dashboard_dependency_error",
    "ray._private.utils.set_sigterm_handler",
    "ray._private.worker._global_node",
    "ray._private.worker.print_to_stdstream",
    "ray._private.node.Node.dead_processes",
    "ray._private.node.Node.get_session_dir_path",
    "ray._private.node.Node.live_processes",
    "ray._raylet.AuthenticationMode.TOKEN",
    "ray._raylet.Config.initialize",
    "ray._raylet.get_authentication_mode",
    "ray._raylet.setproctitle",
    "ray.air.execution.resources.placement_group.remove_placement_group",
    "ray.job_config.JobConfig._serialize",
    "ray.tune.execution.tune_controller._ObjectCache",
    "ray.tune.execution.class_cache.DEFAULT_ENV_VARS",
    "ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE",
)

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",  # a given address does not turn it on by itself
    "RAY_USAGE_STATS_ENABLED": "0",
    # gpnas has its own record and its own view of a search; Tune's take memory and disk
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    # Ray's processes are started where the user is, and would take a file random.py there for Python's own;
    # folders that the user names in PYTHONPATH are searched nevertheless
    "PYTHONSAFEPATH": "1",
}
"""The variables that Ray and its processes are started with."""

SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
)
"""Environment variables that Ray Tune would copy into its actors' runtime environment, where the
dashboard shows them to everyone who has the token; each node brings its own."""

VITAL = ("raylet", "gcs_server")
"""Processes, by Ray's names, without which a driver waits for ever."""

LOOPBACK = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
"""The variable by which whoever joins a Ray on 127.0.0.1 looks for it there."""


class StartError(Exception):
    """A vital process of Ray has died before all were up."""


@contextmanager
def environment() -> Iterator[None]:
    """Has Ray see `ENVIRONMENT` within, imported before or not, and end where its GCS has died.

    Its library in C++ reads the environment once, when it is loaded, so it is made to read it again.
    """
    remove = reservations.remove_placement_group

    def remove_placement_group(group: Any) -> None:
        if not has_died():  # without its GCS, Ray would wait for ever
            remove(group)

    with (
        _variables(ENVIRONMENT),
        _replaced(reservations, "remove_placement_group", remove_placement_group),
        _replaced(ray.util, "remove_placement_group", remove_placement_group),
    ):
        ray._raylet.Config.initialize("")
        assert ray._raylet.get_authentication_mode() == ray._raylet.AuthenticationMode.TOKEN
        yield


@contextmanager
def giving_back(is_full: Callable[[], bool]) -> Iterator[None]:
    """Has Tune end the worker that it keeps for the next trial where none may follow.

    A kept worker holds what its trial was lent; others that share Ray would wait for it.

    Args:
        is_full: whether no further trial may run by now.
    """

    class Cache(tune_controller._ObjectCache):
        @property
        def _may_keep_one(self) -> bool:
            return not is_full()

        @_may_keep_one.setter
        def _may_keep_one(self, value: bool) -> None: ...

    with _replaced(tune_controller, "_ObjectCache", Cache):
        yield


@contextmanager
def without_environment() -> Iterator[None]:
    """Has Tune ask for no environment of its own for the trials' processes.

    For one, Ray would start a process that sets the variables and then becomes another one, instead of taking
    one that it has ready.
    """
    with (
        _replaced(class_cache, "DEFAULT_ENV_VARS", {}),
        _replaced(class_cache, "ENV_VARS_TO_PROPAGATE", set()),
    ):
        yield


@contextmanager
def starting(*, on_loopback: bool) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Changes what Ray does when it is started or joined within.

    Args:
        on_loopback: whether all of it listens on 127.0.0.1 alone. By itself Ray turns that address into the
            machine's own, save where this switch says, as it does on Windows and macOS, that no other machine
            will join.

    Yields:
        The processes that are started.
    """
    started: list[subprocess.Popen[bytes]] = []

    class Apart(services.ConsolePopen):
        """A process of Ray's, in a group of its own: a signal to all of the driver's, as a shell or `timeout`
        sends it, would end it before trials could write a checkpoint."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, process_group=0, **options)
            started.append(self)

    look_up = services.get_node

    def get_node(*arguments: Any, **options: Any) -> Any:
        if _dead(started):
            raise StartError("one of its processes has died while it was starting")
        return look_up(*arguments, **options)

    serialize = JobConfig._serialize

    def serialize_without_paths(config: JobConfig) -> Any:
        config._py_driver_sys_path = []
        return serialize(config)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as changed:
        for change in (
            _replaced(services, "ConsolePopen", Apart),
            # Ray waits a minute for a raylet that has died
            _replaced(services, "get_node", get_node),
            # Ray would end the driver at SIGTERM
            _replaced(utils, "set_sigterm_handler", lambda handler: None),
            # Ray would load its dashboard, 18 MiB, to see whether it is installed
            _replaced(utils, "get_dashboard_dependency_error", lambda: None),
            # Ray would have workers import from the driver's folder, whoever wrote what lies there
            _replaced(JobConfig, "_serialize", serialize_without_paths),
            # Ray would upload that folder where the driver was started by `uv run`
            _replaced(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),
        ):
            changed.enter_context(change)
        if on_loopback:
            changed.enter_context(_replaced(ray_constants, "ENABLE_RAY_CLUSTER", False))
            changed.enter_context(_variables(LOOPBACK))
        try:
            yield started
        except BaseException as error:
            dead = _dead(started)
            for each in started:
                _end(each.pid)
            if dead:
                raise StartError("one of its processes has died while it was starting") from error
            raise
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():  # its library in C++ has set some, too
                    signal.signal(number, handler)


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def keep_secrets() -> None:
    """Has Tune's actors not get the driver's credentials."""
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)


def be_quiet() -> None:
    """Has Ray not print what it says of its raylet, since a JSON document may belong on stdout."""
    worker.print_to_stdstream = lambda *_, **__: None


def head_of(address: str) -> str | None:
    """The host and port that Ray makes of an address; None where it would start a cluster.

    `auto` is looked for, and a loopback address becomes that of this node.
    """
    found: str | None = services.canonicalize_bootstrap_address(address)
    return found


def has_died() -> bool:
    """Whether a vital process of the Ray that was started here has ended by itself."""
    node = worker._global_node
    return node is not None and any(name in VITAL for name, _ in node.dead_processes())


def kill(*, keep_logs: bool) -> None:
    """Ends all processes of the Ray that was started here, at once."""
    node = worker._global_node
    if node is not None:
        for _, process in node.live_processes():
            _end(process.pid)
        if not keep_logs:
            remove_session(Path(node.get_session_dir_path()))


def remove_session(folder: Path) -> None:
    """Removes the folder with the sockets and logs of a Ray that was started here and has ended."""
    shutil.rmtree(folder, ignore_errors=True)
    newest = folder.parent / "session_latest"
    with suppress(OSError):
        if newest.is_symlink() and not newest.exists():
            newest.unlink()


def set_title(title: str) -> None:
    """Names this worker's process for the dashboard; Ray keeps the name that an actor is born with.

    A process outside Ray keeps its own name.
    """
    if ray.is_initialized():
        ray._raylet.setproctitle(title)


def _dead(started: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Whether a vital one of these processes has ended."""
    return any(
        each.poll() is not None and isinstance(each.args, list) and Path(str(each.args[0])).name in VITAL
        for each in started
    )


def _end(pid: int) -> None:
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
