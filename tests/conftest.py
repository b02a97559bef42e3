"""What every test needs before anything else is imported, and what tests of several modules need."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# nothing is timed: an example may be slow, as on a machine that others share
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of the processes that share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


LANES = (
    ("test_dispatch", "test_s3", "test_conductor", "test_working_folder"),
    (
        *("test_final", "test_signals", "test_killing", "test_full_disk"),
        *("test_own_networks", "test_cluster", "test_own_training", "test_resources"),
    ),
)
"""Modules that start Ray; those of a lane run one after another, so that no more than two do at once. One
that is missing here runs in the first lane."""
SPREAD = "::test_a_long_page_is_typed["
"""Tests of a module that starts Ray which are shared out among the lanes."""
LONG = ("test_package", "test_cluster_pages", "test_site", "test_notebooks", "test_engine", "test_ranks")
"""Modules that take long though they have few tests, the longest first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spreads modules over the processes of pytest-xdist, and those that start Ray over two of them."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = nodeid.partition("::")[0]
            lane = _lane(config.rootpath / name)
            if SPREAD in nodeid:
                lane = (1 + len(nodeid)) % len(LANES)  # by chance, and evenly
            return name if lane is None else f"lane {lane}"

    config.option.loadscopereorder = False  # modules come in the order in which they are collected
    return ByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules come first where processes share them, so that none is left with one at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _place(item.path))


def _place(module: Path) -> int:
    lane = _lane(module)
    if lane is not None:
        return lane - len(LANES)
    return LONG.index(module.stem) if module.stem in LONG else len(LONG)


@functools.cache
def _lane(module: Path) -> int | None:
    """The number of the lane of a module that starts Ray."""
    if "pytest.mark.ray" not in module.read_text():
        return None
    return next((number for number, lane in enumerate(LANES) if module.stem in lane), 0)


@pytest.fixture(scope="module", autouse=True)
def _folder_of_ray() -> Iterator[None]:
    """A folder for what Ray writes while a module's tests run."""
    with _folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        yield


@contextmanager
def _folder() -> Iterator[str]:
    """A folder for Ray; it and the processes that were started with it in their environment end together."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short, since names of sockets are
    try:
        yield folder
    finally:
        if os.listdir(folder):
            _end_processes(f"RAY_TMPDIR={folder}".encode())
        shutil.rmtree(folder, ignore_errors=True)


def _end_processes(variable: bytes) -> None:
    """Ends every process that was started with a variable in its environment."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="session", autouse=True)
def _own_name() -> Iterator[None]:
    """The test process keeps its name, though Ray renames the processes of its workers."""
    line = Path("/proc/self/cmdline")
    before = line.read_bytes() if line.exists() else b""
    yield
    assert not line.exists() or line.read_bytes() == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 768 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of prepared pairs that modules share, so that the shipped photographs are prepared once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Path]:
    """A folder of the module's own; pairs are prepared in the cache that modules share."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPNAS_CACHE", str(cache))
        yield folder


@pytest.fixture(scope="session")
def _shared_ray() -> Iterator[tuple[str, dict[str, str]]]:
    """The address of one Ray for searches of all modules, and the variables of who joins it."""
    from gpnas.dispatch.cluster import token_file

    variables = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONSAFEPATH": "1"}
    variables["RAY_AUTH_TOKEN_PATH"] = str(token_file())  # also where a test has a home of its own
    with _folder() as folder:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (*variables.items(), ("RAY_TMPDIR", folder)):
                patch.setenv(name, value)
            # on a machine with other work Ray may give itself up after half a minute
            address = next(address for address in (_ray() for _ in range(4)) if address)
        yield address, variables


@pytest.fixture(scope="module")
def cluster(_shared_ray: tuple[str, dict[str, str]]) -> Iterator[str]:
    """The address of a Ray that modules share, for searches with `--address`."""
    address, variables = _shared_ray
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield address


def _ray() -> str | None:
    """The address of a Ray that was started, None where its start failed."""
    import ray

    address = ray.util.get_node_ip_address()  # an earlier module may have had Ray decide against loopback
    with socket.create_server((address, 0)) as probe:
        port = probe.getsockname()[1]
    command = ["start", "--head", f"--node-ip-address={address}", f"--port={port}", "--num-cpus=2"]
    command += ["--disable-usage-stats", "--include-dashboard=false", "--include-log-monitor=false"]
    done = subprocess.run([Path(sys.executable).with_name("ray"), *command], capture_output=True, check=False)
    return f"{address}:{port}" if done.returncode == 0 else None


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium without a window, driven by its own driver; it asks no network for anything."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver: `apt-get install chromium chromium-driver`")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_script_timeout(300)
    opened.set_page_load_timeout(300)
    yield opened
    opened.quit()
