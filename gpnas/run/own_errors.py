"""Errors that trainings of one's own report on one fixed validation set: kept, read, and set side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import TrialError
from gpnas.files import opened, replacing
from gpnas.run.storage import Storage

ERRORS_FILE = "errors.npy"
"""Name, in a candidate's folder, of the errors that its training reported last."""
MOST_ERRORS = 2**26
"""Most numbers of errors that a training may report."""


def keep_errors(path: Path, errors: Any) -> None:
    """Writes errors that a training reported, as float32 in rows; whole, or not at all.

    Raises:
        TrialError: they are none, too many or not finite.
    """
    if hasattr(errors, "detach"):  # a tensor of PyTorch's
        errors = errors.detach().cpu().numpy()
    array = np.asarray(errors, dtype=np.float32)
    if not 0 < array.size <= MOST_ERRORS or not np.isfinite(array).all():
        raise TrialError(
            f"errors must be 1 to {MOST_ERRORS:,} finite numbers, but got an array of shape {array.shape}"
        )
    with replacing(path) as fresh, open(fresh, "wb") as file:
        np.save(
            file, array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1), allow_pickle=False
        )


def read_errors(path: Path) -> NDArray[np.float32]:  # (rows, numbers)
    """Errors that a training reported last.

    Raises:
        OSError, ValueError, EOFError: they are missing or damaged.
    """
    with opened(path, most=4 * MOST_ERRORS + 1024) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype != np.float32 or array.ndim != 2 or not math.isfinite(float(np.abs(array).max(initial=0))):
        raise ValueError(
            f"errors must be finite float32 in rows, but got {array.dtype} in {array.ndim} dimensions"
        )
    return array


def errors_in(storage: Storage, folder: str) -> NDArray[np.float32]:  # (rows, numbers)
    """The same of a candidate, by its folder in a run's storage; errors as `read_errors`."""
    with storage.reading(f"{folder}/{ERRORS_FILE}") as path:
        return read_errors(path)


def products(errors: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Mean products of errors, (1, n, n), for n trainings."""
    rows = np.stack([each.astype(np.float64).ravel() for each in errors])  # (n, numbers)
    return np.asarray(rows @ rows.T / rows.shape[1])[None]


def correlations_beside(storage: Storage, folder: str) -> dict[str, float]:
    """Correlations of a training's errors with those of each other that has reported some, by its name.

    Args:
        storage: of the run.
        folder: of its candidate, beside which the others' lie.

    Raises:
        OSError: the storage cannot be read.
    """
    parent, _, own_name = folder.rpartition("/")
    try:
        own = errors_in(storage, folder)
    except (FileNotFoundError, ValueError, EOFError):
        return {}
    found: dict[str, float] = {}
    for path in sorted(storage.names(parent)):
        name = path.removeprefix(f"{parent}/").removesuffix(f"/{ERRORS_FILE}")
        if path != f"{parent}/{name}/{ERRORS_FILE}" or name == own_name:
            continue
        with suppress(OSError, ValueError, EOFError):  # a damaged one is told where it is needed
            other = errors_in(storage, f"{parent}/{name}")
            if other.shape == own.shape:
                gram = products([own, other])[0]
                size = math.sqrt(max(gram[0, 0] * gram[1, 1], 1e-30))
                found[name] = float(gram[0, 1]) / size
    return found
