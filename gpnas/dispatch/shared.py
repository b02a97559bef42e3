"""A Ray on this machine that the drivers of several searches share.

Whoever needs it first starts its keeper, a process that outlives each of them: `python -m
gpnas.dispatch.shared FOLDER`. It starts Ray as a search does, says in the folder where, and ends it once
nobody has been there for a while.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from gpnas.dispatch import private_ray
from gpnas.dispatch.cluster import StartError, connected
from gpnas.errors import TrialError
from gpnas.files import is_locked, replacing
from gpnas.run.shares import Share, gate, wanted

PLACE, LOG, KEEPER = "ray.json", "ray.log", "keeper"
"""Where Ray is; what its keeper says; the file whose lock the keeper has."""
START_SECONDS = 120.0
IDLE_SECONDS = 60.0
"""So long Ray is kept while no search is there."""
LOOK_SECONDS = 0.5


@contextmanager
def joined(folder: Path, wants: int) -> Iterator[tuple[str, Share]]:
    """The address of the Ray that a folder's drivers share, started where there is none, and a share of it.

    Args:
        folder: theirs.
        wants: the most trials that the search would run at once.

    Raises:
        StartError: it cannot be started, or died meanwhile.
    """
    with ExitStack() as stack:
        with gate(folder):
            share = stack.enter_context(closing(Share(folder, wants)))
            if not is_kept(folder):
                with suppress(OSError):
                    (folder / PLACE).unlink()
                _start(folder)
        yield _address(folder), share


def is_kept(folder: Path) -> bool:
    """Whether the keeper of a folder's Ray lives."""
    with suppress(OSError):
        return is_locked(folder / KEEPER)
    return False


def _start(folder: Path) -> None:
    """Starts a keeper, and returns once it has its lock."""
    with open(folder / LOG, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpnas.dispatch.shared", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    ending = time.monotonic() + START_SECONDS
    while not is_kept(folder):
        if process.poll() is not None or time.monotonic() > ending:
            raise StartError(f"Ray must be reachable on this machine, but did not start; see {folder / LOG}")
        time.sleep(0.1)


def _address(folder: Path) -> str:
    ending = time.monotonic() + START_SECONDS
    while is_kept(folder) and time.monotonic() < ending:
        with suppress(OSError, ValueError):
            return str(json.loads((folder / PLACE).read_text())["address"])
        time.sleep(0.1)
    raise StartError(f"Ray must be reachable on this machine, but did not start; see {folder / LOG}")


def keep(folder: Path) -> None:
    """Keeps a Ray on this machine while searches are there; returns once they were gone for a while."""
    descriptor = os.open(folder / KEEPER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    try:
        with connected(None, os.cpu_count() or 1) as cluster:
            with replacing(folder / PLACE) as fresh:
                fresh.write_text(json.dumps({"address": cluster.address, "pid": os.getpid()}))
            _watch(folder, ending, descriptor)
            if private_ray.has_died():
                private_ray.kill(keep_logs=True)
    finally:
        with suppress(OSError):
            (folder / PLACE).unlink()


def _watch(folder: Path, ending: threading.Event, descriptor: int) -> None:
    """Returns once Ray is not needed any longer, has died, or is to end; it is kept no more then."""
    seen = time.monotonic()
    while not ending.wait(LOOK_SECONDS) and not private_ray.has_died():
        with gate(folder):
            if wanted(folder):
                seen = time.monotonic()
            elif time.monotonic() - seen > IDLE_SECONDS:
                with suppress(OSError):
                    (folder / PLACE).unlink()
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # who comes now has another Ray started
                return


if __name__ == "__main__":
    try:
        keep(Path(sys.argv[1]))
    except TrialError as error:
        sys.exit(str(error))
