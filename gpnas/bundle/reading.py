"""Reading a bundle: nothing in it is believed before it is verified.

A bundle may come from anyone. Its files are read into memory, never extracted; names are compared
with those that the manifest must have, never joined to a path; weights are safetensors, never pickles.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gpnas.bundle.licensing import checked_licence
from gpnas.bundle.manifest import (
    MANIFEST,
    MAX_MEMBERS,
    SUMS,
    FusionFile,
    LicenceFile,
    Manifest,
    MemberFile,
    ModelCard,
    PictureFile,
    parse_manifest,
    sums,
)
from gpnas.bundle.member import Bundle, Member, Picture, StoredFusion
from gpnas.bundle.weights import Graph, StoredWeights
from gpnas.errors import BundleError
from gpnas.files import nearby, opened
from gpnas.records import Architecture

MAX_MANIFEST = 16 * 2**20
"""Largest manifest and list of checksums that are read, in bytes."""
JOURNAL = "journal.sqlite"
"""The file by which a run folder is known."""
MAX_RATIO = 20
"""Largest ratio of an archive's content to its size; weights reach little more than 1."""
MAX_FILES = MAX_MEMBERS + 6
"""The most files of a bundle: its networks, fusion, manifest, card, picture, licence and list of
checksums."""
PICKLES = (".bin", ".ckpt", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
"""Suffixes of files that run code when they are loaded, or may."""

PNG = b"\x89PNG\r\n\x1a\n"
"""What such a file begins with."""

Entry = ModelCard | PictureFile | LicenceFile | FusionFile | MemberFile
Read = Callable[[int], bytes]
"""Reads a file: as many bytes as asked for, one more where there are more."""


def read_bundle(path: Path) -> Bundle:
    """A bundle whose every byte is as it was written.

    Args:
        path: the folder or the .zip file; a run folder is taken as the bundle in it.

    Raises:
        BundleError: it is missing; a file is missing, changed, surplus or no plain file; its manifest
            breaks the schema or is newer than this gpnas; an archive holds a name twice, is encrypted,
            or would grow beyond reason.
    """
    path = _bundle_of(Path(path))
    with _opened(path) as files:
        manifest, text = _manifest(path, files)
        _check_names(path, files, manifest)
        entries = _entries(manifest)
        digests = [(entry.file, entry.sha256) for entry in entries]
        digests.append((MANIFEST, hashlib.sha256(text).hexdigest()))
        if files[SUMS](MAX_MANIFEST) != sums(digests):
            raise BundleError(f"{path}: {MANIFEST} and {SUMS} must agree, but one has changed; {_AGAIN}")
        _verified(path, files, manifest.model_card)
        picture = None if manifest.picture is None else _picture(path, files, manifest.picture)
        licence = None
        if manifest.licence_file is not None:
            content = _verified(path, files, manifest.licence_file)
            licence = checked_licence(content, f"{path}: {manifest.licence_file.file}")
        members = tuple(_member(path, files, entry) for entry in manifest.members)
        fusion = None if manifest.fusion is None else _fusion(path, files, manifest.fusion)
    return Bundle(manifest, members, picture, licence, fusion)


def _bundle_of(path: Path) -> Path:
    """The bundle that a path means."""
    if not (path / JOURNAL).exists() or (path / MANIFEST).exists():
        return path
    if not (path / "bundle").exists():
        raise BundleError(
            f"{path}: a bundle must be named, but this is a run folder that has none yet; "
            "finish the run, by the same command that began it"
        )
    return path / "bundle"


def _picture(path: Path, files: Mapping[str, Read], entry: PictureFile) -> Picture:
    content = _verified(path, files, entry)
    if not content.startswith(PNG):
        raise BundleError(f"{path}: {entry.file} must be a PNG file, but is not; {_AGAIN}")
    return Picture(content, entry.caption)


def _fusion(path: Path, files: Mapping[str, Read], entry: FusionFile) -> StoredFusion:
    state = _weights(path, entry.file, _verified(path, files, entry))
    return StoredFusion(entry.kind, state, entry.gain, entry.error, entry.images)


def _member(path: Path, files: Mapping[str, Read], entry: MemberFile) -> Member:
    content = _verified(path, files, entry)
    is_onnx = entry.file.endswith(".onnx")  # checked by who runs it
    state = Graph(content, entry.parameters) if is_onnx else _weights(path, entry.file, content)
    if state.count != entry.parameters:
        raise BundleError(
            f"{path}: {entry.file} must hold {entry.parameters} parameters, but holds {state.count}; {_AGAIN}"
        )
    architecture = Architecture(entry.architecture.family, entry.architecture.axes)
    return Member(architecture, state, entry.weight, entry.metrics, entry.candidate)


_AGAIN = "fetch or export the bundle again"


def is_zip(path: Path) -> bool:
    """Whether a bundle of this name is a file."""
    return path.suffix.lower() == ".zip"


def is_bundle(path: Path) -> bool:
    """Whether what lies there is a bundle with nothing else in it, or empty, so that it may be replaced."""
    if is_zip(path):
        if not path.is_file():
            return False
        if path.stat().st_size == 0:
            return True
    elif not path.is_dir():
        return False
    elif not any(path.iterdir()):
        return True
    try:
        with _opened(path) as files:
            manifest, _ = _manifest(path, files)
            return files.keys() <= _names(manifest)
    except BundleError:
        return False


def _names(manifest: Manifest) -> set[str]:
    return {MANIFEST, SUMS, *(entry.file for entry in _entries(manifest))}


def _entries(manifest: Manifest) -> tuple[Entry, ...]:
    """The files that a manifest names."""
    perhaps = (manifest.picture, manifest.licence_file, manifest.fusion)
    return (manifest.model_card, *(entry for entry in perhaps if entry is not None), *manifest.members)


def _manifest(path: Path, files: Mapping[str, Read]) -> tuple[Manifest, bytes]:
    if MANIFEST not in files:
        raise BundleError(
            f"{path}: a bundle must hold {MANIFEST}, but this does not; "
            "name a bundle that `gpnas search` or `gpnas export` wrote"
        )
    text = files[MANIFEST](MAX_MANIFEST)
    if len(text) > MAX_MANIFEST:
        raise BundleError(f"{path}: {MANIFEST} must be smaller than {MAX_MANIFEST} bytes, but is not")
    return parse_manifest(text, str(path)), text


def _check_names(path: Path, files: Mapping[str, Read], manifest: Manifest) -> None:
    expected = _names(manifest)
    for name in sorted(files.keys() - expected):
        why = " (a pickle, which can run code when it is loaded)" if name.lower().endswith(PICKLES) else ""
        raise BundleError(
            f"{path}: a bundle holds the files of its manifest alone, but also {name!r}{why}; "
            "move that file elsewhere, or name another bundle"
        )
    for name in sorted(expected - files.keys()):
        raise BundleError(f"{path}: a bundle must hold {name}, but it is missing; {_AGAIN}")


def _verified(path: Path, files: Mapping[str, Read], entry: Entry) -> bytes:
    content = files[entry.file](entry.bytes)
    if len(content) != entry.bytes or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(
            f"{path}: files must be as they were written, but {entry.file} has changed; {_AGAIN}"
        )
    return content


def _weights(path: Path, name: str, content: bytes) -> StoredWeights:
    try:
        return StoredWeights(content)
    except ValueError as error:
        raise BundleError(
            f"{path}: {name}: weights {error}; fetch or export the bundle again, or train this network again"
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Read]]:
    """The files of a bundle by name, none of them read yet."""
    try:
        if path.is_dir():
            yield _folder(path)
            return
        if not path.exists():
            raise BundleError(
                f"{path}: a bundle must be a folder or a .zip file, but there is nothing"
                + nearby(path, lambda each: each.suffix == ".zip" or (each / MANIFEST).exists())
            )
        with opened(path, follow=True) as file, zipfile.ZipFile(file) as archive:
            yield _archive(path, archive, os.fstat(file.fileno()).st_size)
    # whatever zipfile raises for what is no archive, is damaged, or is beyond it
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"{path}: a bundle must be a folder or a whole .zip file, but {reason}; {_AGAIN}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BundleError(f"{path}: a bundle must be readable, but {reason}") from None


