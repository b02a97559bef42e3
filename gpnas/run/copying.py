"""The journal's copies in a storage: what is left of a search whose driver's disk is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from gpnas.errors import JournalError, TrialError
from gpnas.files import replacing
from gpnas.journal import Journal
from gpnas.journal.examining import BACKUP, JOURNAL
from gpnas.run.storage import Storage, open_storage, storage_in

COPY_SECONDS = 10.0
"""Least time between two copies."""


class JournalCopy:
    """Copies a run's journal to a storage in the background: after `touch`, and at the end.

    What is copied is the journal's own backup, which is whole at any moment. A copy that fails is told
    once, and tried again; the journal itself is on the driver's disk.
    """

    def __init__(self, run: Path, storage: Storage, say: Callable[[str], None]) -> None:
        self._run, self._storage, self._say = run, storage, say
        self._due, self._end = threading.Event(), threading.Event()
        self._told = False
        self._thread = threading.Thread(target=self._work, name="journal copy", daemon=True)

    def touch(self) -> None:
        """Says that the journal has grown."""
        self._due.set()

    def __enter__(self) -> JournalCopy:
        self._check_is_newest()
        try:
            self._storage.put(self._run / BACKUP, JOURNAL)
        except OSError as error:  # known before any training
            raise _unusable(self._storage, error) from None
        self._thread.start()
        return self

    def _check_is_newest(self) -> None:
        """Refuses to replace a copy that has observations of its own, as where another machine went on."""
        with TemporaryDirectory() as folder:
            if fetch_journal(Path(folder), self._storage) is None:
                return
            try:
                with Journal.read(Path(folder)) as copy, Journal.read(self._run, check=False) as own:
                    known = {each.candidate.id: each for each in own.observations()}
                    lacking = sum(known.get(each.candidate.id) != each for each in copy.observations())
            except JournalError as error:
                reason = str(error).partition(": ")[2]
                raise TrialError(
                    f"{self._storage.uri}: the journal's copy there must be readable before another "
                    f"takes its place, but {reason}; look at it, then move it away"
                ) from None
        if lacking:
            raise TrialError(
                f"{self._run}: a journal must be as new as its copy, but that in {self._storage.uri} has "
                f"{lacking} observations which it lacks; move {self._run} away, and the same command goes on "
                "from the copy"
            )

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._due.set()
        self._thread.join()
        self._copy()

    def _work(self) -> None:
        while not self._end.is_set():
            self._due.wait()
            self._due.clear()
            if not self._end.is_set():
                self._copy()
            self._end.wait(COPY_SECONDS)

    def _copy(self) -> None:
        try:
            self._storage.put(self._run / BACKUP, JOURNAL)
            self._told = False
        except OSError as error:
            if not self._told:
                self._say(f"{self._storage.uri}: the journal's copy there is out of date, since {error}")
            self._told = True


def journal_copied(
    run: Path, storage: Storage, say: Callable[[str], None]
) -> AbstractContextManager[JournalCopy | None]:
    """A context that copies a run's journal to its storage; None where that is the run folder itself."""
    return nullcontext() if storage.uri == str(run) else JournalCopy(run, storage, say)


def storage_for(run: Path, uri: str | None, say: Callable[[str], None]) -> Storage:
    """Where a run's artefacts go; a run folder that lost its journal gets it back from there.

    Args:
        run: the run folder.
        uri: of the storage, as a user names it; None is where an existing run has put them, or `run`.
        say: told where the journal came back.
    """
    if uri is None:
        return storage_in(run)
    storage = open_storage(uri)
    note = fetch_journal(run, storage) if storage.uri != str(run) else None
    if note:
        say(note)
    return storage


def fetch_journal(run: Path, storage: Storage) -> str | None:
    """Takes the journal's copy from a storage where the run folder has lost its own, or never had one.

    Returns:
        One line that says so, None where nothing was to be done.

    Raises:
        TrialError: the storage cannot be read.
    """
    if Journal.exists(run):
        return None
    try:
        if not storage.exists(JOURNAL):
            return None
        run.mkdir(parents=True, exist_ok=True)
        with replacing(run / BACKUP) as fresh:
            storage.fetch(JOURNAL, fresh)
    except OSError as error:
        raise _unusable(storage, error) from None
    return f"{run} has no journal: going on from its copy in {storage.uri}"


def _unusable(storage: Storage, error: OSError) -> TrialError:
    return TrialError(
        f"{storage.uri}: a run's storage must be readable and writable, but {' '.join(str(error).split())}; "
        "mend that, or choose another with --storage"
    )
