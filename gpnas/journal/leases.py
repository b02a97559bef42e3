"""Leases: who may train which candidate, and until when.

Whoever is handed a candidate holds a lease on it: one attempt, with an end. A holder that is heard of
renews its lease; where it runs out, the attempt is lost, and the candidate is handed out again as the next
attempt. The attempt's number is the lease's fencing number, since it rises with every lease on a candidate:
of two that claim to train it, the higher one is right. What a holder that was overtaken tells is labelled,
and counts where it is the first observation of the candidate.

Two clocks keep the time. On the machine, and in the boot, that granted or renewed a lease its monotonic clock
decides, which nobody sets; after a reboot or elsewhere the wall clock does, and leaves no lease more than its
own length. A lease that is bound to a process of this machine ends with that process, and not before.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import JournalError, LeaseError
from gpnas.journal.documents import decode_lease, encode_lease, explain
from gpnas.records import Observation

if TYPE_CHECKING:
    import sqlite3

    from gpnas.journal.journal import Journal

LONGEST_SECONDS = 366 * 86_400.0
"""Longest lease."""


@dataclass(frozen=True)
class Clock:
    """What time it is."""

    wall: float
    """Seconds since 1970, as the machine's clock is set."""
    ticks: float
    """Seconds of the monotonic clock of this boot."""
    boot: str
    """Which machine, and which boot of it, counts the ticks; empty where that is not known."""

    @classmethod
    def now(cls) -> Clock:
        """The time here and now."""
        return cls(time.time(), time.monotonic(), boot())


@dataclass(frozen=True)
class Holder:
    """Whoever trains."""

    name: str
    """The holder's name, for people and to know one again that asks once more; 1 … 200 printable
    characters."""
    process: str | None = None
    """A process of this machine, as `process_identity` names it, whose end ends the lease; None where time
    alone does."""

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= 200 and self.name.isprintable()):
            raise JournalError(
                f"a worker's name must have 1 to 200 printable characters, but got {self.name!r:.60}"
            )


@dataclass(frozen=True)
class Lease:
    """A right to train a candidate, for a while."""

    id: str
    """Nobody can guess it."""
    candidate: str
    """The candidate's name."""
    attempt: int
    """Number of the attempt, from 1. It is the fencing number too: it rises with each lease."""
    holder: Holder
    seconds: float
    """Its length: so long it lasts without a renewal."""
    expires: float
    """When it runs out, in seconds since 1970."""
    ticks: float
    """When it runs out, by the monotonic clock of the boot that granted or renewed it."""
    boot: str
    """Which boot that was."""
    checkpoint: str | None = None
    """Address where the holder keeps what it has trained so far; None where it named none."""
    outcome: str | None = None
    """What became of it, in a word such as `observed`, `lost` or `given back`; None while it lasts."""

    def remaining(self, clock: Clock) -> float:
        """Seconds until it runs out; of one that is bound to a process infinite while that lives, then 0."""
        if self.holder.process is not None:
            lives = is_alive(self.holder.process)
            if lives is not None:
                return math.inf if lives else 0.0
        if self.boot and self.boot == clock.boot:
            return self.ticks - clock.ticks
        return min(self.expires - clock.wall, self.seconds)


@lru_cache(maxsize=1)
def boot() -> str:
    """A name of this machine's present boot that tells nothing of the machine; empty where there is none."""
    try:
        own = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(b"gpnas " + own).hexdigest()[:16]


def process_identity(pid: int | None = None) -> str | None:
    """A name of a process that no later process will have; None where the system does not tell.

    Args:
        pid: of the process; None is this one.
    """
    started = _started(pid or os.getpid())
    return f"{boot()}:{_namespace()}:{pid or os.getpid()}:{started}" if boot() and started else None


