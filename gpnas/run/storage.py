"""Where a run's artefacts lie: a folder, or anything that pyarrow has a filesystem for, such as S3.

A storage is opened by its address, on the driver and in every worker. Under its root lie

    candidates/c0007/attempt-1/checkpoint.pt, …    what `dispatch.trial` keeps
    journal.sqlite                                 the newest copy of the journal
    pairs/FINGERPRINT/…                            prepared pairs, for nodes that lack them

An artefact is there wholly or not at all: a file is written under another name, synced and renamed; an
object is put at once. A local folder costs no more than plain files, and loads nothing of pyarrow.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from gpnas.errors import TrialError
from gpnas.files import check, is_full, opened, replacing

if TYPE_CHECKING:  # a worker opens storages, and never needs a journal
    from gpnas.journal import Journal

OBJECT_STORES = ("s3", "gcs", "abfs")
"""Kinds by pyarrow's names: an object of theirs appears once its writer is closed, and not before."""
CHUNK_BYTES = 2**22
"""Bytes of one read of a file on its way."""


class Storage(ABC):
    """A run's artefacts, by name: relative, with slashes.

    Whatever cannot be read or written raises an `OSError`, one that is not there a `FileNotFoundError`;
    a name that could leave the storage is a `ValueError`.
    """

    uri: str
    """Address with which `open_storage` opens it again, on any machine."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Every artefact in a folder and those below, newest first; empty where there is no folder."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether an artefact, or a folder, is there."""

    @abstractmethod
    def reading(self, name: str) -> AbstractContextManager[Path]:
        """A context with the path of a local file that holds the artefact; not to be written to."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A context with the path of a local file to write; it becomes the artefact when all went well."""

    @abstractmethod
    def claim(self, folder: str) -> bool:
        """Makes a folder; False where it is there already. Of several who ask, at most one gets True."""

    @abstractmethod
    def fetch(self, name: str, path: Path) -> None:
        """Copies an artefact to a local file."""

    @abstractmethod
    def put(self, path: Path, name: str) -> None:
        """Copies a local file to an artefact, or replaces it."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Removes a folder with all that is in it, as far as that goes."""

    def address(self, name: str) -> str:
        """Where a person finds an artefact."""
        place, mark, options = self.uri.partition("?")
        return f"{place}/{checked(name)}{mark}{options}"

    def read(self, name: str) -> bytes:
        """An artefact's content."""
        with self.reading(name) as path:
            return path.read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Writes an artefact, or replaces it."""
        with self.writing(name) as path:
            path.write_bytes(data)


def storage_of(journal: Journal) -> Storage:
    """Where the artefacts of a run lie, as its journal's header says."""
    return open_storage(journal.header.storage or str(journal.run))


def storage_in(run: Path) -> Storage:
    """The same of a run folder, by the journal that lies in it; the folder itself where there is none."""
    from gpnas.journal import Journal

    if not Journal.exists(run):
        return open_storage(str(run))
    with Journal.read(run) as journal:
        return storage_of(journal)


def open_storage(uri: str) -> Storage:
    """The storage at an address: a path, `file://…`, `s3://bucket/folder`, or what else pyarrow knows.

    Raises:
        TrialError: there is no such storage, or its address holds a secret.
    """
    parts = urlsplit(uri)
    if "://" not in uri or parts.scheme == "file":
        path = Path(unquote(parts.path) if "://" in uri else uri)
        return Folder(path.absolute())
    given = parse_qsl(parts.query)
    if parts.password or any(
        word in name.lower() for name, _ in given for word in ("key", "token", "secret")
    ):
        raise TrialError(
            f"{parts.scheme}://{parts.hostname or ''}{parts.path}: a storage's address must hold no secrets, "
            "since it is written to logs, but it does; give them by a role, a profile or AWS_* variables"
        )
    return _objects(uri)


@lru_cache(maxsize=8)
def _objects(uri: str) -> Objects:
    """One client for each address."""
    return Objects(uri)


