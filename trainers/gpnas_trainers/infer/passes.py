"""Passes through the networks: batches of tiles, several at once where the CPU has several cores.

On a CPU each worker is a thread with one core, and its batch is as small as keeps a layer's features in
the cache: cores that share a layer wait for each other at its end, and large tensors are returned to the
system and cleared by it again at each layer. On a GPU one batch goes at a time, and is large.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from gpnas_trainers.infer.fast import Forward, fast
from gpnas_trainers.infer.levels import Precision

CPU_PIXELS = 120 * 120
"""LR pixels of a batch on a CPU: one of the paper's tiles."""
GPU_PIXELS = 16 * CPU_PIXELS
"""LR pixels of a batch on a GPU."""

Batch = TypeVar("Batch")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Runner:
    """A network at work."""

    network: nn.Module
    forward: Forward
    """The same function, perhaps in fewer operations."""
    device: torch.device
    dtype: torch.dtype
    """Type of its parameters."""


def runners_of(networks: Sequence[nn.Module], precision: Precision, lr_dtype: torch.dtype) -> list[Runner]:
    """The networks in evaluation mode, ready for `outputs_of`.

    Raises:
        ValueError: a precision that the device lacks.
    """
    runners = []
    for network in networks:
        network.eval()
        like = next(network.parameters(), torch.empty((), dtype=lr_dtype))
        if precision == "float16" and like.device.type == "cpu":
            raise ValueError("float16 needs a GPU, but the networks are on the CPU; choose bfloat16")
        with torch.inference_mode():
            forward = fast(network) if like.device.type == "cpu" else network
        runners.append(Runner(network, forward, like.device, like.dtype))
    return runners


def batch_limit(runners: Sequence[Runner], pixels: int) -> int:
    """How many inputs of so many LR pixels make a batch."""
    return max(1, (CPU_PIXELS if runners[0].device.type == "cpu" else GPU_PIXELS) // pixels)


def outputs_of(
    runners: Sequence[Runner],
    tiles: Tensor,  # (B, 3, y, x)
    scale: int,
    precision: Precision,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    """What each network makes of the tiles, (B, 3, s·y, s·x), clamped to [0, 1]; in inference mode.

    A batch that a GPU has no memory for goes in halves.

    Raises:
        ValueError: a network's output has another size, or is not finite.
        torch.OutOfMemoryError: even a single tile does not fit; the message says what to do.
    """
    for runner in runners:
        output = _in_halves(partial(_forward, runner, scale, precision), tiles).to(dtype)
        if not output.isfinite().all():
            raise ValueError(
                f"{type(runner.network).__name__} must make finite pixels, but in {precision} it did not; "
                + ("choose float32" if precision != "float32" else "its weights are of no use")
            )
        yield output.clamp(0, 1)


def _in_halves(forward: Forward, tiles: Tensor) -> Tensor:
    try:
        return forward(tiles)
    except torch.OutOfMemoryError:
        if len(tiles) == 1:
            raise torch.OutOfMemoryError(
                f"a tile of {tiles.shape[2]}×{tiles.shape[3]} must fit the memory of {tiles.device}, "
                "but does not; choose a smaller tile"
            ) from None
    # outside of the handler, which holds what the failed pass had allocated
    return torch.cat([_in_halves(forward, half) for half in tiles.split((len(tiles) + 1) // 2)])


def _forward(runner: Runner, scale: int, precision: Precision, tiles: Tensor) -> Tensor:
    given = tiles.to(runner.device, runner.dtype).contiguous(memory_format=torch.channels_last)
    autocast = torch.bfloat16 if precision == "bfloat16" else torch.float16
    with torch.autocast(runner.device.type, autocast, enabled=precision != "float32"):
        output = runner.forward(given)
    expected = (*tiles.shape[:2], scale * tiles.shape[2], scale * tiles.shape[3])
    if output.shape != expected:
        raise ValueError(
            f"a network of scale {scale} must make {expected} of {tuple(tiles.shape)}, "
            f"but {type(runner.network).__name__} made {tuple(output.shape)}"
        )
    return output


def in_parallel(
    work: Callable[[Batch], Result], batches: Iterable[Batch], workers: int
) -> Iterator[tuple[Batch, Result]]:
    """Each batch with what became of it, in order; a few batches are drawn ahead.

    Threads that share cores with PyTorch's own would wait for them, so each gets one core, the calling
    thread too, until all is done.
    """
    if workers <= 1:
        for batch in batches:
            yield batch, work(batch)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    running: deque[tuple[Batch, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, "tiles", initializer=torch.set_num_threads, initargs=(1,))
    try:
        for batch in batches:
            running.append((batch, pool.submit(work, batch)))
            if len(running) > workers:
                first, future = running.popleft()
                yield first, future.result()
        while running:
            first, future = running.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
