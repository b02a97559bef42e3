"""What `gpnas doctor` looks at: this installation, this machine, and a run folder or a bundle.

Nothing is changed, nothing is started, and what is said holds no name of the machine and no secret.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from gpnas.bundle import read_bundle
from gpnas.errors import BundleError, GpnasError, TrialError
from gpnas.files import SERVICE, ray_token_file
from gpnas.journal import Journal, status
from gpnas.results.networks import trained_weights
from gpnas.run.provenance import machine
from gpnas.run.setup import OwnSetup
from gpnas.run.storage import storage_of
from gpnas_trainers.pairs import cache_folder

Verdict = Literal["good", "note", "bad"]

LEAST_FREE = 2 * 2**30
"""Free bytes below which a disk is noted: a search's checkpoints and prepared pairs need about so much."""
LEAST_SHARED = 128 * 2**20
"""Free bytes of shared memory below which Ray's object store falls back to slow files."""
OPTIONAL = ("onnx", "onnxruntime", "onnxscript", "tensorboard", "pandas")
"""Packages that some commands use where they are installed."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    part: str
    """What it belongs to, such as `packages`."""
    subject: str
    """What was looked at, such as `torch`."""
    finding: str
    """What was seen, and what to do where it is not good."""
    verdict: Verdict = "good"
    """`note`: worth knowing when something goes wrong; `bad`: something will fail."""


def installation() -> Iterator[Check]:
    """Versions of the packages that gpnas needs, against the ranges that it declares."""
    yield Check("packages", "gpnas", version("gpnas"))
    for text in requires("gpnas") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Check("packages", requirement.name, "is missing; install gpnas anew", "bad")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Check("packages", requirement.name, found)
        else:
            advice = f"{found}, but gpnas needs {requirement.specifier}; install with constraints.txt"
            yield Check("packages", requirement.name, advice, "bad")
    for name in OPTIONAL:
        try:
            yield Check("optional packages", name, version(name))
        except PackageNotFoundError:
            yield Check("optional packages", name, "not installed")


def surroundings() -> Iterator[Check]:
    """The machine, free room on its disks, the caches and their sizes, and the access to Ray's token."""
    yield Check("machine", "python", platform.python_version())
    described = machine()
    for name, value in described.items():
        yield Check("machine", name, str(value))
    if "gpu" not in described:
        yield Check("machine", "gpu", "PyTorch sees none; trainings run on CPUs")
    places = [("current folder", Path.cwd()), ("cache", cache_folder()), ("temporary files", _temporary())]
    for name, folder in places:
        yield _room(name, folder)
    yield _shared_memory()
    yield from _caches()
    if os.environ.get("RAY_AUTH_TOKEN"):
        yield Check("access", "Ray's token", "in the environment, RAY_AUTH_TOKEN")
    else:
        yield _token("Ray's token", ray_token_file(), "the first search")


def folder_of_runs(runs: Path) -> Iterator[Check]:
    """A folder that a service has: its token, its tokens of others, and what was deleted through it."""
    part, own = str(runs), runs / SERVICE
    for name, what in (("token", "token"), ("service.sqlite", "tokens of others"), ("audit.jsonl", "audit")):
        yield _token(f"the service's {what}", own / name, "the service")
    yield Check(part, "deleted searches", f"{_short(own / 'trash')}: {_size(_bytes(own / 'trash'))}")


