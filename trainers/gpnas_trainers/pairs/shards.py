"""All pairs of a folder, shard by shard, in this process or on all cores; what is finished is kept.

A shard is a few pairs: the part of the work that one worker does at a time, and that an interruption
loses. How pairs are dealt to shards depends on the files alone, so that any later call finds its own.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas_trainers import files
from gpnas_trainers.pairs.examining import Excluded, Job, Measured, examine
from gpnas_trainers.pairs.exclusion import Exclusion
from gpnas_trainers.pairs.manifest import Entry, checked_entry, digest
from gpnas_trainers.pairs.names import PairFiles
from gpnas_trainers.pairs.writing import WorkersError, shard_name, shard_writer, write_json

_MOST = 1 << 30
"""Bytes of a shard's results, at most."""
SHARDS = 32
"""A folder makes at least so many shards, if it has as many pairs."""
SHARD_BYTES = 128 * 2**20
"""Image files of one shard amount to at most so many bytes, if it has more than one pair."""
WORKER_BYTES = 64 * 2**20
"""The bytes of image files from which on another process is worth its start, which takes a second."""


@dataclass(frozen=True)
class Examined:
    """What became of one pair: excluded, or measured and, in a preparation, written."""

    name: str
    exclusion: Exclusion | None = None
    measured: Measured | None = None
    entry: Entry | None = None


def deal(pairs: Sequence[PairFiles], sizes: Sequence[int]) -> list[list[PairFiles]]:
    """All pairs in shards, in their order, by the bytes of the files of each."""
    shards: list[list[PairFiles]] = []
    most, size = math.ceil(len(pairs) / SHARDS), 0
    for pair, more in zip(pairs, sizes, strict=True):
        if not shards or len(shards[-1]) >= most or size + more > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(pair)
        size += more
    return shards


def examine_all(
    job: Job,
    shards: Sequence[Sequence[PairFiles]],
    work: Path | None,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Examined]:
    """What became of each pair, in their order.

    Args:
        job: source, scale and rules.
        shards: from `deal`.
        work: where pixels are written and where finished shards are found; None writes nothing.
        workers: processes; 1 is this one alone.
        progress: called with pairs done and all.

    Raises:
        WorkersError: a worker process died.
        OSError: `work` cannot be written.
    """
    total = sum(map(len, shards))
    results = [_finished(work, job.scale, place, shard) for place, shard in enumerate(shards)]
    done = sum(len(shard) for shard, result in zip(shards, results, strict=True) if result is not None)

    def advance(pairs: int) -> None:
        nonlocal done
        done += pairs
        if progress is not None:
            progress(done, total)

    advance(0)
    left = [place for place, result in enumerate(results) if result is None]
    if min(workers, len(left)) <= 1:
        for place in left:
            results[place] = _examine_shard(job, shards[place], work, place, lambda: advance(1))
    else:
        for place, result in _in_processes(job, shards, work, left, min(workers, len(left))):
            results[place] = result
            advance(len(result))
    return [each for result in results for each in result or ()]


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_processes(
    job: Job, shards: Sequence[Sequence[PairFiles]], work: Path | None, left: Sequence[int], workers: int
) -> Any:
    context = multiprocessing.get_context("spawn")  # a fork would copy PyTorch's threads' locks
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            futures = {pool.submit(_examine_shard, job, shards[place], work, place): place for place in left}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise WorkersError(
                f"{job.source}: worker processes must live, but one died, of memory or since a script lacks "
                "`if __name__ == '__main__'`; what is done is kept, so go on with fewer workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # running shards are finished, and kept


def _start_worker() -> None:
    """Leaves interruptions to the parent process, and ends with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _examine_shard(
    job: Job,
    pairs: Sequence[PairFiles],
    work: Path | None,
    place: int,
    tell: Callable[[], None] = lambda: None,
) -> list[Examined]:
    results = []
    with nullcontext() if work is None else shard_writer(work, place) as writer:
        for pair in pairs:
            try:
                lr, hr, measured = examine(job, pair)
            except Excluded as excluded:
                results.append(Examined(pair.name, excluded.exclusion(job.source)))
            else:
                entry = None
                if writer is not None:
                    entry = writer.append(pair.name, lr, hr, ncc=measured.ncc, shift=measured.shift)
                results.append(Examined(pair.name, None, measured, entry))
            tell()
    if work is not None:
        # written last: a shard is finished when this file is there
        write_json(_results_path(work, place), [asdict(result) for result in results])
    return results


def _results_path(work: Path, place: int) -> Path:
    return work / f"results-{place:05}.json"


def _finished(work: Path | None, scale: int, place: int, pairs: Sequence[PairFiles]) -> list[Examined] | None:
    """The results of a shard that an earlier call has finished; None where they lack or are damaged."""
    if work is None:
        return None
    try:
        rows = json.loads(files.read(_results_path(work, place), _MOST))
        if [row["name"] for row in rows] != [pair.name for pair in pairs]:
            return None
        files.check(work / shard_name(place))
        pixels = np.memmap(work / shard_name(place), np.uint8, mode="r")
        sizes = [0] * place + [pixels.size]
        results = [
            Examined(
                row["name"],
                row["exclusion"] and Exclusion(**row["exclusion"]),
                row["measured"] and _measured(row["measured"]),
                row["entry"] and checked_entry(row["entry"], scale, sizes),
            )
            for row in rows
        ]
        entries = [each.entry for each in results if each.entry is not None]
        return results if all(_sound(pixels, entry, scale) for entry in entries) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sound(pixels: NDArray[np.uint8], entry: Entry, scale: int) -> bool:
    lr_bytes, hr_bytes = entry.extents(scale)
    lr = pixels[entry.lr_offset : entry.lr_offset + lr_bytes]
    hr = pixels[entry.hr_offset : entry.hr_offset + hr_bytes]
    return (digest(lr), digest(hr)) == (entry.lr_sha256, entry.hr_sha256)


def _measured(fields: dict[str, Any]) -> Measured:
    """JSON knows lists only."""
    shift = fields["shift"]
    shape = tuple(int(side) for side in fields["lr_shape"])
    return Measured(**{**fields, "lr_shape": shape, "shift": None if shift is None else tuple(shift)})
