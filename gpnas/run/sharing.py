"""Prepared pairs on nodes that lack them: the driver puts the set into the storage, each node fetches it.

A set is known by a fingerprint of its pixels. A node that has the driver's own folder, since it is the
same machine or a shared disk, uses that; another fetches the set once into its own cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import lru_cache
from pathlib import Path

from gpnas.errors import TrialError
from gpnas.files import turn
from gpnas.run.storage import Storage, open_storage
from gpnas_trainers.pairs import PairsError, PairSet, cache_folder, open_pairs, read_manifest

MANIFEST = "manifest.json"


def fingerprint_of(train: PairSet, validation: PairSet) -> str:
    """What a set is known by: the same on every machine where its pairs and its split are the same."""
    return hashlib.sha256(f"{train.fingerprint} {validation.fingerprint}".encode()).hexdigest()[:32]


def share(folder: Path, fingerprint: str, storage: Storage) -> None:
    """Puts a prepared set into a storage where it is not there yet; its manifest last.

    Raises:
        OSError: the storage cannot be written.
    """
    place = f"pairs/{fingerprint}"
    if storage.exists(f"{place}/{MANIFEST}"):
        return
    for shard in read_manifest(folder).shards:
        storage.put(folder / shard.file, f"{place}/{shard.file}")
    storage.put(folder / MANIFEST, f"{place}/{MANIFEST}")


@lru_cache(maxsize=2)
def opened(folder: str, fingerprint: str, storage: str) -> tuple[PairSet, PairSet]:
    """Training and validation pairs of a set, on the node that asks.

    Args:
        folder: the set's on the driver.
        fingerprint: of the set.
        storage: address of the run's storage.

    Raises:
        PairsError, TrialError, OSError: the set is neither here nor in the storage, or damaged.
    """
    found = _matching(Path(folder), fingerprint)
    return found or _fetched(folder, fingerprint, open_storage(storage))


def _matching(folder: Path, fingerprint: str, *, verify: bool = False) -> tuple[PairSet, PairSet] | None:
    if not (folder / MANIFEST).exists():
        return None
    try:
        train = open_pairs(folder, "train", verify=verify)
        validation = open_pairs(folder, "validation")
    except PairsError:
        if verify:
            raise
        return None  # damaged, and fetched anew
    return (train, validation) if fingerprint_of(train, validation) == fingerprint else None


def _fetched(folder: str, fingerprint: str, storage: Storage) -> tuple[PairSet, PairSet]:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    place, target = f"pairs/{fingerprint}", cache / f"fetched-{fingerprint}"
    with turn(cache / f"fetched-{fingerprint}.lock"):
        found = _matching(target, fingerprint)
        if found:
            return found
        if not storage.exists(f"{place}/{MANIFEST}"):
            raise TrialError(
                f"{os.uname().nodename}: a node must have the prepared pairs, but {folder} is not there, nor "
                f"are they in {storage.uri}; share the folder with all nodes, or begin a run with --storage"
            )
        fresh = target.with_name(f"{target.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            storage.fetch(f"{place}/{MANIFEST}", fresh / MANIFEST)
            # what the manifest calls its shards is checked where it is read; here as an artefact's name
            for name in sorted(storage.names(place)):
                if name != f"{place}/{MANIFEST}":
                    storage.fetch(name, fresh / name.rpartition("/")[2])
            if _matching(fresh, fingerprint, verify=True) is None:
                raise PairsError(
                    f"{storage.uri}/{place}: the set in the storage must have the fingerprint that it is "
                    "named after, but has not; delete it there and run the same command again"
                )
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        found = _matching(target, fingerprint)
        assert found is not None
        return found
