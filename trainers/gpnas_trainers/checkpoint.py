"""Checkpoints: files that are whole at any moment, of plain tensors and numbers."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from gpnas_trainers.files import opened, replacing
from gpnas_trainers.tensors import load_tensors, not_finite, save_tensors


class TrainingError(RuntimeError):
    """A training that cannot go on, or a checkpoint that does not fit it; one line."""


def write_checkpoint(path: Path, document: dict[str, Any]) -> None:
    """Writes a checkpoint; the file is whole at any moment, the old one or the new.

    Raises:
        OSError: it cannot be written, such as when the disk is full; the old one stays.
    """
    with replacing(path) as temporary:
        save_tensors(document, temporary)


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU.

    Args:
        path: of the file.
        identity: what its own `identity` must be.

    Raises:
        TrainingError: it is torn or damaged, holds numbers that are not finite, or is of another training.
        OSError: it cannot be opened.
    """
    with opened(path, follow=True) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                # PyTorch writes checksums and reads past them: a changed bit would become a weight
                changed = archive.testzip()
            if changed is not None:
                raise zipfile.BadZipFile(f"the checksum of {changed} does not match")
            file.seek(0)
            document: dict[str, Any] = load_tensors(file)
            found = document["identity"]
            if name := not_finite(document):
                raise ValueError(f"{name} has numbers that are not finite")
        except MemoryError:
            raise
        except Exception as error:  # damage can raise anything in who decodes it
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrainingError(f"{path}: a checkpoint must be whole, but {reason}") from None
    for key, value in identity.items():
        if found.get(key) != value:
            raise TrainingError(f"{path}: a checkpoint must be of the same training, but its {key} differs")
    return document


def copied(value: Any) -> Any:
    """A copy of nested dictionaries and lists of tensors and numbers, the tensors on the CPU."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: copied(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(copied(each) for each in value)
    return value
