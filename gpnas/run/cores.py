"""How many cores the search itself takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


def use_one_core() -> None:
    """Leaves the cores to the trials: threads of a matrix product that wait for a busy core spin."""
    torch.set_num_threads(1)
    threadpool_limits(limits=1)


@contextmanager
def one_core() -> Iterator[None]:
    """The same for the calling thread, for a while."""
    threads = torch.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