def is_alive(identity: str) -> bool | None:
    """Whether a process lives; None where it is another machine's, or hidden from here by a container."""
    where, namespace, pid, started = (identity.split(":") + [""] * 4)[:4]
    if where != boot() or namespace != _namespace() or not pid.isdigit():
        return None
    return _started(int(pid)) == started


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started, in ticks since the boot; empty where there is none, or only its remains."""
    try:
        # what follows the name, which may hold anything (proc(5), /proc/pid/stat)
        state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]


class Leases:
    """The leases of a journal; what a method enters is one transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def grant(self, candidate: str, holder: Holder, seconds: float, clock: Clock | None = None) -> Lease:
        """Enters a new attempt at a candidate, and its holder's lease.

        Args:
            candidate: name of a committed candidate that no open lease is on.
            holder: whoever trains.
            seconds: so long the lease lasts without a renewal; above 0, at most a year.
            clock: the time; None is now.

        Raises:
            JournalError: somebody holds the candidate, or a number is out of range.
        """
        clock = clock or Clock.now()
        if not 0 < seconds <= LONGEST_SECONDS:
            raise JournalError(
                f"a lease must last more than 0 and at most {LONGEST_SECONDS:.0f} s, but got {seconds:g}"
            )
        with self._journal.writing() as connection:
            if self.open([candidate]):
                raise JournalError(
                    f"{self._journal.run}: one at a time may train {candidate}, but somebody does; ask again"
                )
            lease = Lease(
                secrets.token_hex(8),
                candidate,
                self._journal.start_attempt(candidate),
                holder,
                seconds,
                clock.wall + seconds,
                clock.ticks + seconds,
                clock.boot,
            )
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?, ?)",
                (lease.id, candidate, lease.attempt, *_encoded(lease)),
            )
        return lease

    def renew(self, identity: str, *, checkpoint: str | None = None, clock: Clock | None = None) -> Lease:
        """Has a lease last for its length from now on.

        Args:
            identity: the lease's `id`.
            checkpoint: address of what is trained so far; None keeps what was named before.
            clock: the time; None is now.

        Raises:
            LeaseError: it is no longer its holder's; the line says what happened.
        """
        clock = clock or Clock.now()
        with self._journal.writing() as connection:
            lease = self.find(identity)
            if lease.outcome is not None:
                raise LeaseError(self.told(lease))
            renewed = replace(
                lease,
                expires=clock.wall + lease.seconds,
                ticks=clock.ticks + lease.seconds,
                boot=clock.boot,
                checkpoint=lease.checkpoint if checkpoint is None else checkpoint,
            )
            connection.execute(
                "UPDATE leases SET document = ?, crc32 = ? WHERE id = ?", (*_encoded(renewed), identity)
            )
        return renewed

    def end(self, identity: str, outcome: str = "given back") -> None:
        """Gives a lease up before its time; nothing happens where it has ended."""
        with self._journal.writing():
            lease = self.find(identity)
            if lease.outcome is None:
                self._journal.end_attempt(lease.candidate, lease.attempt, outcome)

    def lapse(self, clock: Clock | None = None, among: Collection[str] | None = None) -> list[Lease]:
        """Ends as `lost` every lease that has run out, and returns these.

        Args:
            clock: the time; None is now.
            among: candidates of which alone it is asked; None is all.
        """
        clock = clock or Clock.now()
        if not any(lease.remaining(clock) <= 0 for lease in self.open(among)):
            return []
        with self._journal.writing():
            lost = [lease for lease in self.open(among) if lease.remaining(clock) <= 0]
            for lease in lost:
                self._journal.end_attempt(lease.candidate, lease.attempt, "lost")
        return [replace(lease, outcome="lost") for lease in lost]

    def tell(self, observation: Observation, identity: str | None = None) -> bool:
        """Enters an observation that the holder of a lease tells, late or not.

        What comes too late is entered as an event `late` too, and where the candidate was observed before it
        stands there alone. Another holder who trains the candidate is overtaken: its lease ends.

        Args:
            observation: of the lease's candidate.
            identity: the lease's `id`; None where nobody has one, as for a training made elsewhere.

        Returns:
            Whether it counts: False where the candidate was observed before.
        """
        name = observation.candidate.id
        with self._journal.writing(keep=True) as connection:
            lease = None if identity is None else self.find(identity)
            if lease is not None and lease.candidate != name:
                raise JournalError(
                    f"{self._journal.run}: a lease tells of its own candidate, {lease.candidate}, "
                    f"but got {name}"
                )
            number = 0 if lease is None else lease.attempt
            self._journal.end_open_attempts("overtaken", name, but=number)
            counts = self._journal.commit_observation(observation)
            if lease is not None and lease.outcome is not None:
                if counts:
                    connection.execute(
                        "UPDATE attempts SET outcome = 'observed late' WHERE candidate = ? AND number = ?",
                        (name, number),
                    )
                self._journal.enter_event("late", _late(lease, observation, counts))
        return counts

    def find(self, identity: str) -> Lease:
        """The lease of a name, open or ended; a LeaseError where there is none."""
        found = self._read("WHERE leases.id = ?", identity)
        if not found:
            raise LeaseError(
                f"{self._journal.run}: a lease must be one of this run's, but there is no {identity!r:.40}"
            )
        return found[0]

    def of(self, candidate: str) -> list[Lease]:
        """Every lease on a candidate, in the order of their attempts."""
        return self._read("WHERE leases.candidate = ? ORDER BY leases.attempt", candidate)

    def newest(self, candidate: str) -> Lease | None:
        """The newest lease on a candidate; None where nobody ever had one."""
        return self._newest(candidate)

    def checkpoint(self, candidate: str) -> str | None:
        """Address of what a candidate's attempts have trained, as the newest that named one said."""
        found = self._newest(candidate, "AND json_extract(leases.document, '$.checkpoint') > ''")
        return found.checkpoint if found else None

    def open(self, among: Collection[str] | None = None) -> list[Lease]:
        """Leases that nobody has ended, run out or not: those on some candidates, or all."""
        chosen = "" if among is None else "AND leases.candidate IN (SELECT value FROM json_each(?))"
        return self._read(
            f"WHERE attempts.ended IS NULL {chosen} ORDER BY leases.candidate, leases.attempt",
            *([] if among is None else [json.dumps([*among])]),
        )

    def lasting(self, among: Collection[str] | None = None) -> list[Lease]:
        """Leases that nobody has ended and that have not run out: those on some candidates, or all."""
        clock = Clock.now()
        return [each for each in self.open(among) if each.remaining(clock) > 0]

    def told(self, lease: Lease) -> str:
        """What became of a lease that has ended, in one line."""
        newest = self.newest(lease.candidate) or lease
        line = f"the lease on {lease.candidate}, attempt {lease.attempt}, is {lease.outcome}"
        if newest.attempt > lease.attempt:
            return f"{line}; {newest.holder.name} has it as attempt {newest.attempt}; stop training it"
        return f"{line}; stop training it, and ask for another"

    def _newest(self, candidate: str, condition: str = "") -> Lease | None:
        where = f"WHERE leases.candidate = ? {condition} ORDER BY leases.attempt DESC LIMIT 1"
        return next(iter(self._read(where, candidate)), None)

    def _read(self, where: str, *arguments: Any) -> list[Lease]:
        with self._journal.reading() as connection:
            rows = connection.execute(
                "SELECT leases.id, leases.candidate, leases.attempt, attempts.outcome, leases.document, "
                "leases.crc32 FROM leases JOIN attempts ON attempts.candidate = leases.candidate "
                f"AND attempts.number = leases.attempt {where}",
                arguments,
            )
            return [_lease(*row) for row in rows]