class Folder(Storage):
    """A folder of this machine, or one that all nodes mount."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def _path(self, name: str) -> Path:
        return self.root / checked(name)

    def address(self, name: str) -> str:
        return str(self._path(name))

    def names(self, folder: str) -> list[str]:
        found = []
        for path in self._path(folder).rglob("*"):
            with suppress(FileNotFoundError):  # replaced meanwhile
                if not path.name.startswith(".") and path.is_file():
                    found.append((-path.stat().st_mtime_ns, path.relative_to(self.root).as_posix()))
        return [name for _, name in sorted(found)]

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        path = self._path(name)
        check(path)
        yield path

    def fetch(self, name: str, path: Path) -> None:
        with opened(self._path(name)) as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)

    def put(self, path: Path, name: str) -> None:
        with self.writing(name) as temporary, opened(path) as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary

    def claim(self, folder: str) -> bool:
        path = self._path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            return False
        return True

    def remove(self, folder: str) -> None:
        shutil.rmtree(self._path(folder), ignore_errors=True)


class Objects(Storage):
    """A filesystem of pyarrow's."""

    def __init__(self, uri: str) -> None:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        self.uri = uri
        try:
            self._system, root = FileSystem.from_uri(uri)
        except (ArrowException, OSError, ValueError) as error:
            raise TrialError(
                f"{uri}: a storage must be a path or an address that pyarrow can open, but {_line(error)}"
            ) from None
        self._root = root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked(name)}"

    def names(self, folder: str) -> list[str]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        with _errors():
            found = [info for info in self._system.get_file_info(selector) if info.is_file]
        found.sort(key=lambda info: (-(info.mtime_ns or 0), info.path))
        names = [info.path.removeprefix(f"{self._root}/") for info in found]
        return [name for name in names if not PurePosixPath(name).name.startswith(".")]

    def exists(self, name: str) -> bool:
        from pyarrow.fs import FileType

        with _errors():
            (info,) = self._system.get_file_info([self._path(name)])
        return bool(info.type != FileType.NotFound)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="gpnas-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            self.fetch(name, path)
            yield path

    def fetch(self, name: str, path: Path) -> None:
        with (
            _errors(),
            self._system.open_input_stream(self._path(name)) as source,
            open(path, "wb") as target,
        ):
            shutil.copyfileobj(source, target, CHUNK_BYTES)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="gpnas-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            yield path
            self.put(path, name)

    def put(self, path: Path, name: str) -> None:
        final = self._path(name)
        with _errors():
            if self._system.type_name in OBJECT_STORES:
                self._copy(path, final)
                return
            parent, _, last = final.rpartition("/")
            temporary = f"{parent}/.{last}.{os.uname().nodename}.{os.getpid()}"
            self._system.create_dir(parent, recursive=True)
            self._copy(path, temporary)
            self._system.move(temporary, final)

    def _copy(self, path: Path, final: str) -> None:
        with open(path, "rb") as source, self._system.open_output_stream(final) as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)

    def claim(self, folder: str) -> bool:
        # object stores have no folders to race for; who sees another's marker beside their own has lost, and
        # of two that wrote at once both have
        if self.exists(folder):
            return False
        name = f"{folder}/started-{uuid.uuid4().hex}"
        self.write(name, b"")
        return self.names(folder) == [name]

    def remove(self, folder: str) -> None:
        with suppress(OSError), _errors():
            self._system.delete_dir(self._path(folder))


def checked(name: str) -> str:
    """A name that stays within its storage.

    Raises:
        ValueError: it does not.
    """
    parts = name.split("/")
    if not all(re.fullmatch(r"[A-Za-z0-9_+=@,.-]+", part) and part.strip(".") for part in parts):
        raise ValueError(
            "an artefact's name must be relative, of letters, digits and _+=@,.- between slashes, "
            f"but got {name!r}"
        )
    return name


def unusable(uri: str, error: OSError | str) -> str:
    """What a person is told where trials cannot use a storage, in one line."""
    why = "the disk is full" if is_full(error) else " ".join(str(error).split())
    what = "trials must be able to read and write here"
    return f"{uri}: {what}, but {why}; mend that and run the same command again"


@contextmanager
def _errors() -> Iterator[None]:
    """Has pyarrow raise nothing but `OSError`."""
    from pyarrow import ArrowException

    try:
        yield
    except OSError:
        raise
    except ArrowException as error:
        raise OSError(_line(error)) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
