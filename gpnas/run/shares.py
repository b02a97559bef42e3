"""Fair shares of one Ray among the searches on it, which come and go.

Each driver holds the lock on a file of its own in a folder of this machine, and the file says how many trials
it would run at once. A lock goes with its process, however that ends, so that the files with locks are the
searches that are there, and nobody has to keep account. Each driver works out its own share from all of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gpnas.files import turn

FOLDER = "GPNAS_SHARED_RAY"
"""Variable with the folder of a Ray that several drivers share; the service sets it."""
SUFFIX = ".share"
GATE = "gate"
"""File whose lock whoever enters, or looks whether anyone is left, has for a moment."""
TURN_SECONDS = 30.0
"""So long those have one more who have one where not all can have as many."""
LOOK_SECONDS = 1.0
"""Pause between looks at the others."""


def fair(room: int, wants: Sequence[int], turn: int = 0) -> list[int]:
    """How many trials each of several searches may run at once.

    None gets more than it wants while another gets less than it wants and at least two less. What is left
    over goes to each in turn.

    Args:
        room: trials that run at once in all.
        wants: the most that each would run.
        turn: a number that rises; who comes first changes with it.
    """
    shares, left = [0] * len(wants), room
    order = [(turn + place) % len(wants) for place in range(len(wants))]
    while left > 0 and any(share < want for share, want in zip(shares, wants, strict=True)):
        for place in order:
            if left > 0 and shares[place] < wants[place]:
                shares[place] += 1
                left -= 1
    return shares


class Share:
    """One search's share; it is there until it is closed or its process ends."""

    def __init__(self, folder: Path, wants: int) -> None:
        """Enters a search among those that share.

        Args:
            folder: theirs; made where it is missing.
            wants: the most trials that it would run at once.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        token = secrets.token_hex(8)
        self._name = f"{token}{SUFFIX}"
        # under its name once it is locked, since others remove what nobody holds
        self._descriptor = os.open(folder / token, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.pwrite(self._descriptor, json.dumps({"wants": wants}).encode(), 0)
        (folder / token).rename(folder / self._name)
        self._looked, self._wants = -LOOK_SECONDS, {self._name: wants}

    def close(self) -> None:
        """Leaves the others all there is; the second time nothing happens."""
        with suppress(OSError):
            (self._folder / self._name).unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def allowed(self, room: int) -> int:
        """How many trials this search may run at once now.

        Args:
            room: trials of its size that run at once in all.
        """
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._wants = {**wanted(self._folder), self._name: self._wants[self._name]}
            self._looked = time.monotonic()
        names = sorted(self._wants)
        turn = int(time.time() / TURN_SECONDS)
        return fair(room, [self._wants[name] for name in names], turn)[names.index(self._name)]


def wanted(folder: Path) -> dict[str, int]:
    """What each search that shares would run; files of those that are gone are removed."""
    found = {}
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError, ValueError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found[path.name] = max(0, int(json.loads(os.pread(descriptor, 1_000, 0))["wants"]))
            else:
                path.unlink()
            finally:
                os.close(descriptor)
    return found


@contextmanager
def gate(folder: Path) -> Iterator[None]:
    """The right to enter, or to find that nobody is there, one at a time."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with turn(folder / GATE):
        yield