def tried(connection: sqlite3.Connection, among: Collection[str]) -> set[str]:
    """Those of some candidates that an attempt under way is at."""
    rows = connection.execute(
        "SELECT candidate FROM attempts WHERE candidate IN (SELECT value FROM json_each(?)) "
        "AND ended IS NULL",
        (json.dumps([*among]),),
    )
    return {name for (name,) in rows}


def _encoded(lease: Lease) -> tuple[str, int]:
    own = {name: getattr(lease, name) for name in ("seconds", "expires", "ticks", "boot", "checkpoint")}
    try:
        return encode_lease({"holder": lease.holder.name, "process": lease.holder.process, **own})
    except ValueError as error:
        raise JournalError(f"a lease must be as a journal holds it, but {explain(error)}") from None


def _lease(identity: str, candidate: str, attempt: int, outcome: str | None, text: Any, crc32: Any) -> Lease:
    read = decode_lease(identity, text, crc32).model_dump()
    holder = Holder(read.pop("holder"), read.pop("process"))
    return Lease(identity, candidate, attempt, holder, **read, outcome=outcome)


def _late(lease: Lease, observation: Observation, counts: bool) -> dict[str, Any]:
    return {
        "candidate": lease.candidate,
        "attempt": lease.attempt,
        "holder": lease.holder.name,
        "outcome": lease.outcome,
        "counted": counts,
        "value": observation.value,
        "failure": observation.failure,
    }