def run_folder(run: Path) -> Iterator[Check]:
    """A run folder: its journal, and the network that each finished training of gpnas's own left behind."""
    document = status(run)
    part = str(run)
    yield Check(part, "state", document["state"])
    if "note" in document:
        yield Check(part, "journal", document["note"], "note")
    with Journal.read(run) as journal:
        storage = storage_of(journal)
        candidates = journal.candidates()
        observations = journal.observations()
        own = OwnSetup.describes(journal)  # whose trainings keep what they like
    sizes = {each.name: _bytes(each) for each in run.iterdir()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    parts = ", ".join(f"{name} {_size(sizes[name])}" for name in largest)
    yield Check(part, "size", f"{_size(sum(sizes.values()))}: {parts}")
    yield Check(part, "candidates", f"{len(candidates)}, of which {len(observations)} observed")
    for each in observations:
        if each.failed:
            yield Check(part, each.candidate.id, f"failed: {each.failure}", "note")
    if own:
        yield Check(part, "networks", "kept by the trainings themselves, so not looked at")
        return
    finished = [each.candidate for each in observations if each.finished]
    damaged = 0
    for candidate in finished:
        try:
            trained_weights(storage, candidate)
        except TrialError as error:
            damaged += 1
            yield Check(part, candidate.id, str(error), "bad")
    yield Check(part, "networks", f"{len(finished) - damaged} of {len(finished)} whole")
    try:
        delivered = read_bundle(run)
    except BundleError as error:
        if document["state"] == "finished":
            yield Check(part, "bundle", str(error), "note")
    else:
        yield Check(part, "bundle", _whole(len(delivered.members)))


def bundle(path: Path) -> Iterator[Check]:
    """A bundle: every byte of it is compared with its checksums.

    Raises:
        BundleError: it is damaged or incomplete.
    """
    found = read_bundle(path)
    yield Check(str(path), "bundle", _whole(len(found.members)))


def examined(path: Path | None) -> list[Check]:
    """Everything that is looked at; an error of the path is one bad finding.

    Args:
        path: a run folder, a bundle or a service's folder of runs; None looks at none.
    """
    checks = [*installation(), *surroundings()]
    if path is None:
        return checks
    if not path.exists():
        there = "a run, a bundle or a folder of runs must be there, but there is nothing; check the name"
        return [*checks, Check(str(path), "whole", f"{path}: {there}", "bad")]
    try:
        whose = folder_of_runs if (path / SERVICE).is_dir() else bundle
        checks.extend((run_folder if Journal.exists(path) else whose)(path))
    except GpnasError as error:
        checks.append(Check(str(path), "whole", str(error), "bad"))
    return checks


def _temporary() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def _room(name: str, folder: Path) -> Check:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    finding = f"{_short(there)}: {_size(free)} free"
    if free < LEAST_FREE:
        return Check("disks", name, f"{finding}; a search may need {_size(LEAST_FREE)}", "note")
    return Check("disks", name, finding)


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check(
            "disks", "shared memory", "none; Ray keeps its objects in files, which is slower", "note"
        )
    free = shutil.disk_usage(folder).free
    if free < LEAST_SHARED:
        advice = f"{_size(free)} free; give a container more, as with `docker run --shm-size=1g`"
        return Check("disks", "shared memory", advice, "note")
    return Check("disks", "shared memory", f"{_size(free)} free")


def _caches() -> Iterator[Check]:
    folder = cache_folder()
    sets = sorted(folder.glob("*/manifest.json")) if folder.is_dir() else []
    size = sum(_bytes(manifest.parent) for manifest in sets)
    count = "one prepared set" if len(sets) == 1 else f"{len(sets)} prepared sets"
    yield Check(
        "caches", "pairs", f"{_short(folder)}: {count}, {_size(size)}; made anew where they are missing"
    )
    folder = _temporary() / "ray"
    sessions = [each for each in folder.glob("session_2*") if not each.is_symlink()]
    if sessions:
        size = sum(map(_bytes, sessions))
        finding = f"{_short(folder)}: {len(sessions)} sessions, {_size(size)}; "
        yield Check("caches", "Ray", finding + "those of no running search can be removed", "note")


def _token(name: str, path: Path, maker: str) -> Check:
    """Who can read a secret."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return Check("access", name, f"{_short(path)}: not there yet; {maker} makes it")
    if mode & 0o077:
        advice = f"{_short(path)}: others can read it (mode {mode:03o}); `chmod 600` it"
        return Check("access", name, advice, "note")
    return Check("access", name, f"{_short(path)}: readable by its owner alone")


def _bytes(path: Path) -> int:
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if each.is_file())


def _short(path: Path) -> str:
    """A path without the name of its user."""
    home = Path.home()
    return str("~" / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _size(count: int) -> str:
    """A size in binary units, such as `1.5 GiB`."""
    power = min(max(count.bit_length() - 1, 0) // 10, 4)
    return f"{count / 2 ** (10 * power):.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _whole(networks: int) -> str:
    return f"{networks} network{'' if networks == 1 else 's'}, every byte as it was written"