def _folder(path: Path) -> dict[str, Read]:
    files: dict[str, Read] = {}
    if not os.path.lexists(path / MANIFEST):
        return files  # whatever else lies there, it is no bundle
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                kind = "a link" if entry.is_symlink() else "a folder" if entry.is_dir() else "no file"
                raise BundleError(
                    f"{path}: a bundle holds plain files alone, but {entry.name!r} is {kind}; "
                    "move it elsewhere, or name another bundle"
                )
            files[entry.name] = partial(_read_plain, path / entry.name)
    return files


def _read_plain(path: Path, limit: int) -> bytes:
    with opened(path) as file:  # what lies there may have been exchanged meanwhile
        # room for so much is made at once: as much as there is, whatever a manifest asks for
        return file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)


def _archive(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, Read]:
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise BundleError(
            f"{path}: a bundle holds at most {MAX_FILES} files, but this archive holds {len(entries)}"
        )
    content = sum(entry.file_size for entry in entries)
    if content > MAX_RATIO * size + 2**20:
        raise BundleError(
            f"{path}: an archive's content must be at most {MAX_RATIO} times its size, but {size} bytes "
            f"would become {content}"
        )
    files: dict[str, Read] = {}
    for entry in entries:
        name = entry.orig_filename
        if name in files:
            raise BundleError(f"{path}: a bundle holds each file once, but {name!r} twice; {_AGAIN}")
        mode = entry.external_attr >> 16
        is_plain = stat.S_IFMT(mode) in (0, stat.S_IFREG) and not name.endswith("/")
        if not is_plain or name in ("", ".", "..") or any(letter in name for letter in "/\\:\0"):
            raise BundleError(
                f"{path}: a bundle holds plain files at its top alone, but has {name!r}; {_AGAIN}"
            )
        files[name] = partial(_read_entry, archive, entry)
    return files


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError(f"{entry.filename} is encrypted or compressed in a rare way")
    with archive.open(entry) as file:
        return file.read(min(limit, entry.file_size) + 1)
